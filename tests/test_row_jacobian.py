"""The Jacobian of all rows by one way back, against one way back for each row."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import jacobian

from hfnb import Dataset, Objective, models
from hfnb.models import row_jacobian as module
from hfnb.models.network import Layer
from hfnb.models.row_jacobian import FEW, following, product, row_jacobian
from hfnb.objectives import residuals

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((7, 2))
NET = models.mlp([2, 5, 4, 3])
PLANE = models.mlp([2, 5, 4, 1], loss="squared_error")
FIRST, SECOND = Layer(0, 2, 4), Layer(12, 4, 4)
LAST = Layer(32, 4, 1)
SIZE = LAST.stop


def with_derivative(w):
    """A network and its derivative with respect to the first input, by products without biases."""
    a, da = X, anp.array([[1.0, 0.0]]) * anp.ones((len(X), 1))
    for layer in (FIRST, SECOND, LAST):
        W = layer.weights(w)
        z, dz = product(a, W, layer.biases(w)), product(da, W)
        a, da = anp.tanh(z), (1 - anp.tanh(z) ** 2) * dz
    return anp.concatenate([z * dz, anp.sin(dz)], axis=1)


def recurrent(w):
    """The same layer again and again; a vector with one number for each row."""
    h = anp.tanh(product(X, FIRST.weights(w), FIRST.biases(w)))
    for _ in range(6):
        h = anp.tanh(product(h, SECOND.weights(w), SECOND.biases(w)) + X[:, :1])
    return product(h, LAST.weights(w))[:, 0]


def outputs_of_a_network(w):
    return anp.exp(NET.outputs(w, X))


def blocks(w):
    """Two blocks of rows in one product."""
    z = product(anp.concatenate([product(X, FIRST.weights(w)), anp.ones((7, 4))]), SECOND.weights(w))
    return anp.tanh(z[:7]) * product(z[7:], LAST.weights(w), LAST.biases(w))


def scattered(w):
    """Two networks in one vector, and weights that are every other parameter."""
    half = NET.outputs(w[NET.size : 2 * NET.size], X) * NET.outputs(w[: NET.size], X)
    return half + product(X, anp.reshape(w[2 * NET.size :: 2], (2, 3)), w[2 * NET.size + 1 :: 4])


def unused(w):
    """A product that the result does not depend on."""
    product(X, FIRST.weights(w))
    return outputs_of_a_network(w)


CASES = {"derivative": (with_derivative, SIZE), "recurrent": (recurrent, SIZE)}
CASES |= {
    "blocks": (blocks, SIZE),
    "network": (outputs_of_a_network, NET.size),
    "scattered": (scattered, 2 * NET.size + 12),
    "unused": (unused, NET.size),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_autograd(name):
    f, size = CASES[name]
    w = RANDOM.standard_normal(size)
    expected = jacobian(f)(w).reshape(-1, size)
    assert row_jacobian(f, w, len(X)) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    single = row_jacobian(f, w.astype(np.float32), len(X))
    assert single.dtype == np.float32
    assert single == pytest.approx(expected, rel=1e-2, abs=1e-3)


OTHERWISE = pytest.mark.parametrize(
    "f",
    [
        lambda w: recurrent(w) * w[0],
        lambda w: recurrent(w) + X @ w[:2],
        lambda w: recurrent(w) + 1e-6 * anp.sum(w**2),
        lambda w: with_derivative(w) + anp.tanh(X @ FIRST.weights(w))[:, :2],
        lambda w: product(X, 2 * FIRST.weights(w)),
        lambda w: product(X, anp.reshape(w[:8] + w[8:16], (2, 4))),
        lambda w: anp.reshape(product(anp.concatenate([X, X]), FIRST.weights(w)), (7, 8)),
    ],
    ids=["factor", "sum", "small", "own product", "scaled weights", "added weights", "rows mixed up"],
)


@OTHERWISE
def test_other_uses_of_w_are_noticed(f, monkeypatch):
    monkeypatch.setattr(module, "FEW", 0)
    w = RANDOM.standard_normal(SIZE + 8)
    assert row_jacobian(f, w, len(X)) is None


@OTHERWISE
def test_a_few_other_uses_of_w_are_computed_and_more_are_refused(f):
    w = RANDOM.standard_normal(SIZE + 8)
    found, expected = row_jacobian(f, w, len(X)), jacobian(f)(w).reshape(-1, w.size)
    assert found is None or found == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert (
        row_jacobian(lambda w: f(w[FEW + 1 :]) + anp.sum(w[: FEW + 1]), np.append(np.ones(FEW + 1), w), 7)
        is None
    )


def test_unknown_coefficients_are_computed():
    """As in a differential equation with unknown coefficients, one of which is a weight as well."""

    def f(w):
        u, (u_x, u_xx), _ = models.derivatives(PLANE, w[:-2], X, (2, 0))
        return u_xx + w[-2] * u_x + anp.exp(w[-1]) * u**2 + w[0] * X[:, :1]

    w = RANDOM.standard_normal(PLANE.size + 2)
    expected = jacobian(f)(w).reshape(len(X), -1)
    assert row_jacobian(f, w, len(X)) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    single = row_jacobian(f, w.astype(np.float32), len(X))
    assert single.dtype == np.float32
    assert single == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_nothing_is_followed_afterwards():
    with pytest.raises(ZeroDivisionError):
        row_jacobian(lambda w: 1 / 0, np.ones(3), 1)
    assert following.products is None


@pytest.mark.parametrize("factor", [False, True], ids=["one way back", "one for each row"])
def test_jacobians_of_objectives_are_the_same_both_ways(factor, monkeypatch):
    """A residual that uses w otherwise takes the slow way, and has the right Jacobian, too."""
    slow, calls = residuals._one_by_one, []
    monkeypatch.setattr(residuals, "_one_by_one", lambda *given: calls.append(1) or slow(*given))
    net = models.mlp([2, 5, 1], loss="squared_error")

    def r(w, X, Y):  # more parameters are used otherwise than the quick way allows
        return net.outputs(w[:-20], X) * (anp.sum(w[-20:]) if factor else 1.0) - Y

    def first(w, X, Y):
        return net.outputs(w, X) - Y

    data, edge = Dataset(X, X[:, :1]), Dataset(X[:3], X[:3, :1])
    objective = Objective.from_residuals([r if factor else first, first if not factor else r], [data, edge])
    w = RANDOM.standard_normal(net.size + 20 * factor)
    J, h = objective.jacobian(w), 1e-6
    differences = [
        (objective.residuals(w + h * e) - objective.residuals(w - h * e)) / (2 * h) for e in np.eye(w.size)
    ]
    assert pytest.approx(np.stack(differences, axis=1), rel=1e-6, abs=1e-8) == J
    assert bool(calls) == factor
