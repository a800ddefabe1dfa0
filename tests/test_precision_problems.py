"""Problems with known errors: exact solutions satisfy their equations, derivatives and references agree."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from scipy.integrate import solve_ivp
from scipy.interpolate import BarycentricInterpolator
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from hfnb import checks, levenberg_marquardt, models
from hfnb.studies import precision_problems as problems
from hfnb.studies.precision_problems import differential_equations as equations
from hfnb.studies.precision_problems import recurrent, regression

# One problem of each kind, small: its Jacobian is compared with finite differences.
SMALL = {
    "poisson": lambda: problems.poisson(hidden=(5, 4), interior=20, boundary=8),
    "convection": lambda: problems.convection(hidden=(5, 4), side=5, initial=8),
    "burgers": lambda: problems.burgers(hidden=(5, 4), side=5, boundary=8),
    "unknown coefficient": lambda: problems.unknown_coefficient(hidden=(5,), interior=20, measurements=9),
    "oscillation": lambda: problems.oscillation(hidden=(5,), points=20),
    "adding": lambda: problems.adding(length=10, hidden=4, sequences=20),
    "memorization": lambda: problems.memorization(delay=3, length=2, symbols=3, hidden=4, sequences=20),
}
FIXED = {
    "curves": lambda: problems.curves(sizes=(784, 5, 3), images=20),
    "MNIST": lambda: problems.mnist_autoencoder(sizes=(784, 5, 3), images=20),
    "breast cancer": lambda: problems.breast_cancer(features=10),
}  # the data is the same for each seed


def along(f, j):
    """The function X -> ∂f/∂xⱼ, by autograd, of a function of rows that gives one column."""

    def value(x, X):
        columns = [anp.reshape(x, (-1, 1)) if k == j else X[:, [k]] for k in range(X.shape[1])]
        return anp.reshape(f(anp.concatenate(columns, axis=1)), (-1,))

    return lambda X: anp.reshape(elementwise_grad(value)(X[:, j], X), (-1, 1))


def exact_derivatives(f):
    """What `derivatives` would return if the network were the function f."""

    def found(net, w, X, orders):
        firsts = [along(f, j) for j in range(len(orders))]
        both = [(firsts[j], along(firsts[j], j)) for j in range(len(orders))]
        return f(X), *(tuple(g(X) for g in both[j][:order]) for j, order in enumerate(orders))

    return found


@pytest.mark.parametrize("sizes", [[2, 7, 5, 1], [3, 6, 2]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_input_derivatives_are_autograds(sizes, activation):
    net = models.mlp(sizes, activation, loss="squared_error")
    random = np.random.default_rng(0)
    w, X = random.standard_normal(net.size), random.standard_normal((11, sizes[0]))
    for orders in ((2,) * sizes[0], (1, 2, 0)[: sizes[0]], (0,) * sizes[0]):
        u, *found = models.derivatives(net, w, X, orders)
        np.testing.assert_allclose(u, net.outputs(w, X), rtol=1e-13)
        assert [len(each) for each in found] == list(orders)
        for j, each in enumerate(found):
            for k in range(sizes[-1]):
                first = along(lambda X, k=k: net.outputs(w, X)[:, [k]], j)
                for expected, derivative in zip((first, along(first, j)), each, strict=False):
                    np.testing.assert_allclose(derivative[:, [k]], expected(X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("orders", [(2,), (1, 3), (1, -1)], ids=str)
def test_orders_that_do_not_fit_are_named(orders):
    net = models.mlp([2, 3, 1])
    with pytest.raises(ValueError, match="orders: expected 0, 1 or 2 for each of 2 inputs"):
        models.derivatives(net, net.init(0, dtype=np.float64), np.ones((4, 2)), orders)


def test_activations_and_inputs_that_do_not_fit_are_named():
    net = models.mlp([2, 3, 1], "relu")
    with pytest.raises(ValueError, match="net: expected the activations tanh, sigmoid, linear"):
        models.derivatives(net, net.init(0), np.ones((4, 2)), (1, 1))
    net = models.mlp([2, 3, 1])
    with pytest.raises(ValueError, match=r"X: expected shape \(rows, 2\)"):
        models.derivatives(net, net.init(0), np.ones((4, 3)), (1, 1))


def around_a_circle(Z):
    """The solution of the convection equation in the inputs of its network: cos x, sin x, 2t − 1."""
    angle = equations.BETA * (Z[:, 2:] + 1) / 2
    return Z[:, 1:2] * anp.cos(angle) - Z[:, :1] * anp.sin(angle)


# The exact solution of each equation, and what rounding leaves of the loss: derivatives of Burgers' solution
# reach 1e4 in its layer.
EXACT = {
    "poisson": (equations.poisson_solution, 1e-24),
    "convection": (around_a_circle, 1e-24),
    "burgers": (equations.burgers_solution, 1e-16),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_loss_of_the_exact_solution_is_zero(name, monkeypatch):
    """Equation, boundary and initial values hold, if autograd differentiates the solution itself."""
    solution, tol = EXACT[name]
    problem = problems.PROBLEMS[name]()
    w = problem.start(0)
    monkeypatch.setattr(equations, "derivatives", exact_derivatives(solution))
    for seed in (0, 1):
        assert problem.objective(seed).value(w) < tol
    monkeypatch.setattr(equations, "derivatives", exact_derivatives(lambda X: 1.01 * solution(X)))
    assert problem.objective(0).value(w) > 1e-6


def test_the_exact_coefficient_leaves_the_noise_alone(monkeypatch):
    def found(net, w, X, orders):
        # The first half of the parameters belongs to u, the second to a.
        f = equations.diffusion_solution if w[0] == 0 else equations.diffusion_coefficient
        return exact_derivatives(f)(net, w, X, orders)

    monkeypatch.setattr(equations, "derivatives", found)
    w = np.repeat([0.0, 1.0], len(problems.unknown_coefficient().start(0)) // 2)
    noiseless = problems.unknown_coefficient(noise=0.0)
    assert noiseless.objective(0).value(w) < 1e-24
    noisy = problems.unknown_coefficient(noise=1e-3, measurements=4000, weight=1.0)
    assert noisy.objective(0).value(w) == pytest.approx(0.5e-6, rel=0.1)  # half the variance of the noise


def chebyshev(n):
    """Points on [0, 1], clustered at the ends, and the matrix that differentiates a polynomial there.

    L. Trefethen, "Spectral methods in MATLAB", SIAM 2000, chapter 6.
    """
    x = np.cos(np.pi * np.arange(n + 1) / n)
    c = np.where((np.arange(n + 1) == 0) | (np.arange(n + 1) == n), 2.0, 1.0) * (-1.0) ** np.arange(n + 1)
    D = np.outer(c, 1 / c) / (x[:, None] - x + np.eye(n + 1))
    D -= np.diag(D.sum(axis=1))
    return (1 + x) / 2, 2 * D


def test_burgers_solution_is_that_of_the_method_of_lines():
    """An odd function of x: collocation on [0, 1], where the points are dense at the layer."""
    x, D = chebyshev(120)
    D2, inner = D @ D, slice(1, -1)
    D_inner, D2_inner = D[inner, inner], D2[inner, inner]

    def slope(t, u):
        return -u * (D_inner @ u) + equations.VISCOSITY * (D2_inner @ u)

    def jacobian(t, u):
        return -np.diag(D_inner @ u) - u[:, None] * D_inner + equations.VISCOSITY * D2_inner

    times = np.linspace(0, 1, 6)
    u0 = -np.sin(np.pi * x[inner])
    lines = solve_ivp(slope, (0, 1), u0, "BDF", times, jac=jacobian, rtol=1e-8, atol=1e-10)
    assert lines.success
    for t, u in zip(times, lines.y.T, strict=True):
        points = np.column_stack([x[inner], np.full(len(u), t)])
        np.testing.assert_allclose(equations.burgers_solution(points)[:, 0], u, atol=1e-6)
        np.testing.assert_allclose(
            equations.burgers_solution(points * [-1, 1]), -equations.burgers_solution(points), atol=1e-12
        )
    # Between the points of collocation, too, where a polynomial has more to lose.
    between = np.linspace(0, 1, 37)
    polynomial = BarycentricInterpolator(x, np.concatenate([[0], lines.y[:, -1], [0]]))
    reference = equations.burgers_solution(np.column_stack([between, np.ones(37)]))[:, 0]
    np.testing.assert_allclose(reference, polynomial(between), atol=1e-6)


def test_the_steepest_slope_of_burgers_solution_is_published():
    """Basdevant et al. (1986): |∂u/∂x| at x = 0 is at most 152.00516, at t = 1.6037/π."""
    at = np.column_stack([np.zeros(201), np.linspace(1.5, 1.7, 201) / np.pi])
    slopes = np.abs(along(equations.burgers_solution, 0)(at))[:, 0]
    assert slopes.max() == pytest.approx(152.00516, abs=1e-3)
    assert np.pi * at[slopes.argmax(), 1] == pytest.approx(1.6037, abs=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_jacobians_are_finite_differences(name):
    problem = SMALL[name]()
    objective, w = problem.objective(0), problem.start(0)
    J, h = objective.jacobian(w), 1e-6
    for j in range(0, w.size, 7):
        unit = np.where(np.arange(w.size) == j, h, 0.0)
        difference = (objective.residuals(w + unit) - objective.residuals(w - unit)) / (2 * h)
        np.testing.assert_allclose(J[:, j], difference, atol=1e-6 * max(1.0, np.abs(J).max()))


@pytest.mark.parametrize("name", FIXED)
def test_gradients_of_fixed_data_are_finite_differences(name):
    problem = FIXED[name]()
    assert checks.gradient_error(problem.objective(0), problem.start(0)) < 1e-6


@pytest.mark.parametrize("name", SMALL | FIXED)
def test_seeds_and_errors(name):
    """A seed draws points and start, always the same; errors do not depend on it."""
    problem = (SMALL | FIXED)[name]()
    w = problem.start(0)
    assert w.dtype == np.float64
    np.testing.assert_array_equal(w, problem.start(0))
    assert not np.array_equal(w, problem.start(1))
    values = [problem.objective(seed).value(w) for seed in (0, 0, 1)]
    assert values[0] == values[1]
    assert (values[0] == values[2]) == (name in FIXED)
    assert problem.error(w) == (SMALL | FIXED)[name]().error(w) > 0.05


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_sizes(name):
    problem = problems.PROBLEMS[name]()
    assert problem.name == name
    size = problem.start(0).size
    assert 300 < size < 3000 or "autoencoder" in name
    assert size < 100_000 or "large" in name
    assert size == sum(np.prod(shape) for shape in problem.shapes)


def test_poisson_is_solved():
    problem = problems.poisson(hidden=(10, 10), interior=120, boundary=40)
    result = levenberg_marquardt(
        problem.objective(0), problem.start(0), max_iter=80, callback=lambda record: record.loss < 1e-6
    )
    assert problem.error(result.x) < 1e-3


def test_curves_are_drawn_where_they_pass():
    """The pixels at both ends of each curve are bright, and the edge of the image is empty."""
    images = regression.draw_curves(50, seed=3).reshape(-1, 28, 28)
    points = np.random.default_rng(3).uniform(3, 24, (50, 3, 2))
    for image, (start, _, end) in zip(images, points, strict=True):
        for x, y in (start, end):
            assert image[round(y), round(x)] > 0.75  # at most √½ away: 1.5 − √½
    assert images.min() == 0
    assert images.max() == 1
    np.testing.assert_array_equal(images[:, [0, -1]], 0)
    np.testing.assert_array_equal(regression.draw_curves(5, seed=3), images[:5].reshape(5, -1))


def test_autoencoder_errors_are_those_of_numpy():
    problem = problems.curves(sizes=(784, 5, 3), images=20)
    X = regression.draw_curves(20)
    zeros = np.zeros(problem.start(0).size)  # all outputs are sigmoid(0) = ½
    assert problem.error(zeros) == pytest.approx(0.5 * np.mean(np.sum((0.5 - X) ** 2, axis=1)))


def test_breast_cancer_is_scikit_learns_regression():
    X, labels = load_breast_cancer(return_X_y=True)
    Z = StandardScaler().fit_transform(X[:, :10])
    Z = StandardScaler().fit_transform(PolynomialFeatures(2, include_bias=False).fit_transform(Z))
    np.testing.assert_allclose(regression.quadratic_features(X[:, :10]), Z, atol=1e-9)
    fit = LinearRegression().fit(Z, 2.0 * labels - 1)
    problem = problems.breast_cancer(features=10)
    assert problem.error(np.append(fit.coef_, fit.intercept_)) < 1e-8
    assert problem.error(np.zeros(66)) == 1
    result = levenberg_marquardt(problem.objective(0), problem.start(0), max_iter=30)
    assert problem.error(result.x) < 1e-6


@pytest.mark.parametrize("features", [30, 10])
def test_the_condition_numbers_are_what_the_page_says(features):
    Z = regression.quadratic_features(load_breast_cancer().data[:, :features])
    assert np.linalg.cond(Z) == pytest.approx({30: 9e5, 10: 2e4}[features], rel=0.1)


def test_adding_sequences_hold_two_marks():
    data = recurrent.adding_sequences(500, 100, seed=0)
    values, marks = data.X[:, :100], data.X[:, 100:]
    first, second = np.nonzero(marks)[1].reshape(500, 2).T
    assert (first.min(), first.max(), second.min(), second.max()) == (0, 49, 50, 99)
    rows = np.arange(500)
    np.testing.assert_allclose(data.Y[:, 0], values[rows, first] + values[rows, second])
    assert np.var(data.Y) == pytest.approx(1 / 6, rel=0.1)  # of a sum of two uniform numbers


def test_always_1_has_the_error_of_a_sixth():
    problem = problems.adding(length=20, hidden=4)
    w = np.zeros(problem.start(0).size)
    w[-1] = 1.0  # the bias of the output
    assert problem.error(w) == pytest.approx(1 / 6, rel=0.1)


def test_the_recurrence_is_that_of_a_loop():
    net = recurrent.RecurrentNetwork(2, 3, 2)
    random = np.random.default_rng(0)
    w, inputs = random.standard_normal(net.size), random.standard_normal((6, 5, 2))  # steps, rows, inputs
    A, B, b = w[:6].reshape(2, 3), w[6:15].reshape(3, 3), w[15:18]
    C, c = w[18:24].reshape(3, 2), w[24:]
    for row in range(5):
        h, outputs = np.zeros(3), []
        for x in inputs[:, row]:
            h = np.tanh(x @ A + h @ B + b)
            outputs.append(h @ C + c)
        np.testing.assert_allclose(net.last_outputs(w, inputs, 4)[row], outputs[-4:], rtol=1e-12)


def test_a_network_that_remembers_has_no_error():
    """A shift register: each step, the numbers in it move on by one place."""
    length, symbols, delay = 2, 3, 2
    steps = length + delay  # from the first symbol to its answer
    hidden = symbols * (steps + 1)
    problem = problems.memorization(delay, length, symbols, hidden, sequences=20)
    net, small = recurrent.RecurrentNetwork(symbols + 1, hidden, symbols), 1e-4  # tanh is linear there
    A, B = np.zeros((symbols + 1, hidden)), np.zeros((hidden, hidden))
    A[:symbols, :symbols] = small * np.eye(symbols)
    B[:-symbols, symbols:] = np.eye(hidden - symbols)
    C = np.zeros((hidden, symbols))
    C[-symbols:] = np.eye(symbols) / small
    parts = (A, B, np.zeros(hidden), C, np.zeros(symbols))
    w = np.concatenate([part.ravel() for part in parts])
    assert w.size == net.size
    assert problem.symbol_error(w) == 0
    assert problem.error(w) < 1e-12
    assert problem.objective(0).value(w) < 1e-12
    w[:] = 0
    w[-symbols:] = 1 / symbols
    assert problem.error(w) == pytest.approx(1 - 1 / symbols)
    assert problem.symbol_error(w) == pytest.approx(1 - 1 / symbols, abs=0.05)
