"""The same float64 run to 1e-12: threads here and on engines, numbers of engines, BLAS kernels."""

import json
import platform
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from on_engines import MPI, PATHS

from hfnb.engines import blas
from hfnb.threads import THREAD_VARIABLES

pytestmark = pytest.mark.slow

# 784-60-10: more than 10,000 parameters, from where on OpenBLAS splits a dot product, and matrix products
# that it splits.
PROGRAM = """
import json, os, sys
import numpy as np
import hfnb
from hfnb import Cluster, Dataset, Objective, hessian_free, krylov, models
from hfnb.optimizers import Recorder, Status

ALPHAS = np.array([0.25, 0.5, 1.0, 2.0])

def solution(cell, w, g):
    return krylov.cg(cell.curvature(w, "gauss-newton"), -g, damping=1.0, max_iter=5).x

def local_solves(objective, w, callback=None, max_iter=3):
    recorder = Recorder(objective, callback)
    for iteration in range(max_iter + 1):
        loss, g = objective.value_and_gradient(w)
        costs = {"gradient_norm": krylov.norm(g), "batch_size": objective.counts.samples}
        recorder.add(w, iteration=iteration, loss=loss, **costs)
        step = objective.average(solution, w, g, size=w.size)
        w = w + ALPHAS[np.argmin(objective.values_along(w, step, ALPHAS))] * step
    return recorder.result(w, Status.MAX_ITER, "")

engines, threads, options = json.loads(sys.argv[1])
n, noise = options.pop("samples", 1200), options.pop("noise", 0.5)
cells = options.pop("cells", None)
minimize = hessian_free if cells is None else local_solves
os.environ.pop("OPENBLAS_CORETYPE", None)  # engines must learn the kernel from hfnb, not by inheritance
random = np.random.default_rng(0)
labels = random.integers(10, size=n)
images = random.random((10, 784))[labels] + noise * random.standard_normal((n, 784))
net, data = models.mlp([784, 60, 10], weight_decay=1e-5), Dataset(images, labels)
w0 = net.init(0, dtype=float)
if engines is None:
    result = minimize(Objective(net, data, cells=cells), w0, **options)
else:
    with Cluster(n=engines[1], engines=engines[0], threads=threads) as cluster:
        result = cluster.minimize(net, data, w0, minimize, cells=cells, progress=False, **options)
found = [[record.loss, record.gradient_norm, record.products, record.batch_size] for record in result.history]
print(json.dumps([found, result.x[::500].tolist()]))
"""
GAUSS_NEWTON = {"solver": "cg", "curvature": "gauss-newton", "max_iter": 4}
AUTO = {"method": "auto", "max_iter": 6, "samples": 2400, "noise": 4.0}  # mini-batches of 500, at last all
IN_CELLS = {"cells": 16, "max_iter": 3}
SUBSPACE = {"solver": "saddle_free", "step": "subspace", "max_iter": 2, "solver_options": {"max_iter": 12}}


@cache
def run(engines, threads, options, **variables):
    kept = {
        name: value for name, value in PATHS.items() if name not in (blas.KERNEL_VARIABLE, *THREAD_VARIABLES)
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps([engines, threads, json.loads(options)])]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_same(found, expected):
    (history, x), (others, y) = found, expected
    np.testing.assert_allclose(history, others, rtol=1e-12)
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-12 * np.max(np.abs(y)))


@pytest.mark.parametrize("options", [GAUSS_NEWTON, SUBSPACE], ids=["gauss-newton", "subspace"])
@pytest.mark.parametrize("variables", [{}, {"OPENBLAS_NUM_THREADS": "2"}], ids=["default", "2 requested"])
def test_threads_of_one_process(options, variables):
    """Without a variable OpenBLAS has a thread for each core, which hfnb leaves as it is outside its sums."""
    one = run(None, 1, json.dumps(options), OPENBLAS_NUM_THREADS="1")
    assert_same(run(None, 1, json.dumps(options), **variables), one)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engines", [("local", 2), pytest.param(("mpi", 3), marks=MPI)], ids=str)
def test_engines_and_their_threads(engines, threads):
    one = run(None, 1, json.dumps(GAUSS_NEWTON), OPENBLAS_NUM_THREADS="1")
    assert_same(run(engines, threads, json.dumps(GAUSS_NEWTON)), one)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engines", [None, ("local", 3), pytest.param(("mpi", 4), marks=MPI)], ids=str)
def test_local_solves_on_engines_and_their_threads(engines, threads):
    """The cells hold 75 samples each, whatever the number of engines."""
    one = run(None, 1, json.dumps(IN_CELLS), OPENBLAS_NUM_THREADS="1")
    assert one[0][-1][0] < 0.5 * one[0][0][0]
    assert_same(run(engines, threads, json.dumps(IN_CELLS), OPENBLAS_NUM_THREADS=str(threads)), one)


@pytest.mark.parametrize(
    "engines", [("local", 1), ("local", 4), pytest.param(("mpi", 3), marks=MPI)], ids=str
)
def test_growing_batches_on_engines(engines):
    one = run(None, 1, json.dumps(AUTO), OPENBLAS_NUM_THREADS="1")
    sizes = [size for *_, size in one[0]]
    assert {sizes[0], sizes[-1]} == {500, 2400}
    assert_same(run(engines, 1, json.dumps(AUTO)), one)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or blas.kernel() is None,
    reason="numpy has another BLAS than OpenBLAS here, or it has no kernels to choose from",
)
def test_engines_run_the_kernel_of_the_client():
    """Nehalem's kernel runs on every x86-64 processor; nearly all choose another one by themselves."""
    variables = {blas.KERNEL_VARIABLE: "Nehalem"}
    one = run(None, 1, json.dumps(GAUSS_NEWTON), **variables)
    assert_same(run(("local", 2), 1, json.dumps(GAUSS_NEWTON), **variables), one)
