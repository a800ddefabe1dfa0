"""Least squares: residuals, their Jacobian, and Levenberg–Marquardt steps on parabolas."""

import math
from functools import partial
from itertools import pairwise

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.optimize import rosen_hess as rosenbrock_hessian

import hfnb
from hfnb import Dataset, Objective, Status, levenberg_marquardt, models
from hfnb.optimizers._levenberg_marquardt import Factorization, _second_derivative

RANDOM = np.random.default_rng(0)


def waves(w, X, Y):
    """Two residuals a row."""
    W, v = anp.reshape(w[:6], (2, 3)), w[6:]
    hidden = anp.tanh(anp.dot(X, W) + v)
    return anp.concatenate([hidden[:, :1] * hidden[:, 1:2] - Y, 2 * hidden[:, 2:]], axis=1)


def edge(w, X, Y):
    """One residual a row, as a vector."""
    return X[:, 0] * w[0] ** 3 - w[1] * Y[:, 0]


INSIDE = Dataset(RANDOM.standard_normal((37, 2)), RANDOM.standard_normal((37, 1)))
EDGE = Dataset(RANDOM.standard_normal((5, 1)), RANDOM.standard_normal((5, 1)))
TARGETS = Dataset(RANDOM.standard_normal((40, 3)), RANDOM.standard_normal((40, 2)))
NET = models.mlp([3, 4, 2], loss="squared_error", weight_decay=0.3)
OBJECTIVES = {
    "one term": lambda **options: Objective.from_residuals(waves, INSIDE, **options),
    "two terms": lambda **options: Objective.from_residuals(
        [waves, edge], [INSIDE, EDGE], weights=[1, 50], weight_decay=0.2, **options
    ),
    "network": lambda **options: Objective(NET, TARGETS, **options),
    "sigmoid outputs": lambda **options: Objective(
        models.Network((3, 4, 2), ("relu", "sigmoid"), "squared_error"), TARGETS, **options
    ),
}
SIZE = {"one term": 9, "two terms": 9, "network": NET.size, "sigmoid outputs": NET.size}


@pytest.fixture(params=OBJECTIVES)
def case(request):
    w = np.random.default_rng(1).standard_normal(SIZE[request.param])
    return OBJECTIVES[request.param], w


def differences(f, w, h=1e-6):
    """Return the derivative of f by central differences, one column for each parameter."""
    return np.stack([(f(w + h * e) - f(w - h * e)) / (2 * h) for e in np.eye(w.size)], axis=-1)


def test_jacobian_is_that_of_finite_differences(case):
    make, w = case
    objective = make()
    assert objective.jacobian(w) == pytest.approx(differences(objective.residuals, w), rel=1e-6, abs=1e-7)


def test_residuals_and_jacobian_give_loss_gradient_and_gauss_newton_matrix(case):
    make, w = case
    objective = make()
    r, J = objective.residuals(w), objective.jacobian(w)
    value, gradient = objective.value_and_gradient(w)
    assert 0.5 * r @ r == pytest.approx(value, rel=1e-12)
    assert J.T @ r == pytest.approx(gradient, rel=1e-10, abs=1e-12)
    G = objective.curvature(w, "gauss-newton") @ np.eye(w.size)
    assert pytest.approx(G, rel=1e-10, abs=1e-12) == J.T @ J


def test_loss_is_the_weighted_sum_of_half_means():
    w = RANDOM.standard_normal(9)
    objective = OBJECTIVES["two terms"]()
    first, second = waves(w, INSIDE.X, INSIDE.Y), edge(w, EDGE.X, EDGE.Y)
    expected = 0.5 * np.mean(np.sum(first**2, axis=1)) + 50 * 0.5 * np.mean(second**2) + 0.1 * w @ w
    assert objective.value(w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [{"partitions": 7}, {"chunk": 5}, {"chunk": 3, "partitions": 2}])
def test_partitions_and_chunks_change_nothing(case, options):
    make, w = case
    cut, whole = make(**options), make()
    assert cut.residuals(w) == pytest.approx(whole.residuals(w), rel=1e-12, abs=1e-14)
    assert cut.jacobian(w) == pytest.approx(whole.jacobian(w), rel=1e-12, abs=1e-14)
    assert cut.value(w) == pytest.approx(whole.value(w), rel=1e-12)


def test_float32(case):
    make, w = case
    objective, single = make(), w.astype(np.float32)
    assert objective.jacobian(single).dtype == objective.residuals(single).dtype == np.float32
    assert objective.jacobian(single) == pytest.approx(objective.jacobian(w), rel=1e-3, abs=1e-4)


def test_engines_evaluate_the_same_terms(pair):
    here, w = OBJECTIVES["two terms"](), RANDOM.standard_normal(9)
    there = pair.objective(here.net, here.net.packed([INSIDE, EDGE]))
    assert there.value(w) == pytest.approx(here.value(w), rel=1e-12)
    with pytest.raises(ValueError, match=r"objective: expected one in this process"):
        levenberg_marquardt(there, w)


# What is refused

ROW = Dataset(np.ones((4, 1)), np.ones((4, 1)))
LINE = models.mlp([1, 2, 1], loss="squared_error")


@pytest.mark.parametrize(
    ("residuals", "words"),
    [
        (lambda w, X, Y: X - Y, "expected a function of w written with autograd.numpy"),
        (lambda w, X, Y: w[0] * X[:, 0] - Y, r"expected a row for each row of X, got shape \(4, 4\)"),
        (lambda w, X, Y: anp.sum(w[0] * X - Y), r"expected shape \(4,\) or \(4, k\).*got \(\)"),
        (lambda w, X, Y: w[0] * X[:2] - Y[:2], r"expected shape \(4,\) or \(4, k\).*got \(2, 1\)"),
    ],
    ids=["constant", "pairs of rows", "a sum", "too few rows"],
)
def test_wrong_residuals_are_named(residuals, words):
    objective = Objective.from_residuals(residuals, ROW)
    with pytest.raises(ValueError, match=f"^residuals: {words}"):
        objective.jacobian(np.ones(2))
    both = Objective.from_residuals([lambda w, X, Y: w[0] * X - Y, residuals], [ROW, ROW])
    with pytest.raises(ValueError, match=rf"^residuals\[1\]: {words}"):
        both.value_and_gradient(np.ones(2))


@pytest.mark.parametrize(
    ("residuals", "words"),
    [
        (lambda w, X, Y: float(w[0]) * X, "residuals: autograd cannot differentiate it"),
        (lambda w, X, Y: math.exp(w[0]) * X, "residuals: autograd cannot differentiate it"),
        (
            lambda w, X, Y: np.array(X).__setitem__(0, w[0]) or X,
            "residuals: autograd cannot differentiate it",
        ),
        (lambda w, X, Y: LINE.predict(w, X), r"residuals: autograd cannot .*net.outputs is differentiable"),
        (lambda w, X, Y: (w[0] * X, w), "residuals: expected an array, .* got a tuple"),
        (lambda w, X, Y: w[0] * X[:, 7], "index 7 is out of bounds"),
    ],
    ids=["float()", "math", "assignment", "predict", "tuple", "an error of its own"],
)
def test_residuals_that_autograd_cannot_follow_are_named(residuals, words):
    with pytest.raises((TypeError, IndexError), match=words):
        levenberg_marquardt(Objective.from_residuals(residuals, ROW), LINE.init(0, dtype=float))


@pytest.mark.parametrize(
    ("residuals", "data", "options", "words"),
    [
        (waves, [INSIDE, EDGE], {}, "data: expected one dataset for each of 1 residuals, got 2"),
        ([], [], {}, "data: expected one dataset for each of 0"),
        ([waves], [INSIDE], {"weights": [1, 2]}, "weights: expected one for each of 1 terms, got 2"),
        (waves, INSIDE, {"weights": [-1]}, "weights: expected a number > 0"),
        (waves, INSIDE, {"weight_decay": -1}, "weight_decay: expected"),
        (waves, INSIDE.X, {}, "data: expected"),
        ("waves", INSIDE, {}, "residuals: expected"),
    ],
)
def test_wrong_arguments_are_named(residuals, data, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Objective.from_residuals(residuals, data, **options)


def test_a_loss_that_is_no_sum_of_squares_is_refused():
    classifier = Objective(models.mlp([3, 2]), Dataset(np.ones((4, 3)), np.array([0, 1, 0, 1])))
    with pytest.raises(ValueError, match=r"objective: expected least squares.*cross_entropy"):
        levenberg_marquardt(classifier, np.zeros(classifier.net.size))


def test_a_jacobian_beyond_the_memory_is_refused():
    objective = Objective.from_residuals(waves, INSIDE, memory=1000)
    with pytest.raises(ValueError, match=r"at most memory = 0 MiB.*hessian_free needs products only"):
        levenberg_marquardt(objective, np.ones(9))


def test_a_start_that_is_not_finite_is_refused():
    objective = Objective.from_residuals(lambda w, X, Y: anp.log(w[0] * X) - Y, ROW)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="w0: expected a start with finite"):
        levenberg_marquardt(objective, np.zeros(1))


# The optimizer

# NIST's Statistical Reference Datasets, nonlinear regression, Misra1a: certified values and first start.
PRESSURE = np.array(
    [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0]
)
VOLUME = np.array(
    [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78]
)
CERTIFIED = [2.3894212918e2, 5.5015643181e-4]


def misra(scale=1.0):
    data = Dataset(PRESSURE[:, None], VOLUME[:, None])
    return Objective.from_residuals(lambda w, X, Y: scale * (w[0] * (1 - anp.exp(-w[1] * X)) - Y), data)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_certified_values_of_NIST(scale):
    found = levenberg_marquardt(misra(scale), np.array([500.0, 1e-4]), tol=0.0)
    assert found.x == pytest.approx(CERTIFIED, rel=1e-8)
    assert 2 * len(PRESSURE) * found.fun / scale**2 == pytest.approx(1.2455138894e-1, rel=1e-9)


def rosenbrock(w, X, Y):
    """The function of Rosenbrock as residuals 10 (b − a²) and 1 − a."""
    return anp.concatenate([X * 0 + 10 * (w[1] - w[0] ** 2), X * 0 + 1 - w[0]], axis=1)


def test_rosenbrock_is_a_certified_minimum():
    objective = Objective.from_residuals(rosenbrock, Dataset(np.zeros((1, 1)), np.zeros((1, 1))))
    found = levenberg_marquardt(objective, np.array([-1.2, 1.0]))
    assert found.success
    assert found.status is Status.MINIMUM
    assert found.x == pytest.approx([1, 1], abs=1e-10)
    H = objective.curvature(found.x) @ np.eye(2)
    assert pytest.approx(rosenbrock_hessian(np.ones(2)) / 2, rel=1e-8) == H


def test_more_precise_than_scipy_in_as_many_jacobians():
    """A network fitted to a smooth function: ours against SciPy's trust-region method with the same J."""
    x = np.linspace(-1, 1, 120)[:, None]
    net = models.mlp([1, 12, 12, 1], loss="squared_error")
    objective = Objective(net, Dataset(x, np.sin(6 * x)))
    ratios = []
    for seed in range(3):
        w0 = net.init(seed, dtype=float)
        ours = levenberg_marquardt(objective, w0, max_iter=60, tol=0.0).fun
        theirs = least_squares(
            objective.residuals, w0, jac=objective.jacobian, max_nfev=60, xtol=1e-15, ftol=1e-15, gtol=1e-15
        ).cost
        ratios.append(ours / theirs)
    assert np.median(ratios) < 0.1, ratios


def test_a_saddle_is_left_along_negative_curvature():
    """½ (xy − 1)² has a saddle at 0, where Gauss–Newton curvature is zero."""
    data = Dataset(np.zeros((1, 1)), np.ones((1, 1)))
    objective = Objective.from_residuals(lambda w, X, Y: X + w[0] * w[1] - Y, data)
    found = levenberg_marquardt(objective, np.zeros(2))
    assert found.history[1].direction == "negative curvature"
    assert found.x[0] * found.x[1] == pytest.approx(1, abs=1e-8)


def test_a_run_resumes_as_if_it_had_not_stopped(tmp_path):
    objective, w0 = OBJECTIVES["two terms"](), RANDOM.standard_normal(9)
    whole = levenberg_marquardt(objective, w0, max_iter=8)
    first = levenberg_marquardt(objective, w0, max_iter=3, checkpoint=tmp_path / "run")
    second = levenberg_marquardt(objective, w0, max_iter=8, checkpoint=tmp_path / "run")
    assert first.nit == 3
    assert np.array_equal(second.x, whole.x)
    assert [record.loss for record in second.history] == [record.loss for record in whole.history]


def test_the_last_damping_continues_a_run():
    objective, w0 = OBJECTIVES["two terms"](), RANDOM.standard_normal(9)
    whole = levenberg_marquardt(objective, w0, max_iter=8)
    first = levenberg_marquardt(objective, w0, max_iter=4)
    second = levenberg_marquardt(objective, first.x, damping=first.history[-1].damping, max_iter=4)
    assert np.array_equal(second.x, whole.x)


def test_callback_stops_and_sees_each_iteration():
    seen = []

    def follow(record):
        seen.append((record.iteration, record.w.copy()))
        return record.iteration == 2

    found = levenberg_marquardt(misra(), np.array([500.0, 1e-4]), callback=follow)
    assert found.status is Status.CALLBACK
    assert [iteration for iteration, _ in seen] == [0, 1, 2]
    assert np.array_equal(seen[-1][1], found.x)


def test_losses_fall():
    found = levenberg_marquardt(OBJECTIVES["network"](), NET.init(0, dtype=float), max_iter=30)
    losses = [record.loss for record in found.history]
    assert all(after <= before * (1 + 1e-14) for before, after in pairwise(losses))  # 1e-14 for rounding
    assert found.fun == pytest.approx(OBJECTIVES["network"]().value(found.x), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)], ids=["wide", "tall"])
def test_solves_are_those_of_the_dense_matrix(shape):
    J, r = RANDOM.standard_normal(shape), RANDOM.standard_normal(shape[0])
    matrix = Factorization(J)
    assert matrix.factorize(0.01) == 0.01
    expected = np.linalg.solve(J.T @ J + 0.01 * np.eye(shape[1]), J.T @ r)
    assert matrix.solve(r) == pytest.approx(expected, rel=1e-9)


def test_damping_grows_where_rounding_makes_the_matrix_indefinite():
    matrix = Factorization(np.ones((6, 9)))
    used = matrix.factorize(1e-30)
    assert 1e-30 < used < 1e-10
    assert np.isfinite(matrix.solve(np.ones(6))).all()


def test_second_derivative_along_a_step():
    """Of the residuals w³ x, it is 6 w v² x."""
    data = Dataset(np.arange(1.0, 4.0)[:, None], np.zeros((3, 1)))
    objective = Objective.from_residuals(lambda w, X, Y: w[0] ** 3 * X, data)
    w, v = np.array([0.7]), np.array([12.0])
    found = _second_derivative(objective, w, objective.residuals(w), v)
    assert found == pytest.approx(6 * 0.7 * 144 * data.X[:, 0] / np.sqrt(3), rel=1e-6)


def test_it_is_public():
    assert hfnb.levenberg_marquardt is levenberg_marquardt
    assert partial(levenberg_marquardt, max_iter=1)(misra(), np.array([500.0, 1e-4])).nit == 1


# Regression in one call


def test_fit_of_a_network_reaches_single_digits_of_rounding():
    x = np.linspace(-1, 1, 100)
    net = models.mlp([1, 10, 1], loss="squared_error")
    found = hfnb.fit(net, x, np.sin(3 * x))
    assert found.predict(x) == pytest.approx(np.sin(3 * x), abs=1e-4)  # in the form of the targets
    column = hfnb.fit(net, x, np.sin(3 * x)[:, None], max_iter=1)
    assert column.predict(x).shape == (100, 1)
    again = levenberg_marquardt(
        Objective(net, Dataset(x[:, None], np.sin(3 * x)[:, None])), net.init(0, dtype=float), max_iter=200
    )
    assert np.array_equal(again.x, found.x)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_fit_of_a_function_is_least_squares(shape):
    """Of a linear model, the solution of NumPy's lstsq; predictions may be (n,) or (n, 1)."""
    X, Y = RANDOM.standard_normal((30, 3)), RANDOM.standard_normal(30)
    found = hfnb.fit(lambda w, X: anp.reshape(anp.dot(X, w), shape), X, Y, np.zeros(3))
    expected = np.linalg.lstsq(X, Y, rcond=None)[0]
    assert found.x == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert found.success
    ridge = hfnb.fit(lambda w, X: anp.dot(X, w), X, Y, np.zeros(3), weight_decay=0.5)
    assert ridge.x == pytest.approx(np.linalg.solve(X.T @ X / 30 + 0.5 * np.eye(3), X.T @ Y / 30), rel=1e-7)


def test_fit_of_what_does_not_fit_in_memory_takes_products(monkeypatch):
    monkeypatch.setattr("hfnb.optimizers._fit.SMALL", 2)
    X = RANDOM.standard_normal((30, 3))
    found = hfnb.fit(lambda w, X: anp.dot(X, w), X, X @ [1.0, 2.0, 3.0], np.zeros(3))
    assert found.history[-1].products > 0
    assert found.x == pytest.approx([1, 2, 3], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((NET, [1, 2], [1, 2, 3]), {}, "Y: expected as many rows as X, 2, got 3"),
        ((NET, [[np.nan] * 3], [[1, 2]]), {}, "X: expected finite numbers"),
        ((NET, "a", [1]), {}, "X: expected real numbers"),
        ((NET, np.ones((2, 2, 2)), [1, 2]), {}, "X: expected shape"),
        ((NET, np.ones((4, 3)), np.ones((4, 2))), {"weight_decay": 1.0}, "weight_decay: expected 0"),
        ((models.mlp([3, 2]), np.ones((4, 3)), np.ones((4, 2))), {}, "expected least squares"),
        ((3, [1], [1]), {}, "model: expected a network or a function"),
        ((lambda w, X: X, [1], [1]), {}, "w0: expected a start"),
        ((lambda w, X: w[0] * X, np.ones((3, 2)), [1, 1, 1], [1.0]), {}, "model: expected predictions of"),
    ],
)
def test_fit_names_what_is_wrong(arguments, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        hfnb.fit(*arguments, **options)
