"""What the tests of engines share besides fixtures: a small network, the same run twice, processes."""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from hfnb import models
from hfnb.engines import launch

PATHS = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
NET = models.mlp([20, 15, 10, 5])
OPTIONS = {"max_iter": 6, "curvature_batch_size": 400}  # of 603: enough rows a partition to be summed apart
MPI = pytest.mark.needs("MPI", launch.mpi_missing())


def assert_same(result, expected):
    np.testing.assert_allclose(result.x, expected.x, rtol=0, atol=1e-12 * np.linalg.norm(expected.x))
    assert result.nit == expected.nit
    for record, other in zip(result.history, expected.history, strict=True):
        assert record.products == other.products
        assert record.loss == pytest.approx(other.loss, rel=1e-12)


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def running(processes):
    """Return those that have not ended; one may end between two questions about it."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextmanager
def leaves_nothing_behind():
    """Every process started within, and every one that these start, has ended at the end."""
    before, found = set(psutil.Process().children(recursive=True)), set()
    yield lambda: found.update(set(psutil.Process().children(recursive=True)) - before)
    assert found, "nothing was started"
    wait_until(lambda: not running(found))


def stops_softly():
    """Whether Ctrl-C is taken as the wish to stop after the iteration, as it is during `Cluster.minimize`."""
    return signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def press_ctrl_c(times=1, when=stops_softly):
    """Press Ctrl-C as soon as ``when()`` is true, from another thread."""

    def press():
        wait_until(when, seconds=60)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise
    threading.Thread(target=press, daemon=True).start()


LONG = {"max_iter": 10**6, "tol": 0.0, "damping": 1e3}


def engine_pids(cluster):
    return dict(zip(cluster.engines, cluster.client[cluster.engines].apply_sync(os.getpid), strict=True))
