"""The states of a recurrent network against finite differences and a loop that autograd follows."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.differential_operators import make_ggnvp, make_hvp
from autograd.test_util import check_grads

from hfnb import Dataset, Objective
from hfnb.models import product, recurrent_states

STEPS, ROWS, HIDDEN = 6, 3, 4
ENDS = STEPS * ROWS * HIDDEN


def loop(Z, B):
    states = [anp.tanh(Z[0])]
    for t in range(1, len(Z)):
        states.append(anp.tanh(Z[t] + anp.dot(states[-1], B)))
    return anp.stack(states)


def of_one_vector(function):
    """The states as a function of Z and B in one vector."""
    return lambda w: function(
        anp.reshape(w[:ENDS], (STEPS, ROWS, HIDDEN)), anp.reshape(w[ENDS:], (HIDDEN, HIDDEN))
    )


@pytest.fixture
def point():
    random = np.random.default_rng(0)
    return random.standard_normal(ENDS + HIDDEN**2), random.standard_normal(ENDS + HIDDEN**2)


def test_three_orders_of_derivatives_are_those_of_finite_differences():
    random = np.random.default_rng(1)
    Z, B = random.standard_normal((5, 2, 3)), random.standard_normal((3, 3))
    check_grads(recurrent_states, modes=["rev"], order=3)(Z, B)


def test_values_gradients_and_products_are_those_of_a_loop(point):
    w, v = point
    weights = np.random.default_rng(2).standard_normal((STEPS, ROWS, HIDDEN))
    ours, theirs = (of_one_vector(each) for each in (recurrent_states, loop))
    np.testing.assert_allclose(ours(w), theirs(w), rtol=1e-14)
    losses = [lambda w, each=each: anp.sum(weights * each(w) ** 2) for each in (ours, theirs)]
    np.testing.assert_allclose(*(grad(loss)(w) for loss in losses), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(*(make_hvp(loss)(w)[0](v) for loss in losses), rtol=1e-11, atol=1e-12)
    products = [make_ggnvp(each, lambda z: 0.5 * anp.sum(z**2))(w)(v) for each in (ours, theirs)]
    np.testing.assert_allclose(*products, rtol=1e-12, atol=1e-13)


def test_the_jacobian_is_made_by_one_way_back():
    """The rows of a Jacobian are gradients of single residuals."""
    random = np.random.default_rng(3)
    data = Dataset(random.standard_normal((7, 5 * 2)), random.standard_normal((7, 1)))

    def residuals(w, X, Y):
        A, B, C = anp.reshape(w[:6], (2, 3)), anp.reshape(w[6:15], (3, 3)), anp.reshape(w[15:], (3, 1))
        inputs = X.reshape(len(X), 5, 2).swapaxes(0, 1)
        Z = anp.reshape(product(inputs.reshape(-1, 2), A), (5, len(X), 3))
        return product(recurrent_states(Z, B)[-1], C) - Y

    objective, w = Objective.from_residuals(residuals, data), random.standard_normal(18)
    J = objective.jacobian(w)
    for row in range(7):
        g = grad(lambda w, rows=slice(row, row + 1): residuals(w, data.X[rows], data.Y[rows])[0, 0])(w)
        np.testing.assert_allclose(np.sqrt(7) * J[row], g, rtol=1e-11, atol=1e-13)  # the loss is a mean


def test_float32_stays_float32_and_mixed_precisions_are_float64():
    Z, B = np.ones((2, 3, 4), np.float32), np.eye(4, dtype=np.float32)
    assert recurrent_states(Z, B).dtype == np.float32
    assert grad(lambda B: anp.sum(recurrent_states(Z, B)))(B).dtype == np.float32
    for mixed in [(Z.astype(float), B), (Z, B.astype(float)), (np.ones((2, 3, 4), int), B)]:
        H = recurrent_states(*mixed)
        assert H.dtype == np.float64
        np.testing.assert_allclose(H, loop(*(each.astype(float) for each in mixed)), rtol=1e-15)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"Z: expected shape \(steps, rows, hidden\), got \(3, 4\)"):
        recurrent_states(np.ones((3, 4)), np.eye(4))
    with pytest.raises(ValueError, match=r"B: expected shape \(4, 4\), got \(3, 4\)"):
        recurrent_states(np.ones((2, 3, 4)), np.ones((3, 4)))
