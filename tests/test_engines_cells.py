"""Any number of engines: the same runs, averages and seconds; cells on engines, and what faults cost."""

import os
import signal
from functools import partial

import numpy as np
import pytest
from on_engines import MPI, NET, OPTIONS, assert_same, engine_pids
from scipy.optimize import OptimizeResult

from hfnb import Checkpoint, Dataset, Objective, hessian_free, krylov, local_steps, models
from hfnb.engines import Cluster, EngineFailure
from hfnb.optimizers import Recorder, Status
from hfnb.optimizers.checkpoint import resumable
from hfnb.studies.scaling_model import Run, workloads

pytestmark = pytest.mark.usefixtures("own_ipython_dir")
BOTH = pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
CELLS = {"cells": 7, "cell_seed": 3}  # of 603 samples: 86 or 87 each
LINEAR = models.mlp([20, 1], loss="squared_error")
ADAM = {"learning_rate": 0.01, "moments": "average"}
ALPHAS = np.array([0.25, 0.5, 1.0, 2.0])


def solution(cell, w, g, damping):
    """A damped Gauss–Newton step with the curvature of one cell, and the number of products."""
    result = krylov.cg(cell.curvature(w, "gauss-newton"), -g, damping=damping, max_iter=6)
    return np.append(result.x, result.iterations)


@resumable
def local_solves(objective, w0, *, damping=1.0, max_iter=6, callback=None, checkpoint=None):
    """Search along the mean of the cells' solutions: three reductions an iteration."""
    state = (checkpoint.load() if checkpoint else None) or {"w": w0.copy(), "iteration": 0, "history": []}
    w, recorder = state["w"], Recorder(objective, callback, state["history"])
    value, g = objective.value_and_gradient(w)
    for iteration in range(state["iteration"], max_iter + 1):
        if iteration >= len(recorder.history):
            stop = recorder.add(w, iteration=iteration, loss=value)
            if checkpoint:
                checkpoint.save({"w": w, "iteration": iteration, "history": recorder.history})
            if stop or iteration == max_iter:
                break
        step = objective.average(solution, w, g, damping, size=w.size + 1)[:-1]
        values = objective.values_along(w, step, ALPHAS)
        w = w + ALPHAS[np.argmin(values)].astype(w.dtype) * step
        value, g = objective.value_and_gradient(w)
    return recorder.result(w, Status.MAX_ITER, f"{max_iter} iterations")


def run_on(cluster, optimizer, data, w0, **options):
    """Run an optimizer engine-driven where there is MPI, and client-driven otherwise."""
    if cluster.has_mpi:
        return cluster.minimize(NET, data, w0, optimizer, progress=False, **CELLS, **options)
    return optimizer(cluster.objective(NET, data, **CELLS), w0, **options)


@pytest.fixture(scope="session")
def local_run(data, w0):
    """The run with local solves in one process."""
    return local_solves(Objective(NET, data, **CELLS), w0)


def averages(objective, w0, callback=None):
    """An optimizer that returns some averages, a line search, and what they cost."""
    v = np.linspace(-1, 1, w0.size).astype(w0.dtype)
    found = [
        objective.average(lambda cell, w: cell.value_and_gradient(w)[1], w0, size=w0.size),
        objective.average(solution, w0, v, 0.5, size=w0.size + 1),
        objective.values_along(w0, v, ALPHAS),
        objective.values_along(w0, np.outer(ALPHAS, v), np.ones(4)),
    ]
    return OptimizeResult(x=w0, nit=0, found=found, counts=objective.counts)


# The same on any number of engines: one module, so that the clusters of one to four start once


@MPI
def test_same_run_when_client_driven(mpi_cluster, data, w0, alone):
    assert_same(hessian_free(mpi_cluster.objective(NET, data), w0, **OPTIONS), alone)


@MPI
def test_same_run_when_engine_driven(mpi_cluster, data, w0, alone):
    assert mpi_cluster.has_mpi
    assert_same(mpi_cluster.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


@MPI
@pytest.mark.parametrize("mpi_cluster", [1, 3], indirect=True)
def test_parts_of_a_run_add_up(mpi_cluster, data, w0):
    history = mpi_cluster.minimize(NET, data, w0, progress=False, **OPTIONS).history
    engines = len(mpi_cluster.engines)
    run = Run.of(history, w0, OPTIONS["curvature_batch_size"], engines=engines)
    assert run.workloads == workloads(history, w0, OPTIONS["curvature_batch_size"])[1:]
    for found, record in zip(run.seconds, history[1:], strict=True):
        profiles = record.profile.values()
        whole = sum(sum(engine.values()) for engine in profiles) / engines
        assert sum(found.values()) == pytest.approx(whole, rel=1e-9)
    computed = sum(record.profile[0]["gradient"] for record in history[1:])
    if engines == 1:
        assert sum(each["gradient"] for each in run.seconds) == pytest.approx(computed, rel=1e-9)


@MPI
@pytest.mark.parametrize("driven", ["client", "engines"])
def test_same_averages_on_one_to_four_engines(driven, mpi_cluster, data, w0):
    expected = averages(Objective(NET, data, **CELLS), w0)
    if driven == "client":
        result = averages(mpi_cluster.objective(NET, data, **CELLS), w0)
    else:
        result = mpi_cluster.minimize(NET, data, w0, averages, progress=False, **CELLS)
    for one, other in zip(result.found, expected.found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.linalg.norm(other))
    np.testing.assert_allclose(result.found[0], Objective(NET, data).value_and_gradient(w0)[1], atol=1e-14)
    assert result.counts == expected.counts
    assert result.counts.reductions == 4


@MPI
@pytest.mark.parametrize("driven", ["client", "engines"])
def test_same_run_on_one_to_four_engines(driven, mpi_cluster, data, w0, local_run):
    assert local_run.fun < np.log(5)  # less than by equal probabilities of the labels
    if driven == "client":
        result = local_solves(mpi_cluster.objective(NET, data, **CELLS), w0)
    else:
        result = mpi_cluster.minimize(NET, data, w0, local_solves, progress=False, **CELLS)
    assert_same(result, local_run)
    for record, other in zip(result.history, local_run.history, strict=True):
        assert [record[key] for key in ("samples", "reductions", "numbers", "bytes")] == [
            other[key] for key in ("samples", "reductions", "numbers", "bytes")
        ]
    assert all(each["cells"] > 0 for record in result.history[1:] for each in record.profile.values())


@BOTH
@pytest.mark.parametrize("option", ["attribute", "solves", "partial", "attribute of a partial"])
def test_minimize_makes_cells_for_an_optimizer_that_needs_them(kind, option, data, w0, request):
    def count(objective, w0, callback=None, solves=None):
        return OptimizeResult(x=w0, nit=0, cells=objective.cells)

    cluster, options = request.getfixturevalue(kind), {"progress": False}
    assert cluster.minimize(NET, data, w0, count, **options).cells is None
    if option == "solves":
        options["solves"] = "local"
    elif option == "partial":
        count = partial(count, solves="local")
    else:
        count.needs_cells = True
        count = partial(partial(count), solves=None) if "partial" in option else count
    assert cluster.minimize(NET, data, w0, count, **options).cells == 16
    assert cluster.minimize(NET, data, w0, count, cells=5, **options).cells == 5


def sgd_in_a_cell(cell, w, iterations, seed, rate):
    for _ in range(iterations):
        w -= rate * cell.value_and_gradient(w)[1]
    return w


@BOTH
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (hessian_free, {"method": "paper", "solves": "local"}),
        (hessian_free, {"method": "auto", "solves": "local", "curvature_batch_size": 300}),
        (local_steps, {}),
        (local_steps, {"inner": "adam", "options": ADAM, "outer": "nesterov"}),
        (local_steps, {"inner": sgd_in_a_cell, "options": {"rate": 0.1}}),
    ],
    ids=["local solves", "of some samples", "local Hessian-free", "local Adam", "a function"],
)
def test_runs_in_cells_and_their_costs_are_those_of_one_process(kind, optimizer, options, data, w0, request):
    cluster = request.getfixturevalue(kind)
    found = cluster.minimize(NET, data, w0, optimizer, max_iter=3, progress=False, **options)
    here = optimizer(Objective(NET, data, cells=16), w0, max_iter=3, **options)
    assert here.fun < here.history[0].loss
    assert_same(found, here)
    for record, other in zip(found.history, here.history, strict=True):
        for each in ("samples", "products", "reductions", "numbers", "bytes"):
            assert record[each] == other[each]


@BOTH
def test_a_run_in_cells_is_the_same_one_wherever_it_is_computed(kind, data, w0, local_run, tmp_path, request):
    """Begun here, ended on engines; with other cells, or another order of them, it is refused there."""
    cluster, options = request.getfixturevalue(kind), {"checkpoint": tmp_path, "progress": False}
    local_solves(Objective(NET, data, **CELLS), w0, max_iter=3, checkpoint=tmp_path)
    for other in ({"cells": 6, "cell_seed": 3}, {"cells": 7, "cell_seed": 4}):
        with pytest.raises(
            (ValueError, EngineFailure), match=r"another run .*cells: expected \d with cell_seed"
        ):
            cluster.minimize(NET, data, w0, local_solves, **other, **options)
    assert_same(cluster.minimize(NET, data, w0, local_solves, **CELLS, **options), local_run)


def test_a_task_that_refers_to_something_else_by_now_is_sent_anew(pair, data, w0):
    objective, factor = pair.objective(NET, data, **CELLS), 1.0

    def constant(cell, w):
        return [factor]

    for factor in (1.0, 1.0, 2.0, 3.0, 2.0):
        assert objective.average(constant, w0, size=1) == pytest.approx([factor], rel=1e-15)


@BOTH
def test_any_argument_of_a_task_reaches_the_engines(kind, data, w0, request):
    """Arrays of other types, and functions, which only cloudpickle can send."""

    def task(cell, w, function, table, text, raw):
        return [function(table.sum()), len(text["a"]) + len(raw)]

    def optimizer(objective, w0, callback=None):
        arguments = (lambda x: 2 * x), np.arange(5), {"a": [1, 2]}, b"four"
        return OptimizeResult(x=w0, nit=0, found=objective.average(task, w0, *arguments, size=2))

    found = run_on(request.getfixturevalue(kind), optimizer, data, w0).found
    np.testing.assert_allclose(found, [20, 6], rtol=1e-15)


# Faults


def test_cells_of_a_killed_engine_move_and_only_they_work_again(data, w0, local_run, tmp_path):
    """Engine 1 is killed in its first cell, 2; the tasks write down where they began."""
    armed, log = tmp_path / "armed", tmp_path / "log"

    def task(cell, w):
        with open(log, "a") as file:
            file.write(f"{cell.number}\n")
        if cell.number == 2 and armed.exists():
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return cell.value_and_gradient(w)[1]

    with Cluster(n=3, engines="local") as cluster:
        objective = cluster.objective(NET, data, **CELLS)
        armed.touch()
        found = objective.average(task, w0, size=w0.size)
        assert cluster.engines == [0, 2]
        assert sorted(map(int, log.read_text().split())) == [0, 1, 2, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(found, Objective(NET, data).value_and_gradient(w0)[1], rtol=0, atol=1e-14)
        assert (objective.counts.reductions, objective.counts.samples) == (1, len(data))
        assert_same(local_solves(objective, w0), local_run)


@MPI
@pytest.mark.slow
def test_mpi_run_in_cells_starts_again_from_its_checkpoint(data, w0, local_run, tmp_path, caplog):
    struck = []

    def strike(record):
        if record.iteration == 3 and not struck:
            struck.append(os.kill(engine_pids(cluster)[1], signal.SIGKILL))

    with Cluster(n=2, engines="mpi") as cluster:
        options = {"callback": strike, "checkpoint": Checkpoint(tmp_path), "progress": False}
        result = cluster.minimize(NET, data, w0, local_solves, **CELLS, **options)
    assert_same(result, local_run)
    assert caplog.text.count("starting the engines again, from the last checkpoint") == 1


def fails_in_the_last_cell(cell, w):
    if cell.number == 6:
        raise ArithmeticError("no solution in this cell")
    return w


def too_short_in_the_last_cell(cell, w):
    return w[:-1] if cell.number == 6 else w


def one_average(objective, w0, task, size, callback=None):
    return OptimizeResult(x=w0, nit=0, found=objective.average(task, w0, size=size), counts=objective.counts)


@BOTH
@pytest.mark.parametrize(
    ("task", "message"),
    [
        (fails_in_the_last_cell, "ArithmeticError: no solution in this cell"),
        (
            too_short_in_the_last_cell,
            "ValueError: task: expected too_short.* to return 530 real numbers, got",
        ),
    ],
)
def test_a_task_that_fails_on_one_engine_ends_the_run_on_all(
    kind, task, message, data, w0, local_run, request
):
    assert w0.size == 530
    cluster = request.getfixturevalue(kind)
    with pytest.raises(EngineFailure, match=rf"engine 1 raised {message}") as failure:
        run_on(cluster, one_average, data, w0, task=task, size=w0.size)
    assert failure.value.engine == 1
    assert "On the engine:" in str(failure.value)
    assert_same(run_on(cluster, local_solves, data, w0), local_run)


def test_a_task_that_failed_is_not_taken_for_the_next_one(pair, data, w0):
    objective = pair.objective(NET, data, **CELLS)
    for _ in range(2):
        assert np.isfinite(objective.average(solution, w0, w0, 1.0, size=w0.size + 1)).all()
        with pytest.raises(EngineFailure, match="engine 1 raised ArithmeticError"):
            objective.average(fails_in_the_last_cell, w0, size=w0.size)


def nan_in_the_last_cell(cell, w):
    cell.value(w)
    return np.where((np.arange(w.size) < 3) & (cell.number == 6), np.nan, w)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_from_one_cell_is_in_the_mean_and_samples_are_counted_all_the_same(
    kind, dtype, data, w0, request
):
    """No engine waits, and nobody looks for a partition: a task may answer so."""
    w, job = w0.astype(dtype), {"task": nan_in_the_last_cell, "size": w0.size}
    result = run_on(request.getfixturevalue(kind), one_average, data, w, **job)
    assert np.isnan(result.found[:3]).all()
    near = 1e-15 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(result.found[3:], w[3:], rtol=near, atol=near)
    assert (result.counts.samples, result.counts.reductions) == (len(data), 1)


@BOTH
def test_a_line_search_that_is_not_finite_in_one_cell_names_it(kind, data, w0, request):
    """Looked for is at the step that overflows, not at its start."""
    X = data.X.copy()
    X[-1] *= 1e200
    spoiled, w = Dataset(X, data.X[:, :1]), LINEAR.init(0, dtype=float)

    def search(objective, w0, callback=None):
        values = objective.values_along(np.zeros_like(w0), np.ones_like(w0), [0.0, 1e-300, 1.0])
        return OptimizeResult(x=w0, nit=0, found=values)

    def run():
        cluster, options = request.getfixturevalue(kind), {"cells": 4, "cell_seed": None}
        with np.errstate(all="ignore"):
            if cluster.has_mpi:
                return cluster.minimize(LINEAR, spoiled, w, search, progress=False, **options).found
            return search(cluster.objective(LINEAR, spoiled, **options), w).found

    with pytest.warns(RuntimeWarning, match=r"the loss is not finite in partition 3 \(engine 1\)"):
        values = run()
    assert np.isfinite(values).tolist() == [True, True, False]


# Wrong arguments


def test_more_engines_than_cells_are_refused(pair, data, w0):
    for call in (
        lambda: pair.objective(NET, data, cells=1),
        lambda: pair.minimize(NET, data, w0, local_solves, cells=1, progress=False),
    ):
        with pytest.raises(ValueError, match=r"^cells: expected at least 2, one for each engine, got 1$"):
            call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cells": 604}, ValueError, "cells: expected a whole number of at least 1 and at most 603, got 604"),
        ({"cells": "4"}, TypeError, "cells: expected a whole number"),
        ({"cells": 4, "cell_seed": -1}, ValueError, "cell_seed: expected a whole number of at least 0"),
        ({"cells": 4, "partitions": 8}, ValueError, "partitions: expected None with cells=4.*, got 8"),
    ],
)
def test_cells_that_cannot_be_made_are_named(pair, data, w0, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        pair.objective(NET, data, **options)
    with pytest.raises(error, match=f"^{message}"):
        pair.minimize(NET, data, w0, local_solves, progress=False, **options)


def test_an_average_on_engines_needs_cells(pair, data, w0):
    with pytest.raises(ValueError, match=r"average: expected an objective with cells"):
        pair.objective(NET, data).average(solution, w0, w0, 1.0, size=w0.size + 1)
