"""Counts of what an objective has spent: evaluations, samples, and sums over engines."""

from dataclasses import dataclass

COSTS = ("samples", "products", "reductions", "numbers", "bytes")


@dataclass
class Counts:
    """What an objective has spent.

    Attributes
    ----------
    losses, gradients, products, averages : int
        Evaluations. What cells evaluate for an average is not among them; it counts as samples.
    samples : int
        Samples that these evaluations saw; divided by n, they are data passes.
    reductions, numbers, bytes : int
        Sums over engines, how many numbers they summed, and how many bytes each engine contributed.

    Notes
    -----
    Let p be the number of parameters, L that of losses, evaluated in C calls of `hfnb.Objective.value` and
    `hfnb.Objective.values_along`, G that of gradients, P of products, and A of averages of m numbers each.
    The counts of a run with the same options are the same for client-driven and engine-driven runs and for
    any number of engines. By default `hfnb.hessian_free` has other ``trial_steps`` on engines than in one
    process: more losses in fewer reductions. They are

        reductions = C + G + P + A,
        numbers    = L + (p + 1) G + p P + (m + 2) A,
        bytes      = 16 L + b ((p + 1) G + p P + (m + 2) A),

    where b = 16 in float64, because a sum is sent with its rounding error
    (`hfnb.objectives.compensated_sums`), and 4 in float32. A loss alone is always in float64. The two further
    numbers of an average count the samples that the cells saw.

    An engine contributes these bytes as its buffer of an Allreduce, or as its replies to the client. A
    client-driven run also sends vectors of p numbers of 8 or 4 bytes to each engine: w or v in every
    evaluation, w once more with the first product at a point, the directions of ``values_along``, and the
    arrays among the arguments of an average. In one process the numbers are those that engines would send.

    Not counted are the flag that engines exchange after a sum that is not finite, to learn whether one of
    them failed; sums repeated because an engine was lost; and functions, step lengths and other small things
    that the client sends. The records of a run also leave out evaluations that are made only for the record.
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
