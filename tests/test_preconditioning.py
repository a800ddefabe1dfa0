"""Preconditioners in the optimizer: against dense inverses, SciPy's minimum, and uninterrupted runs."""

import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import minimize
from test_hessian_free import LABELS, Memory, X, logistic, small_network

from hfnb import Checkpoint, Dataset, Objective, hessian_free, krylov
from hfnb.models import mlp
from hfnb.optimizers.history import State
from hfnb.optimizers.preconditioning import Jacobi, SharedSamples, find_preconditioner
from hfnb.problems.saddles import Problem

NAMES = ("lbfgs", "diagonal")


def quadratic(A, b):
    """½ wᵀAw − bᵀw, whose minimum is known."""
    x = np.linalg.solve(A, b)
    return Problem(
        "quadratic", lambda w: 0.5 * anp.dot(w, anp.dot(A, w)) - anp.dot(b, w), x, 0, -0.5 * b @ x, 0 * b
    )


def ill_conditioned(seed, n=40):
    """A symmetric matrix with eigenvalues from 1e-3 to 1e3, and a right-hand side."""
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.standard_normal((n, n)))
    return (Q * np.logspace(-3, 3, n)) @ Q.T, random.standard_normal(n)


@pytest.mark.parametrize("solver", ["cg", "bicgstab", "minres"])
@pytest.mark.parametrize("seed", range(3))
def test_the_dense_inverse_solves_each_sub_problem_in_one_iteration(solver, seed):
    A, b = ill_conditioned(seed)
    seen = []

    def inverse(state):
        seen.append(state.iteration)
        return np.linalg.inv(A + state.damping * np.eye(len(b)))

    result = hessian_free(
        quadratic(A, b), 0 * b, solver=solver, preconditioner=inverse, damping=1e-3, max_iter=3
    )
    assert [record.krylov_iterations for record in result.history[1:]] == [1] * len(seen)
    assert seen == list(range(len(seen)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", ["cg", "bicgstab"])
def test_a_convex_problem_is_solved_as_by_scipy(name, solver):
    objective = logistic()
    w0 = objective.net.init(0, dtype=float)
    expected = minimize(objective.value_and_gradient, w0, jac=True, method="BFGS", options={"gtol": 1e-9})
    result = hessian_free(objective, w0, max_iter=60, tol=1e-8, solver=solver, preconditioner=name)
    assert result.success
    # Not x: a constant added to all biases changes nothing, and a preconditioner may move along it.
    assert result.fun == pytest.approx(expected.fun, rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_products_solve_a_badly_scaled_problem(name):
    """On a diagonal matrix with entries from 1e-3 to 1e3 either preconditioner saves products."""
    scales = np.logspace(-3, 3, 40)
    options = {
        "solver": "cg",
        "damping": 1e-4,
        "max_iter": 30,
        "tol": 1e-8,
        "solver_options": {"progress": 0.0},
    }
    products = []
    for preconditioner in (None, name):
        problem = quadratic(np.diag(scales), np.ones(40))
        result = hessian_free(problem, np.zeros(40), preconditioner=preconditioner, **options)
        assert result.fun == pytest.approx(problem.minimum, rel=1e-9)
        products.append(result.history[-1].products)
    assert products[1] < products[0]


def test_the_diagonal_of_a_diagonal_matrix_is_found_by_one_product():
    """v ∘ Dv = d for every vector v of signs; Martens' exponent is 3/4."""
    d = np.array([4.0, -9.0, 0.5])
    state = State(np.zeros(3), np.ones(3), 1.0, damping=1.0)
    _, M = Jacobi().prepare(np.diag(d), state)
    np.testing.assert_allclose(M @ np.eye(3), np.diag((np.abs(d) + 1.0) ** -0.75), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_of_the_diagonal_is_unbiased(seed):
    A, b = ill_conditioned(seed, n=12)
    jacobi, state = Jacobi(decay=1.0), State(b, b, 1.0, damping=1.0)
    for iteration in range(4000):
        state = State(b, b, 1.0, damping=1.0, iteration=iteration, memory=state.memory)
        jacobi.prepare(A, state)
        state = jacobi.remember(state)
    found, off = state.memory["sum"] / state.memory["weight"], A - np.diag(np.diag(A))
    spread = np.sqrt(
        np.sum(off**2, axis=1) / 4000
    )  # the standard error of each mean: the signs are independent
    assert np.max(np.abs(found - np.diag(A)) / spread) < 5


@pytest.mark.parametrize("name", NAMES)
def test_resumed_runs_are_bitwise_those_that_were_never_stopped(name, tmp_path):
    w0, common = (
        small_network().net.init(2, dtype=float),
        {"curvature_batch_size": 50, "preconditioner": name},
    )
    whole = hessian_free(small_network(), w0, max_iter=8, **common)
    for checkpoint in (Memory(), Checkpoint(tmp_path)):
        hessian_free(small_network(), w0, max_iter=3, checkpoint=checkpoint, **common)
        resumed = hessian_free(small_network(), w0, max_iter=8, checkpoint=checkpoint, **common)
        np.testing.assert_array_equal(resumed.x, whole.x)


@pytest.mark.parametrize("wrong", ["jacobi", 3, ["lbfgs"], np.eye(2)])
def test_another_preconditioner_is_named_before_anything_is_evaluated(wrong):
    with pytest.raises((TypeError, ValueError), match=r"^preconditioner: expected .*lbfgs"):
        hessian_free(small_network(), small_network().net.init(0), preconditioner=wrong)


def test_what_a_function_returns_is_checked():
    w0 = small_network().net.init(0, dtype=float)
    with pytest.raises(ValueError, match="M: expected a positive definite preconditioner"):
        hessian_free(small_network(), w0, preconditioner=lambda state: -np.eye(w0.size))
    with pytest.raises(ValueError, match="M: expected a square operator"):
        hessian_free(small_network(), w0, preconditioner=lambda state: np.eye(3))
    plain = hessian_free(small_network(), w0, max_iter=4)
    none = hessian_free(small_network(), w0, max_iter=4, preconditioner=lambda state: None)
    np.testing.assert_array_equal(none.x, plain.x)


def test_each_run_has_a_preconditioner_of_its_own():
    assert find_preconditioner("lbfgs") is not find_preconditioner("lbfgs")


@pytest.mark.parametrize("name", NAMES)
def test_products_that_are_not_finite_cost_an_iteration_and_leave_no_trace(name):
    """Every product of the third iteration is NaN: it is rejected, and the run ends at SciPy's minimum."""
    objective = logistic()
    w0 = objective.net.init(0, dtype=float)
    expected = minimize(objective.value_and_gradient, w0, jac=True, method="BFGS", options={"gtol": 1e-9})
    linearizations = 0

    class Broken(Objective):
        def curvature(self, w, kind="hessian", sample=None):
            nonlocal linearizations
            linearizations += 1
            return super().curvature(w, kind, sample) * (np.nan if linearizations == 3 else 1.0)

    broken = Broken(objective.net, Dataset(X, LABELS))
    result = hessian_free(broken, w0, max_iter=60, tol=1e-8, solver="cg", preconditioner=name)
    assert "not finite" in result.history[3].krylov_status
    assert result.history[3].alpha == 0
    assert result.success
    assert result.fun == pytest.approx(expected.fun, rel=1e-10)


def separable(n, seed=0):
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((n, 12)) * np.logspace(0, -1.5, 12)
    return Dataset(inputs, (inputs @ random.standard_normal((12, 4))).argmax(axis=1))


def test_shared_samples_give_the_inverse_on_the_span_of_their_curvature():
    """With as many iterations as directions of curvature, (B + λI) M v = v for v in the Krylov space."""
    net, data = mlp([12, 4]), separable(30)
    w = net.init(0, dtype=float)
    g = Objective(net, data).value_and_gradient(w)[1]
    state = State(w, g, 1.0, damping=1.0)
    M = SharedSamples(net, data, iterations=12)(state)
    B = Objective(net, data, partitions=1).curvature(w, "gauss-newton") @ np.eye(w.size)
    solution = np.linalg.solve(B + np.eye(w.size), -g)
    found = M @ -g
    # The solve of 12 iterations is nearly exact, and L-BFGS made of its conjugate pairs repeats it.
    assert np.linalg.norm(found - solution) < 0.02 * np.linalg.norm(solution)
    dense = np.array([M @ v for v in np.eye(w.size)]).T
    np.testing.assert_allclose(dense, dense.T, rtol=0, atol=1e-12 * np.abs(dense).max())
    assert np.linalg.eigvalsh((dense + dense.T) / 2)[0] > 0


def test_half_of_the_samples_precondition_the_solve_with_all_without_a_reduction():
    """Six problems together take half of the products; a single one may take a few more by rounding."""
    products = {"alone": 0, "shared": 0}
    for seed in range(6):
        net, data = mlp([12, 4]), separable(2000, seed)
        objective, w = Objective(net, data), net.init(seed, dtype=float)
        g = objective.value_and_gradient(w)[1]
        B, state = objective.curvature(w, "gauss-newton"), State(w, g, 1.0, damping=1e-4)
        before = objective.counts.reductions
        M = SharedSamples(net, data[::2], iterations=40)(state)
        assert objective.counts.reductions == before
        options = {"damping": 1e-4, "rtol": 1e-6, "progress": 0.0, "max_iter": 300}
        for name, each in (("alone", None), ("shared", M)):
            found = krylov.cg(B, -g, M=each, **options)
            assert found.success
            products[name] += found.products
    assert products["shared"] <= products["alone"] / 2


def test_shared_samples_travel_and_resume(tmp_path):
    net, data = mlp([12, 8, 4]), separable(300)
    shared, w0 = SharedSamples(net, data[:50], iterations=7), net.init(0, dtype=float)
    copy = pickle.loads(pickle.dumps(shared))
    state = State(w0, Objective(net, data).value_and_gradient(w0)[1], 1.0, damping=0.1)
    np.testing.assert_array_equal(copy(state) @ state.g, shared(state) @ state.g)
    whole = hessian_free(Objective(net, data), w0, preconditioner=shared, max_iter=6, tol=0.0)
    for limit in (3, 6):
        found = hessian_free(
            Objective(net, data),
            w0,
            preconditioner=SharedSamples(net, data[:50], iterations=7),
            max_iter=limit,
            tol=0.0,
            checkpoint=tmp_path,
        )
    np.testing.assert_array_equal(found.x, whole.x)
    with pytest.raises(ValueError, match="preconditioner"):
        hessian_free(
            Objective(net, data),
            w0,
            preconditioner=SharedSamples(net, data[:51], iterations=7),
            max_iter=8,
            tol=0.0,
            checkpoint=tmp_path,
        )


def product_of_rows(net, w, X, Y):
    return lambda v: len(X) * v


def test_shared_samples_with_a_function_as_curvature_have_the_same_identity_in_another_process():
    shared = SharedSamples(mlp([12, 4]), separable(20), curvature=product_of_rows)
    described = shared.identity()["preconditioner"]
    assert described == pickle.loads(pickle.dumps(shared)).identity()["preconditioner"]
    assert "product_of_rows" in described
    assert " at 0x" not in described  # an address, which is another one in each process


def test_shared_samples_of_another_network_are_named():
    objective, other = Objective(mlp([12, 4]), separable(20)), SharedSamples(mlp([12, 3, 4]), separable(20))
    with pytest.raises(ValueError, match=r"^preconditioner: expected .* 52 parameters, got one of 55"):
        hessian_free(objective, objective.net.init(0, dtype=float), preconditioner=other)


@pytest.mark.parametrize("solver", ["capped_cg", "saddle_free"])
def test_a_solver_without_preconditioner_refuses_one_before_anything_is_evaluated(solver):
    objective = Objective(mlp([12, 4]), separable(20))
    with pytest.raises(ValueError, match=f"^preconditioner: expected None, because {solver} takes none"):
        hessian_free(objective, objective.net.init(0), solver=solver, preconditioner="lbfgs")
    assert objective.counts.reductions == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iterations", {"iterations": 0}),
        ("data", {"data": X}),
        ("curvature", {"curvature": "gauss"}),
        ("curvature", {"curvature": 3}),
    ],
)
def test_shared_samples_refuse_other_arguments(name, options):
    options = {"net": mlp([12, 4]), "data": separable(20), **options}
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        SharedSamples(**options)
