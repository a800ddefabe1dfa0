"""What must not cost a run: twelve faults, and what becomes of each.

1. An engine is killed: test_killed_engine_costs_its_part_of_one_product, test_engine_of_an_mpi_run_dies
2. One hangs: test_hung_engine_is_given_up_at_the_deadline; 1 and 2 under MPI:
   test_mpi_run_starts_again_from_its_checkpoint
   test_engine_that_dies_while_another_one_raises_is_done_without; several at once: tests/test_pool.py
3. An exception in a partition: test_exception_in_a_partition_is_reported_with_its_engine_and_not_retried
4. NaN from a partition: test_nan_from_one_partition_rejects_the_step_and_is_named
5. The controller is killed: test_killed_controller_is_an_error_and_a_new_cluster_resumes,
   test_mpi_run_survives_its_controller
6. The driver is killed: test_killed_driver_resumes
7. A checkpoint that is not written, or not whole: tests/test_checkpoint.py (kill, full disk, damage),
   test_checkpoint_that_cannot_be_written_ends_the_run
8. All engines die: test_all_engines_lost_leaves_the_checkpoint, test_engines_that_died_between_two_calls
9. Engines come and go: test_four_engines_then_three_then_four
10. They die again and again: test_run_gives_up_after_max_failures
11. Late replies: test_hung_engine_is_given_up_at_the_deadline; empty and uneven partitions:
    test_sums_equal_those_of_one_process, test_fewer_samples_than_partitions in tests/test_engines.py
12. A thousand products, then Ctrl-C: tests/test_engines_memory.py
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import autograd.numpy as anp
import numpy as np
import pytest
from on_engines import (
    LONG,
    MPI,
    NET,
    OPTIONS,
    PATHS,
    assert_same,
    engine_pids,
    leaves_nothing_behind,
    wait_until,
)

from hfnb import Dataset, Objective, hessian_free
from hfnb.engines import Cluster, EngineFailure, EngineLost
from hfnb.objectives.objective import AnyLoss
from hfnb.optimizers.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("own_ipython_dir")


def broken(w, X, Y):
    if (X[:, 0] > 3).any():
        with open(os.environ["HFNB_TEST_BROKEN"], "a") as file:
            file.write("once\n")
        raise ArithmeticError("a sample beyond 3")
    return anp.mean(anp.dot(X, w) ** 2)


@pytest.fixture(scope="session")
def outlier(data):
    X = np.minimum(data.X, 2)
    X[-1, 0] = 4
    return Dataset(X, data.Y)


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_exception_in_a_partition_is_reported_with_its_engine_and_not_retried(
    kind, outlier, data, w0, alone, request, tmp_path
):
    cluster, tried = request.getfixturevalue(kind), tmp_path / "tried"
    variable = f"import os; os.environ['HFNB_TEST_BROKEN'] = {str(tried)!r}"
    cluster.client[cluster.engines].apply_sync(exec, variable)
    with pytest.raises(EngineFailure, match="engine 1 raised ArithmeticError: a sample beyond 3") as failure:
        cluster.minimize(
            AnyLoss(broken), outlier, np.ones(20), progress=False, checkpoint=Checkpoint(tmp_path / "run")
        )
    assert tried.read_text() == "once\n"
    assert failure.value.engine == 1
    assert "in broken" in str(failure.value)
    assert_same(cluster.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


def test_killed_engine_costs_its_part_of_one_product(data, w0, alone):
    with Cluster(n=3, engines="local") as cluster:
        victim = engine_pids(cluster)[1]

        def kill_soon(record):
            if record.iteration == 2:
                threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()

        result = hessian_free(cluster.objective(NET, data), w0, callback=kill_soon, **OPTIONS)
        assert cluster.engines == [0, 2]
        assert_same(result, alone)


WAYS_TO_FAIL = """
import os, signal, time
from pathlib import Path
def fail(armed, noticed):
    if Path(armed).exists() and {number} == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while Path(armed).exists() and {number} == 2:
        if Path(noticed).exists():
            raise ArithmeticError("after the death of another engine")
        time.sleep(0.05)
os.hfnb_test_fail = fail
"""


def test_the_engine_that_raised_is_named_although_its_reply_comes_last(pair):
    """As on a busy machine: the other engine's reply, that a peer failed, is seconds ahead."""
    ahead = (
        "from hfnb.engines.distributed_evaluators import PeerFailure as Ahead; raise Ahead('a peer failed')"
    )
    late = "import time; time.sleep(3); raise ArithmeticError('the cause')"
    with pytest.raises(EngineFailure, match="engine 1 raised ArithmeticError: the cause") as failure:
        pair._pool.call_each({0: (exec, ahead), 1: (exec, late)})
    assert failure.value.engine == 1
    assert pair._pool.call_all(os.getpid)


def test_engine_that_dies_while_another_one_raises_is_done_without(data, w0, tmp_path):
    """Engine 2 raises as soon as the client knows that engine 1 died, in the same call."""
    armed, noticed = tmp_path / "armed", tmp_path / "noticed"

    def loss(w, X, Y, places=(str(armed), str(noticed))):
        getattr(os, "hfnb_test_fail", lambda *_: None)(*places)
        return anp.mean((anp.dot(X, w) - Y) ** 2)

    def notice():
        wait_until(lambda: 1 not in cluster.client.ids, seconds=60)
        noticed.touch()

    w = np.linspace(-1, 1, 20)
    with Cluster(n=3, engines="local") as cluster:
        for engine in cluster.engines:
            cluster.client[engine].apply_sync(exec, WAYS_TO_FAIL.format(number=engine))
        objective = cluster.objective(AnyLoss(loss), data)
        armed.touch()
        watcher = threading.Thread(target=notice)
        watcher.start()
        with pytest.raises(EngineFailure, match="engine 2 raised ArithmeticError: after the death"):
            objective.value(w)
        watcher.join()
        assert cluster.engines == [0, 2]
        armed.unlink()
        assert objective.value(w) == pytest.approx(np.mean((data.X @ w - data.Y) ** 2), rel=1e-12)


def test_hung_engine_is_given_up_at_the_deadline(data, w0, alone):
    with Cluster(n=2, engines="local", deadline=3) as cluster:
        objective = cluster.objective(NET, data)
        hung = engine_pids(cluster)[0]
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        result = hessian_free(objective, w0, **OPTIONS)
        assert cluster.engines == [1]
        assert_same(result, alone)
        os.kill(hung, signal.SIGCONT)  # its late replies have no reader
        assert objective.value(w0) == pytest.approx(alone.history[0].loss, rel=1e-12)
        assert time.monotonic() - start >= 3


def test_all_engines_lost_leaves_the_checkpoint(data, w0, alone, tmp_path):
    """One error; another run, here in one process, goes on from what was saved."""
    with Cluster(n=2, engines="local") as cluster:
        pids = engine_pids(cluster).values()

        def kill_all(record):
            if record.iteration == 4:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

        objective, options = cluster.objective(NET, data), {**OPTIONS, "checkpoint": Checkpoint(tmp_path)}
        with pytest.raises(EngineLost, match="all engines are lost: engine 0 died, engine 1 died"):
            hessian_free(objective, w0, callback=kill_all, **options)
    assert Checkpoint(tmp_path).load()["iteration"] == 4
    assert_same(hessian_free(Objective(NET, data), w0, **options), alone)


def test_engines_that_died_between_two_calls(data, w0):
    with Cluster(n=2, engines="local") as cluster:
        objective = cluster.objective(NET, data)
        product = objective.curvature(w0)
        for pid in engine_pids(cluster).values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not cluster.client.ids)
        del product  # engines are to be told to forget it
        with pytest.raises(EngineLost, match="all engines are lost: engine 0 died, engine 1 died"):
            objective.value(w0)


@MPI
def test_engine_of_an_mpi_run_dies(data, w0):
    with Cluster(n=2, engines="mpi") as cluster:
        victim = engine_pids(cluster)[1]

        def kill(record):
            os.kill(victim, signal.SIGKILL)

        with pytest.raises(EngineFailure, match=r"engine \d died"):
            cluster.minimize(NET, data, w0, callback=kill, progress=False, **LONG)


@MPI
@pytest.mark.slow
def test_mpi_run_starts_again_from_its_checkpoint(data, w0, alone, tmp_path, caplog):
    """Once an engine is killed, once one hangs: the run ends as if nothing had happened."""
    faults = {2: signal.SIGKILL, 4: signal.SIGSTOP}

    def strike(record):
        if record.iteration in faults:
            os.kill(engine_pids(cluster)[1], faults.pop(record.iteration))

    with leaves_nothing_behind() as look, Cluster(n=2, engines="mpi", deadline=3) as cluster:
        checkpoint = Checkpoint(tmp_path)
        look()
        result = cluster.minimize(
            NET, data, w0, callback=strike, progress=False, checkpoint=checkpoint, **OPTIONS
        )
    assert_same(result, alone)
    assert caplog.text.count("starting the engines again, from the last checkpoint") == 2
    assert not faults


@MPI
@pytest.mark.slow
def test_run_gives_up_after_max_failures(data, w0, tmp_path):
    def strike(record):
        os.kill(engine_pids(cluster)[0], signal.SIGKILL)

    options = {"callback": strike, "checkpoint": Checkpoint(tmp_path), "max_failures": 1, "progress": False}
    causes = "gave up after 2 failures: engine 0 died, after iteration 0; engine 0 died, after iteration 0"
    with Cluster(n=1, engines="mpi") as cluster, pytest.raises(EngineLost, match=causes):
        cluster.minimize(NET, data, w0, **options)


DRIVER = """
import os, signal, sys, pickle
from hfnb.optimizers.checkpoint import Checkpoint
from hfnb.engines import Cluster
net, data, w0, options = pickle.load(sys.stdin.buffer)
def die(record):
    if record.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
with Cluster(n=2, engines="mpi") as cluster:
    cluster.minimize(net, data, w0, callback=die, checkpoint=Checkpoint(sys.argv[1]), **options)
"""


@MPI
@pytest.mark.slow
def test_killed_driver_resumes(mpi_pair, data, w0, alone, tmp_path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    job = pickle.dumps((NET, data, w0, OPTIONS))
    ended = subprocess.run(command, env=PATHS, input=job, stderr=subprocess.DEVNULL)
    assert ended.returncode == -signal.SIGKILL
    through = mpi_pair.minimize(NET, data, w0, progress=False, **OPTIONS)
    resumed = mpi_pair.minimize(NET, data, w0, progress=False, checkpoint=Checkpoint(tmp_path), **OPTIONS)
    assert resumed.x.tobytes() == through.x.tobytes()
    assert_same(resumed, alone)


@pytest.mark.slow
def test_four_engines_then_three_then_four(data, w0, alone, tmp_path):
    checkpoint = Checkpoint(tmp_path)
    for last_iteration in (4, OPTIONS["max_iter"]):
        with Cluster(n=4, engines="local") as cluster:

            def kill_one(record):
                if record.iteration == 3:
                    os.kill(engine_pids(cluster)[2], signal.SIGKILL)

            objective = cluster.objective(NET, data)
            options = {**OPTIONS, "max_iter": last_iteration, "checkpoint": checkpoint}
            result = hessian_free(objective, w0, callback=kill_one, **options)
            assert len(cluster.engines) == (3 if last_iteration == 4 else 4)
    assert_same(result, alone)


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_nan_from_one_partition_rejects_the_step_and_is_named(kind, outlier, tmp_path, request):
    flag, seen = tmp_path / "nan", []

    def loss(w, X, Y):
        factor = np.nan if flag.exists() and (X[:, 0] > 3).any() else 1.0
        return factor * anp.mean((anp.dot(X, w) - Y) ** 2)

    def callback(record):
        seen.append((record.w.copy(), record.damping))
        flag.touch() if record.iteration == 2 else flag.unlink(missing_ok=True)

    cluster = request.getfixturevalue(kind)
    with pytest.warns(RuntimeWarning, match=r"not finite in partition 3 \(engine 1\)"):
        cluster.minimize(AnyLoss(loss), outlier, np.ones(20), callback=callback, progress=False, max_iter=5)
    (w2, damping2), (w3, damping3), (w4, _) = seen[2:5]
    assert w3.tobytes() == w2.tobytes() != w4.tobytes()
    assert damping3 > damping2


def kill_controller(cluster):
    cluster.client.cluster.controller.process.kill()  # its schedulers live on


@pytest.mark.slow
def test_killed_controller_is_an_error_and_a_new_cluster_resumes(data, w0, alone, tmp_path):
    options = {**OPTIONS, "checkpoint": Checkpoint(tmp_path)}
    with leaves_nothing_behind() as look, Cluster(n=1, engines="local") as cluster:
        objective, struck = cluster.objective(NET, data), []
        look()

        def strike(record):
            if record.iteration == 4:
                kill_controller(cluster)
                struck.append(time.monotonic())

        with pytest.raises(EngineLost, match="the controller of the cluster is gone"):
            hessian_free(objective, w0, callback=strike, **options)
        assert time.monotonic() - struck[0] < 120  # a client that did not look would wait for ever
    with Cluster(n=2, engines="local") as cluster:
        assert_same(hessian_free(cluster.objective(NET, data), w0, **options), alone)


@MPI
@pytest.mark.slow
def test_mpi_run_survives_its_controller(data, w0, alone, tmp_path, caplog):
    """The engines go with it; others go on from the checkpoint by themselves."""

    clusters = []

    def strike(record):
        if record.iteration == 4 and not clusters:
            clusters.append(cluster.client.cluster)
            kill_controller(cluster)

    with leaves_nothing_behind() as look, Cluster(n=2, engines="mpi") as cluster:
        look()
        options = {**OPTIONS, "checkpoint": Checkpoint(tmp_path), "progress": False}
        result = cluster.minimize(NET, data, w0, callback=strike, **options)
        look()
    assert_same(result, alone)
    assert "the controller of the cluster is gone: starting the engines again" in caplog.text


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_checkpoint_that_cannot_be_written_ends_the_run(kind, data, w0, alone, tmp_path, request):
    (tmp_path / "file").touch()
    cluster = request.getfixturevalue(kind)
    with pytest.raises((EngineFailure, OSError), match=r"cannot save a checkpoint .*there is none yet"):
        cluster.minimize(NET, data, w0, progress=False, checkpoint=Checkpoint(tmp_path / "file" / "run"))
    assert_same(cluster.minimize(NET, data, w0, progress=False, **OPTIONS), alone)
