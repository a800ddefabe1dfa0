"""Ours through SciPy's minimize, and SciPy's methods on our objectives."""

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess, rosen_hess_prod
from test_hessian_free import logistic

from hfnb import first_order, problems, scipy_method


@pytest.mark.parametrize(
    "derivative", [{"hess": rosen_hess}, {"hessp": rosen_hess_prod}], ids=["hess", "hessp"]
)
@pytest.mark.parametrize("solver", ["bicgstab", "cg", "minres", "steihaug"])
def test_rosenbrock_is_minimized_through_scipy(derivative, solver):
    seen = []
    found = minimize(
        rosen,
        np.array([1.3, 0.7, 0.8, 1.9, 1.2]),
        jac=rosen_der,
        method=scipy_method(solver=solver),
        callback=lambda state: seen.append(state.fun),
        options={"maxiter": 300, "gtol": 1e-8},
        **derivative,
    )
    assert found.success, found.message
    np.testing.assert_allclose(found.x, 1, atol=1e-6)
    assert found.nhev > 0 < found.nfev
    assert seen[-1] == found.fun


def test_arguments_reach_the_functions():
    found = minimize(
        lambda x, a: np.sum((x - a) ** 2),
        np.zeros(3),
        args=(2.0,),
        jac=lambda x, a: 2 * (x - a),
        hess=lambda x, a: 2 * np.eye(3),
        method=scipy_method(),
    )
    np.testing.assert_allclose(found.x, 2.0, atol=1e-6)


def test_scipys_methods_run_on_our_objectives():
    objective = logistic()
    w0 = objective.net.init(0, dtype=float)
    ends = [
        minimize(objective.value_and_gradient, w0, jac=True, hessp=objective.hessp, method=method).fun
        for method in ("Newton-CG", "trust-ncg", "trust-krylov")
    ]
    ours = minimize(
        objective.value,
        w0,
        jac=lambda w: objective.value_and_gradient(w)[1],
        hessp=objective.hessp,
        method=scipy_method(),
    )
    np.testing.assert_allclose(ends, ours.fun, rtol=1e-6)


@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "trust-krylov", "trust-exact"])
def test_where_scipy_calls_a_saddle_a_success_ours_goes_on(method):
    problem = problems.quartic_saddle()
    at = problem.stationary
    options = {"jac": problem.gradient, "hess": problem.hessian}
    theirs = minimize(problem.value, at, method=method, **options)
    ours = minimize(problem.value, at, method=scipy_method(), **options)
    assert theirs.success
    np.testing.assert_array_equal(theirs.x, at)
    assert ours.success
    assert ours.fun == pytest.approx(-0.25, abs=1e-10)


def test_what_it_does_not_take_is_said():
    with pytest.raises(ValueError, match="jac, hess: expected functions"):
        minimize(rosen, [0.0, 0.0], method=scipy_method())
    with pytest.raises(ValueError, match="bounds, constraints: expected none"):
        minimize(
            rosen, [0.0, 0.0], jac=rosen_der, hess=rosen_hess, bounds=[(0, 1)] * 2, method=scipy_method()
        )
    with pytest.raises(TypeError):
        minimize(
            rosen,
            [0.0, 0.0],
            jac=rosen_der,
            hess=rosen_hess,
            method=scipy_method(first_order),
            options={"x": 1},
        )
