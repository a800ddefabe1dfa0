"""What the problems say of themselves, against finite differences, dense algebra and SciPy."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize, rosen, rosen_der, rosen_hess

from hfnb import problems
from hfnb.problems import STRICT_SADDLES, deep_linear, tensor_decomposition

OTHERS = {
    "monkey saddle": problems.monkey_saddle,
    "Rosenbrock": problems.rosenbrock,
    "Rosenbrock of 5": lambda: problems.rosenbrock(5),
    "no negative eigenvalue": lambda: problems.random_saddle(10, 0),
    "linear network, global minimum": lambda: deep_linear((4, 2, 4), (0, 1)),
    "linear network, 2 layers, wide": lambda: deep_linear((4, 6, 4), (1, 3)),
    "linear network, 3 layers, wide": lambda: deep_linear((3, 3, 2, 4), (1, 2)),
    "linear network, 4 layers": lambda: deep_linear((4, 2, 3, 2, 4), (2, 3)),
    "linear network, 3 layers, degenerate": lambda: deep_linear((3, 3, 3, 3), (2,)),
    "tensor, minimum": lambda: tensor_decomposition(5, 1),
    "tensor, all": lambda: tensor_decomposition(5, 5),
}


@pytest.fixture(params=[*STRICT_SADDLES, *OTHERS])
def problem(request):
    return STRICT_SADDLES[request.param](3) if request.param in STRICT_SADDLES else OTHERS[request.param]()


def test_stationary_point_and_its_index(problem):
    assert np.abs(problem.gradient(problem.stationary)).max() < 1e-14
    eigenvalues = np.linalg.eigvalsh(problem.hessian(problem.stationary))
    assert np.sum(eigenvalues < -1e-12) == problem.index


def test_derivatives(problem):
    w = problem.start + 0.1
    np.testing.assert_allclose(
        problem.gradient(w), approx_fprime(w, problem.value, 1e-7), rtol=1e-4, atol=1e-4
    )
    v = np.linspace(-1, 1, problem.size)
    difference = (problem.gradient(w + 1e-6 * v) - problem.gradient(w - 1e-6 * v)) / 2e-6
    np.testing.assert_allclose(problem.hessian_product(w, v), difference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(problem.hessian(w) @ v, problem.hessian_product(w, v), rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore:overflow encountered in square")  # BFGS leaps where tanh is flat
def test_minimum(problem):
    """SciPy reaches the least value from some start, and never goes below it."""
    found = []
    for seed in range(8):
        start = problem.near(0.7, seed)
        found.append(minimize(problem.value, start, jac=problem.gradient, method="BFGS").fun)
    assert min(found) == pytest.approx(problem.minimum, abs=1e-6)
    assert min(found) >= problem.minimum - 1e-10


def test_rosenbrock_is_scipys():
    w = np.array([0.3, -0.7, 1.1, 0.2])
    problem = problems.rosenbrock(4)
    assert problem.value(w) == pytest.approx(rosen(w))
    np.testing.assert_allclose(problem.gradient(w), rosen_der(w))
    np.testing.assert_allclose(problem.hessian(w), rosen_hess(w))


def test_tensor_decomposition_is_the_distance_of_tensors():
    problem = tensor_decomposition(3, 2, seed=1)
    Q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    T = sum(np.einsum("i,j,k,l->ijkl", a, a, a, a) for a in Q)
    u = np.array([0.4, -1.0, 0.3])
    assert problem.value(u) == pytest.approx(0.5 * np.sum((T - np.einsum("i,j,k,l->ijkl", u, u, u, u)) ** 2))


def test_hard_case_hides_its_negative_curvature():
    problem = problems.hard_case()
    for y in (-1.0, 0.0, 0.5):
        w = np.array([0.0, y])
        eigenvalues, vectors = np.linalg.eigh(problem.hessian(w))
        assert eigenvalues[0] < 0
        assert abs(vectors[:, 0] @ problem.gradient(w)) < 1e-14


def test_other_units_have_scaled_derivatives_and_the_same_index(problem):
    scales = np.logspace(-2, 3, problem.size)
    scaled = problem.scaled(1e-3, scales)
    w = problem.start + 0.1
    assert scaled.value(scales * w) == pytest.approx(1e-3 * problem.value(w))
    np.testing.assert_allclose(scaled.gradient(scales * w) * scales, 1e-3 * problem.gradient(w), atol=1e-12)
    H = scaled.hessian(scales * w) * np.outer(scales, scales)
    np.testing.assert_allclose(H, 1e-3 * problem.hessian(w), atol=1e-10)
    np.testing.assert_allclose(scaled.stationary, scales * problem.stationary)
    assert (scaled.index, scaled.minimum) == (problem.index, 1e-3 * problem.minimum)


def test_counts_and_distance():
    problem = problems.quartic_saddle()
    problem.value(problem.start)
    problem.hessian_product(problem.start, problem.start)
    assert (problem.counts.losses, problem.counts.products, problem.counts.samples) == (1, 1, 2)
    assert np.linalg.norm(problem.near(1e-3) - problem.stationary) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: problems.random_saddle(3, 4), "index: expected 0 to 3"),
        (
            lambda: tensor_decomposition(3, 4),
            "components: expected a whole number of at least 1 and at most 3",
        ),
        (lambda: deep_linear((4, 2, 4), (0, 1, 2)), "kept: expected up to 2 different numbers from 0 to 3"),
        (lambda: problems.tiny_network("relu"), "activation: expected one of tanh, sigmoid"),
        (lambda: problems.rosenbrock(1), "n: expected at least 2"),
        (lambda: problems.rosenbrock().scaled(0.0), "loss: expected positive numbers, got 0"),
        (lambda: problems.rosenbrock().scaled(stretch=[1.0, -1.0]), "stretch: expected positive numbers"),
        (lambda: problems.linear_system("easy"), "kind: expected one of positive definite, "),
        (
            lambda: problems.hard_case().curvature(np.zeros(2), "gauss-newton"),
            "curvature: expected 'hessian'",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
