"""What a sum over engines costs: messages and bytes on a network, and the wait for the slowest of them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

SHORT = 2048  # bytes of an Allreduce up to which MPICH takes recursive doubling


@dataclass(frozen=True)
class Interconnect:
    """The links between hosts: ``latency`` α, seconds a message; ``bandwidth``, bits a second either way.

    >>> round(Interconnect(latency=50e-6, bandwidth=10e9).seconds(messages=2, size=1_500_000), 6)
    0.0013
    """

    latency: float
    bandwidth: float

    def seconds(self, messages: float, size: float) -> float:
        """Return α × messages + β × size, ``size`` in bytes, β = 8 / bandwidth."""
        return self.latency * messages + 8 * size / self.bandwidth


def allreduce(size: int, engines: int, pairs: bool = False) -> tuple[float, float]:
    """Return the messages and the bytes on the critical path of an Allreduce of ``size`` bytes.

    With N engines and k = ⌊log₂ N⌋, recursive doubling takes k messages of all bytes. What is longer than
    `SHORT` and summed by MPI itself, not as ``pairs`` (see `summation`), is scattered and gathered again:
    2k messages, 2 (N − 1)/N of the bytes. Where N is no power of two, two messages of all bytes come on top.
    Source: Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH"
    (2005), and the comments in MPICH's allreduce.c.

    >>> allreduce(8, engines=16), allreduce(1_600_000, engines=16)
    ((4, 32), (8, 3000000.0))
    """
    k = engines.bit_length() - 1
    extra = 0 if engines == 2**k else 2
    if pairs or size <= SHORT:
        return k + extra, (k + extra) * size
    return 2 * k + extra, (2 * (engines - 1) / engines + extra) * size


@lru_cache
def expected_maximum(n: int) -> float:
    """Return the mean of the largest of n independent standard normal variables.

    It is the mean of Φ⁻¹(u^(1/n)) over u from 0 to 1, since the largest has the distribution Φⁿ.

    >>> round(expected_maximum(2) * np.pi**0.5, 3)  # known: 1/√π
    1.0
    """
    u = (np.arange(100_000) + 0.5) / 100_000
    return float(ndtri(u ** (1 / n)).mean()) if n > 1 else 0.0
