"""Every solver leaves every strict saddle, from on it or near it: 300 of them, of ten families."""

import numpy as np
import pytest

from hfnb.hessian_free import hessian_free
from hfnb.problems import strict_saddles


@pytest.fixture(scope="module")
def saddles():
    """300 saddles, each with the loss below which it is left behind; strict, by dense algebra."""
    found = []
    for family, seed, problem in strict_saddles(300):
        assert np.linalg.eigvalsh(problem.hessian(problem.stationary))[0] < -1e-3
        level = problem.value(problem.stationary)
        found.append((family, seed, problem, level - 0.01 * (level - problem.minimum)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bicgstab", "cg"])  # python -m bench saddles: all of them
@pytest.mark.parametrize("distance", [0.0, 1e-8, 1e-3])
def test_300_of_300_strict_saddles_are_left(saddles, solver, distance):
    stuck = []
    for family, seed, problem, below in saddles:
        result = hessian_free(
            problem,
            problem.near(distance, seed),
            solver=solver,
            max_iter=100,
            seed=seed,
            callback=lambda record, below=below: record.loss < below,
        )
        if not result.fun < below:
            stuck.append((family, seed, result.message))
    assert len(saddles) == 300
    assert not stuck
