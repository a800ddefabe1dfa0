"""300 strict saddles, started on them, 1e-8 and 1e-3 away: who finds the way down, and at what cost.

A run has escaped once its loss has fallen a hundredth of the way from the saddle's to the least value. Its
evaluations are losses, gradients and curvature products; medians are over the runs that escaped.
"""

import warnings
from functools import partial

import numpy as np
from scipy.optimize import minimize

from bench.report import about, save, show
from hfnb.krylov import SOLVERS
from hfnb.optimizers import first_order, hessian_free
from hfnb.problems import strict_saddles

DISTANCES = (0.0, 1e-8, 1e-3)
ITERATIONS = 200  # of a second-order method; L-BFGS-B and first-order methods have STEPS
STEPS = 1000
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
# SciPy's methods: the second derivatives that they take, and the tightest tolerances, tried beside its own.
SCIPY: dict[str, tuple[str | None, dict]] = {
    "Newton-CG": ("hessp", {"xtol": 1e-12}),
    "trust-ncg": ("hessp", {"gtol": 1e-12}),
    "trust-krylov": ("hessp", {"gtol": 1e-12}),
    "trust-exact": ("hess", {"gtol": 1e-12}),
    "L-BFGS-B": (None, {"gtol": 1e-12, "ftol": 0.0}),
}


def goal(problem) -> float:
    """Return the loss below which the saddle is left behind."""
    level = problem.value(problem.stationary)
    return level - 0.01 * (level - problem.minimum)


def of_ours(solver, problem, start, seed, stop):
    """Run `hessian_free` with a solver."""
    return hessian_free(
        problem,
        start,
        solver=solver,
        seed=seed,
        max_iter=ITERATIONS,
        callback=lambda record: stop(record.loss),
    )


def of_first_order(method, rate, problem, start, seed, stop):
    """Run a method along the gradient of the whole problem, which has no samples to draw from."""
    with np.errstate(over="ignore", invalid="ignore"):
        return first_order(
            problem,
            start,
            method=method,
            learning_rate=rate,
            batch_size=1,
            max_iter=STEPS,
            callback=lambda record: stop(record.loss),
        )


def of_scipy(method, options, problem, start, seed, stop):
    """Run one of SciPy's methods; a dense Hessian counts as a product for each of its columns."""

    def callback(intermediate_result):
        if stop(intermediate_result.fun):
            raise StopIteration

    def hess(w):
        problem.counts.samples += w.size
        return problem.hessian(w)

    given = {"hessp": problem.hessian_product, "hess": hess, None: None}[SCIPY[method][0]]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a step that is not a number is among what is counted
        return minimize(
            problem.value,
            start,
            jac=problem.gradient,
            method=method,
            callback=callback,
            options={"maxiter": STEPS if method == "L-BFGS-B" else ITERATIONS, **options},
            **({SCIPY[method][0]: given} if given else {}),
        )


def outcome(run, problem, start, seed) -> dict:
    """Return what came of a run: whether it escaped, claims success where it has not, and its cost."""
    below, before = goal(problem), problem.counts.samples
    result = run(problem, start, seed, lambda loss: bool(loss < below))
    escaped = bool(result.fun < below)
    spent = result.history[-1].samples if "history" in result else problem.counts.samples - before
    return {
        "escaped": escaped,
        "false": bool(result.success) and not escaped,
        "nit": result.nit,
        "spent": spent,
    }


def row(name: str, run, distance: float, count: int) -> dict:
    """Return a row of the table: one method from one distance."""
    runs = [
        outcome(run, problem, problem.near(distance, seed), seed) | {"family": family}
        for family, seed, problem in strict_saddles(count)
    ]
    left = [each for each in runs if each["escaped"]]
    return {
        "method": name,
        "distance": distance,
        "escaped": f"{len(left)} of {count}",
        "success at the saddle": sum(each["false"] for each in runs),
        "iterations": float(np.median([each["nit"] for each in left])) if left else None,
        "evaluations": float(np.median([each["spent"] for each in left])) if left else None,
        "families with failures": len({each["family"] for each in runs if not each["escaped"]}),
    }


def tuned(method: str, count: int) -> tuple[str, partial]:
    """Return a first-order method at that of `RATES` with the most, then quickest, escapes from 1e-3 away."""

    def worth(rate):
        found = row("", partial(of_first_order, method, rate), 1e-3, count)
        return int(found["escaped"].split()[0]), -(found["iterations"] or STEPS)

    rate = max(RATES, key=worth)
    name = {"sgd": "gradient descent", "adam": "Adam"}[method]
    return f"{name}, rate {rate:g}", partial(of_first_order, method, rate)


def run(options) -> None:
    """Print and save the table."""
    count = 50 if options.quick else 300
    methods = {f"hfnb, {solver}": partial(of_ours, solver) for solver in SOLVERS}
    for method, (_, tight) in SCIPY.items():
        methods[f"SciPy {method}"] = partial(of_scipy, method, {})
        methods[f"SciPy {method}, tight"] = partial(of_scipy, method, tight)
    methods |= dict(tuned(method, 50) for method in ("sgd", "adam"))
    rows = show(row(name, each, distance, count) for name, each in methods.items() for distance in DISTANCES)
    tight = {method: options for method, (_, options) in SCIPY.items()}
    settings = {"iterations": ITERATIONS, "steps": STEPS, "rates tried": RATES, "tight": tight}
    save("saddles", {"about": about(**settings), "rows": rows})
