"""The certificate against dense eigenvalues, and its probabilities against many random starts."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from hfnb import problems
from hfnb.krylov import NonFiniteProduct, System, lanczos, lanczos_process
from hfnb.optimizers.certificate import certify, certify_operator, products_needed


def random_matrix(seed):
    """A matrix of 2 to 80 rows whose smallest eigenvalue is positive, zero, or negative by little or much."""
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 80))
    eigenvalues = random.choice([np.sort(random.uniform(0, 1, n)), np.logspace(-6, 0, n)])
    eigenvalues[0] = random.choice([0.0, 1e-4, -1e-4, -0.0011, -0.002, -0.01, -0.5])
    Q, _ = np.linalg.qr(random.standard_normal((n, n)))
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2


@pytest.mark.parametrize("matrices", [60, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_false_minimum(dtype, matrices):
    verdicts = []
    for seed in range(matrices):
        A = random_matrix(seed).astype(dtype)
        exact = np.linalg.eigvalsh(A.astype(float))
        found = certify_operator(A, tol=1e-3, seed=seed)
        verdicts.append(found.verdict)
        if found.verdict == "minimum":
            assert exact[0] >= -1e-3
            assert found.failure <= 1e-6
        if found.verdict == "saddle":
            d = found.direction.astype(float)
            assert d @ A.astype(float) @ d < -1e-3 * (d @ d)
        assert found.products <= len(A) + 1
    assert verdicts.count("undecided") <= matrices / 100
    assert min(verdicts.count("minimum"), verdicts.count("saddle")) > matrices / 3


def test_start_is_fresh_and_recorded():
    A = random_matrix(5)
    first, second = certify_operator(A), certify_operator(A)
    assert first.seed != second.seed
    assert certify_operator(A, seed=first.seed).eigenvalue == first.eigenvalue


def test_failure_bounds_what_the_start_can_hide():
    """|uᵀv| ≤ Π βⱼ/(θᵢ − λmin) whatever the start v: with few products it leaves room, never too little."""
    for seed in range(20):
        A = random_matrix(seed)
        eigenvalues, Q = np.linalg.eigh(A)
        v = np.random.default_rng(seed).standard_normal(len(A))
        component = abs(Q[:, 0] @ v) / np.linalg.norm(v)
        for lanczos_matrix in lanczos_process(System(A, v), v, 6):
            failure = lanczos_matrix.failure(eigenvalues[0] - 1e-12)
            assert failure == 1 or failure / np.sqrt(2 * len(A) / np.pi) >= 0.999 * component


@pytest.mark.parametrize("trials", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_smallest_eigenvalue_is_missed_no_more_often_than_stated(trials):
    """One eigenvalue far below a dense rest, hidden from most starts for some products."""
    n = 200
    A = np.diag(np.concatenate([[-0.05], np.linspace(0, 1, n - 1)]))
    for k in (4, 8, 12):
        missed = promised = 0
        for seed in range(trials):
            v = np.random.default_rng(seed).standard_normal(n)
            *_, last = lanczos_process(System(A, v), v, k)
            missed += last.failure(-0.04) <= 0.1  # λmin = −0.05 < −0.04, yet declared a minimum
            promised += last.ritz()[0][0] > -0.05 + 0.3 * 1.05
        assert missed <= 0.1 * trials
        assert promised <= 1.648 * np.sqrt(n) * np.exp(-np.sqrt(0.3) * (2 * k - 1)) * trials


def test_products_needed_are_enough():
    for gap in (0.05, 0.2):
        k = products_needed(300, gap, 1e-3)
        assert 1.648 * np.sqrt(300) * np.exp(-np.sqrt(gap) * (2 * k - 1)) <= 1e-3
        assert 1.648 * np.sqrt(300) * np.exp(-np.sqrt(gap) * (2 * k - 3)) > 1e-3
        for seed in range(10):
            # As crowded at its ends as polynomials find hardest.
            eigenvalues = np.cos(np.linspace(0, np.pi, 300))
            result = lanczos(np.diag(eigenvalues), seed=seed, tol=0.0, max_iter=k)
            assert result.eigenvalue - eigenvalues.min() <= gap * 2


@pytest.mark.parametrize("family", problems.STRICT_SADDLES)
def test_strict_saddles_are_recognized(family):
    problem = problems.STRICT_SADDLES[family](1)
    found = certify(problem, problem.stationary)
    assert found.verdict == "saddle"
    exact = np.linalg.eigvalsh(problem.hessian(problem.stationary))
    assert exact[0] - 1e-12 <= found.eigenvalue < -found.tolerance
    assert found.gradient_norm < 1e-12


def test_minimum_degenerate_point_and_slope():
    assert certify(problems.rosenbrock(5), np.ones(5)).verdict == "minimum"
    quartic = problems.quartic_saddle()
    assert certify(quartic, np.array([0.0, 1.0])).verdict == "minimum"
    slope = certify(quartic, np.array([0.5, 0.0]))
    assert slope.verdict == "undecided"
    assert "the gradient norm 0.5 exceeds" in slope.reason


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("stretch", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("loss", [1e-8, 1e-4, 1.0, 1e8])
def test_verdicts_do_not_depend_on_units(loss, stretch, dtype):
    """Rosenbrock's start and minimum, the quartic's saddle and minimum; no gradient is small at the start."""
    rosenbrock = problems.rosenbrock().scaled(loss, stretch)
    quartic = problems.quartic_saddle().scaled(loss, stretch)
    points = [
        (rosenbrock, rosenbrock.start, "undecided"),
        (rosenbrock, rosenbrock.stationary, "minimum"),
        (quartic, quartic.stationary, "saddle"),
        (quartic, stretch * np.array([0.0, 1.0]), "minimum"),
        (quartic, stretch * np.array([0.01, 1.0]), "undecided"),
    ]
    for problem, w, expected in points:
        found = certify(problem, w.astype(dtype), seed=0)
        assert found.verdict == expected, (problem.name, w, found.reason)


def test_the_gradient_tolerance_is_absolute_where_gradients_are_large_and_relative_where_they_are_small():
    """At (1, 1) the quartic's curvature is up to 2, ‖w‖ = √2, and the gradient 1."""
    for power in (-30, -10, 0, 10, 30):
        problem = problems.quartic_saddle().scaled(2.0**power)
        found = certify(problem, np.array([1.0, 1.0]), gradient_tol=1e-5, seed=0)
        assert found.gradient_norm == 2.0**power
        assert found.gradient_tolerance == pytest.approx(1e-5 * min(1.0, np.sqrt(8) * 2.0**power), rel=1e-9)


def test_too_few_products_and_too_small_a_tolerance_decide_nothing():
    A = np.diag(np.linspace(0, 1, 200))
    assert certify_operator(A, max_products=5).verdict == "undecided"
    small = certify_operator(A.astype(np.float32), tol=1e-9)
    assert small.verdict == "undecided"
    assert "below rounding" in small.reason


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"A": np.eye(3), "failure": 0.0}, ValueError, "failure: expected a probability"),
        ({"A": np.eye(3), "tol": -1.0}, ValueError, "tol: expected a number >= 0"),
        ({"A": np.eye(3), "max_products": 0}, ValueError, "max_products: expected a whole number"),
        ({"A": np.triu(np.ones((3, 3)))}, ValueError, "A: expected a symmetric operator"),
        ({"A": np.ones((2, 3))}, ValueError, "A: expected a square operator"),
        ({"A": aslinearoperator(np.full((3, 3), np.nan))}, NonFiniteProduct, "A: product 1 is not finite"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        certify_operator(**arguments)
