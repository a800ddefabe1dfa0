"""Ours through SciPy's minimize as its own trust-ncg, and SciPy's methods on our objectives."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import BFGS, OptimizeWarning, minimize, rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse.linalg import aslinearoperator
from test_hessian_free import logistic

from hfnb import first_order, problems, scipy_method

ROSENBROCK = {"jac": rosen_der, "hess": rosen_hess}
both = pytest.mark.parametrize("method", ["trust-ncg", scipy_method()], ids=["scipy", "ours"])


def solve(method="ours", x0=(-1.2, 1.0), **arguments):
    method = scipy_method() if method == "ours" else method
    return minimize(rosen, x0, method=method, **{**ROSENBROCK, **arguments})


@pytest.mark.parametrize(
    "derivative", [{"hess": rosen_hess}, {"hessp": rosen_hess_prod}], ids=["hess", "hessp"]
)
@pytest.mark.parametrize(
    "options",
    [{"solver": name} for name in ("bicgstab", "cg", "minres")]
    + [{"solver": "cg", "solver_options": {"radius": 1.0}}],
    ids=["bicgstab", "cg", "minres", "trust region"],
)
def test_rosenbrock_is_minimized_through_scipy(derivative, options):
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)

    found = minimize(
        rosen,
        np.array([1.3, 0.7, 0.8, 1.9, 1.2]),
        jac=rosen_der,
        method=scipy_method(**options),
        callback=callback,
        options={"maxiter": 300, "gtol": 1e-8},
        **derivative,
    )
    assert found.success, found.message
    np.testing.assert_allclose(found.x, 1, atol=1e-6)
    assert seen[-1].fun == found.fun
    np.testing.assert_array_equal(seen[-1].x, found.x)


@pytest.mark.parametrize("args", [(2.0,), 2.0], ids=["tuple", "value"])
def test_arguments_reach_the_functions(args):
    found = minimize(
        lambda x, a: np.sum((x - a) ** 2),
        np.zeros(3),
        args=args,
        jac=lambda x, a: 2 * (x - a),
        hess=lambda x, a: 2 * np.eye(3),
        method=scipy_method(),
    )
    np.testing.assert_allclose(found.x, 2.0, atol=1e-6)


def test_function_that_returns_its_gradient_too():
    found = minimize(
        lambda x: (rosen(x), rosen_der(x)), [-1.2, 1.0], jac=True, hess=rosen_hess, method=scipy_method()
    )
    assert found.success
    np.testing.assert_allclose(found.x, 1, atol=1e-6)


@both
@pytest.mark.parametrize("end", ["raise", "none"])
@pytest.mark.parametrize("by_name", [True, False])
def test_callback_is_called_after_each_iteration(method, end, by_name):
    """With a vector, or by the very name with an intermediate result; StopIteration ends the run."""
    seen = []

    def see(x):
        seen.append(x)
        x[:] = np.nan  # a copy: the run goes on from its own
        if end == "raise" and len(seen) == 3:
            raise StopIteration

    def callback(intermediate_result):
        see(intermediate_result.x.copy())
        assert intermediate_result.fun == pytest.approx(rosen(intermediate_result.x))

    found = solve(method, callback=callback if by_name else see)
    assert len(seen) == found.nit
    if end == "raise":
        assert (found.nit, found.success, found.status) == (3, False, 99)
    else:
        assert (found.success, found.status) == (True, 0)
    assert found.fun == rosen(found.x)


@pytest.mark.parametrize("answer", [True, np.True_, 1, np.array([True])])
def test_any_true_value_of_the_callback_ends_the_run(answer):
    found = solve(callback=lambda xk: answer)
    assert (found.nit, found.success, found.status) == (1, False, 99)


def test_callback_of_a_builtin_function_and_none_at_all():
    seen = []
    assert solve(callback=seen.append).nit == len(seen)
    with pytest.raises(TypeError, match="callback: expected a function, got 3"):
        solve(callback=3)


@both
@pytest.mark.parametrize("maxiter", [0, 3, 1000, 1e3, None])
def test_display_is_that_of_scipy(method, maxiter, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = solve(method, options={"disp": True, "maxiter": maxiter})
    printed = capsys.readouterr().out.splitlines()
    labels = ["Current function value", "Iterations", "Function evaluations", "Gradient evaluations"]
    labels.append("Hessian evaluations")
    assert [line.split(":")[0].strip() for line in printed[found.success :]] == labels
    assert found.success == (maxiter in (1000, None))
    assert found.status == (0 if found.success else 1)
    if found.success:
        assert (printed[0], caught) == (found.message, [])
    else:
        assert [(each.category, str(each.message)) for each in caught] == [(RuntimeWarning, found.message)]
        assert caught[0].filename == __file__ or method == "trust-ncg"


@both
def test_silent_by_default_and_options_that_nobody_knows_are_a_warning(method, capsys):
    with pytest.warns(OptimizeWarning, match="Unknown solver options: eta_of_mine, maxfev") as caught:
        assert solve(method, options={"eta_of_mine": 1, "maxfev": 3, "disp": False}).success
    assert caught[0].filename == __file__ or method == "trust-ncg"
    assert capsys.readouterr() == ("", "")


@both
def test_all_vectors_are_returned(method):
    found = solve(method, options={"return_all": True})
    assert len(found.allvecs) == found.nit + 1
    np.testing.assert_array_equal(found.allvecs[0], [-1.2, 1.0])
    np.testing.assert_array_equal(found.allvecs[-1], found.x)
    assert "allvecs" not in solve(method)


@pytest.mark.parametrize("derivative", ["hess", "hessp"])
def test_evaluations_are_counted(derivative):
    calls = dict.fromkeys(("fun", "jac", "hess", "hessp"), 0)

    def counted(name, function):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    second = {"hess": rosen_hess, "hessp": rosen_hess_prod}[derivative]
    arguments = {"jac": counted("jac", rosen_der), derivative: counted(derivative, second)}
    found = minimize(counted("fun", rosen), [-1.2, 1.0], method=scipy_method(), **arguments)
    assert found.nfev == calls["fun"]
    assert found.njev == calls["jac"]
    assert found.nhev == calls["hess"] + calls["hessp"]
    assert found.nhev > 0
    assert isinstance(found.status, int)
    np.testing.assert_allclose(found.jac, rosen_der(found.x), rtol=1e-12)


@both
def test_functions_that_overwrite_their_argument_do_no_harm(method):
    def spoiled(function):
        def call(x, *more):
            value = function(x, *more)
            x[:] = np.nan
            return value

        return call

    found = minimize(
        spoiled(rosen), [-1.2, 1.0], jac=spoiled(rosen_der), hess=spoiled(rosen_hess), method=method
    )
    np.testing.assert_allclose(found.x, 1, atol=1e-3)


OURS, THEIRS = scipy_method(), "trust-ncg"  # which takes dense Hessians alone


@pytest.mark.parametrize(
    ("method", "hessian"),
    [
        (THEIRS, lambda x: [[2.0, 0.0], [0.0, 4]]),
        (OURS, lambda x: [[2.0, 0.0], [0.0, 4]]),
        (THEIRS, lambda x: np.diag([2, 4])),
        (OURS, lambda x: np.diag([2, 4])),
        (OURS, lambda x: sparse.diags([2.0, 4.0]).tocsr()),
        (OURS, lambda x: aslinearoperator(np.diag([2.0, 4.0]))),
    ],
    ids=["scipy-lists", "ours-lists", "scipy-integers", "ours-integers", "ours-sparse", "ours-operator"],
)
@pytest.mark.parametrize(
    "x0", [[3, 1], (3.0, 1.0), np.array([3, 1], np.float32)], ids=["integers", "tuple", "float32"]
)
def test_what_functions_may_return(method, hessian, x0):
    found = minimize(
        lambda x: np.array([[x[0] ** 2 + 2 * x[1] ** 2]]),
        x0,
        jac=lambda x: [2 * x[0], 4 * x[1]],
        hess=hessian,
        method=method,
    )
    assert found.success
    np.testing.assert_allclose(found.x, 0, atol=1e-4)


@both
@pytest.mark.parametrize("hessian", [2.0, [2.0], [[2.0]], np.array(2)], ids=repr)
def test_one_variable(method, hessian):
    found = minimize(lambda x: x**2, 3, jac=lambda x: 2 * x, hess=lambda x: hessian, method=method)
    assert found.x.shape == (1,)
    assert abs(found.x[0]) < 1e-4
    assert np.ndim(found.fun) == 0


def test_products_go_before_the_hessian_as_in_scipy():
    def hess(x):
        raise AssertionError("not to be called")

    assert solve(hess=hess, hessp=rosen_hess_prod).success
    assert solve(hess="2-point", hessp=rosen_hess_prod).success


@both
def test_tolerances(method):
    """The gradient norm falls below gtol, which goes before tol."""
    rough, fine = solve(method, tol=1e-1), solve(method, tol=1e-1, options={"gtol": 1e-8})
    assert 1e-8 < np.linalg.norm(rosen_der(rough.x)) < 1e-1
    assert np.linalg.norm(rosen_der(fine.x)) < 1e-8


def test_limits_have_one_name_each():
    assert minimize(rosen, [-1.2, 1.0], method=scipy_method(max_iter=2), **ROSENBROCK).nit == 2
    found = minimize(
        rosen, [-1.2, 1.0], method=scipy_method(max_iter=2), options={"maxiter": 4}, **ROSENBROCK
    )
    assert (found.nit, found.status) == (4, 1)
    with pytest.raises(ValueError, match="maxiter, max_iter: expected only one of these names"):
        solve(options={"maxiter": 3, "max_iter": 3})
    for name, value in (
        ("maxiter", 2.5),
        ("maxiter", -1),
        ("maxiter", "3"),
        ("gtol", -1.0),
        ("gtol", np.nan),
    ):
        with pytest.raises((ValueError, TypeError), match=f"{name}: expected .*(>= 0|at least 0), got"):
            solve(options={name: value})
    with pytest.raises(TypeError, match=r"optimizer: expected a function \(objective, w0"):
        scipy_method(lambda objective: None)
    with pytest.raises(TypeError, match="solvr: expected an option of hessian_free"):
        scipy_method(solvr="cg")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jac": None}, "jac: expected a function for the gradient"),
        ({"jac": "2-point"}, "jac: expected a function for the gradient"),
        ({"hess": None}, "hess, hessp: expected a function .*, got None and None"),
        ({"hess": "3-point"}, "hess, hessp: expected a function .*, got '3-point'"),
        ({"hess": BFGS()}, "hess, hessp: expected a function .*, got .*BFGS"),
        ({"bounds": [(0, 1)] * 2}, "bounds, constraints: expected none"),
        ({"x0": [np.nan, 1.0]}, "x0: expected finite numbers, got nan"),
        ({"x0": [np.inf, 1.0]}, "x0: expected finite numbers, got inf"),
        ({"x0": [1j, 1.0]}, "x0: expected a vector of real numbers, got .*complex"),
        ({"x0": ["a", "b"]}, "x0: expected a vector of real numbers"),
        ({"x0": []}, "x0: expected a vector of real numbers, got shape"),
        ({"x0": np.eye(2)}, "x0"),
        ({"jac": lambda x: np.zeros(3)}, r"jac: expected 2 real numbers, .* got shape \(3,\)"),
        ({"jac": lambda x: None}, "jac: expected 2 real numbers"),
        ({"hess": lambda x: np.eye(3)}, r"hess: expected shape \(2, 2\)"),
        ({"hess": lambda x: None}, "hess: expected a matrix of real numbers"),
        ({"hessp": lambda x, p: 1.0}, "hessp: expected 2 real numbers"),
    ],
)
def test_what_it_does_not_take_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve(**arguments)


@pytest.mark.parametrize("value", [[1.0, 2.0], None, 1j, "1"])
def test_functions_must_return_one_number(value):
    with pytest.raises(ValueError, match="fun: expected one real number, got shape"):
        minimize(lambda x: value, [1.0, 2.0], method=scipy_method(), **ROSENBROCK)


def test_first_order_methods_too():
    found = minimize(
        lambda x: np.sum(x**2),
        [1.0, 2.0],
        jac=lambda x: 2 * x,
        hess=lambda x: 2 * np.eye(2),
        method=scipy_method(first_order, learning_rate=0.25),
        options={"gtol": 1e-6},
    )
    assert (found.success, found.status, found.nhev) == (True, 0, 0)
    np.testing.assert_allclose(found.x, 0, atol=1e-6)
