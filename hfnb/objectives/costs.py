"""What an objective has spent: evaluations, samples, and what it takes to add up over engines."""

from dataclasses import dataclass

COSTS = ("samples", "products", "reductions", "numbers", "bytes")


@dataclass
class Counts:
    """What an objective has spent: evaluations, the samples they saw, and what it takes to sum over engines.

    After L losses, G gradients and P products with p parameters, client-driven or engine-driven and on any
    number of engines,

        reductions = L + G + P,  numbers = L + (p + 1) G + p P,  bytes = 16 L + b ((p + 1) G + p P),

    where b = 16 in float64, whose sums travel with their remainders (see `summation`), and 4 in float32; a
    loss, which rides along with its gradient, is itself in float64. These are the bytes that one engine
    contributes: its buffer of an Allreduce, or its replies to the client. A client-driven run also sends it w
    or v each time, p numbers of 8 or 4 bytes, and w with the first product at a point. In one process these
    are what would travel. Left out: a flag after a sum that is not finite, by which engines learn whether one
    of them failed; sums made anew for an engine that was lost; what is asked while the record is made.
    """

    losses: int = 0
    gradients: int = 0
    products: int = 0
    samples: int = 0
    reductions: int = 0
    numbers: int = 0
    bytes: int = 0

    def add(self, what: str, samples: int, numbers: int = 0, bytes: int = 0) -> None:
        """Count one evaluation of "losses", "gradients" or "products" and its reduction."""
        setattr(self, what, getattr(self, what) + 1)
        self.samples += samples
        self.reductions += 1
        self.numbers += numbers
        self.bytes += bytes
