"""Engines: the same run on any number of them and either way, clean starts and ends, clear errors."""

import signal
import subprocess
import sys
import threading
import time

import autograd.numpy as anp
import numpy as np
import psutil
import pytest
from on_engines import (
    LONG,
    MPI,
    NET,
    OPTIONS,
    PATHS,
    assert_same,
    leaves_nothing_behind,
    press_ctrl_c,
    running,
    wait_until,
)

from hfnb import Dataset, Objective, Sample, first_order, hessian_free, models
from hfnb.engines import Cluster, EngineFailure, launch
from hfnb.objectives.objective import AnyLoss
from hfnb.optimizers.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("own_ipython_dir")


# The same run, client-driven or engine-driven


@MPI
def test_same_first_order_run(mpi_pair, data, w0):
    options = {"method": "adam", "learning_rate": 1e-3, "batch_size": 60, "max_iter": 3, "seed": 1}
    expected = first_order(Objective(NET, data), w0, **options)
    assert_same(mpi_pair.minimize(NET, data, w0, first_order, progress=False, **options), expected)


def test_without_mpi_a_run_is_client_driven(pair, data, w0, alone, caplog):
    result = pair.minimize(NET, data, w0, progress=False, **OPTIONS)
    assert "not connected by MPI" in caplog.text
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


def test_fewer_samples_than_partitions(pair):
    few = Dataset(np.eye(20)[:5], np.arange(5))
    w = NET.init(0, dtype=np.float64)
    expected = Objective(NET, few).value(w)
    assert pair.objective(NET, few, partitions=24).value(w) == pytest.approx(expected, rel=1e-12)


# The reader's own functions, callbacks, Ctrl-C


def test_an_optimizer_that_returns_no_result_is_named(pair, data, w0):
    def bare(objective, w0, callback=None):
        return w0

    with pytest.raises(
        (TypeError, EngineFailure), match=r"optimizer: expected one that returns an OptimizeResult"
    ):
        pair.minimize(NET, data, w0, bare, progress=False)


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
    # To 1e-12, as is promised: with other data the last digit differs.
    losses = [record.loss for record in alone.history[:4]]
    assert [record.loss for record in seen] == pytest.approx(losses, rel=1e-12)
    assert seen == result.history


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_what_a_callback_adds_to_a_record_is_kept(kind, data, w0, tmp_path, request):
    """In the history of the result, and in that of the checkpoint."""

    def measure(record):
        record["error"] = NET.error(record.w, data)

    checkpoint, cluster = Checkpoint(tmp_path), request.getfixturevalue(kind)
    result = cluster.minimize(
        NET, data, w0, callback=measure, progress=False, checkpoint=checkpoint, max_iter=3
    )
    assert [record.error for record in result.history][-1] == NET.error(result.x, data)
    assert len([record.error for record in checkpoint.load()["history"]]) == 4


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
@pytest.mark.parametrize("answer", [np.True_, 1, np.array([True]), StopIteration], ids=repr)
def test_any_true_value_of_a_callback_stops(kind, answer, data, w0, request):
    def callback(record):
        if answer is StopIteration:
            raise StopIteration
        return answer

    cluster = request.getfixturevalue(kind)
    result = cluster.minimize(NET, data, w0, callback=callback, progress=False, max_iter=3)
    assert (result.nit, result.message) == (0, "stopped by the callback")


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_run_that_its_client_leaves_frees_the_checkpoint_folder(kind, data, w0, tmp_path, request):
    """An error of the callback ends the run on the engines, too: another run, here, may go on at once."""

    def callback(record):
        return np.zeros(2) if record.iteration == 2 else None

    cluster, options = request.getfixturevalue(kind), {"checkpoint": tmp_path, "max_iter": 4}
    with pytest.raises(ValueError, match="callback: expected None or one truth value"):
        cluster.minimize(NET, data, w0, callback=callback, progress=False, **options)
    assert hessian_free(Objective(NET, data), w0, **options).nit == 4


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_a_run_is_the_same_one_wherever_it_is_computed(kind, data, w0, tmp_path, request):
    """Begun here, gone on with by engines, both ways, and ended here; other data is refused by each."""
    cluster, options = (
        request.getfixturevalue(kind),
        {"checkpoint": str(tmp_path), "curvature_batch_size": 400},
    )
    other = Dataset(data.X, (data.Y + 1) % 5)
    runs = [
        lambda data, n: hessian_free(Objective(NET, data), w0, max_iter=n, **options),
        lambda data, n: cluster.minimize(NET, data, w0, progress=False, max_iter=n, **options),
        lambda data, n: hessian_free(cluster.objective(NET, data), w0, max_iter=n, **options),
        lambda data, n: hessian_free(Objective(NET, data), w0, max_iter=n, **options),
    ]
    for number, run in enumerate(runs):
        assert run(data, number + 1).nit == number + 1
        with pytest.raises((ValueError, EngineFailure), match=r"checkpoint.*another run .*data.Y: expected "):
            run(other, number + 2)


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_functions_are_the_same_ones_on_engines(kind, data, tmp_path, request):
    """They travel by value, with the numbers around them; those of another scale are others."""

    def power(scale, degree=2):
        return lambda w, X, Y: anp.mean(scale * (anp.dot(X, w) - Y) ** degree)

    def minimize(scale, degree, n):
        options = {"max_iter": n, "checkpoint": tmp_path, "progress": False}
        return request.getfixturevalue(kind).minimize(
            AnyLoss(power(scale, degree)), data, np.ones(20), **options
        )

    objective = Objective.from_loss(power(1.0), data)
    assert hessian_free(objective, np.ones(20), max_iter=1, checkpoint=tmp_path).nit == 1
    assert minimize(1.0, 2, 2).nit == 2
    for other in ((2.0, 2), (1.0, 4)):
        with pytest.raises((ValueError, EngineFailure), match="network: expected AnyLoss"):
            minimize(*other, 3)


class Clumsy:
    """A checkpoint whose error cannot be sent."""

    def load(self):
        raise type("Own", (Exception,), {"__reduce__": lambda self: 1 / 0})("no such luck")

    def save(self, state):
        pass


@MPI
def test_error_that_cannot_be_sent_leaves_no_engine_waiting(mpi_pair, data, w0):
    with pytest.raises(EngineFailure, match="Own: no such luck"):
        mpi_pair.minimize(NET, data, w0, progress=False, checkpoint=Clumsy())


@MPI
def test_folder_in_use_is_said_by_engines(mpi_pair, data, w0, tmp_path):
    with Checkpoint(tmp_path).in_use(), pytest.raises(EngineFailure, match="in use by another run"):
        mpi_pair.minimize(NET, data, w0, progress=False, checkpoint=tmp_path)
    assert mpi_pair.minimize(NET, data, w0, progress=False, checkpoint=tmp_path, max_iter=1).nit == 1


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


def test_ctrl_c_in_a_client_driven_run(pair, data, w0):
    objective, started = pair.objective(NET, data), threading.Event()
    press_ctrl_c(when=started.is_set)
    with pytest.raises(KeyboardInterrupt):
        hessian_free(objective, w0, callback=lambda record: started.set(), **LONG)
    assert objective.value(w0) == pytest.approx(Objective(NET, data).value(w0), rel=1e-12)


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


def test_attach_to_engines_started_by_hand(started_by_hand, data, w0):
    expected = pytest.approx(Objective(NET, data).value(w0), rel=1e-12)
    for n in (None, 2):  # the first to leave must not stop them
        cluster = Cluster(n, engines="default").start()  # at once: it waits until they are up
        assert len(cluster.engines) == 2
        assert cluster.objective(NET, data).value(w0) == expected
        cluster.stop()


def test_attach_by_cluster_id(pair, data, w0):
    with Cluster(n=1, engines=pair.client.cluster.cluster_id) as cluster:
        assert cluster.engines == [0]
        cluster.objective(NET, data).value(w0)
    with pytest.raises(ValueError, match=r"hosts: only for engines that are started here; .* runs already"):
        Cluster(engines=pair.client.cluster.cluster_id, hosts=["a"]).start()
    assert len(pair.client.ids) == 2


SHOWN = """
import sys
from hfnb.engines import launch
launch.shutil.which = lambda name, path=None: None
assert launch.choose(sys.argv[1] if sys.argv[1:] else None) == "local"
"""


@pytest.mark.parametrize("engines", [[], ["mpi"]], ids=str)
def test_mpi_missing_is_said_in_a_line(engines):
    """Where nobody has set up logging: as in a notebook."""
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, *engines], env=PATHS, capture_output=True, text=True, check=True
    )
    line = "MPI is not available here (mpiexec not found): using local engines.\n"
    assert (done.stdout, done.stderr) == ("", line)


def test_local_engines_that_were_asked_for_are_not_worth_a_word(caplog):
    assert launch.choose("local") == "local"
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n: expected a whole number of at least 1, got 0"),
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
    with pytest.raises(ValueError, match="partitions: expected at least 2, one for each engine, got 1"):
        pair.objective(NET, data, partitions=1)
    with pytest.raises(ValueError, match=r"data.X: expected 3 columns for this network, got shape .603, 20."):
        pair.objective(models.mlp([3, 2]), data)
    with pytest.raises(ValueError, match="curvature: expected one of"):
        pair.objective(NET, data).curvature(w0, "newton")
    lock = threading.Lock()
    with pytest.raises(TypeError, match="net: expected something that can be pickled"):
        pair.objective(AnyLoss(lambda w, X, Y: 0.0 if lock else 1.0), data)
    with pytest.raises(ValueError, match="n: expected at most 2"):
        Cluster(n=3, engines=pair.client.cluster.cluster_id).start()
    with pytest.raises(RuntimeError, match="the cluster is not running"):
        Cluster(n=1).objective(NET, data)
