"""Engines: the same run on any number of them and either way, clean ends, clear errors, deaths."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_limits

from hfnb import Dataset, Objective, Sample, blas, first_order, hessian_free, models
from hfnb.checkpoint import Checkpoint
from hfnb.engines import Cluster, EngineFailure, EngineLost, launch, worker
from hfnb.objective import AnyLoss

PATHS = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
NET = models.mlp([20, 15, 10, 5])
OPTIONS = {"max_iter": 10, "curvature_batch": 400}  # of 603: enough rows a partition to be summed apart
MPI = pytest.mark.skipif(launch.mpi_missing() is not None, reason="MPI (mpi4py, mpiexec) is not installed")


@pytest.fixture(scope="session", autouse=True)
def own_ipython_dir(tmp_path_factory):
    """Clusters of these tests are found by these tests alone; engines run the client's BLAS kernel."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        if blas.kernel():
            patch.setenv(blas.VARIABLE, blas.kernel())
        yield


@pytest.fixture(scope="session")
def data():
    random = np.random.default_rng(0)
    return Dataset(random.standard_normal((603, 20)), random.integers(0, 5, 603))


@pytest.fixture(scope="session")
def w0():
    return NET.init(0, dtype=np.float64)


@pytest.fixture(scope="session")
def alone(data, w0):
    """The run in one process."""
    return hessian_free(Objective(NET, data), w0, **OPTIONS)


@pytest.fixture(scope="session", params=[1, 2, 3, 4])
def mpi_cluster(request):
    with Cluster(n=request.param, engines="mpi") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def pair():
    """Two engines without MPI."""
    with Cluster(n=2, engines="local") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def mpi_pair():
    with Cluster(n=2, engines="mpi") as cluster:
        yield cluster


def assert_same(result, expected):
    np.testing.assert_allclose(result.x, expected.x, rtol=0, atol=1e-12 * np.linalg.norm(expected.x))
    assert result.nit == expected.nit
    for record, other in zip(result.history, expected.history, strict=True):
        assert record.products == other.products
        assert record.loss == pytest.approx(other.loss, rel=1e-12)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def running(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def leaves_nothing_behind():
    """Every process started within, and every one that these start, has ended at the end."""
    before, found = set(psutil.Process().children(recursive=True)), set()
    yield lambda: found.update(set(psutil.Process().children(recursive=True)) - before)
    assert found, "nothing was started"
    wait_until(lambda: not running(found))


# The same run, however many engines and whoever drives


@MPI
def test_same_run_when_the_client_drives(mpi_cluster, data, w0, alone):
    assert_same(hessian_free(mpi_cluster.objective(NET, data), w0, **OPTIONS), alone)


@MPI
def test_same_run_when_the_engines_drive(mpi_cluster, data, w0, alone):
    assert mpi_cluster.has_mpi
    assert_same(mpi_cluster.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


@MPI
def test_same_first_order_run(mpi_pair, data, w0):
    options = {"method": "adam", "learning_rate": 1e-3, "batch": 60, "max_iter": 3, "seed": 1}
    expected = first_order(Objective(NET, data), w0, **options)
    assert_same(mpi_pair.minimize(NET, data, w0, first_order, progress=False, **options), expected)


def test_without_mpi_the_client_drives(pair, data, w0, alone, capsys):
    result = pair.minimize(NET, data, w0, progress=False, **OPTIONS)
    assert "not connected by MPI" in capsys.readouterr().out
    assert_same(result, alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sample", [None, Sample(7), Sample(300, seed=2, index=5)], ids=["all", "7", "300"])
def test_sums_equal_those_of_one_process(pair, data, dtype, sample):
    """A mini-batch of 7 leaves most of the 24 partitions empty."""
    w, v = NET.init(1, dtype=dtype), NET.init(2, dtype=dtype)
    ours, theirs = pair.objective(NET, data), Objective(NET, data)
    near = {"rtol": 1e-12 if dtype == np.float64 else 1e-4, "atol": 1e-12 if dtype == np.float64 else 1e-6}
    np.testing.assert_allclose(ours.value(w, sample), theirs.value(w, sample), **near)
    for one, other in zip(
        ours.value_and_gradient(w, sample), theirs.value_and_gradient(w, sample), strict=True
    ):
        np.testing.assert_allclose(one, other, **near)
    for kind in ("hessian", "gauss-newton"):
        product = ours.curvature(w, kind, sample) @ v
        assert product.dtype == dtype
        np.testing.assert_allclose(product, theirs.curvature(w, kind, sample) @ v, **near)
    assert ours.counts == theirs.counts


def test_data_is_sent_once(pair, data, monkeypatch):
    pair.objective(NET, data)
    sent = []
    monkeypatch.setattr(worker, "hold", lambda *arguments: sent.append(arguments))
    pair.objective(models.mlp([20, 5]), data)
    assert not sent


def test_fewer_samples_than_partitions(pair):
    few = Dataset(np.eye(20)[:5], np.arange(5))
    w = NET.init(0, dtype=np.float64)
    expected = Objective(NET, few).value(w)
    assert pair.objective(NET, few, partitions=24).value(w) == pytest.approx(expected, rel=1e-12)


def held_by_engines(cluster):
    return cluster.client[:].apply_sync(lambda: len(worker.PRODUCTS) + len(worker.SUMS) + len(worker.NETS))


def test_engines_forget_what_the_client_has_dropped(pair, data, w0):
    objective = pair.objective(NET, data)
    objective.value(w0)
    before = held_by_engines(pair)
    for _ in range(3):
        objective.curvature(w0) @ w0
    objective.value(w0)
    assert held_by_engines(pair) == before


# The reader's own functions, callbacks, Ctrl-C


def test_own_loss(pair, data):
    """Least squares, whose gradient is known: mean of 2 x (xᵀw − y)."""

    def loss(w, X, Y):
        return anp.mean((anp.dot(X, w) - Y) ** 2)

    w = np.linspace(-1, 1, 20)
    value, gradient = pair.objective(AnyLoss(loss), data).value_and_gradient(w)
    residual = data.X @ w - data.Y
    assert value == pytest.approx(np.mean(residual**2), rel=1e-12)
    np.testing.assert_allclose(gradient, 2 * data.X.T @ residual / len(data), rtol=1e-10)


@MPI
def test_callback_sees_every_record_and_stops_the_run(mpi_pair, data, w0, alone):
    seen = []

    def callback(record):
        seen.append(record)
        return record.iteration == 3

    result = mpi_pair.minimize(NET, data, w0, callback=callback, progress=False, **OPTIONS)
    assert (result.nit, result.success, result.message) == (3, False, "stopped by the callback")
    assert [record.loss for record in seen] == [record.loss for record in alone.history[:4]]
    assert seen == result.history


def press_ctrl_c(times=1):
    def press():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    threading.Timer(0.3, press).start()


LONG = {"max_iter": 10**6, "tol": 0.0, "damping": 1e3}


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_ctrl_c_ends_the_run_after_the_iteration(kind, data, w0, request):
    cluster = request.getfixturevalue(kind)
    press_ctrl_c()
    result = cluster.minimize(NET, data, w0, progress=False, **LONG)
    assert not result.success
    assert result.message == f"interrupted after iteration {result.nit}"
    assert len(result.history) == result.nit + 1
    assert result.fun == pytest.approx(Objective(NET, data).value(result.x), rel=1e-12)


def slow(objective, w0, callback):
    """An optimizer whose first iteration takes a second."""
    time.sleep(1)
    objective.value(w0)
    callback({"iteration": 1})


@MPI
def test_second_ctrl_c_interrupts_and_the_engines_stay_usable(mpi_pair, data, w0, alone):
    press_ctrl_c(times=2)
    with pytest.raises(KeyboardInterrupt):
        mpi_pair.minimize(NET, data, w0, slow, progress=False)
    assert_same(mpi_pair.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


def test_ctrl_c_while_the_client_drives(pair, data, w0):
    objective = pair.objective(NET, data)
    press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        hessian_free(objective, w0, **LONG)
    assert objective.value(w0) == pytest.approx(Objective(NET, data).value(w0), rel=1e-12)


# Failures


def broken(w, X, Y):
    if (X[:, 0] > 3).any():
        raise ArithmeticError("a sample beyond 3")
    return anp.mean(anp.dot(X, w) ** 2)


@pytest.fixture(scope="session")
def outlier(data):
    X = np.minimum(data.X, 2)
    X[-1, 0] = 4
    return Dataset(X, data.Y)


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_exception_in_a_partition_is_reported_with_its_engine(kind, outlier, data, w0, alone, request):
    cluster = request.getfixturevalue(kind)
    with pytest.raises(EngineFailure, match="engine 1 raised ArithmeticError: a sample beyond 3") as failure:
        cluster.minimize(AnyLoss(broken), outlier, np.ones(20), progress=False)
    assert failure.value.engine == 1
    assert "in broken" in str(failure.value)
    assert_same(cluster.minimize(NET, data, w0, progress=False, **OPTIONS), alone)


def engine_pids(cluster):
    return dict(zip(cluster.engines, cluster.client[cluster.engines].apply_sync(os.getpid), strict=True))


def test_killed_engine_costs_its_part_of_one_product(data, w0, alone):
    with Cluster(n=3, engines="local") as cluster:
        victim = engine_pids(cluster)[1]

        def kill_soon(record):
            if record.iteration == 2:
                threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()

        result = hessian_free(cluster.objective(NET, data), w0, callback=kill_soon, **OPTIONS)
        assert cluster.engines == [0, 2]
        assert_same(result, alone)


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


def test_all_engines_lost(data, w0):
    with Cluster(n=2, engines="local") as cluster:
        objective = cluster.objective(NET, data)
        for pid in engine_pids(cluster).values():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineFailure, match="all engines are lost: engine 0 died, engine 1 died"):
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
def test_mpi_run_starts_again_from_its_checkpoint(data, w0, alone, tmp_path, capsys):
    """Once an engine is killed, once one hangs: the run ends as if nothing had happened."""
    faults = {3: signal.SIGKILL, 6: signal.SIGSTOP}

    def strike(record):
        if record.iteration in faults:
            os.kill(engine_pids(cluster)[1], faults.pop(record.iteration))

    with leaves_nothing_behind() as look, Cluster(n=2, engines="mpi", deadline=3) as cluster:
        checkpoint = Checkpoint(tmp_path)
        look()
        result = cluster.minimize(
            NET, data, w0, callback=strike, progress=False, resume=checkpoint, **OPTIONS
        )
    assert_same(result, alone)
    assert capsys.readouterr().out.count("starting the engines again, from the last checkpoint") == 2
    assert not faults


@MPI
@pytest.mark.slow
def test_run_gives_up_after_max_failures(data, w0, tmp_path):
    def strike(record):
        os.kill(engine_pids(cluster)[0], signal.SIGKILL)

    options = {"callback": strike, "resume": Checkpoint(tmp_path), "max_failures": 1, "progress": False}
    causes = "gave up after 2 failures: engine 0 died, after iteration 0; engine 0 died, after iteration 0"
    with Cluster(n=1, engines="mpi") as cluster, pytest.raises(EngineLost, match=causes):
        cluster.minimize(NET, data, w0, **options)


DRIVER = """
import os, signal, sys, pickle
from hfnb.checkpoint import Checkpoint
from hfnb.engines import Cluster
net, data, w0, options = pickle.load(sys.stdin.buffer)
def die(record):
    if record.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
with Cluster(n=2, engines="mpi") as cluster:
    cluster.minimize(net, data, w0, callback=die, resume=Checkpoint(sys.argv[1]), **options)
"""


@MPI
@pytest.mark.slow
def test_killed_driver_resumes(mpi_pair, data, w0, alone, tmp_path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    job = pickle.dumps((NET, data, w0, OPTIONS))
    ended = subprocess.run(command, env=PATHS, input=job, stderr=subprocess.DEVNULL)
    assert ended.returncode == -signal.SIGKILL
    through = mpi_pair.minimize(NET, data, w0, progress=False, **OPTIONS)
    resumed = mpi_pair.minimize(NET, data, w0, progress=False, resume=Checkpoint(tmp_path), **OPTIONS)
    assert resumed.x.tobytes() == through.x.tobytes()
    assert_same(resumed, alone)


@pytest.mark.slow
def test_four_engines_then_three_then_four(data, w0, alone, tmp_path):
    checkpoint = Checkpoint(tmp_path)
    for last_iteration in (6, 10):
        with Cluster(n=4, engines="local") as cluster:

            def kill_one(record):
                if record.iteration == 3:
                    os.kill(engine_pids(cluster)[2], signal.SIGKILL)

            objective = cluster.objective(NET, data)
            options = {**OPTIONS, "max_iter": last_iteration, "resume": checkpoint}
            result = hessian_free(objective, w0, callback=kill_one, **options)
            assert len(cluster.engines) == (3 if last_iteration == 6 else 4)
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
    with pytest.warns(RuntimeWarning, match=r"not finite in partition 23 \(engine 1\)"):
        cluster.minimize(AnyLoss(loss), outlier, np.ones(20), callback=callback, progress=False, max_iter=5)
    (w2, damping2), (w3, damping3), (w4, _) = seen[2:5]
    assert w3.tobytes() == w2.tobytes() != w4.tobytes()
    assert damping3 > damping2


def test_controller_killed(data, w0):
    with leaves_nothing_behind() as look, Cluster(n=1, engines="local") as cluster:
        objective = cluster.objective(NET, data)
        look()
        cluster.client.cluster.controller.process.kill()  # its schedulers live on
        with pytest.raises(EngineFailure, match="controller"):
            objective.value(w0)


# Start and stop


def test_engines_stop_after_an_exception():
    def fail():
        with Cluster(n=2):
            look()
            raise ZeroDivisionError

    with leaves_nothing_behind() as look, pytest.raises(ZeroDivisionError):
        fail()


SCRIPT = """
import time, psutil
from hfnb.engines import Cluster
cluster = Cluster(n=2).start()
print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["", "time.sleep(60)"], ids=["exit", "SIGKILL"])
def test_engines_end_with_their_client(then):
    script = SCRIPT.format(then=then)
    with subprocess.Popen([sys.executable, "-c", script], env=PATHS, stdout=subprocess.PIPE) as client:
        processes = [psutil.Process(int(pid)) for pid in client.stdout.readline().split()]
        assert len(processes) > 3
        if then:
            client.kill()
    wait_until(lambda: not running(processes))


def test_quiet(capfd, data, w0):
    with Cluster(n=1, engines="local") as cluster:
        cluster.objective(NET, data).value(w0)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def started_by_hand():
    command = [sys.executable, "-m", "ipyparallel.cluster", "start", "-n", "2", "--engines=local"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with leaves_nothing_behind() as look, subprocess.Popen(command, **quiet) as process:
        yield process
        look()
        process.send_signal(signal.SIGINT)


def attach(name):
    """Attach as soon as both engines are up."""
    end = time.monotonic() + 30
    while True:
        try:
            return Cluster(n=2, engines=name).start()
        except ValueError:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_attach_to_engines_started_by_hand(started_by_hand, data, w0):
    expected = pytest.approx(Objective(NET, data).value(w0), rel=1e-12)
    for _ in range(2):  # the first to leave must not stop them
        cluster = attach("default")
        assert cluster.objective(NET, data).value(w0) == expected
        cluster.stop()


def test_attach_by_cluster_id(pair, data, w0):
    with Cluster(n=1, engines=pair.client.cluster.cluster_id) as cluster:
        assert cluster.engines == [0]
        cluster.objective(NET, data).value(w0)
    assert len(pair.client.ids) == 2


def test_mpi_missing_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(launch.shutil, "which", lambda name, path=None: None)
    assert launch.choose(None) == launch.choose("mpi") == "local"
    assert capsys.readouterr().out.splitlines() == 2 * [
        "MPI is not available here (mpiexec not found): using local engines."
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n: expected a whole number, at least 1, got 0"),
        ({"n": -2}, ValueError, "n: .* got -2"),
        ({"n": 1.5}, ValueError, "n: .* got 1.5"),
        ({"threads": 0}, ValueError, "threads: .* got 0"),
        ({"engines": "mpl"}, ValueError, r"engines: expected a launcher \(.*local, .*mpi, .*got 'mpl'"),
        ({"engines": 3}, TypeError, "engines: expected a name, got 3"),
        (
            {"n": 1, "engines": "local", "timeout": 0.01},
            RuntimeError,
            "1 engines .* did not start within 0.01 s",
        ),
    ],
    ids=str,
)
def test_bad_clusters(options, error, message):
    with pytest.raises(error, match=message):
        Cluster(**options).start()


def test_bad_input(pair, data, w0):
    with pytest.raises(ValueError, match="partitions: expected at least 2, one an engine, got 1"):
        pair.objective(NET, data, partitions=1)
    with pytest.raises(ValueError, match="3"):
        pair.objective(models.mlp([3, 2]), data)
    with pytest.raises(ValueError, match="curvature: expected one of"):
        pair.objective(NET, data).curvature(w0, "newton")
    with pytest.raises(TypeError, match="net: expected something that can be pickled"):
        pair.objective(AnyLoss(threading.Lock()), data)
    with pytest.raises(ValueError, match="n: expected at most 2"):
        Cluster(n=3, engines=pair.client.cluster.cluster_id).start()
    with pytest.raises(RuntimeError, match="the cluster is not running"):
        Cluster(n=1).objective(NET, data)
