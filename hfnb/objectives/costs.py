"""Counts of what an objective has spent: evaluations, samples, and sums over engines."""

from dataclasses import dataclass

COSTS = ("samples", "products", "reductions", "numbers", "bytes")


@dataclass
class Counts:
    """What an objective has spent.

    Attributes
    ----------
    losses, gradients, products, averages : int
        Evaluations. What cells evaluate for an average counts only as samples.
    samples : int
        Samples that these evaluations saw; divided by n, they are data passes.
    reductions, numbers, bytes : int
        Sums over engines, how many numbers they summed, and how many bytes each engine contributed.

    Notes
    -----
    After L losses, G gradients and P products with p parameters, the counts are the same for client-driven
    and engine-driven runs and for any number of engines:

        reductions = L + G + P,  numbers = L + (p + 1) G + p P,  bytes = 16 L + b ((p + 1) G + p P),

    where b = 16 in float64, because a sum is sent with its rounding error
    (`hfnb.objectives.compensated_sums`), and 4 in float32. A loss alone is always in float64. The losses of
    one call of `hfnb.Objective.values_along` are one reduction. An average of m numbers is one reduction of
    m + 2 numbers, since two count the samples that the cells saw. An engine
    contributes these bytes as its buffer of an Allreduce, or as its replies to the client. A client-driven
    run also sends w or v to each engine in every evaluation: p numbers of 8 or 4 bytes, and w once more with
    the first product at a point. In one process the numbers are those that engines would send. Two things are
    not counted: the flag that engines exchange after a sum that is not finite, to learn whether one of them
    failed; and sums repeated because an engine was lost. The records of a run also leave out evaluations that
    are made only for the record.
    """

    losses: int = 0
    gradients: int = 0
    products: int = 0
    averages: int = 0
    samples: int = 0
    reductions: int = 0
    numbers: int = 0
    bytes: int = 0

    def add(self, what: str, samples: int, numbers: int = 0, bytes: int = 0, times: int = 1) -> None:
        """Count one or several evaluations that are one reduction.

        Parameters
        ----------
        what : {"losses", "gradients", "products", "averages"}
            What was evaluated.
        samples : int
            Number of samples that all of them saw.
        numbers, bytes : int
            Size of the reduction, from each engine.
        times : int
            Number of evaluations.
        """
        setattr(self, what, getattr(self, what) + times)
        self.samples += samples
        self.reductions += 1
        self.numbers += numbers
        self.bytes += bytes
