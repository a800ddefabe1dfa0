"""What engines hold: data is sent once, never stale, and freed when nothing refers to it any more."""

import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from on_engines import MPI, NET, OPTIONS, PATHS, assert_same, engine_pids

from hfnb import Checkpoint, Dataset, Objective, hessian_free, models
from hfnb.engines import Cluster, EngineFailure
from hfnb.engines.engine_driven import Run
from hfnb.objectives.objective import AnyLoss
from hfnb.objectives.profiler import Clock

pytestmark = pytest.mark.usefixtures("own_ipython_dir")


@pytest.fixture
def sent(pair, monkeypatch):
    """The bytes of each message that this client sends to the pair of engines, arrays included."""
    sizes = []

    def send(session, *arguments, buffers=None, **options):
        sizes.append(sum(memoryview(buffer).nbytes for buffer in buffers or ()))
        return original(session, *arguments, buffers=buffers, **options)

    original = type(pair.client.session).send
    monkeypatch.setattr(type(pair.client.session), "send", send)
    return sizes


def held(cluster):
    """How many (blocks, networks and their sums, products, runs) each engine holds."""
    count = "[len(each) for each in (w.BLOCKS, {**w.NETS, **w.EVALUATORS}, w.PRODUCTS, w.RUNS)]"
    worker = "__import__('importlib').import_module('hfnb.engines.worker')"
    return cluster.client[cluster.engines].apply_sync(eval, f"(lambda w: {count})({worker})")


NUMBERS = itertools.count(1)


def fresh(data):
    """Data of which the engines have nothing."""
    return Dataset(data.X + next(NUMBERS) / 1000, data.Y.copy())


def copy_of(data):
    return Dataset(data.X.copy(), data.Y.copy())


def blocks(cluster):
    """How many blocks the engines hold, once they know what this client has dropped."""
    gc.collect()
    cluster._pool.call_all(len, ())
    return sum(each[0] for each in held(cluster))


def test_data_is_sent_once(pair, data, sent):
    """For two networks, in a copy, and again after the objectives on it are gone."""
    mine = fresh(data)
    first = pair.objective(NET, mine)
    assert sum(sent) > data.X.nbytes
    assert max(sent) > data.X.nbytes / 3
    sent.clear()
    second, third = pair.objective(models.mlp([20, 5]), mine), pair.objective(NET, copy_of(mine))
    assert 0 < max(sent) < data.X.nbytes / 10
    assert first.evaluator.placement is second.evaluator.placement is third.evaluator.placement
    del first, second, third
    pair.objective(NET, mine)
    assert max(sent) < data.X.nbytes / 10


@MPI
def test_runs_on_the_same_data_send_it_once(mpi_pair, data, w0):
    mine = fresh(data)
    mpi_pair.minimize(NET, mine, w0, progress=False, max_iter=1)
    placement = weakref.ref(mpi_pair.objective(NET, mine).evaluator.placement)
    mpi_pair.minimize(NET, mine, w0, progress=False, max_iter=1)
    assert placement() is mpi_pair.objective(NET, mine).evaluator.placement
    before = blocks(mpi_pair)
    del mine
    assert blocks(mpi_pair) == before - 2
    assert placement() is None


def test_edits_in_place_leave_no_old_data_behind(pair, data):
    mine = fresh(data)
    pair.objective(NET, mine)
    before = blocks(pair)
    for _ in range(5):
        mine.X[:] += 1
        pair.objective(NET, mine)
    assert blocks(pair) == before


def test_data_edited_in_place_is_sent_anew(pair, data, w0):
    """An objective that was made before keeps the data as it was."""
    mine = fresh(data)
    before = pair.objective(NET, mine)
    old = Objective(NET, copy_of(mine)).value(w0)
    for edit in (lambda: mine.X.__imul__(1.5), lambda: mine.Y.__setitem__(100, (mine.Y[100] + 1) % 5)):
        edit()
        expected = Objective(NET, mine).value(w0)
        assert abs(expected - old) > 1e-6
        assert pair.objective(NET, mine).value(w0) == pytest.approx(expected, rel=1e-12)
        assert before.value(w0) == pytest.approx(old, rel=1e-12)


def test_a_run_on_data_that_was_edited_since_leaves_no_checkpoint(pair, data, w0, tmp_path):
    """The checkpoint would name the edited data, and a run on that would take it for its own."""
    mine = fresh(data)
    objective = pair.objective(NET, mine)
    mine.X[0] += 1
    with pytest.raises(ValueError, match=r"objective: .* edited in place .* make a new objective"):
        hessian_free(objective, w0, max_iter=1, checkpoint=tmp_path)
    assert Checkpoint(tmp_path).load() is None
    hessian_free(pair.objective(NET, mine), w0, max_iter=1, checkpoint=tmp_path)
    assert hessian_free(Objective(NET, mine), w0, max_iter=2, checkpoint=tmp_path).nit == 2


@pytest.mark.parametrize(
    ("net", "options", "error", "message"),
    [
        (None, {}, TypeError, "net: expected a network"),
        (type(NET), {}, TypeError, "net: expected a network"),
        (NET, {"chunk": -1}, ValueError, "chunk: expected a whole number of at least 1"),
        (NET, {"chunk": 2.0}, ValueError, "chunk: expected a whole number of at least 1"),
    ],
)
def test_objectives_on_engines_check_what_those_of_one_process_do(pair, data, net, options, error, message):
    for make in (pair.objective, Objective):
        with pytest.raises(error, match=message):
            make(net, data, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": 3}, TypeError, "optimizer: expected a function"),
        ({"optimizer": "hfnb:no_such"}, ValueError, "optimizer: expected a function or its name.*no_such"),
        ({"optimizer": "no such"}, ValueError, "optimizer: expected a function or its name"),
        ({"callback": 3, "progress": False}, TypeError, "callback: expected a function"),
        ({"max_failures": -1}, ValueError, "max_failures: expected a whole number"),
        ({"max_iter": -1}, ValueError, "max_iter: expected a whole number"),
        ({"max_iter": "a"}, TypeError, "max_iter: expected a whole number"),
    ],
)
def test_minimize_names_the_argument_at_fault(pair, data, w0, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        pair.minimize(NET, data, w0, **options)


def test_another_dataset_at_the_same_address(pair):
    """Python gives the id of an object that is gone to a new one; its data is not taken for the old one's."""
    net, w, seen = models.mlp([4, 2]), np.linspace(-1, 1, 10), set()
    for seed in range(200):
        random = np.random.default_rng(seed)
        data = Dataset(random.standard_normal((30, 4)), random.integers(0, 2, 30))
        expected = Objective(net, data).value(w)
        assert pair.objective(net, data).value(w) == pytest.approx(expected, rel=1e-12)
        if id(data) in seen:
            return
        seen.add(id(data))
        del data
    pytest.fail("no dataset was freed")


def test_objectives_on_the_same_data_share_it_and_outlive_each_other(pair, data, w0):
    before = blocks(pair)
    mine = fresh(data)
    first, second = pair.objective(NET, copy_of(mine)), pair.objective(NET, copy_of(mine))
    assert blocks(pair) == before + 2
    del first
    assert blocks(pair) == before + 2
    assert second.value(w0) == pytest.approx(Objective(NET, mine).value(w0), rel=1e-12)
    del second
    assert blocks(pair) == before


def test_engines_forget_what_the_client_has_dropped(pair, data, w0):
    objective = pair.objective(NET, data)
    objective.value(w0)
    blocks(pair)
    before = held(pair)
    for _ in range(3):
        objective.curvature(w0) @ w0
    assert held(pair) != before
    objective.value(w0)
    assert held(pair) == before


def test_memory_is_bounded_over_many_datasets(pair):
    """50 slices of 4 MB each: engines and client hold one or two of them at any time, not 200 MB."""
    random = np.random.default_rng(0)
    train = Dataset(random.standard_normal((1050, 500)), random.integers(0, 2, 1050))
    net, alive, seen = models.mlp([500, 2]), [], {}
    w = net.init(0, dtype=np.float64)
    processes = [psutil.Process(pid) for pid in (os.getpid(), *engine_pids(pair).values())]
    before = blocks(pair)
    for k in range(1, 51):
        part = copy_of(train[: 1000 + k])
        alive.append(weakref.ref(part))
        objective = pair.objective(net, part)
        objective.value(w)
        del part
        if k in (10, 50):
            seen[k] = np.array([process.memory_info().rss for process in processes])
            assert sum(each[0] for each in held(pair)) <= before + 4
    assert ((seen[50] - seen[10]) < 10 * 4e6).all(), seen
    del objective
    assert blocks(pair) == before
    assert not any(reference() for reference in alive)


def test_ctrl_c_while_data_is_sent_leaves_nothing(pair, data, w0, monkeypatch):
    before = blocks(pair)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pair._pool, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pair.objective(NET, fresh(data))
    assert blocks(pair) == before
    assert pair.objective(NET, data).value(w0) == pytest.approx(Objective(NET, data).value(w0), rel=1e-12)


# Cells


def of_cells(cell, w):
    return [cell.value(w)]


def test_cells_are_sent_once_and_freed_with_their_dataset(pair, data, w0):
    """Also what engines have made of them; another order of the cells is sent for itself."""
    alive = "sum(type(each).__name__ == 'LocalEvaluator' for each in __import__('gc').get_objects())"
    before, view = blocks(pair), pair.client[pair.engines]
    evaluators = view.apply_sync(eval, alive)
    mine = fresh(data)
    first, second = (pair.objective(net, mine, cells=6) for net in (NET, models.mlp([20, 5])))
    third = pair.objective(NET, mine, cells=6, cell_seed=1)
    assert first.evaluator.placement is second.evaluator.placement is not third.evaluator.placement
    assert blocks(pair) == before + 4
    expected = Objective(NET, mine).value(w0)
    for objective in (first, third):
        for _ in range(2):
            assert objective.average(of_cells, w0, size=1) == pytest.approx([expected], rel=1e-12)
    assert [now - then for now, then in zip(view.apply_sync(eval, alive), evaluators, strict=True)] == [8, 8]
    del first, second, third, objective
    assert blocks(pair) == before + 4
    del mine
    assert blocks(pair) == before
    assert view.apply_sync(eval, alive) == evaluators
    assert view.apply_sync(eval, "len(__import__('hfnb.engines.worker').engines.worker.TASKS)") == [0, 0]


def test_cells_of_data_edited_in_place_are_sent_anew(pair, data, w0, tmp_path):
    """An objective that was made before keeps the data as it was, and makes no checkpoint."""
    mine = fresh(data)
    before, old = pair.objective(NET, mine, cells=6), Objective(NET, copy_of(mine)).value(w0)
    mine.X[:] *= 1.5
    after = pair.objective(NET, mine, cells=6)
    assert after.average(of_cells, w0, size=1) == pytest.approx([Objective(NET, mine).value(w0)], rel=1e-12)
    assert before.average(of_cells, w0, size=1) == pytest.approx([old], rel=1e-12)
    with pytest.raises(ValueError, match=r"objective: .* edited in place .* make a new objective"):
        hessian_free(before, w0, max_iter=1, checkpoint=tmp_path)
    hessian_free(after, w0, max_iter=1, checkpoint=tmp_path)
    assert hessian_free(Objective(NET, mine, cells=6), w0, max_iter=2, checkpoint=tmp_path).nit == 2


@MPI
def test_a_run_in_cells_leaves_nothing_but_its_data(mpi_pair, data, w0):
    mine = fresh(data)
    before = blocks(mpi_pair)
    for _ in range(2):
        mpi_pair.minimize(NET, mine, w0, progress=False, max_iter=1, cells=6)
        assert blocks(mpi_pair) == before + 2
    del mine
    assert blocks(mpi_pair) == before


# Mapped files


def mapped(path, array):
    path.write_bytes(array.tobytes())
    return np.asarray(np.memmap(path, array.dtype, "r", shape=array.shape))


def maps_of(cluster, path):
    """How many of each engine's maps are of a file."""
    count = f"open('/proc/self/maps').read().count({str(path)!r})"
    return cluster.client[cluster.engines].apply_sync(eval, count)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_a_mapped_file_is_shared_not_sent(pair, data, w0, tmp_path, sent):
    mine = Dataset(data.X + 1, data.Y)  # no other test's
    on_disk = Dataset(mapped(tmp_path / "X", mine.X), mapped(tmp_path / "Y", mine.Y))
    objective = pair.objective(NET, on_disk)
    assert max(sent) < data.X.nbytes / 10
    assert all(maps_of(pair, tmp_path / "X"))
    assert objective.value(w0) == pytest.approx(Objective(NET, mine).value(w0), rel=1e-12)
    sent.clear()
    assert pair.objective(NET, mine).evaluator.placement is objective.evaluator.placement
    assert max(sent) < data.X.nbytes / 10
    del objective, mine, on_disk
    blocks(pair)
    assert not any(maps_of(pair, tmp_path / "X"))


def middle_changed(array):
    """The same first and last rows, so that only the whole content tells them apart."""
    other = array.copy()
    other[len(other) // 4] += 1
    other[-(len(other) // 4)] += 1
    return other.tobytes()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    "there",
    [None, lambda X: b"short", lambda X: bytes(10**6), middle_changed],
    ids=["gone", "short", "zeros", "middle"],
)
def test_a_mapped_file_that_engines_do_not_have_is_sent(there, pair, data, w0, tmp_path):
    path = tmp_path / "X"
    mine = Dataset(data.X + 2, data.Y)
    on_disk = Dataset(mapped(path, mine.X), data.Y)
    path.unlink()  # the map keeps the rows
    if there is not None:
        path.write_bytes(there(mine.X))
    expected = Objective(NET, mine).value(w0)
    assert pair.objective(NET, on_disk).value(w0) == pytest.approx(expected, rel=1e-12)


# What engines cannot use


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "data: expected a Dataset, .*, got NoneType"),
        (SimpleNamespace(X=np.array([[None]]), Y=np.arange(1)), "X: .* got .*dtype object"),
    ],
    ids=["none", "objects"],
)
def test_data_that_cannot_be_sent(pair, bad, message):
    with pytest.raises(TypeError, match=message):
        pair.objective(NET, bad)


def test_a_network_that_engines_cannot_unpickle(pair, data, tmp_path, monkeypatch):
    """A module that only the client can import."""
    (tmp_path / "only_here.py").write_text("def loss(w, X, Y):\n    return 0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    before = blocks(pair)
    with pytest.raises(EngineFailure, match=r"TypeError: net: expected .*: .*No module named 'only_here'"):
        pair.objective(AnyLoss(only_here.loss), fresh(data))
    del sys.modules["only_here"]
    assert blocks(pair) == before


def test_a_total_of_another_shape_is_named(pair, data, w0):
    objective, second = pair.objective(NET, data), pair.client[pair.engines[1]]
    patch = "from hfnb.engines import worker; worker.kept, worker.merged = worker.merged, lambda totals: {}"
    restore = "from hfnb.engines import worker; worker.merged = worker.kept"
    try:
        second.apply_sync(exec, patch.format("totals[0][:, :1].copy()"))
        with pytest.raises(EngineFailure, match=r"engine 1 returned a gradient of shape \(2, 1\), expected"):
            objective.value_and_gradient(w0)
    finally:
        second.apply_sync(exec, restore)
    objective.value_and_gradient(w0)


# Several clients


def test_a_second_client_leaves_nothing_behind(pair, data, w0):
    mine, expected = pair.objective(NET, data), Objective(NET, data).value(w0)
    before = blocks(pair)
    with Cluster(engines=pair.client.cluster.cluster_id) as other:
        theirs = other.objective(NET, data)
        assert theirs.value(w0) == pytest.approx(expected, rel=1e-12)
        assert sum(each[0] for each in held(pair)) == before + 2
    assert blocks(pair) == before
    assert mine.value(w0) == pytest.approx(expected, rel=1e-12)


KILLED = """
import os, pickle, signal, sys
from hfnb.engines import Cluster
net, data, w0, name = pickle.load(sys.stdin.buffer)
objective = Cluster(engines=name).start().objective(net, data)
objective.curvature(w0) @ w0
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_client_left_is_freed_by_the_next(pair, data, w0):
    """A notebook's kernel that is restarted, again and again, beside engines that stay."""
    mine, name = pair.objective(NET, data), pair.client.cluster.cluster_id
    blocks(pair)
    before = held(pair)
    job = pickle.dumps((NET, fresh(data), w0, name))
    environment = os.environ | {"PYTHONPATH": PATHS["PYTHONPATH"]}
    ended = subprocess.run([sys.executable, "-c", KILLED], env=environment, input=job)
    assert ended.returncode == -signal.SIGKILL
    assert blocks(pair) == sum(each[0] for each in before) + 2
    with Cluster(engines=name):
        assert held(pair) == before
    assert mine.value(w0) == pytest.approx(Objective(NET, data).value(w0), rel=1e-12)


@MPI
def test_a_second_client_ends_the_run_of_the_first(mpi_pair, data, w0, alone):
    """The first is told; both can go on."""

    def intrude(record):
        if record.iteration == 2:
            with Cluster(engines=mpi_pair.client.cluster.cluster_id) as other:
                assert_same(other.minimize(NET, data, w0, progress=False, **OPTIONS), alone)

    with pytest.raises(EngineFailure, match="another run on the same engines"):
        mpi_pair.minimize(NET, data, w0, callback=intrude, progress=False, **OPTIONS)
    assert_same(mpi_pair.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


# Runs that their client has left


@MPI
def test_a_run_that_was_left_is_freed(mpi_pair, data, w0):
    blocks(mpi_pair)
    before = held(mpi_pair)

    def leave(record):
        assert sum(each[3] for each in held(mpi_pair)) == 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mpi_pair.minimize(NET, fresh(data), w0, callback=leave, progress=False, **OPTIONS)
    blocks(mpi_pair)
    assert held(mpi_pair) == before


def test_an_optimizer_that_ignores_its_callback_is_ended():
    """It would go on for ever: its client has left, and the next run waits for its end."""

    def stubborn(objective, w0, callback):
        while True:
            callback({"iteration": 1})

    run = Run(NET, SimpleNamespace(n=1, clock=Clock()), np.zeros(1), stubborn, {})
    assert run.step(False, {}) == ("record", {"iteration": 1})
    ended = threading.Thread(target=run.abandon, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()
    assert not run._thread.is_alive()
