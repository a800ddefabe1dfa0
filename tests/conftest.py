"""Fixtures that tests of several rooms share: clusters that start once, and the run in one process."""

import numpy as np
import pytest
from on_engines import NET, OPTIONS
from threadpoolctl import threadpool_limits

from hfnb import Dataset, Objective, blas, hessian_free
from hfnb.engines import Cluster


@pytest.fixture(scope="session")
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
