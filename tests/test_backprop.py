"""Back-propagation by hand against autograd on the plainly written network."""

import numpy as np
import pytest
from autograd import value_and_grad

from hfnb.models import autoencoder, mlp
from hfnb.models.backprop import Linearized, ManualBackprop, Workspace, add_gradient
from hfnb.objectives.curvature import curvature_sum

RANDOM = np.random.default_rng(0)
BUILD = {
    "classifier": lambda activation: mlp([5, 6, 4, 3], activation),
    "regression": lambda activation: mlp([5, 6, 4, 3], activation, "squared_error"),
    "autoencoder": lambda activation: autoencoder([5, 4, 2], activation),
    "one layer": lambda activation: mlp([5, 3], activation),
}


@pytest.fixture(params=[(b, a) for b in BUILD for a in ("tanh", "sigmoid", "relu", "softplus")], ids="-".join)
def case(request):
    net = BUILD[request.param[0]](request.param[1])
    X = RANDOM.standard_normal((7, 5))
    labels = net.loss_name == "cross_entropy"
    Y = RANDOM.integers(0, 3, 7) if labels else RANDOM.standard_normal((7, net.sizes[-1]))
    return net, net.init(0, dtype=float) + 0.1, X, Y, Workspace(net, 9, float)


def test_loss_and_gradient_are_those_of_autograd(case):
    net, w, X, Y, work = case
    value, gradient = value_and_grad(net.loss)(w, X, Y)
    total = np.zeros_like(w)
    assert add_gradient(net, w, X, Y, total, work) == pytest.approx(7 * value, rel=1e-13)
    np.testing.assert_allclose(total, 7 * gradient, atol=1e-13)
    np.testing.assert_allclose(net.forward(w, X, work.a)[-1], net.outputs(w, X), atol=1e-14)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
def test_products_are_those_of_autograd_and_repeat(case, kind):
    net, w, X, Y, work = case
    linearized = Linearized(net, len(X), w.dtype, hessian=kind == "hessian").at(w, X, Y, work)
    for first in (False, True):
        v, total = RANDOM.standard_normal(w.size), np.ones_like(w)
        linearized.add_product(v, total, work, first)
        expected = curvature_sum(kind)(net, w, X, Y)(v)
        np.testing.assert_allclose(total, expected if first else 1 + expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
def test_what_is_not_kept_is_linearized_in_the_same_arrays(case, kind):
    net, w, X, Y, work = case
    manual, v = ManualBackprop(net), RANDOM.standard_normal(w.size)
    found = []
    for shift, rows in ((0.0, 7), (0.1, 7), (0.1, 4)):
        total = np.zeros_like(w)
        found.append(manual.linearize(w + shift, X[:rows], Y[:rows], kind, work, keep=False))
        found[-1].add_product(v, total, work)
        expected = curvature_sum(kind)(net, w + shift, X[:rows], Y[:rows])(v)
        np.testing.assert_allclose(total, expected, atol=1e-12)
    assert found[0] is found[1] is not found[2]
