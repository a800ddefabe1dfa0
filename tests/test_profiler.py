"""What travels is what is counted, byte by byte; where the time goes adds up and names the slow engine."""

import math
import time
from collections import Counter

import autograd.numpy as anp
import numpy as np
import pytest
from on_engines import MPI, NET, OPTIONS
from scipy.optimize import OptimizeResult

from hfnb import Dataset, Objective, Sample, first_order, hessian_free
from hfnb.engines.pool import Pool
from hfnb.objectives import profiler
from hfnb.objectives.objective import AnyLoss
from hfnb.optimizers import Recorder, Status

P = NET.size


def formula(counts, dtype):
    """Reductions, numbers and bytes of so many losses, gradients and products."""
    losses, gradients, products = counts.losses, counts.gradients, counts.products
    vectors = (P + 1) * gradients + P * products
    size = 16 if dtype == np.float64 else 4
    return losses + gradients + products, losses + vectors, 16 * losses + size * vectors


def expected(run, counts, dtype):
    """Reductions, numbers and bytes that belong to the evaluations of a run."""
    if run is communicate:
        return counted_by_hand(dtype)
    reductions, numbers, size = formula(counts, dtype)
    if run is run_trial_steps:  # how many its line searches take, the messages themselves tell
        assert counts.gradients + counts.products < counts.reductions < reductions
        reductions = counts.reductions
    return reductions, numbers, size


def counted(counts):
    return counts.reductions, counts.numbers, counts.bytes


def evaluate(objective, w, callback=None):
    """Each kind of sum, alone and of a sample."""
    objective.value(w)
    objective.value_and_gradient(w, Sample(300))
    for kind in ("hessian", "gauss-newton"):
        product = objective.curvature(w, kind, Sample(400))
        for _ in range(3):
            product @ w


ALPHAS = np.array([0.5, 1.0, 2.0])
SIZE, CELLS = 7, {"cells": 6}  # numbers of an average


def few(cell, w, v):
    """A task that sees the samples of its cell once."""
    return v[:SIZE] * cell.value(w)


def communicate(objective, w, callback=None):
    """Three line searches, the last with a direction for each step length, and two averages."""
    for d in (w, w, np.outer(ALPHAS, w)):
        objective.values_along(w, d, ALPHAS)
    for _ in range(2):
        objective.average(few, w, w, size=SIZE)


def counted_by_hand(dtype):
    """Reductions, numbers and bytes of `communicate`: an average has two numbers more, to count samples."""
    return 3 + 2, 3 * 3 + 2 * (SIZE + 2), 16 * 9 + (16 if dtype == np.float64 else 4) * 2 * (SIZE + 2)


def run_hessian_free(objective, w, callback=None):
    hessian_free(objective, w, callback=callback, trial_steps=1, **OPTIONS)


def run_trial_steps(objective, w, callback=None):
    """The same run with several losses in a reduction."""
    hessian_free(objective, w, callback=callback, trial_steps=5, **OPTIONS)


def run_sgd(objective, w, callback=None):
    first_order(objective, w, batch_size=60, max_iter=1)


class Counting:
    """An optimizer that returns what the objective has counted."""

    def __init__(self, run):
        self.run = run

    def __call__(self, objective, w0, callback=None):
        self.run(objective, w0)
        return OptimizeResult(x=w0, nit=0, counts=objective.counts)


RUNS = pytest.mark.parametrize("run", [evaluate, run_hessian_free, run_sgd])
ALL_RUNS = pytest.mark.parametrize("run", [evaluate, run_hessian_free, run_trial_steps, run_sgd, communicate])
PRECISIONS = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Every buffer handed to MPI on an engine goes through a communicator that writes down its bytes.
WATCH = """
from mpi4py import MPI
from hfnb.engines import engine_driven
class Watched(MPI.Intracomm):
    seen = []
    def Allreduce(self, send, receive, op=MPI.SUM):
        Watched.seen.append(memoryview(receive[0] if isinstance(receive, list) else receive).nbytes)
        super().Allreduce(send, receive, op)
    def allreduce(self, value, op=MPI.SUM):
        Watched.seen.append(None)
        return super().allreduce(value, op)
engine_driven.watched, engine_driven.real = Watched, engine_driven.communicator
engine_driven.communicator = lambda ranks: Watched(engine_driven.real(ranks))
"""
SEEN = "__import__('hfnb.engines.engine_driven').engines.engine_driven.watched.seen"
UNWATCH = "from hfnb.engines import engine_driven; engine_driven.communicator = engine_driven.real"


@MPI
@ALL_RUNS
@PRECISIONS
def test_bytes_given_to_mpi_are_those_counted(run, dtype, mpi_pair, data):
    view = mpi_pair.client[mpi_pair.engines]
    view.apply_sync(exec, WATCH)
    try:
        w0 = NET.init(0, dtype=dtype)
        options = CELLS if run is communicate else {}
        counts = mpi_pair.minimize(NET, data, w0, Counting(run), progress=False, **options).counts
        seen = view.apply_sync(eval, SEEN)
    finally:
        view.apply_sync(exec, UNWATCH)
    assert counted(counts) == expected(run, counts, dtype)
    for each in seen:
        assert (len(each), sum(each)) == (counts.reductions, counts.bytes)


@pytest.fixture
def traffic(monkeypatch):
    """A function that begins to count what goes between client and engines.

    It returns bytes sent, bytes received, calls, linearizations and tasks, each by engine.
    """
    sent, received, calls, curvatures, tasks = (Counter() for _ in range(5))

    def call(pool, requests, call=Pool.call):
        for engine, (function, *arguments) in requests.items():
            calls[engine, function.__name__] += 1
            points = [each[0] for each in arguments if isinstance(each, tuple)]  # the w of a new curvature
            curvatures[engine] += len(points)
            tasks[engine] += sum(isinstance(each, bytes) for each in arguments)
            arrays = [each for each in (*arguments, *points) if isinstance(each, np.ndarray)]
            sent[engine] += sum(each.nbytes for each in arrays)
        values, lost = call(pool, requests)
        received.update({engine: value.nbytes for engine, value in values.items()})
        return values, lost

    def begin():
        monkeypatch.setattr(Pool, "call", call)
        return sent, received, calls, curvatures, tasks

    return begin


@PRECISIONS
def test_a_line_search_and_an_average_are_one_call_of_every_engine(dtype, pair, data, traffic):
    """Out go w, directions and arguments as arrays, and the task with the first average alone."""
    objective, w0 = pair.objective(NET, data, **CELLS), NET.init(0, dtype=dtype)
    sent, received, calls, _, tasks = traffic()
    communicate(objective, w0)
    counts = objective.counts
    assert counted(counts) == counted_by_hand(dtype)
    assert (counts.losses, counts.averages, counts.samples) == (9, 2, (9 + 2) * len(data))
    for engine in pair.engines:
        assert received[engine] == counts.bytes
        assert (calls[engine, "losses_along"], calls[engine, "average"]) == (3, 2)
        assert sum(number for (e, _), number in calls.items() if e == engine) == counts.reductions
        assert sent[engine] == (2 + 2 + (1 + 3) + 2 * 2) * w0.nbytes + 3 * ALPHAS.nbytes
        assert tasks[engine] == 1


@RUNS
@PRECISIONS
def test_bytes_between_client_and_engines_are_those_counted(run, dtype, pair, data, traffic):
    """Back come the sums; out go w or v each time, and w once more for the first product at a point."""
    objective, w0 = pair.objective(NET, data), NET.init(0, dtype=dtype)
    sent, received, calls, curvatures, _ = traffic()
    run(objective, w0)
    counts = objective.counts
    assert counted(counts) == formula(counts, dtype)
    for engine in pair.engines:
        assert received[engine] == counts.bytes
        evaluations = {"loss": counts.losses, "gradient": counts.gradients, "multiply": counts.products}
        assert {name: calls[engine, name] for name in evaluations} == evaluations
        assert sent[engine] == (counts.reductions + curvatures[engine]) * w0.nbytes
        assert sum(number for (e, _), number in calls.items() if e == engine) == counts.reductions


@ALL_RUNS
@PRECISIONS
def test_one_process_counts_the_same(run, dtype, pair, data):
    options, w0 = CELLS if run is communicate else {}, NET.init(0, dtype=dtype)
    alone, remote = Objective(NET, data, **options), pair.objective(NET, data, **options)
    run(alone, w0)
    assert counted(alone.counts) == expected(run, alone.counts, dtype)
    run(remote, w0)
    if (
        run not in (run_hessian_free, run_trial_steps) or dtype == np.float64
    ):  # in float32 rounding decides on an iteration
        assert remote.counts == alone.counts


def test_history_has_the_costs_of_the_counts(data, w0):
    for minimize in (hessian_free, first_order):
        objective = Objective(NET, data)
        last = minimize(objective, w0, max_iter=3).history[-1]
        record_alone = 4 if minimize is first_order else 0  # a gradient at each record, not the method's
        assert last.reductions == objective.counts.reductions - record_alone
        assert last.numbers == objective.counts.numbers - record_alone * (P + 1)
        assert last.bytes == objective.counts.bytes - record_alone * 16 * (P + 1)


# Where the time goes


LATE = 0.1  # seconds: long beside what a busy machine delays an engine


def slow_at_an_outlier(w, X, Y):
    if (X[:, 0] > 3).any():
        time.sleep(LATE)
    return anp.mean(anp.dot(X, w) ** 2)


@pytest.fixture(scope="module")
def lame(data):
    """The last partition, which the second engine holds, takes `LATE` longer."""
    X = np.minimum(data.X, 2)
    X[-1, 0] = 4
    return Dataset(X, data.Y)


def remember(record):
    record["time"] = time.perf_counter()


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_profile_adds_up_and_shows_who_waits(kind, lame, request):
    cluster = request.getfixturevalue(kind)
    engines = cluster.engines
    history = cluster.minimize(
        AnyLoss(slow_at_an_outlier), lame, np.ones(20), callback=remember, progress=False, max_iter=2
    ).history
    for record, before in zip(history[1:], history[:-1], strict=True):
        quick, slow = (record.profile[engine] for engine in engines)
        assert all(seconds >= 0 for seconds in (*quick.values(), *slow.values()))
        for kinds in (
            (quick,) if cluster.has_mpi else (quick, slow)
        ):  # the first engine's clock is the record's
            own = sum(kinds.values()) - (kinds["idle"] if cluster.has_mpi else 0)
            assert own == pytest.approx(record.seconds - before.seconds, abs=0.02, rel=0.02)
        evaluations = record.reductions - before.reductions - (record.products - before.products)
        assert slow["loss"] + slow["gradient"] >= LATE * evaluations
        # Half of it: where another program has the quick engine's core it waits less.
        assert quick["waiting"] >= 0.5 * LATE * evaluations
        assert slow["waiting"] < quick["waiting"]
        assert slow["reduction"] == pytest.approx(quick["reduction"], rel=1e-9)
        assert slow["optimizer" if cluster.has_mpi else "idle"] > 0
    table = profiler.table(history).splitlines()
    assert [line.split()[0] for line in table] == ["engine", *map(str, engines)]
    rows = profiler.rows(history)
    assert len(rows) == len(history) * len(engines)
    totals = profiler.totals(history)
    waited = [row["waiting"] for row in rows if row["engine"] == engines[0]]
    assert totals[engines[0]]["waiting"] == pytest.approx(math.fsum(waited), rel=1e-12)


def test_what_is_measured_for_the_record_is_not_in_the_profile(pair, data, w0):
    """An epoch of one step is one gradient; the one at the record is not the method's."""
    history = first_order(pair.objective(NET, data), w0, batch_size=603, max_iter=2).history
    for record in history[1:]:
        assert record.numbers == record.iteration * (P + 1)
        assert all(each["gradient"] > 0 for each in record.profile.values())
    assert not history[0].profile


def slow_in_the_last_cell(cell, w):
    time.sleep(LATE if cell.number == 3 else 0)
    return w


def average_slowly(objective, w0, callback=None):
    recorder = Recorder(objective, callback)
    for iteration in range(3):
        if iteration:
            objective.average(slow_in_the_last_cell, w0, size=w0.size)
        recorder.add(w0, iteration=iteration, loss=0.0)
    return recorder.result(w0, Status.MAX_ITER, "two averages")


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_work_in_cells_has_a_part_of_its_own_in_the_profile(kind, data, w0, request):
    cluster = request.getfixturevalue(kind)
    history = cluster.minimize(NET, data, w0, average_slowly, cells=4, progress=False).history
    quick, slow = (profiler.totals(history)[engine] for engine in cluster.engines)
    assert slow["cells"] >= 2 * LATE > quick["cells"]
    assert quick["waiting"] >= LATE  # half of it: where another program has the engine's core it waits less
    assert slow["gradient"] == slow["product"] == slow["loss"] == 0
    assert "cells" in profiler.table(history).split()


def test_a_run_without_cells_has_no_such_part(pair, data, w0):
    """Nor have the records of earlier versions."""
    history = hessian_free(pair.objective(NET, data), w0, max_iter=1).history
    expected = profiler.totals(history)
    assert all(
        list(each) == [kind for kind in profiler.KINDS if kind != "cells"] for each in expected.values()
    )
    for record in history:
        for each in record.profile.values():
            del each["cells"]
    assert profiler.totals(history) == expected


def test_one_process_has_no_profile(data, w0):
    history = hessian_free(Objective(NET, data), w0, max_iter=1).history
    assert not profiler.rows(history)
    assert profiler.table(history).split()[0] == "engine"
