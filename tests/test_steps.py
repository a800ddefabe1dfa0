"""Steps on functions whose best step is known."""

from dataclasses import replace

import numpy as np
import pytest

from hfnb import Dataset, Objective, hessian_free
from hfnb.krylov import bicgstab
from hfnb.models import mlp
from hfnb.optimizers.damping import levenberg_marquardt, next_damping
from hfnb.optimizers.steps import (
    STEPS,
    Line,
    Subproblem,
    backtrack,
    backtrack_iterates,
    better_step,
    curvilinear_step,
    line_search,
    negative_curvature_step,
    newton_step,
    subspace_step,
    wide_search,
)
from hfnb.problems import quartic_saddle as quartic_problem


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


def test_line_search_without_doubling_ends_at_the_solution():
    evaluated = []

    def f(w):
        evaluated.append(float(w[0]))
        return (w[0] - 9.0) ** 2

    step = line_search(f, np.zeros(1), np.ones(1), 81.0, -18.0, lengthen=False)
    assert (step.alpha, step.loss, evaluated) == (1.0, 64.0, [1.0])


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


@pytest.mark.parametrize("slope", [1e-14, -1e-14, 0.0])
def test_a_slope_that_rounding_decides_does_not_decide_the_side(slope):
    """f = −x²/2 − x³/3 + x⁴/4 has minima at (1 ± √5)/2; the one on the right is 13 times as low."""

    def f(w):
        return -(w[0] ** 2) / 2 - w[0] ** 3 / 3 + w[0] ** 4 / 4

    step = negative_curvature_step(f, np.zeros(1), np.ones(1), 0.0, np.array([slope]), -1.0)
    assert step.alpha * step.direction[0] > 1
    assert step.loss < 0.5 * f([(1 + 5**0.5) / 2])


class Counted:
    """A function that counts its calls."""

    def __init__(self, f):
        self.f, self.calls = f, 0

    def __call__(self, w):
        self.calls += 1
        return self.f(w)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("stretch", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("loss", [1e-8, 1.0, 1e7])
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_negative_curvature_finds_its_length_in_any_units(loss, stretch, dtype, level):
    """From the saddle, or a little beside it, to near the minimum: −1/4 at a length of one unit."""
    problem = quartic_problem().scaled(loss, stretch)
    f = Counted(lambda w: problem.value(w) + loss * level)
    d, curvature = np.array([0.0, 1.0], dtype), -loss / stretch**2
    for y in (0.0, 0.01, -0.02):
        w = np.array([0.0, y * stretch], dtype)
        g, f0, f.calls = problem.gradient(w), f(w), 0
        step = negative_curvature_step(f, w, d, f0, g, curvature)
        assert f.calls <= 2 * 60
        assert step.loss - loss * level < -0.15 * loss, (y, step)
        assert 0.5 < np.linalg.norm(step.alpha * step.direction) / stretch < 2


@pytest.mark.parametrize("curvature", [0.5, 0.02])
def test_a_first_length_that_works_costs_no_more_than_doubling_it(curvature):
    """f = −c x²/2 + x⁴/4 from 0 along ±1: length c, and doubled up to the first rise, which a loop counts."""
    f = Counted(lambda w: -curvature * w[0] ** 2 / 2 + w[0] ** 4 / 4)
    step = negative_curvature_step(f, np.zeros(1), np.ones(1), 0.0, np.zeros(1), -curvature)
    length, calls = curvature, 2
    while f.f([2 * length]) < f.f([length]):
        length, calls = 2 * length, calls + 1
    assert step.alpha * abs(step.direction[0]) == length
    assert f.calls == 2 * calls  # for both signs


@pytest.mark.parametrize("best", [2.0**-90, 2.0**-31, 2.0**-5, 0.7, 2.0**9, 2.0**33, 2.0**90])
def test_a_wide_search_ends_within_a_factor_of_two_of_the_best_length(best):
    """f = (x/best)² − 2 x/best is least at x = best; powers of two next to it are as good as one can be."""
    f = Counted(lambda w: (w[0] / best) ** 2 - 2 * w[0] / best)
    step = wide_search(Line(f, np.zeros(1), np.ones(1), 0.0, -2 / best), "there")
    assert best / 2 <= step.alpha <= 2 * best
    assert f.calls < 60


def test_a_wide_search_goes_up_where_the_fall_is_lost_in_rounding():
    """f = 10⁶ − x² + x⁴/10⁶: at x = 1e-9 there is nothing to be seen; the minimum is at x = √(10⁶/2)."""
    f = Counted(lambda w: 1e6 - w[0] ** 2 + w[0] ** 4 / 1e6)
    step = wide_search(Line(f, np.zeros(1), np.array([1e-9]), 1e6, 0.0, -2e-18), "up")
    assert 0.5 < step.alpha * 1e-9 / np.sqrt(5e5) < 2
    assert f.calls < 60


@pytest.mark.parametrize("f", [lambda w: abs(w[0]), lambda w: np.nan, lambda w: 0.0])
def test_a_wide_search_gives_up_where_nothing_falls(f):
    f = Counted(f)
    step = wide_search(Line(f, np.zeros(1), np.ones(1), 0.0, -1.0), "nowhere")
    assert (step.alpha, step.name) == (0.0, "none")
    assert ("not finite" in step.trouble) == np.isnan(f.f(np.ones(1)))
    assert f.calls < 60


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
    assert levenberg_marquardt(6.0, change, predicted, curvature=0.1) == pytest.approx(6.0 * factor)


def test_damping_of_another_scale_falls_fast():
    assert levenberg_marquardt(6.0, -1.0, -1.0, curvature=0.01) == pytest.approx(0.6)
    assert levenberg_marquardt(6.0, -0.2, -1.0, curvature=0.01) == pytest.approx(9.0)
    assert levenberg_marquardt(6.0, 0.0, -1e-20, curvature=0.01, rounding=1e-16) == pytest.approx(0.6)
    assert levenberg_marquardt(6.0, 0.0, -1e-20, curvature=1.0, rounding=1e-16) == pytest.approx(9.0)


def test_damping_grows_faster_with_each_rejection():
    assert next_damping(2.0, 3.0, rejections=0) == 3.0
    assert [next_damping(2.0, 1.0, rejections=k) for k in (1, 2, 3)] == [3.0, 4.5, 6.75]
    assert next_damping(2.0, 20.0, rejections=1) == 20.0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("start", [(1.0, 1e-3), (-2.0, 0.3), (0.5, -0.01)])
def test_every_step_takes_the_optimizer_to_the_minimum_beyond_the_saddle(step, start):
    result = hessian_free(quartic_problem(), np.array(start), step=step, max_iter=60)
    assert result.success
    assert result.fun == pytest.approx(-0.25, abs=1e-10)
    assert result.x[1] * start[1] > 0


def test_the_subspace_step_is_the_minimizer_where_the_subspace_is_everything():
    # B has eigenvalues 2 and −1: with |B| = diag(2, 1) the minimizer of the model is −(g₁/2, g₂).
    B, g = np.diag([2.0, -1.0]), np.array([1.0, 0.5])
    solution = bicgstab(B, -g, max_iter=1)
    problem = Subproblem(lambda w: g @ w + 0.5 * w @ np.abs(B) @ w, np.zeros(2), 0.0, g, B, 0.0)
    step = subspace_step(problem, solution, backtrack(problem, solution))
    np.testing.assert_allclose(step.alpha * step.direction, [-0.5, -0.5], atol=1e-12)


def test_the_newton_step_ignores_the_negative_curvature_of_the_solve():
    w = np.array([0.5, 0.3])
    B, g = np.diag([1.0, 3 * w[1] ** 2 - 1]), np.array([w[0], w[1] ** 3 - w[1]])
    solution = bicgstab(B, -g, max_iter=2)
    assert solution.direction @ B @ solution.direction < -0.3
    problem = Subproblem(quartic_saddle, w, quartic_saddle(w), g, B, 0.0)
    candidate = backtrack(problem, solution)
    taken, ignored = better_step(problem, solution, candidate), newton_step(problem, solution, candidate)
    assert (taken.name, ignored.name) == ("negative curvature", "newton")
    assert taken.loss < -0.2 < -0.1 < ignored.loss  # the minimum beyond the ridge is −1/4, the saddle is 0
    np.testing.assert_array_equal(np.abs(ignored.direction), np.abs(candidate.s))


def test_the_curve_bends_from_negative_curvature_to_newton():
    # Along w + α²s + αd the direction d leads for small α, s for large: Moré & Sorensen's condition holds.
    w, B = np.array([1.0, 0.1]), np.diag([1.0, -0.97])
    g = np.array([1.0, -0.099])
    solution = bicgstab(B, -g, max_iter=2)
    problem = Subproblem(quartic_saddle, w, quartic_saddle(w), g, B, 0.0)
    step = curvilinear_step(problem, solution, backtrack(problem, solution))
    assert quartic_saddle(w + step.alpha * step.direction) == pytest.approx(step.loss)
    assert step.loss < quartic_saddle(w)


@pytest.mark.parametrize("step", ["better", "curvilinear"])
@pytest.mark.parametrize("tilt", [1e-17, -1e-17])
def test_a_slope_that_is_rounding_does_not_choose_the_side(step, tilt):
    """The loss falls on both sides of y = 0, further where y < 0."""

    def f(w):
        return 0.5 * w[0] ** 2 - 0.5 * w[1] ** 2 + 0.3 * w[1] ** 3 + 0.25 * w[1] ** 4

    w, g, B = np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.diag([1.0, -1.0])
    solution = replace(bicgstab(B, -g, max_iter=1), direction=np.array([tilt, 1.0]), curvature=-1.0)
    problem = Subproblem(f, w, f(w), g, B, 0.0)
    found = STEPS[step](problem, solution, backtrack(problem, solution))
    assert found.name == {"better": "negative curvature"}.get(step, step)
    assert found.direction[1] < 0


@pytest.mark.parametrize("method", ["paper", "martens", "auto"])
@pytest.mark.parametrize("trial_steps", [2, 5, 8])
def test_losses_evaluated_in_one_reduction_change_no_step(method, trial_steps):
    random = np.random.default_rng(0)
    X = random.standard_normal((90, 6))
    data = Dataset(X, (X @ random.standard_normal((6, 3))).argmax(axis=1))
    net = mlp([6, 5, 3])
    # Near the saddle at zero, where searches are wide and negative curvature is met.
    w0, options = 0.1 * net.init(0, dtype=float), {"method": method, "max_iter": 12, "tol": 0.0}
    one = hessian_free(Objective(net, data), w0, trial_steps=1, **options)
    counted = Objective(net, data)
    together = hessian_free(counted, w0, trial_steps=trial_steps, **options)
    np.testing.assert_allclose(together.x, one.x, rtol=0, atol=1e-9)
    assert [r.alpha for r in together.history] == [r.alpha for r in one.history]
    last, alone = together.history[-1], one.history[-1]
    assert last.products == alone.products
    searches = counted.counts.reductions - counted.counts.products - counted.counts.gradients
    assert counted.counts.losses <= (trial_steps + 1) * searches
    assert last.reductions < alone.reductions


def test_default_of_trial_steps_is_one_loss_in_a_reduction_in_one_process():
    data = Dataset(np.eye(4), np.arange(4) % 2)
    net = mlp([4, 2])
    objective = Objective(net, data)
    hessian_free(objective, net.init(0, dtype=float), max_iter=3)
    counts = objective.counts
    assert counts.reductions == counts.losses + counts.gradients + counts.products
