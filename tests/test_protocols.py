"""What an objective, an evaluator and a model offer; and how few calls lie between optimizer and product."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess
from scipy.sparse.linalg import aslinearoperator

import hfnb
from hfnb import Dataset, Objective, first_order, hessian_free, models
from hfnb.models.backprop import Linearized
from hfnb.objectives import Evaluator, Model, ObjectiveLike
from hfnb.objectives.costs import Counts
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.sampling import Shards
from hfnb.optimizers.scipy_adapter import Functions
from hfnb.problems import rosenbrock

NET = models.mlp([6, 5, 3])
RANDOM = np.random.default_rng(0)
DATA = Dataset(RANDOM.standard_normal((60, 6)), RANDOM.integers(0, 3, 60))
PACKAGE = Path(hfnb.__file__).parent


def test_what_is_ours_offers_what_the_protocols_ask_for():
    assert isinstance(Objective(NET, DATA), ObjectiveLike)
    assert isinstance(rosenbrock(), ObjectiveLike)
    assert isinstance(Functions(rosen, rosen_der, rosen_hess, None, ()), ObjectiveLike)
    assert isinstance(LocalEvaluator(NET, Shards.of(DATA, 4)), Evaluator)
    assert isinstance(NET, Model)
    assert isinstance(Objective.from_loss(lambda w, X, Y: w @ w, DATA).net, Model)


class Own:
    """SciPy's Rosenbrock function with no more than the protocol asks for."""

    n = 1

    def __init__(self):
        self.counts = Counts()

    def value(self, w, sample=None):
        return rosen(w)

    def value_and_gradient(self, w, sample=None):
        return rosen(w), rosen_der(w)

    def curvature(self, w, kind="hessian", sample=None):
        return aslinearoperator(rosen_hess(w))


def test_an_objective_of_a_users_own_needs_no_more_than_the_protocol():
    assert isinstance(Own(), ObjectiveLike)
    result = hessian_free(Own(), np.array([-1.2, 1.0]), max_iter=200)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-6)
    start = np.array([-1.2, 1.0])
    assert first_order(Own(), start, learning_rate=1e-3, max_iter=20).fun < rosen(start)


@pytest.mark.parametrize("method", ["paper", "martens", "auto"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_is_seven_calls_away_from_the_optimizer(method, dtype, monkeypatch):
    """Functions of this package on the stack, from `hessian_free` to the product over one chunk of rows.

    Seven for the products in a solver's loop. The residual that a warm start begins with, and the products of
    a probe, are at most nine away.
    """
    paths, multiply = set(), Linearized.add_product

    def spy(*arguments):
        frame, names = sys._getframe(1), ["add_product"]
        while frame is not None and names[-1] != "hessian_free":
            code = frame.f_code
            if Path(code.co_filename).is_relative_to(PACKAGE):
                names.append(code.co_name)
            frame = frame.f_back
        paths.add(tuple(reversed(names)))
        return multiply(*arguments)

    monkeypatch.setattr(Linearized, "add_product", spy)
    hessian_free(Objective(NET, DATA), NET.init(0, dtype=dtype), method=method, max_iter=3)
    assert paths
    assert all(path[0] == "hessian_free" and len(path) <= 9 for path in paths), paths
    solvers = {"paper": "bicgstab", "martens": "cg", "auto": "cg"}
    loop = {path for path in paths if path[:3] == ("hessian_free", solvers[method], "product")}
    assert {len(path) for path in loop} == {7}, loop
