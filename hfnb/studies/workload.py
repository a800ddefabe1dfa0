"""What a run asks of its engines: sums over so many samples, read from the costs that its history counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfnb.objectives import summation
from hfnb.studies.collectives import Interconnect, allreduce

COUNTED = ("samples", "products", "reductions", "numbers")
LOSS = summation.nbytes(1, float)  # bytes of the sum of a loss


@dataclass(frozen=True)
class Setting:
    """Where a run runs: on so many engines, ``colocated`` other ones on the host of each.

    ``interconnect`` links the hosts, None where there is one; of the dataset's ``partitions`` an engine holds
    whole ones, None are as many as divide evenly. ``kept``: the most samples of which an engine keeps the
    linearization between products, None is `hfnb.objectives.evaluator.KEPT`.
    """

    engines: int = 1
    colocated: int = 0
    interconnect: Interconnect | None = None
    partitions: int | None = None
    kept: float | None = None

    def local_samples(self, samples: float) -> float:
        """Return how many of ``samples`` the engine holds that holds most.

        >>> [Setting(engines=16, partitions=each).local_samples(60_000) for each in (24, None)]
        [5000.0, 3750.0]
        """
        partitions = self.partitions or self.engines
        return float(np.ceil(samples * -(-partitions // self.engines) / partitions))


@dataclass(frozen=True)
class Workload:
    """What an iteration asks of all engines together: how many sums of each kind, over how many samples.

    ``size``: bytes of a gradient or product in an Allreduce; ``pairs``: whether those are summed as pairs.
    """

    gradients: float
    products: float
    losses: float
    batch: float
    curvature_batch_size: float
    size: int
    pairs: bool = False

    def communication_cost(self, engines: int) -> tuple[float, float, float]:
        """Return how many sums there are, and the messages and bytes that they take one after another."""
        vectors = self.gradients + self.products
        short, long = (allreduce(size, engines, self.pairs) for size in (LOSS, self.size))
        messages, path = (self.losses * a + vectors * b for a, b in zip(short, long, strict=True))
        return vectors + self.losses, messages, path


def workloads(history: Sequence[dict], w0: np.ndarray, curvature_batch_size: int = 0) -> list[Workload]:
    """Return the workload of each record of a history, from the costs that it counted.

    ``w0``: parameters, or any vector of their number and precision; ``curvature_batch_size``: the samples of
    a product. ValueError where the counts are not those of so many parameters.

    >>> from hfnb import Dataset, Objective, first_order, models
    >>> net, data = models.mlp([2, 2]), Dataset(np.eye(2), np.array([0, 1]))
    >>> history = first_order(Objective(net, data), net.init(0), batch_size=1, max_iter=1).history
    >>> workloads(history, net.init(0))[1]
    Workload(gradients=2.0, products=0.0, losses=0.0, batch=1.0, curvature_batch_size=0, size=24, pairs=False)
    """
    p, pairs, found = w0.size, w0.dtype == np.float64, []
    costs = np.array([[record[key] for key in COUNTED] for record in history], dtype=int).reshape(-1, 4)
    for samples, products, reductions, numbers in np.diff(costs, axis=0, prepend=0):
        gradients, rest = divmod(numbers - reductions - (p - 1) * products, p)
        losses = reductions - gradients - products
        if rest or min(gradients, losses) < 0:
            raise ValueError(f"w0: expected the parameters that the history has counted, got {p} of them")
        batch = (samples - curvature_batch_size * products) / max(gradients + losses, 1)
        sums = float(gradients), float(products), float(losses)
        found.append(
            Workload(*sums, float(batch), curvature_batch_size, summation.nbytes(p, w0.dtype), pairs)
        )
    return found
