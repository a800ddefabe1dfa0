"""Every solver on every class of systems, against dense float64 algebra and SciPy's solvers."""

import copy
import dataclasses
import inspect
import json
import pickle
import sys
from math import fsum
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg as scipy_solvers
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator

from hfnb import krylov
from hfnb.krylov import (
    LBFGS,
    SOLVERS,
    NonFiniteProduct,
    Status,
    Stopping,
    System,
    diagonal,
    dot,
    find_solver,
    lanczos,
    option_names,
)
from hfnb.problems import SPECTRA, linear_system

RTOL = 1e-5
SOLVES = {  # the classes on which each solver has to reach the residual
    "cg": {"positive definite", "singular consistent"},
    "bicgstab": {"positive definite", "indefinite", "singular consistent", "breakdown"},
    "minres": {"positive definite", "indefinite", "singular consistent", "breakdown"},
    "newton_mr": {"positive definite", "singular consistent"},
    "saddle_free": {"positive definite", "singular consistent"},
}
FINDS = {  # the classes on which each solver has to find negative curvature
    "cg": {"indefinite"},
    "bicgstab": {"indefinite", "breakdown"},
    "minres": {"indefinite"},
    "newton_mr": {"indefinite"},
    "saddle_free": {"indefinite", "breakdown"},
    "capped_cg": {"indefinite", "breakdown"},
}


def counting(A):
    """A as an operator, and a list that grows with each product."""
    calls = []

    def product(v):
        calls.append(1)
        return A @ v

    return LinearOperator(A.shape, matvec=product, dtype=A.dtype), calls


def options(name, n, **changes):
    chosen = {"rtol": RTOL, "progress": 0.0, "max_iter": 10 * n, **changes}
    return {**chosen, "damping": 0.1} if name == "capped_cg" else chosen


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("name", SOLVERS)
def test_solver_on_class(name, kind, dtype):
    for n, seed in [(4, 0), (10, 1), (10, 2), (60, 3), (60, 4)]:
        check_solver(name, kind, dtype, n, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("name", SOLVERS)
def test_solver_on_class_50_seeds(name, kind):
    for seed in range(50):
        # To make a matrix of 500 rows takes longer than to solve with it. Saddle-free Newton takes a whole
        # spectrum at each step: it is meant for a hundred steps.
        for n in (20, 100, 500) if seed % 5 == 0 and name != "saddle_free" else (20, 100):
            check_solver(name, kind, np.float64, n, seed)


def check_solver(name, kind, dtype, n, seed):
    """No exception or warning; what is claimed holds in dense float64."""
    A, b = (part.astype(dtype) for part in linear_system(kind, n, seed))
    operator, calls = counting(A)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        result = SOLVERS[name](operator, b, **options(name, n))
    assert result.products == len(calls)
    assert np.all(np.isfinite(result.x))
    assert np.all(np.isfinite(result.best))
    assert len(result.models) == len(result.residual_norms) == result.iterations + 1
    exact = A.astype(float)
    check_direction(result, exact, found=kind in FINDS[name] and n > 4)
    damping, x, eps = options(name, n).get("damping", 0.0), result.x.astype(float), np.finfo(dtype).eps
    residual = np.linalg.norm(b - exact @ x - damping * x)
    rounding = 10 * eps * np.linalg.norm(exact, 2) * np.linalg.norm(x)
    if name != "saddle_free" and result.status.startswith("converged"):
        goal = max(RTOL * np.linalg.norm(b), result.residual_norms[-1])
        assert residual <= goal + rounding
    if kind in SOLVES.get(name, ()) and dtype == np.float64:
        assert result.success
        assert residual <= RTOL * np.linalg.norm(b) + rounding
    if name == "minres" and kind in ("singular inconsistent", "nearly singular"):
        z = np.linalg.lstsq(exact, b.astype(float), rcond=1e-8)[0]
        assert result.success
        assert residual <= 1.001 * np.linalg.norm(b - exact @ z)


def check_direction(result, exact, found):
    """A direction is a unit vector of truly negative curvature, and the curvature is its own."""
    assert (result.direction is None) == (result.curvature is None)
    if result.direction is None:
        assert not found
        return
    d = result.direction.astype(float)
    assert np.linalg.norm(d) == pytest.approx(1, rel=1e-5)
    assert d @ exact @ d < 0
    assert d @ exact @ d == pytest.approx(
        result.curvature, rel=1e-2 if result.x.dtype == np.float32 else 1e-6
    )


def products_of_scipy(solve, A, b):
    """How many products SciPy's solver takes to an iterate with ‖b − A x‖ ≤ RTOL ‖b‖."""

    class Reached(Exception):
        pass

    def stop(x):
        if np.linalg.norm(b - A @ x) <= RTOL * np.linalg.norm(b):
            raise Reached

    operator, calls = counting(A)
    with pytest.raises(Reached):
        solve(operator, b, rtol=1e-14, maxiter=20 * b.size, callback=stop)
    return len(calls)


@pytest.mark.parametrize("name", ["cg", "bicgstab", "minres"])
def test_products_within_a_tenth_of_scipy(name):
    for kind in SOLVES[name] - {"breakdown"}:
        ours = theirs = 0
        for seed in range(10):
            A, b = linear_system(kind, 60, seed)
            ours += SOLVERS[name](A, b, rtol=RTOL, progress=0.0).products
            theirs += products_of_scipy(getattr(scipy_solvers, name), A, b)
        assert ours <= 1.1 * theirs, kind


@pytest.mark.parametrize("name", ["cg", "minres"])
def test_iterates_are_those_of_scipy(name):
    A, b = linear_system("positive definite", 30)
    x0, ours, theirs = np.linspace(-1, 1, 30), [], []
    for solve, kept in ((SOLVERS[name], ours), (getattr(scipy_solvers, name), theirs)):
        limit = {"max_iter": 12} if kept is ours else {"maxiter": 12}
        solve(A, b, x0, **limit, rtol=1e-12, callback=lambda x, kept=kept: kept.append(x.copy()))
    np.testing.assert_allclose(ours[:10], theirs[:10], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("overhead", [1.0, 12.0])
@pytest.mark.parametrize("seed", range(3))
def test_overhead_ends_the_solve_at_the_first_iteration_below_the_mean(overhead, seed):
    A, b = linear_system("positive definite", 60, seed)
    xs = [np.zeros(60)]
    krylov.cg(A, b, progress=0.0, rtol=1e-12, callback=lambda x: xs.append(x.copy()))
    gained = [b @ x - x @ A @ x / 2 for x in xs]
    last = next(i for i in range(2, len(xs)) if gained[i] - gained[i - 1] < gained[i] / (i + overhead))
    assert krylov.cg(A, b, progress=0.0, rtol=1e-12, overhead=overhead).iterations == last < len(xs) - 1


@pytest.mark.parametrize("name", SOLVERS)
def test_models_residuals_and_best_iterate_are_what_they_say(name):
    A, b = linear_system("indefinite", 20)
    x0, xs, damping = np.linspace(-1, 1, 20), [], 0.5
    result = SOLVERS[name](
        A, b, x0, damping=damping, progress=0.0, max_iter=15, callback=lambda x: xs.append(x.copy())
    )
    xs = [x0, *xs]
    B = A + damping * np.eye(20)
    models = [x @ B @ x / 2 - b @ x for x in xs]
    residual_norms = [np.linalg.norm(b - B @ x) for x in xs]
    np.testing.assert_allclose(result.models[: len(xs)], models, rtol=1e-6)
    np.testing.assert_allclose(result.residual_norms[: len(xs)], residual_norms, rtol=1e-6)
    best = result.best
    assert best @ B @ best / 2 - b @ best == pytest.approx(result.model, rel=1e-6)
    position, x = result.iterates[-1]
    assert x @ B @ x / 2 - b @ x == pytest.approx(result.models[position], rel=1e-6)


def test_cg_stops_by_martens_rule_and_keeps_his_iterates():
    A, b = linear_system("positive definite", 500)
    xs = []
    result = krylov.cg(A, b, rtol=0.0, callback=lambda x: xs.append(x.copy()))
    q = [0.0, *(x @ A @ x / 2 - b @ x for x in xs)]

    def stalled(i):
        k = max(10, i // 10)
        return i > k and q[i] < 0 and (q[i] - q[i - k]) / q[i] < k * 5e-4

    assert result.iterations == next(i for i in range(len(q)) if stalled(i))
    kept = sorted({int(np.ceil(1.3**j)) for j in range(30)} | {result.iterations})
    assert [i for i, _ in result.iterates] == [i for i in kept if i <= result.iterations]
    for i, x in result.iterates:
        np.testing.assert_array_equal(x, xs[i - 1])


def test_minres_sees_the_first_residual_of_non_positive_curvature():
    for seed in range(5):
        A, b = linear_system("indefinite", 40, seed)
        A += 25 * np.eye(40)  # a few negative eigenvalues, seen after some iterations
        xs = [np.zeros(40)]
        krylov.minres(A, b, progress=0.0, callback=lambda x, xs=xs: xs.append(x.copy()))
        residuals = [b - A @ x for x in xs]
        norms = [np.linalg.norm(r) for r in residuals]
        assert all(np.diff(norms) <= 1e-12)
        first = next(i for i, r in enumerate(residuals) if r @ A @ r <= 0)
        stopped = krylov.newton_mr(A, b, progress=0.0)
        assert stopped.iterations == first
        assert stopped.products == first + 1
        d = residuals[first] / norms[first]
        assert stopped.curvature <= d @ A @ d + 1e-9


def test_cg_in_a_trust_region_is_scipys_step():
    for kind in ("indefinite", "positive definite"):
        A, b = linear_system(kind, 30, seed=1)
        scipy_step = minimize(
            lambda x, A=A, b=b: x @ A @ x / 2 - b @ x,
            np.zeros(30),
            jac=lambda x, A=A, b=b: A @ x - b,
            hessp=lambda x, v, A=A: A @ v,
            method="trust-ncg",
            options={"initial_trust_radius": 0.1, "max_trust_radius": 0.2, "maxiter": 1},
        ).x
        result = krylov.cg(A, b, radius=0.1, progress=0.0)
        assert result.success
        assert np.linalg.norm(result.x) == pytest.approx(0.1)
        np.testing.assert_allclose(result.x, scipy_step, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["indefinite", "positive definite"])
@pytest.mark.parametrize("seed", range(5))
def test_cg_in_a_trust_region_ends_at_the_boundary_or_at_the_minimum_inside(kind, seed):
    A, b = linear_system(kind, 30, seed)
    damping, x0 = 0.1, np.linspace(-0.01, 0.01, 30)
    B = A + damping * np.eye(30)
    solution = np.linalg.solve(B, b)
    for radius in (0.1, 0.5 * np.linalg.norm(solution), 2 * np.linalg.norm(solution)):
        xs = [x0]
        result = krylov.cg(
            A,
            b,
            x0,
            damping=damping,
            radius=radius,
            progress=0.0,
            callback=lambda x, xs=xs: xs.append(x.copy()),
        )
        q = [x @ B @ x / 2 - b @ x for x in xs]
        assert all(np.diff(q) < 0)
        assert all(np.linalg.norm(x) <= radius * (1 + 1e-12) for x in xs)
        if kind == "positive definite" and radius > np.linalg.norm(solution):
            assert result.status is Status.CONVERGED
            np.testing.assert_allclose(result.x, solution, rtol=1e-3, atol=1e-6)
            continue
        assert result.success
        assert np.linalg.norm(result.x) == pytest.approx(radius)
        last = xs[-1] - xs[-2]
        downhill = last @ B @ last <= 0
        assert result.status is (Status.BOUNDARY_BY_CURVATURE if downhill else Status.BOUNDARY)


def test_a_start_outside_of_the_trust_region_is_refused():
    with pytest.raises(ValueError, match=r"radius: expected a number of at least ‖x0‖ = 2, got 1\.5"):
        krylov.cg(np.eye(4), np.ones(4), np.ones(4), radius=1.5)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_saddle_free_is_the_absolute_hessian(damping):
    A, b = linear_system("indefinite", 30)
    eigenvalues, Q = np.linalg.eigh(A)
    result = krylov.saddle_free(A, b, damping=damping, rtol=1e-10, progress=0.0)
    np.testing.assert_allclose(
        result.x, Q @ ((Q.T @ b) / (np.abs(eigenvalues) + damping)), rtol=1e-6, atol=1e-9
    )
    assert result.curvature == pytest.approx(eigenvalues[0], rel=1e-6)


def test_capped_cg_solves_or_finds_enough_negative_curvature():
    solved = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        Q, _ = np.linalg.qr(random.standard_normal((40, 40)))
        A = (Q * random.uniform(random.choice([-0.5, -0.06, 0.0]), 10, 40)) @ Q.T
        A, b = (A + A.T) / 2, random.standard_normal(40)
        result = krylov.capped_cg(A, b, damping=0.1, progress=0.0)
        if result.success:
            solved += 1
            kappa = (np.linalg.norm(A, 2) + 0.1) / 0.05
            residual = np.linalg.norm(b - A @ result.x - 0.1 * result.x)
            assert residual <= 0.5 / (3 * 0.5 * kappa) * np.linalg.norm(b)
        else:
            assert result.direction @ A @ result.direction <= -0.05
    assert 5 < solved < 30


@pytest.mark.parametrize("seed", [1023, 1049, 1137, 1263])
def test_capped_cg_finds_the_difference_of_iterates_that_curves_down(monkeypatch, seed):
    """The residual's cap is hardly ever met: here it is lowered to nothing before p itself curves down."""
    random = np.random.default_rng(seed)
    n = int(random.integers(3, 12))
    low = int(random.integers(1, n))
    shifted = [random.uniform(0.01, 1, low), random.uniform(1.0, 10 ** random.uniform(0, 2), n - low)]
    A, b = np.diag(np.concatenate(shifted) - 2), random.standard_normal(n) * 10 ** random.uniform(-2, 0, n)
    iterations = {1023: 3, 1049: 2, 1137: 5, 1263: 5}[seed]

    def bounds(A_norm, eps, accuracy, iteration):
        return 0.0, 0.0 if iteration >= iterations else np.inf

    monkeypatch.setattr(sys.modules["hfnb.krylov._cg"], "_bounds", bounds)
    result = krylov.capped_cg(A, b, damping=2.0, rtol=1e-9, progress=0.0)
    assert result.status is Status.SLOW_RESIDUAL
    assert result.direction @ A @ result.direction < -1


def test_lanczos_finds_the_smallest_eigenvalue():
    for seed in range(5):
        A, _ = linear_system("indefinite", 80, seed)
        eigenvalues, Q = np.linalg.eigh(A)
        result = lanczos(A, tol=1e-6, max_iter=80)
        assert result.eigenvalue == pytest.approx(eigenvalues[0], rel=1e-6)
        d = result.direction
        assert abs(d @ Q[:, 0]) == pytest.approx(1, rel=1e-4)
        actual = np.linalg.norm(A @ d - result.eigenvalue * d)
        assert actual == pytest.approx(result.residual_norm, rel=0.01, abs=1e-9)
        again = lanczos(A, seed=result.seed, tol=1e-6, max_iter=80)
        np.testing.assert_array_equal(again.direction, d)
    assert lanczos(A).seed != lanczos(A).seed


def test_lanczos_stays_orthonormal():
    A, b = linear_system("positive definite", 120)
    *_, last = krylov.lanczos_process(System(A, b), b, 120)
    np.testing.assert_allclose(last.V @ last.V.T, np.eye(len(last.V)), atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_keeps_its_error_bound(dtype):
    random = np.random.default_rng(0)
    for n in (1, 511, 512, 513, 380_000):
        x, y = random.standard_normal((2, n)).astype(dtype)
        exact = fsum(x.astype(float) * y.astype(float))
        terms = fsum(np.abs(x.astype(float) * y.astype(float)))
        assert abs(dot(x, y) - exact) <= (1e-9 if n > 1e5 else 8e-6) * terms
    assert dot(np.full(300, 1e30, np.float32), np.full(300, 1e30, np.float32)) == pytest.approx(
        3e62, rel=1e-6
    )
    assert dot(np.full(300, 1e-30, np.float32), np.full(300, 1e-30, np.float32)) == pytest.approx(
        3e-58, rel=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 100, 9984, 9985, 40_000])
def test_axpy_is_numpys_to_one_rounding(dtype, n):
    """Also where BLAS cannot use the memory: with strides, off a word's boundary, in another byte order."""
    x, y = np.random.default_rng(0).standard_normal((2, n)).astype(dtype)
    exact = y + float(dtype(0.3)) * x.astype(float)
    room = np.zeros(y.nbytes + 1, np.uint8)
    unaligned = room[1:].view(np.uint8)[: y.nbytes].view(dtype) if n else y
    for into in (
        y.copy(),
        np.repeat(y, 2)[::2],
        y[::-1].copy()[::-1],
        unaligned,
        y.astype(y.dtype.newbyteorder()),
    ):
        into[:] = y
        krylov.axpy(into, 0.3, x)
        np.testing.assert_allclose(
            into, exact, rtol=0, atol=2 * np.finfo(dtype).eps * (np.abs(exact).max() + 1)
        )
    other = np.float64 if dtype == np.float32 else np.float32
    into = y.copy()
    krylov.axpy(into, 0.3, x.astype(other))
    np.testing.assert_allclose(into, exact, atol=1e-6)


def test_a_product_knows_its_norm_also_where_damping_cancels_it():
    A, b = linear_system("indefinite", 30)
    eigenvalues, Q = np.linalg.eigh(A)
    for damping in (0.0, 0.5, -eigenvalues[0] + 1e-9):
        system, out = System(A, b, damping=damping), np.empty(30)
        for v in (b, Q[:, 0] + 1e-9 * Q[:, 1]):
            vBv = system.product(v, out=out, vv=v @ v)
            B = A + damping * np.eye(30)
            np.testing.assert_allclose(out, B @ v, atol=1e-13 * np.linalg.norm(A, 2))
            assert system.product_norm == pytest.approx(np.linalg.norm(out), rel=1e-9)
            assert vBv == pytest.approx(v @ B @ v, rel=1e-9, abs=1e-12)
        assert system.curvature == pytest.approx(eigenvalues[0], rel=1e-9)


@pytest.mark.parametrize("kind", ["positive definite", "indefinite", "singular consistent"])
@pytest.mark.parametrize("name", ["cg", "bicgstab", "minres", "newton_mr", "capped_cg"])
@pytest.mark.parametrize("M", [None, "diagonal"], ids=["no M", "diagonal M"])
def test_the_best_iterate_is_the_one_of_least_q(name, kind, M):
    for seed in range(5):
        A, b = linear_system(kind, 40, seed)
        x0, xs = np.linspace(-1, 1, 40), []
        chosen = {} if name == "capped_cg" else {"M": M and np.diag(np.linspace(0.5, 2, 40))}
        chosen |= options(name, 40, callback=lambda x, xs=xs: xs.append(x.copy()))
        result = SOLVERS[name](A, b, x0, **chosen)
        B = A + chosen.get("damping", 0.0) * np.eye(40)
        q = [x @ B @ x / 2 - b @ x for x in [x0, *xs]]
        scale = max(map(abs, q))
        np.testing.assert_allclose(result.models[: len(q)], q, rtol=1e-9, atol=1e-9 * scale)
        best = result.best @ B @ result.best / 2 - b @ result.best
        assert best == pytest.approx(min(q), rel=1e-9, abs=1e-9 * scale)


def test_after_divergence_the_best_iterate_is_one_that_was_seen_and_its_record_the_last():
    """A monitor of a solver whose fifth step leads so far that no digit of the residual is left."""
    system = System(np.eye(3), np.ones(3))
    system.product(np.ones(3), out=np.empty(3))
    monitor, xs = krylov.Monitor(system, Stopping(rtol=1e-9, progress=0.0), descends=True), []
    x = np.zeros(3)
    for step in (0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 1e30):
        x += step
        status = monitor.stop(x, 1 - x, q=-1.0 - len(xs), r_norm=1.0)
        xs.append(x.copy())
    assert status is Status.DIVERGED
    result = monitor.result(x, status)
    np.testing.assert_array_equal(result.best, xs[result.iterations])
    np.testing.assert_array_equal(result.x, result.best)
    assert result.models == [-1.0 - i for i in range(5)]
    assert len(result.residual_norms) == 5


@pytest.mark.parametrize(
    ("kind", "n"), [("singular inconsistent", 4), ("singular inconsistent", 10), ("nearly singular", 4)]
)
def test_minres_ends_at_a_least_squares_solution_in_float32(kind, n):
    """A further step would divide by rounding."""
    for seed in range(60):
        A, b = (part.astype(np.float32) for part in linear_system(kind, n, seed))
        result = krylov.minres(A, b, rtol=1e-5, progress=0.0)
        assert result.status is Status.LEAST_SQUARES
        exact = A.astype(float)
        z = np.linalg.lstsq(exact, b.astype(float), rcond=1e-6)[0]
        assert np.linalg.norm(b - exact @ result.x) <= 1.001 * np.linalg.norm(b - exact @ z)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e8])
def test_a_preconditioned_minres_is_not_done_before_its_residual_is_small(scale):
    # The norms of A and of the preconditioned A differ by the scale.
    A, M = scale * np.diag([1.0, 2.0, 3.0]), np.diag([1.0, 1.0, 1 / 6]) / scale
    found = krylov.minres(A, np.ones(3), progress=0.0, rtol=1e-3, M=M)
    assert found.success
    np.testing.assert_allclose(found.x, np.linalg.solve(A, np.ones(3)), rtol=5e-3)
    # Without a solution, it ends where ‖M^½ (b − A x)‖ is smallest.
    singular, half = scale * np.diag([1.0, 2.0, 0.0]), np.sqrt(M)
    found = krylov.minres(singular, np.ones(3), progress=0.0, rtol=1e-8, M=M)
    assert found.status is Status.LEAST_SQUARES
    exact = np.linalg.lstsq(half @ singular, half @ np.ones(3), rcond=None)[0]
    np.testing.assert_allclose(found.x[:2], exact[:2], rtol=1e-6)


@pytest.mark.parametrize("name", ["cg", "bicgstab", "minres", "newton_mr"])
def test_preconditioner_saves_products(name):
    A, b = linear_system("positive definite", 80)
    scales = np.logspace(-2, 2, 80)
    A, M = scales[:, None] * A * scales, np.diag(scales**-2.0)
    plain = SOLVERS[name](A, b, progress=0.0, rtol=1e-8, max_iter=2000)  # 10 n would end it too early
    result = SOLVERS[name](A, b, progress=0.0, rtol=1e-8, M=M)
    assert result.success
    assert result.products < plain.products / 2
    assert np.linalg.norm(b - A @ result.x) <= 2e-8 * np.linalg.norm(b)
    same = SOLVERS[name](A, b, progress=0.0, max_iter=5, M=np.eye(80))
    np.testing.assert_allclose(same.x, SOLVERS[name](A, b, progress=0.0, max_iter=5).x, rtol=1e-6)


def test_lbfgs_is_the_dense_bfgs_inverse_and_saves_products():
    A, b = linear_system("positive definite", 40)
    pairs = LBFGS(memory=40)
    first = krylov.cg(pairs.watch(A), b, progress=0.0)
    assert 20 <= len(pairs.pairs) <= 40
    M = pairs.operator()
    s, y = pairs.pairs[-1]
    H = s @ y / (y @ y) * np.eye(40)
    for s, y in pairs.pairs:
        V = np.eye(40) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(M @ np.eye(40), H, rtol=1e-6, atol=1e-10)
    second = krylov.cg(A, np.linspace(0, 1, 40), progress=0.0, M=M)
    assert second.success
    assert second.products < first.products / 2


def test_diagonal_is_martens():
    squares = np.array([0.0, 3.0, 8.0])
    np.testing.assert_allclose(diagonal(squares, 1.0) @ np.eye(3), np.diag([1, 4**-0.75, 9**-0.75]))
    with pytest.raises(ValueError, match="squares: expected"):
        diagonal(squares, 0.0)


BAD = {
    "non-symmetric matrix": (
        {"A": np.array([[1.0, 2.0], [0.0, 1.0]])},
        ValueError,
        "A: expected a symmetric",
    ),
    "non-square": ({"A": np.ones((2, 3))}, ValueError, r"A: expected a square operator of shape \(2, 2\)"),
    "complex": ({"A": np.eye(2) * 1j}, ValueError, "A: expected real numbers"),
    "integers": ({"b": np.array([1, 2])}, ValueError, "b: expected a vector of float"),
    "matrix for b": ({"b": np.ones((2, 1))}, ValueError, "b: expected a vector"),
    "NaN in b": ({"b": np.array([1.0, np.nan])}, ValueError, "b: expected finite"),
    "x0 of another size": ({"x0": np.ones(3)}, ValueError, r"x0: expected shape \(2,\)"),
    "max_iter 0": ({"max_iter": 0}, ValueError, "max_iter: expected a whole number of at least 1, got 0"),
    "max_iter 1.5": ({"max_iter": 1.5}, ValueError, "max_iter: expected a whole number"),
    "rtol negative": ({"rtol": -1.0}, ValueError, "rtol: expected a number >= 0"),
    "NaN matrix": ({"A": np.array([[1.0, np.nan], [np.nan, 1.0]])}, NonFiniteProduct, "A: product 1 is not"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", SOLVERS)
def test_bad_input_gets_one_clear_error(name, case):
    changes, error, message = BAD[case]
    arguments = {"A": np.eye(2), "b": np.ones(2), "damping": 0.1, **changes}
    with pytest.raises(error, match=message):
        SOLVERS[name](**arguments)


def test_the_third_product_that_is_not_finite_is_named():
    A, b = linear_system("positive definite", 20)
    calls = []

    def product(v):
        calls.append(1)
        return A @ v if len(calls) < 3 else np.full(20, np.inf)

    with pytest.raises(NonFiniteProduct, match="A: product 3 is not finite"):
        krylov.cg(LinearOperator((20, 20), matvec=product, dtype=float), b)


@pytest.mark.parametrize("name", ["cg", "bicgstab", "minres"])
def test_indefinite_preconditioner(name):
    A, b = linear_system("positive definite", 10)
    with pytest.raises(ValueError, match="M: expected a positive definite preconditioner, got rᵀMr = -"):
        SOLVERS[name](A, b, M=-np.eye(10))


@pytest.mark.parametrize("name", SOLVERS)
def test_operator_is_probed_for_symmetry_where_asked(name):
    A = LinearOperator((3, 3), matvec=lambda v: np.triu(np.ones((3, 3))) @ v, dtype=float)
    SOLVERS[name](A, np.ones(3), damping=3.0)
    with pytest.raises(ValueError, match="A: expected a symmetric operator"):
        SOLVERS[name](A, np.ones(3), damping=3.0, check=True)


@pytest.mark.parametrize("name", SOLVERS)
def test_zero_right_hand_side(name):
    result = SOLVERS[name](np.eye(3), np.zeros(3), np.ones(3), damping=0.1)
    assert result.success
    assert result.status is Status.ZERO_RIGHT_HAND_SIDE
    assert not result.x.any()
    assert result.products == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_callback_stops(name):
    A, b = linear_system("positive definite", 30)
    result = SOLVERS[name](A, b, damping=0.1, callback=lambda x: True)
    assert result.iterations == 1
    assert result.status is Status.CALLBACK


OWN = {
    "cg": {"radius", "overhead"},
    "bicgstab": {"stop_indefinite"},
    "minres": {"stop_indefinite"},
    "newton_mr": {"stop_indefinite"},
    "capped_cg": {"accuracy"},
    "saddle_free": set(),
}
FIELDS = {each.name: each.default for each in dataclasses.fields(Stopping)}


@pytest.mark.parametrize("name", SOLVERS)
def test_one_signature(name):
    parameters = list(inspect.signature(SOLVERS[name]).parameters)
    assert parameters[:6] == ["A", "b", "x0", "damping", "M", "check"]
    assert parameters[-1] == "stopping"
    assert set(parameters[6:-1]) == OWN[name]
    shared = {"damping", "M", "check", "rtol", "atol", "progress", "max_iter", "callback"}
    assert set(option_names(SOLVERS[name])) == shared | OWN[name]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_takes_the_options_that_it_names_and_refuses_others(name):
    solve, taken = SOLVERS[name], option_names(SOLVERS[name])
    arguments = {"A": np.eye(2), "b": np.ones(2), "damping": 0.1}
    for option in ("tolerance", "maxiter", *(FIELDS.keys() - set(taken))):
        with pytest.raises(
            TypeError, match=rf"^{option}: expected one of the options of \w+ \(damping, M, .*\)"
        ):
            solve(**arguments, **{option: None})
    for option in FIELDS.keys() & set(taken):
        assert solve(**arguments, **{option: FIELDS[option]}).success


def test_stopping_options_are_checked_once_and_are_frozen():
    stopping = Stopping(rtol=np.float32(0.5), max_iter=np.int64(3))
    assert type(stopping.rtol) is float
    assert type(stopping.max_iter) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        stopping.rtol = 1.0
    for field, value in [("stop_indefinite", 1), ("callback", 3), ("overhead", 0.0), ("max_iter", True)]:
        with pytest.raises((TypeError, ValueError), match=f"^{field}: expected"):
            Stopping(**{field: value})


@pytest.mark.parametrize("status", Status)
def test_a_status_is_its_sentence_also_when_sent_or_saved(status):
    assert isinstance(status, str)
    assert type(str(status)) is str
    assert repr(status) == repr(str(status))
    assert f"{status}" == status == str(status)
    assert pickle.loads(pickle.dumps(status)) is status
    assert copy.deepcopy(status) is status
    assert json.loads(json.dumps({"status": status})) == {"status": str(status)}


def test_one_function_of_ours_between_a_solver_and_the_operator():
    frames, ours = [], Path(krylov.__file__).parent

    def product(v):
        frames.append([each for each in inspect.stack(0) if Path(each.filename).parent == ours])
        return 2 * v

    operator = LinearOperator((3, 3), matvec=product, dtype=float)
    for name in SOLVERS.keys() - {"saddle_free"}:  # which leaves its products to the Lanczos process
        frames.clear()
        SOLVERS[name](operator, np.ones(3), damping=0.1)
        assert frames
        solver = "minres" if name == "newton_mr" else name
        assert all([each.function for each in found[:2]] == ["product", solver] for found in frames)


def test_no_vector_is_passed_over_once_more_without_a_trust_region(monkeypatch):
    """Only a radius costs `cg` the norm of x0 and the way to the boundary."""

    def refuse(*arguments):
        raise AssertionError("called")

    monkeypatch.setattr(sys.modules["hfnb.krylov._cg"], "_to_boundary", refuse)
    monkeypatch.setattr(sys.modules["hfnb.krylov._cg"], "norm", refuse)
    A, b = linear_system("indefinite", 20)
    assert krylov.cg(A, b, np.ones(20)).iterations > 0
    with pytest.raises(AssertionError, match="called"):
        krylov.cg(A, b, radius=1.0)


@pytest.mark.parametrize(("name", "most"), [("cg", 4), ("bicgstab", 10), ("minres", 7)])
def test_dot_products_of_an_iteration(monkeypatch, name, most):
    """Without what the recurrences know there would be 8, 17 and 9, the three of each product among them."""
    (A, b), counted, vecdot = linear_system("positive definite", 200), [], np.vecdot
    monkeypatch.setattr(np, "vecdot", lambda x, y: counted.append(1) or vecdot(x, y))
    taken = []
    for max_iter in (8, 28):
        counted.clear()
        assert (
            SOLVERS[name](A, b, damping=0.1, rtol=0.0, progress=0.0, max_iter=max_iter).iterations == max_iter
        )
        taken.append(len(counted))
    assert taken[1] - taken[0] <= 20 * most


def test_find_solver_lists_what_exists():
    with pytest.raises(ValueError, match=r"solver: expected one of cg, bicgstab, .* got 'gmres'"):
        find_solver("gmres")


def test_a_solver_of_ones_own_is_called_as_it_is_and_its_result_checked():
    given = {}

    def solver(A, b, x0=None, **options):
        given.update(options, x0=x0)
        return krylov.cg(A, b, x0, **options)

    A, b = np.diag([1.0, 4.0]), np.ones(2)
    np.testing.assert_allclose(find_solver(solver)(A, b, b, damping=1.0).x, [1 / 2, 1 / 5])
    assert given["damping"] == 1.0
    assert given["x0"] is b
    with pytest.raises(TypeError, match=r"solver: expected a KrylovResult, .* got tuple"):
        find_solver(scipy_solvers.cg)(A, b)


def test_special_arguments():
    with pytest.raises(ValueError, match="radius: expected a number > 0"):
        krylov.cg(np.eye(2), np.ones(2), radius=0.0)
    with pytest.raises(ValueError, match="damping: expected 2ε > 0"):
        krylov.capped_cg(np.eye(2), np.ones(2))
    for name in ("capped_cg", "saddle_free"):
        with pytest.raises(ValueError, match="M: expected None"):
            SOLVERS[name](np.eye(2), np.ones(2), damping=0.1, M=np.eye(2))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_a_right_hand_side_whose_squares_leave_the_range_is_not_solved_in_silence(name, scale):
    """‖b‖ is inf or 0 then, with which x = 0 would meet any tolerance relative to it."""
    result = SOLVERS[name](np.eye(3), np.full(3, scale), damping=0.1)
    assert not result.success
    assert result.status is (Status.OVERFLOW if scale > 1 else Status.UNDERFLOW)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_matrix_may_be_a_nested_list(name):
    A, b = [[2.0, 1.0], [1.0, 3.0]], [1.0, 2.0]
    result = SOLVERS[name](A, b, damping=1e-3, progress=0.0, rtol=1e-10)
    expected = np.linalg.solve(np.array(A) + 1e-3 * np.eye(2), b)
    np.testing.assert_allclose(result.x, expected, rtol=1e-5 if name != "capped_cg" else 1e-2)


def test_vectors_of_two_sizes_are_not_broadcast():
    for one, other in ((256, 128), (10, 1), (128, 256)):
        with pytest.raises(ValueError, match="x, y: expected two vectors"):
            dot(np.ones(one), np.ones(other))
        with pytest.raises(ValueError, match="x, y: expected two vectors"):
            krylov.axpy(np.ones(one), 1.0, np.ones(other))
    with pytest.raises(ValueError, match="x, y: expected two vectors"):
        dot(np.full(200, 100, np.int8), np.full(200, 100, np.int8))  # would overflow


FAULTS = {
    "a shorter x": lambda result: {"x": result.x[:-1]},
    "another precision": lambda result: {"best": result.best.astype(np.float32)},
    "NaN": lambda result: {"x": result.x * np.nan},
    "infinity": lambda result: {"best": result.best * np.inf},
    "a list": lambda result: {"x": result.x.tolist()},
    "iterates of another length": lambda result: {"iterates": [(1, result.x[:-1])]},
    "a direction without curvature": lambda result: {"direction": result.x},
    "no models": lambda result: {"models": []},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_a_solver_of_ones_own_returns_is_checked(fault):
    def solver(A, b, x0=None, **options):
        result = krylov.cg(A, b, x0, **options)
        for name, value in fault(result).items():
            setattr(result, name, value)
        return result

    with pytest.raises(ValueError, match="solver: expected"):
        find_solver(solver)(np.diag([1.0, 4.0]), np.ones(2))


def test_an_operator_that_fails_is_named():
    for wrong in (lambda v: v[:1], lambda v: v * 1j, lambda v: None):
        with pytest.raises((TypeError, ValueError), match="A: product 1 failed"):
            krylov.cg(LinearOperator((2, 2), matvec=wrong, dtype=float), np.ones(2))
