"""Small problems with known answers, shared by tests, benchmarks and notebooks."""

from hfnb.problems.linear_systems import SPECTRA, LinearSystem, linear_system
from hfnb.problems.saddles import (
    STRICT_SADDLES,
    Problem,
    deep_linear,
    hard_case,
    monkey_saddle,
    quartic_saddle,
    random_saddle,
    rosenbrock,
    strict_saddles,
    tensor_decomposition,
    tiny_network,
)

__all__ = [
    "SPECTRA",
    "STRICT_SADDLES",
    "LinearSystem",
    "Problem",
    "deep_linear",
    "hard_case",
    "linear_system",
    "monkey_saddle",
    "quartic_saddle",
    "random_saddle",
    "rosenbrock",
    "strict_saddles",
    "tensor_decomposition",
    "tiny_network",
]
