"""Small problems with known answers, shared by tests, benchmarks and notebooks."""

from collections.abc import Callable, Iterator
from itertools import cycle, islice

from hfnb.problems.problem import Problem
from hfnb.problems.saddles import (
    deep_linear,
    hard_case,
    monkey_saddle,
    quartic_saddle,
    random_saddle,
    rosenbrock,
    tensor_decomposition,
    tiny_network,
)
from hfnb.problems.linear_systems import SPECTRA, LinearSystem, linear_system
from hfnb.validation import check_nonnegative_int

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

# Families of strict saddles: a member for each seed.
STRICT_SADDLES: dict[str, Callable[[int], Problem]] = {
    "random quadratic, 1 of 20 negative": lambda seed: random_saddle(20, 1, seed),
    "random quadratic, 10 of 20 negative": lambda seed: random_saddle(20, 10, seed),
    "linear network, 2 layers": lambda seed: deep_linear((4, 2, 4), (), seed),
    "linear network, 2 layers, rank 1": lambda seed: deep_linear((4, 2, 4), (1,), seed),
    "linear network, 3 layers": lambda seed: deep_linear((4, 2, 2, 4), (1, 2), seed),
    "tanh network": lambda seed: tiny_network("tanh", seed=seed),
    "sigmoid network": lambda seed: tiny_network("sigmoid", seed=seed),
    "tensor decomposition": lambda seed: tensor_decomposition(6, 3, seed),
    "quartic saddle": lambda seed: quartic_saddle(),
    "hard case": lambda seed: hard_case(),
}


def strict_saddles(count: int) -> Iterator[tuple[str, int, Problem]]:
    """Yield ``count`` strict saddles as (family, seed, problem), the families taking turns.

    >>> [(family, seed) for family, seed, _ in strict_saddles(11)][-1]
    ('random quadratic, 1 of 20 negative', 1)
    """
    for number, family in islice(enumerate(cycle(STRICT_SADDLES)), check_nonnegative_int("count", count)):
        seed = number // len(STRICT_SADDLES)
        yield family, seed, STRICT_SADDLES[family](seed)
