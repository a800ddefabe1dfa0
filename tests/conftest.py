"""Fixtures that several test modules share: clusters that start once, and the run in one process."""

import os
import signal

import numpy as np
import pytest
from on_engines import NET, OPTIONS
from threadpoolctl import threadpool_limits

from hfnb import Dataset, Objective, hessian_free
from hfnb.engines import Cluster, blas


def pytest_configure(config):
    words = "needs(suite, lacks): skipped if it is said what a suite lacks here, failed where CI=true"
    config.addinivalue_line("markers", words)
    # A job in the background of a shell ignores Ctrl-C, and so would all programs that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip a test of a suite that cannot run here; fail it in CI, where nothing may be left out."""
    for mark in item.iter_markers("needs"):
        suite, lacks = mark.args
        if lacks and os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and the suite {suite} cannot run here: it needs {lacks}", pytrace=False)
        if lacks:
            pytest.skip(f"{suite}: needs {lacks}")


@pytest.fixture(scope="session")
def own_ipython_dir(tmp_path_factory):
    """Clusters of these tests are found by these tests alone; engines run the client's BLAS kernel."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        if blas.kernel():
            patch.setenv(blas.KERNEL_VARIABLE, blas.kernel())
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
def mpi_cluster(request, own_ipython_dir):
    with Cluster(n=request.param, engines="mpi") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def pair(own_ipython_dir):
    """Two engines without MPI."""
    with Cluster(n=2, engines="local") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def mpi_pair(own_ipython_dir):
    with Cluster(n=2, engines="mpi") as cluster:
        yield cluster
