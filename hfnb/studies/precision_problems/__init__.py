"""Fits whose error is known: where the answer must be accurate, or the problem is ill-conditioned.

======================  ================================================================================
problem                 what a problem is: a seeded objective, a seeded start, and the error of an answer
differential_equations  Poisson, convection, Burgers, and an unknown coefficient
regression              an oscillating function, deep autoencoders, correlated features of a real data set
recurrent               the adding problem, and the memorization of strings
======================  ================================================================================
"""

from collections.abc import Callable

from hfnb.studies.precision_problems.differential_equations import (
    burgers,
    convection,
    poisson,
    unknown_coefficient,
)
from hfnb.studies.precision_problems.problem import PrecisionProblem, relative_error
from hfnb.studies.precision_problems.recurrent import adding, memorization
from hfnb.studies.precision_problems.regression import (
    MARTENS_SIZES,
    breast_cancer,
    curves,
    mnist_autoencoder,
    oscillation,
)

# What makes each problem, in its usual size. To add one, add an entry.
PROBLEMS: dict[str, Callable[[], PrecisionProblem]] = {
    "poisson": poisson,
    "convection": convection,
    "burgers": burgers,
    "unknown coefficient": unknown_coefficient,
    "oscillation": oscillation,
    "curves autoencoder": curves,
    "MNIST autoencoder": mnist_autoencoder,
    "MNIST autoencoder, large": lambda: mnist_autoencoder(MARTENS_SIZES, images=1000),
    "adding, 50 steps": adding,
    "adding, 100 steps": lambda: adding(length=100),
    "adding, 200 steps": lambda: adding(length=200),
    "memorization, 30 steps": memorization,
    "memorization, 100 steps": lambda: memorization(delay=100),
    "breast cancer": breast_cancer,
}

__all__ = [
    "PROBLEMS",
    "PrecisionProblem",
    "adding",
    "breast_cancer",
    "burgers",
    "convection",
    "curves",
    "memorization",
    "mnist_autoencoder",
    "oscillation",
    "poisson",
    "relative_error",
    "unknown_coefficient",
]
