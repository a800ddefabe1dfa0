"""Negative curvature looked for beside a step: against dense eigenvalues and closed forms."""

import numpy as np
import pytest

from hfnb.optimizers.steps import Step, both, probe_negative_curvature


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_curves_down_and_never_loses(seed):
    """f(w) = ½wᵀHw + ¼‖w‖⁴: the step along the direction has the curvature of a dense H, and f falls."""
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.standard_normal((30, 30)))
    H0 = (Q * np.concatenate([[-1.0, -0.5], np.linspace(0.1, 1.0, 28)])) @ Q.T

    def f(w):
        return 0.5 * w @ H0 @ w + 0.25 * (w @ w) ** 2

    w = 0.01 * random.standard_normal(30)
    g, H = H0 @ w + (w @ w) * w, H0 + (w @ w) * np.eye(30) + 2 * np.outer(w, w)
    newton = Step(1.0, f(w - g), -g, "newton")
    found = probe_negative_curvature(f, w, f(w), g, H, newton)
    s = found.alpha * found.direction
    assert found.loss == f(w + s) < newton.loss
    assert s @ H @ s < 0
    convex = H - 1.1 * np.linalg.eigvalsh(H)[0] * np.eye(30)
    assert probe_negative_curvature(f, w, f(w), g, convex, newton) is newton


def test_the_sum_of_two_steps_is_taken_where_it_is_lower_and_doubled():
    def f(w):
        return (w[0] - 1) ** 2 + (w[1] - 4) ** 2

    x, y = Step(1.0, 16.0, np.array([1.0, 0.0]), "x"), Step(0.5, 10.0, np.array([0.0, 2.0]), "y")
    found = both(f, np.zeros(2), x, y)
    assert (found.loss, found.name) == (9.0, "x and y")  # y is kept, x added; 2 x would overshoot
    far = both(
        f,
        np.zeros(2),
        Step(1.0, 16.0, np.array([1.0, 0.0]), "x"),
        Step(1.0, 17.0, np.array([0.0, 0.001]), "y"),
    )
    np.testing.assert_allclose(far.direction, [1.0, 4.096])  # y added, doubled twelve times
    assert both(f, np.zeros(2), x, Step(0.0, 17.0, np.array([0.0, 1.0]), "none")) is x
