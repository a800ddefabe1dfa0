"""Local solves: the mean of the cells' solutions, and steps of two or three reductions."""

from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess_prod

from hfnb import Dataset, Objective, hessian_free, scipy_method
from hfnb.krylov import NonFiniteProduct, bicgstab, cg
from hfnb.models import mlp
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.local_solves import CellCurvature, LossInCells, mean_solution

CELLS = 5
EVERYTHING = Draws(0, "all", "same", 103)


def classification(seed=0, **options):
    random = np.random.default_rng(seed)
    X = random.standard_normal((103, 6))
    data = Dataset(X, (X @ random.standard_normal((6, 3))).argmax(axis=1))
    return Objective(mlp([6, 5, 3], weight_decay=1e-3), data, **{"cells": CELLS, **options})


def dense(objective, w, kind):
    return objective.curvature(w, kind) @ np.eye(w.size)


def cells_of(objective):
    """The objective over each cell alone, by its rows."""
    parts = objective.evaluator.shards.parts
    return [Objective(objective.net, Dataset(*parts[number]), partitions=1) for number in sorted(parts)]


def dense_directions(objective, w, g, damping, kind):
    return [
        np.linalg.solve(dense(cell, w, kind) + damping * np.eye(w.size), -g) for cell in cells_of(objective)
    ]


def shares(objective):
    return [cell.n / objective.n for cell in cells_of(objective)]


@pytest.mark.parametrize(
    ("kind", "solve", "damping"), [("gauss-newton", cg, 0.1), ("hessian", bicgstab, 5.0)]
)
def test_the_solution_is_the_mean_of_dense_solutions_of_the_cells(kind, solve, damping):
    objective = classification()
    w = objective.net.init(1, dtype=float)
    g = objective.value_and_gradient(w)[1]
    before = objective.counts.reductions
    exact = partial(solve, rtol=1e-13, progress=0.0, max_iter=500)
    A = CellCurvature(objective, w, kind, EVERYTHING, 0, probe=False)
    found = mean_solution(exact, A, -g, damping=damping)
    each = dense_directions(objective, w, g, damping, kind)
    expected = sum(share * s for share, s in zip(shares(objective), each, strict=True))
    np.testing.assert_allclose(found.best, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    curved = sum(
        share * s @ dense(cell, w, kind) @ s
        for share, s, cell in zip(shares(objective), each, cells_of(objective), strict=True)
    )
    assert found.model == pytest.approx(
        g @ expected + 0.5 * curved + 0.5 * damping * expected @ expected, rel=1e-7
    )
    assert objective.counts.reductions - before == 1 + (found.direction is not None)


def saddle(w, X, Y):
    """The mean of x w₁² − y w₂² + ½ w₂⁴ over rows (x, y): a saddle at 0, whose curvature differs by cell."""
    return anp.mean(X[:, 0] * w[0] ** 2 - X[:, 1] * w[1] ** 2 + 0.5 * w[1] ** 4)


def saddle_objective(**options):
    X = np.random.default_rng(3).uniform(0.5, 1.5, (40, 2))
    return Objective.from_loss(saddle, Dataset(X, np.zeros((40, 1))), **{"cells": 4, **options})


def test_negative_curvature_points_downhill_and_has_the_curvature_of_all_samples():
    objective, w = saddle_objective(), np.array([0.3, -0.05])
    g = objective.value_and_gradient(w)[1]
    A = CellCurvature(objective, w, "hessian", Draws(0, "all", "same", 40), 0, probe=False)
    found = mean_solution(partial(cg, max_iter=10), A, -g, damping=0.0)
    d, H = found.direction, dense(objective, w, "hessian")
    assert np.linalg.norm(d) == pytest.approx(1)
    assert g @ d < 0
    assert found.curvature == pytest.approx(d @ H @ d, rel=1e-12)
    assert found.curvature < 0


def test_a_run_with_the_hessian_leaves_a_saddle_that_gauss_newton_does_not_see():
    objective = saddle_objective()
    result = hessian_free(objective, np.array([0.5, 1e-4]), method="paper", solves="local", max_iter=40)
    y = np.concatenate([X[:, 1] for X, _ in objective.evaluator.shards.parts.values()]).mean()
    # w₁ = 0 and w₂² = mean y minimize the mean: its value is −½ (mean y)².
    assert result.fun == pytest.approx(-0.5 * y**2, rel=1e-6)
    assert "negative curvature" in {record.direction for record in result.history}


@pytest.mark.parametrize("method", ["paper", "martens", "auto"])
def test_a_run_goes_down_with_two_or_three_reductions_an_iteration(method):
    objective = classification()
    w0 = objective.net.init(0, dtype=float)
    first = hessian_free(objective, w0, method=method, solves="local", max_iter=12)
    losses = [record.loss for record in first.history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
    assert first.fun == pytest.approx(objective.value(first.x), rel=1e-12)
    if method == "martens":  # others evaluate losses along negative curvature, too
        for before, record in zip(first.history[1:], first.history[2:], strict=False):
            assert record.reductions - before.reductions == 2 + (record.alpha != 1)
    again = hessian_free(classification(), w0, method=method, solves="local", max_iter=12)
    np.testing.assert_array_equal(first.x, again.x)


def test_the_gradient_that_comes_with_the_losses_is_the_gradient():
    objective = classification()
    w, d = objective.net.init(0, dtype=float), objective.net.init(1, dtype=float)
    f, before = LossInCells(objective, w, at_once=7), objective.counts.reductions
    f.prepare([d], origin=False)
    lengths = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 0.125)
    values = [f.at(d, alpha) for alpha in lengths]
    assert objective.counts.reductions == before + 1
    for alpha, value in zip(lengths, values, strict=True):
        assert value == pytest.approx(objective.value(w + alpha * d), rel=1e-13)
    np.testing.assert_allclose(
        f.gradient(d, 1.0), objective.value_and_gradient(w + d)[1], rtol=1e-12, atol=1e-14
    )
    assert f.gradient(d, 2.0) is None


def test_curvature_batch_size_counts_the_samples_of_all_cells():
    objective = classification()
    w = objective.net.init(0, dtype=float)
    g = objective.value_and_gradient(w)[1]
    before = objective.counts.samples
    A = CellCurvature(objective, w, "gauss-newton", Draws(0, "all", 50, 103), 0, probe=False)
    found = mean_solution(partial(cg, max_iter=3, rtol=0.0), A, -g, damping=1.0)
    assert found.products == 3
    # 103 samples in cells of 20 or 21: each takes 50/103 of them.
    assert objective.counts.samples - before == 3 * CELLS * 10


def cell_product(net, w, X, Y):
    """The Gauss–Newton product as a kind of curvature: the sum over the rows, without the weight decay."""
    B = Objective(net, Dataset(X, Y), partitions=1).curvature(w, "gauss-newton")
    return lambda v: len(X) * (B @ v - net.decay(v))


def broken(net, w, X, Y, in_all):
    product = cell_product(net, w, X, Y)
    fails = in_all or X[0, 0] > 0
    return lambda v: np.full_like(v, np.nan) if fails else product(v)


@pytest.mark.parametrize("in_all", [False, True])
def test_a_cell_without_finite_products_takes_no_part(in_all):
    objective = classification()
    w = objective.net.init(0, dtype=float)
    g = objective.value_and_gradient(w)[1]
    kind, solve = partial(broken, in_all=in_all), partial(cg, rtol=1e-13, progress=0.0, max_iter=500)
    A = CellCurvature(objective, w, kind, EVERYTHING, 0, probe=False)
    if in_all:
        with pytest.raises(NonFiniteProduct):
            mean_solution(solve, A, -g, damping=0.1)
        result = hessian_free(objective, w, curvature=kind, solves="local", max_iter=3)
        assert [record.alpha for record in result.history] == [0.0] * 4
        assert result.history[-1].damping > result.history[0].damping
        return
    taking_part = [cell.evaluator.shards.parts[0][0][0, 0] <= 0 for cell in cells_of(objective)]
    assert 0 < sum(taking_part) < CELLS
    weights = np.array(shares(objective)) * taking_part
    each = dense_directions(objective, w, g, 0.1, "gauss-newton")
    expected = sum(weight * s for weight, s in zip(weights / weights.sum(), each, strict=True))
    found = mean_solution(solve, A, -g, damping=0.1)
    np.testing.assert_allclose(found.best, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_a_probe_that_is_not_finite_leaves_the_solution_of_the_cell():
    """At w₂ = 0 the second derivative of w₂^1.5 is infinite, and the Gauss–Newton matrix is finite."""
    X = np.random.default_rng(0).standard_normal((40, 2))
    parts = {
        "outputs": lambda w, X: anp.dot(X, w[:2]) + w[2] ** 1.5,
        "output_loss": lambda z, Y: anp.mean((z - Y[:, 0]) ** 2),
    }
    data = Dataset(X, X[:, :1] + 1)
    loss = lambda w, X, Y: parts["output_loss"](parts["outputs"](w, X), Y)  # noqa: E731
    objective, w = Objective.from_loss(loss, data, **parts, cells=4), np.array([0.1, -0.2, 0.0])
    g, found = objective.value_and_gradient(w)[1], {}
    with np.errstate(all="ignore"):
        with pytest.raises(NonFiniteProduct):
            cg(objective.curvature(w, "hessian"), -g)
        for probe in (False, True):
            A = CellCurvature(objective, w, "gauss-newton", Draws(0, "all", "same", 40), 0, probe)
            found[probe] = mean_solution(partial(cg, max_iter=10), A, -g, damping=0.1)
    np.testing.assert_array_equal(found[True].best, found[False].best)
    assert found[True].direction is None


def test_a_run_that_is_resumed_equals_one_that_was_not_interrupted(tmp_path):
    w0 = classification().net.init(0, dtype=float)
    options = {"method": "auto", "solves": "local", "tol": 0.0}
    whole = hessian_free(classification(), w0, max_iter=9, **options)
    hessian_free(classification(), w0, max_iter=4, checkpoint=tmp_path, **options)
    resumed = hessian_free(classification(), w0, max_iter=9, checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert [record.alpha for record in resumed.history] == [record.alpha for record in whole.history]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("solves", {"solves": "remote"}),
        ("solves", {"solves": None}),
        ("batch_size", {"solves": "local", "batch_size": 20}),
        ("batch_size", {"solves": "local", "batch_size": "growing"}),
        ("line_search_sample", {"solves": "local", "line_search_sample": "curvature"}),
        ("step", {"solves": "local", "step": "subspace"}),
        ("preconditioner", {"solves": "local", "preconditioner": "lbfgs"}),
        ("trial_steps", {"trial_steps": 0}),
        ("trial_steps", {"trial_steps": 2.5}),
        ("trial_steps", {"trial_steps": "all"}),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options):
    objective = classification()
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
        hessian_free(objective, objective.net.init(0, dtype=float), **options)
    assert objective.counts.reductions == 0


@pytest.mark.parametrize("solver", ["minres", "newton_mr", "saddle_free"])
def test_any_solver_has_at_most_ten_iterations_in_a_cell_unless_the_user_says_so(solver):
    objective, most = classification(), {}
    w0, options = objective.net.init(0, dtype=float), {"curvature": "gauss-newton", "max_iter": 6}
    options |= {"solver": solver, "solves": "local", "stopping_rule": "marginal-gain"}
    for given in (None, {"max_iter": 50}):
        run = hessian_free(objective, w0, solver_options=given, **options)
        most[bool(given)] = max(record.krylov_iterations for record in run.history)
    assert most[False] <= 10 < most[True]


@pytest.mark.parametrize("solves", ["global", "local"])
def test_a_number_of_samples_that_is_an_array_is_named(solves):
    objective = classification()
    with pytest.raises(TypeError, match=r"^batch_size: expected"):
        hessian_free(objective, objective.net.init(0, dtype=float), solves=solves, batch_size=np.arange(3))


def test_functions_of_scipy_have_no_cells():
    functions = {"jac": rosen_der, "hessp": rosen_hess_prod}
    with pytest.raises(ValueError, match=r"^objective: expected one with cells for solves='local'"):
        minimize(rosen, [-1.2, 1.0], method=scipy_method(solves="local"), **functions)


def test_an_objective_without_cells_is_refused():
    objective = classification(cells=None)
    with pytest.raises(ValueError, match=r"^objective: expected one with cells .* cells=16"):
        hessian_free(objective, objective.net.init(0, dtype=float), solves="local")
