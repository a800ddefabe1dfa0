"""Memory stays flat, through iterations and products without end, and Ctrl-C leaves everything usable."""

import threading

import numpy as np
import psutil
import pytest
from jupyter_client import KernelManager
from on_engines import MPI, PATHS, engine_pids, running, wait_until

from hfnb import models
from hfnb.engines import Cluster

pytestmark = [pytest.mark.usefixtures("own_ipython_dir"), pytest.mark.slow]
GROWTH = 2.9e6  # bytes by which an engine may grow
# The C library gives each block that is larger than this back to the system at once. Otherwise it would keep
# freed vectors for later, in numbers that depend on when messages arrive.
RETURN_BLOCKS = "MALLOC_MMAP_THRESHOLD_", "65536"


def resident(pids):
    """Bytes in memory of each process."""
    return np.array([psutil.Process(pid).memory_info().rss for pid in pids], dtype=float)


@pytest.mark.parametrize("launcher", [pytest.param("mpi", marks=MPI), "local"])
def test_engines_keep_no_vectors_of_earlier_iterations(launcher, data, monkeypatch):
    """An engine keeps the record of each iteration, but no vector; each vector has 208 kB."""
    monkeypatch.setenv(*RETURN_BLOCKS)
    net, seen = models.mlp([20, 1000, 5]), {}
    with Cluster(n=2, engines=launcher) as cluster:
        pids = list(engine_pids(cluster).values())

        def weigh(record):
            if record.iteration in (20, 120):
                seen[record.iteration] = resident(pids)

        w0 = net.init(0, dtype=np.float64)
        options = {"max_iter": 120, "tol": 0.0, "batch_size": 100, "solver_options": {"max_iter": 2}}
        cluster.minimize(net, data, w0, callback=weigh, progress=False, partitions=4, **options)
    assert (seen[120] - seen[20] <= 100 * w0.nbytes / 4).all(), seen


PREPARE = """
import os, psutil, numpy as np
from hfnb import Dataset, models
from hfnb.engines import Cluster
random = np.random.default_rng(0)
data = Dataset(random.standard_normal((8, 1000)), random.integers(0, 10, 8))
net = models.mlp([1000, 400, 10])
w = net.init(0, dtype=np.float64)
cluster = Cluster(n=2, engines="local").start()
objective = cluster.objective(net, data, partitions=2)
H = objective.curvature(w)
def multiply(times):
    v = w
    for _ in range(times):
        v = H @ v
        v /= np.linalg.norm(v)
multiply(100)
first = objective.value(w)
print(w.size, os.getpid(), *[child.pid for child in psutil.Process().children(recursive=True)])
"""


class Kernel:
    """A kernel as JupyterLab starts it."""

    def __init__(self):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=PATHS | dict([RETURN_BLOCKS]))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code, interrupt=False):
        """Run a cell, and interrupt it after its output; return what it printed or the exception's name."""
        printed = []

        def hook(message):
            printed.append(message["content"].get("text", ""))
            if interrupt and printed[-1]:
                threading.Timer(1, self.manager.interrupt_kernel).start()

        reply = self.client.execute_interactive(code, timeout=600, output_hook=hook)["content"]
        return "".join(printed) if reply["status"] == "ok" else reply["ename"]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def test_400_products_then_ctrl_c_in_a_notebook():
    """Engines are as large as before, kernel and controller keep no vectors, all are usable and then gone."""
    kernel = Kernel()
    try:
        size, *pids = map(int, kernel.run(PREPARE).split())
        processes = [psutil.Process(pid) for pid in pids]
        assert size > 400_000
        assert len(processes) > 4
        before = resident(pids)
        assert kernel.run("multiply(400)") == ""
        after = resident(pids)
        engines = ["ipyparallel.engine" in process.cmdline() for process in processes]
        assert sum(engines) == 2
        assert (after[engines] - before[engines] <= GROWTH).all(), (before, after)  # less than one vector
        assert (after - before < 10 * 8 * size).all(), (before, after)  # of 1,600 vectors that passed through
        endless = "print('started', flush=True); multiply(10**6)"
        assert kernel.run(endless, interrupt=True) == "KeyboardInterrupt"
        assert kernel.run("print(objective.value(w) == first, cluster.engines)") == "True [0, 1]\n"
    finally:
        kernel.close()
    wait_until(lambda: not running(processes))
