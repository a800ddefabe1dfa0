"""Every solver leaves every strict saddle, from on it or near it, in whatever units it is written."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hfnb.optimizers import hessian_free
from hfnb.problems import STRICT_SADDLES, strict_saddles

UNITS = {  # loss, stretch of the coordinates
    "loss 1e-8": (1e-8, 1.0),
    "loss 1e7": (1e7, 1.0),
    "stretched 1e6": (1.0, 1e6),
    "stretched 1e-6": (1.0, 1e-6),
    "loss 1e-8, stretched 1e6": (1e-8, 1e6),
    "loss 1e7, stretched 1e-6": (1e7, 1e-6),
}


def left_behind(problem):
    """The loss below which a saddle is left: a hundredth of the way down from it to the minimum."""
    level = problem.value(problem.stationary)
    return level - 0.01 * (level - problem.minimum)


def leaves(problem, w0, below, **options):
    """Run until the loss is below; return None, or what the run said if it never was."""
    seen = []

    def stop(record):
        seen.append(record.loss)
        return bool(record.loss < below)

    result = hessian_free(problem, w0, max_iter=100, callback=stop, **options)
    if result.fun < below:
        assert result.message == "stopped by the callback"
        assert min(seen[:-1], default=np.inf) >= below, "it was stopped too late"
        return None
    return result.message


@pytest.fixture(scope="module")
def saddles():
    """300 saddles, each with the loss below which it is left behind; strict, by dense algebra."""
    found = []
    for family, seed, problem in strict_saddles(300):
        assert np.linalg.eigvalsh(problem.hessian(problem.stationary))[0] < -1e-3
        found.append((family, seed, problem, left_behind(problem)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bicgstab", "cg"])  # python -m bench saddles: all of them
@pytest.mark.parametrize("distance", [0.0, 1e-8, 1e-3])
def test_300_of_300_strict_saddles_are_left(saddles, solver, distance):
    stuck = []
    for family, seed, problem, below in saddles:
        said = leaves(problem, problem.near(distance, seed), below, solver=solver, seed=seed)
        if said:
            stuck.append((family, seed, said))
    assert len(saddles) == 300
    assert not stuck


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", ["bicgstab", "cg"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_saddles_are_left_in_any_units(units, dtype, solver):
    loss, stretch = UNITS[units]
    stuck = []
    for family, seed, problem in strict_saddles(20):
        scaled = problem.scaled(loss, stretch)
        for distance in (0.0, 1e-8, 1e-3):
            w0 = (stretch * problem.near(distance, seed)).astype(dtype)
            said = leaves(scaled, w0, left_behind(scaled), solver=solver, seed=seed)
            if said:
                stuck.append((family, seed, distance, said))
    assert not stuck


@pytest.mark.parametrize("family", STRICT_SADDLES)
def test_the_measure_knows_who_stays(family):
    """SciPy's trust-exact ends on the saddle itself, for it asks no more than that the gradient is zero."""
    problem = STRICT_SADDLES[family](0)
    at = {"jac": problem.gradient, "hess": problem.hessian}
    stays = minimize(problem.value, problem.stationary, method="trust-exact", **at)
    assert not stays.fun < left_behind(problem)
