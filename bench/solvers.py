"""Every Krylov solver on every class of systems, beside SciPy's; products to the first negative direction.

``python -m bench solvers`` prints both tables.
"""

import warnings

import numpy as np
import scipy.sparse.linalg as scipy_solvers
from scipy.sparse.linalg import LinearOperator

from bench.report import about, save, show
from hfnb import datasets, models
from hfnb.krylov import SOLVERS
from hfnb.objectives import Objective
from hfnb.optimizers.certificate import certify_operator
from hfnb.problems import SPECTRA, linear_system, random_saddle

SIZES, RTOL = (20, 100, 500), 1e-5
STOPS_AT_CURVATURE = {
    "cg": {},
    "bicgstab": {"stop_indefinite": True},
    "newton_mr": {},
    "capped_cg": {"damping": 1e-3},
}


class Reached(Exception):
    """SciPy's iterate is as good as ours has to be."""


def counting(A):
    """Return A as an operator, and a list that grows with each product."""
    calls = []

    def product(v):
        calls.append(1)
        return A @ v

    return LinearOperator(A.shape, matvec=product, dtype=A.dtype), calls


def scipys_products(name, A, b):
    """Return the products of SciPy's solver to ‖b − A x‖ ≤ RTOL ‖b‖, None where it does not get there."""

    def stop(x):
        if np.linalg.norm(b - A @ x) <= RTOL * np.linalg.norm(b):
            raise Reached

    operator, calls = counting(A)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            getattr(scipy_solvers, name)(operator, b, rtol=1e-14, maxiter=20 * b.size, callback=stop)
    except Reached:
        return len(calls)
    return None


def one_system(name, kind, n, seed):
    """Solve one system; say what came of it, checked with dense algebra in float64."""
    A, b = linear_system(kind, n, seed)
    damping = 0.1 if name == "capped_cg" else 0.0
    result = SOLVERS[name](A, b, damping=damping, rtol=RTOL, progress=0.0)
    residual = np.linalg.norm(b - A @ result.x - damping * result.x) / np.linalg.norm(b)
    d = result.direction
    return {
        "finite": bool(np.all(np.isfinite(result.x))),
        "success": result.success,
        "residual": residual,
        "found": d is not None,
        "false direction": d is not None and not d @ A @ d < 0,
        "products": result.products,
        "scipy": scipys_products(name, A, b) if hasattr(scipy_solvers, name) else None,
    }


def class_row(name, kind, seeds):
    """Return a row of the first table: the worst and the sums over all seeds and sizes."""
    runs = [one_system(name, kind, n, seed) for n in SIZES for seed in range(seeds)]
    both = [run for run in runs if run["scipy"] is not None and run["success"]]
    ours, theirs = sum(run["products"] for run in both), sum(run["scipy"] for run in both)
    return {
        "solver": name,
        "class": kind,
        "runs": len(runs),
        "not finite": sum(not run["finite"] for run in runs),
        "success": sum(run["success"] for run in runs),
        "worst residual": max((run["residual"] for run in runs if run["success"]), default=None),
        "directions": sum(run["found"] for run in runs),
        "false directions": sum(run["false direction"] for run in runs),
        "products": sum(run["products"] for run in runs),
        "of scipy's": ours / theirs if theirs else None,
    }


def hessians():
    """Yield (name, Hessian, minus gradient) of random quadratics and of a network on MNIST."""
    for index in (1, 10, 50):
        problem = random_saddle(100, index)
        yield f"quadratic, {index} of 100", problem.curvature(problem.stationary), problem.start
    train, _ = datasets.mnist()
    net = models.mlp([784, 30, 10])
    objective = Objective(net, train[:1000])
    for scale in (0.02, 1.0):
        w = scale * net.init(0, dtype=np.float64)
        _, gradient = objective.value_and_gradient(w)
        yield f"784-30-10, weights x {scale}", objective.curvature(w), -gradient


def curvature_rows():
    """Yield rows of the second table: products until a direction of negative curvature is known, checked."""
    for name, H, b in hessians():
        for solver, options in STOPS_AT_CURVATURE.items():
            result = SOLVERS[solver](H, b, rtol=1e-10, progress=0.0, max_iter=300, **options)
            d = result.direction
            found = None if d is None else float(d @ (H @ d))
            yield {"Hessian": name, "solver": solver, "products": result.products, "curvature": found}
        found = certify_operator(H, tol=0.0, seed=0)
        yield {
            "Hessian": name,
            "solver": "lanczos",
            "products": found.products,
            "curvature": found.eigenvalue,
        }


def run(options):
    """Print both tables and save them."""
    seeds = 5 if options.quick else 50
    classes = show(class_row(name, kind, seeds) for name in SOLVERS for kind in SPECTRA)
    print()
    directions = show(curvature_rows())
    save("solvers", {"about": about(seeds=seeds), "classes": classes, "directions": directions})
