"""The evaluators of one process, of client-driven and engine-driven runs have the same methods and totals."""

import inspect

import autograd.numpy as anp
import numpy as np
import pytest
from on_engines import MPI
from scipy.optimize import OptimizeResult

from hfnb import Objective, Sample
from hfnb.engines.distributed_evaluators import ClientEvaluator, MPIEvaluator
from hfnb.objectives.compensated_sums import value
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.objective import AnyLoss

pytestmark = pytest.mark.usefixtures("own_ipython_dir")


def least_squares(w, X, Y):
    return anp.mean((anp.dot(X, w) - Y) ** 2)


ALPHAS = np.array([-0.5, 0.0, 2.0])


def sum_of_inputs(evaluator, number, w, scale):
    """A task in the form that evaluators take it: the sum over a cell's rows, and its number."""
    ((X, _),) = evaluator.shards.parts.values()
    return np.append(scale * X.sum(axis=0), number).astype(w.dtype)


def totals(objective, w0, callback=None, sample=None):
    """An optimizer that only returns what its evaluator does."""
    evaluator = objective.evaluator
    found = {
        "loss": evaluator.loss(w0, sample),
        "losses_along": evaluator.losses_along(w0, w0[::-1].copy(), ALPHAS, sample),
        "gradient": evaluator.gradient(w0, sample),
        "average": evaluator.average(sum_of_inputs, w0, (0.5,), 21),
        "product": evaluator.linearize(w0, "hessian", sample)(w0),
    }
    return OptimizeResult(x=w0, nit=0, n=evaluator.n, cells=evaluator.cells, totals=found)


@pytest.mark.parametrize("method", ["loss", "losses_along", "gradient", "average", "linearize", "identity"])
@pytest.mark.parametrize("evaluator", [ClientEvaluator, MPIEvaluator])
def test_methods_take_the_same_arguments(method, evaluator):
    """Those of one process may take more, by default."""
    expected = inspect.signature(getattr(LocalEvaluator, method)).parameters
    found = inspect.signature(getattr(evaluator, method)).parameters
    assert list(expected)[: len(found)] == list(found)
    assert all(expected[name].default is not inspect.Parameter.empty for name in expected.keys() - found)


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sample", [None, Sample(400, seed=1)], ids=["all", "400"])
def test_totals_are_the_same(kind, dtype, sample, data, request):
    """Least squares, whose gradient 2 Xᵀ(Xw − y) and product 2 XᵀX v NumPy gives."""
    cluster, net = request.getfixturevalue(kind), AnyLoss(least_squares)
    w = np.linspace(-1, 1, 20).astype(dtype)
    local = totals(Objective(net, data, cells=6, cell_seed=None), w, sample=sample)
    options = {"cells": 6, "cell_seed": None}
    if cluster.has_mpi:
        remote = cluster.minimize(net, data, w, totals, progress=False, sample=sample, **options)
    else:
        remote = totals(cluster.objective(net, data, **options), w, sample=sample)
    assert remote.n == local.n == len(data)
    assert remote.cells == local.cells == 6
    rows = slice(None) if sample is None else sample.rows(np.arange(25) * len(data) // 24)
    X, residual = data.X[rows], data.X[rows] @ w.astype(float) - data.Y[rows]
    change = X @ w[::-1].astype(float)
    expected = {
        "loss": [residual @ residual],
        "losses_along": [np.sum((residual + alpha * change) ** 2) for alpha in ALPHAS],
        "average": [*(0.5 * data.X.sum(axis=0)), 0 + 1 + 2 + 3 + 4 + 5],
        "gradient": [*(2 * X.T @ residual), residual @ residual],
        "product": 2 * X.T @ (X @ w.astype(float)),
    }
    for name, total in remote.totals.items():
        assert total.shape == local.totals[name].shape
        assert total.dtype == local.totals[name].dtype
        assert total.ndim == (2 if total.dtype == np.float64 else 1)
        scale = np.abs(expected[name]).max()
        near, exact = (1e-14, 1e-12) if dtype == np.float64 else (1e-5, 1e-5)
        np.testing.assert_allclose(value(total), value(local.totals[name]), rtol=0, atol=near * scale)
        np.testing.assert_allclose(value(total), expected[name], rtol=0, atol=exact * scale)


def test_an_objective_offers_the_clock_of_its_evaluator(pair, data):
    objective = pair.objective(AnyLoss(least_squares), data)
    assert objective.clock is objective.evaluator.clock
