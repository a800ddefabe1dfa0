"""Steps on functions whose best step is known."""

import numpy as np
import pytest

from hfnb.globalization import backtrack_iterates, levenberg_marquardt, line_search, negative_curvature_step


def quartic_saddle(w):
    """½x² − ½y² + ¼y⁴: a saddle at 0, minima −¼ at (0, ±1)."""
    x, y = w
    return 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4


def test_line_search_halves_until_armijo_holds():
    # f(α) = 100 (α − 0.01)² along d = 1 from 0: minimum at 0.01, f' (0) = −2.
    step = line_search(lambda w: 100 * (w[0] - 0.01) ** 2, np.zeros(1), np.ones(1), 0.01, -2.0)
    assert step.alpha == 2.0**-6  # the first power of two below 0.02, the other root of f(α) = f(0)
    assert step.loss == pytest.approx(100 * (2.0**-6 - 0.01) ** 2)


def test_line_search_doubles_while_the_loss_falls():
    step = line_search(lambda w: (w[0] - 9.0) ** 2, np.zeros(1), np.ones(1), 81.0, -18.0)
    assert (step.alpha, step.loss) == (8.0, 1.0)


def test_line_search_takes_non_finite_losses_for_no_fall():
    def f(w):
        return np.nan if w[0] > 0.3 else -w[0]

    step = line_search(f, np.zeros(1), np.ones(1), 0.0, -1.0)
    assert step.alpha == 0.25


def test_line_search_gives_up_where_nothing_falls():
    step = line_search(lambda w: float(w[0]), np.zeros(1), np.ones(1), 0.0, -1.0)
    assert (step.alpha, step.name) == (0.0, "none")


@pytest.mark.parametrize("y", [0.0, 1e-12, -1e-12, 0.1, -0.1])
def test_negative_curvature_leaves_the_saddle_downhill(y):
    w = np.array([0.0, y])
    g = np.array([0.0, -y + y**3])
    step = negative_curvature_step(
        quartic_saddle, w, np.array([0.0, 1.0]), quartic_saddle(w), g, -1 + 3 * y**2
    )
    reached = w + step.alpha * step.direction
    assert step.name == "negative curvature"
    assert quartic_saddle(reached) == step.loss < -0.2
    assert y * reached[1] >= 0  # the side on which it stands is the way down


def test_iterates_are_gone_back_through_while_the_loss_falls():
    losses = {1.0: 5.0, 2.0: 1.0, 3.0: 2.0, 4.0: 3.0}
    iterates = [(i, np.array([float(i)])) for i in (1, 2, 3, 4)]
    position, x, loss = backtrack_iterates(lambda w: losses[float(w[0])], np.zeros(1), iterates)
    assert (position, x[0], loss) == (1, 2.0, 1.0)
    diverged = [(1, np.array([1.0])), (2, np.array([2.0]))]
    position, _, loss = backtrack_iterates(lambda w: np.nan if w[0] > 1 else 7.0, np.zeros(1), diverged)
    assert (position, loss) == (0, 7.0)


@pytest.mark.parametrize(
    ("change", "predicted", "factor"),
    [
        (-1.0, -1.0, 2 / 3),
        (-0.5, -1.0, 1),
        (-0.2, -1.0, 1.5),
        (0.1, -1.0, 1.5),
        (-1.0, 1.0, 1.5),
        (np.nan, -1, 1.5),
    ],
)
def test_damping_follows_martens(change, predicted, factor):
    assert levenberg_marquardt(6.0, change, predicted) == pytest.approx(6.0 * factor)
