"""Partitions of a dataset and mini-batches drawn from them, which are the same on any number of engines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np

from hfnb.validation import check_nonnegative_int, check_positive_int, shown

STRATA = 24  # a mini-batch has its share of each of at least so many parts of the data
CUTS = (4, 6, 8, 12, 24)  # usual numbers of partitions: divisors of STRATA, so that all draw the same rows
ROWS = 512  # a partition has at least so many rows, if the data has enough: with fewer, sums take longer


@dataclass(frozen=True)
class Sample:
    """A mini-batch, which has the same samples on any number of engines.

    Parameters
    ----------
    size : int
        Number of samples, at least 1.
    seed : int
        Seed of a sequence of shuffled epochs, at least 0.
    index : int
        Number of the mini-batch in that sequence, from 0 on.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    An epoch contains each sample at most once; its incomplete last batch is left out. Every mini-batch takes
    samples from each stratum, a part of the data (`Shards.strata`), in proportion to its length, so that
    engines have equal work.

    Examples
    --------
    >>> Sample(size=4, seed=1).rows(np.array([0, 5, 10])).size
    4
    """

    size: int
    seed: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_positive_int("size", self.size))
        for field in ("seed", "index"):
            object.__setattr__(self, field, check_nonnegative_int(field, getattr(self, field)))

    def rows(self, offsets: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows that the mini-batch consists of.

        Parameters
        ----------
        offsets : ndarray of int, shape (strata + 1,)
            The boundaries of the strata, from 0 to n.

        Returns
        -------
        ndarray of int, shape (size,)
            Row numbers, sorted.

        Raises
        ------
        ValueError
            If the size is more than n.
        """
        offsets = np.asarray(offsets)
        if offsets.ndim != 1 or offsets.size < 2 or offsets.dtype.kind not in "iu":
            raise ValueError(f"offsets: expected the strata's boundaries, integers, got {shown(offsets)}")
        n = int(offsets[-1])
        if self.size > n:
            raise ValueError(f"size: expected 1 to {n} samples (the dataset's), got {self.size}")
        epoch, position = divmod(self.index, n // self.size)
        order = _epoch_order(tuple(offsets.tolist()), self.seed, epoch)
        return np.sort(order[position * self.size : (position + 1) * self.size])


FIRST = 500  # samples of the first mini-batch, if mini-batches grow
GROWTH = 2  # the factor by which a mini-batch grows
WHOLE = 4  # a mini-batch of more than 1/WHOLE of all samples is not drawn: all samples are taken instead
DECAY = 0.8  # weight of an iteration in the sums of `Draws`, relative to the next one
DOUBTFUL = 0.6  # a mini-batch grows if fresh samples do not show this fraction of the decrease of the loss


@dataclass(frozen=True)
class Draws:
    """Which samples an iteration uses, and when mini-batches grow.

    Parameters
    ----------
    seed : int
        Seed of the draws.
    batch_size : int, "all" or "growing"
        Samples for loss and gradient. "growing" stands for a mini-batch of 500 samples that is doubled
        whenever `after` finds it too small, up to all samples.
    curvature_batch_size : int, "same" or "part"
        Samples for the curvature. "same" stands for those of loss and gradient; "part" for a quarter of a
        mini-batch, but at least 125 samples, and for a tenth of all samples, but at least 500.
    n : int
        Number of all samples.
    size : int, optional
        Samples for loss and gradient now; those of the first iteration by default.
    gained, missed : float
        Sums over the last iterations, the older ones with less weight: how much each step lowered the loss on
        its own mini-batch, and how much of that decrease the next mini-batch does not show.

    Notes
    -----
    Every iteration draws a fresh mini-batch. A step is chosen on one mini-batch and lowers its loss from a to
    b. The loss after the step is b on that mini-batch, and c on the next one. If the mini-batch represents
    all samples well, c is about b. If the step only fits the mini-batch, c is above b, so that the part
    (c − b) / (a − b) of the decrease is not real. This needs no evaluation that the optimizer does not make
    anyway. Sums over several iterations reduce the noise of a, b and c.

    References
    ----------
    Byrd, Chin, Nocedal, Wu, "Sample size selection in optimization methods for machine learning", Math.
    Program. 134 (2012), and Jahani et al., "Efficient distributed Hessian-free algorithm for large-scale
    empirical risk minimization via accumulating sample strategy" (DANCE), arXiv 1810.11507 (2018), for
    samples that grow. The test of `after` is our own.

    Examples
    --------
    >>> Draws(seed=1, batch_size="all", curvature_batch_size=32, n=100).curvature(5)
    Sample(size=32, seed=2, index=5)
    >>> draws = Draws(seed=1, batch_size="growing", curvature_batch_size="part", n=60_000)
    >>> draws.loss(0).size, draws.curvature(0).size, draws.enlarged().loss(1).size
    (500, 125, 1000)
    """

    seed: int
    batch_size: int | str
    curvature_batch_size: int | str
    n: int
    size: int = 0
    gained: float = 0.0
    missed: float = 0.0

    def __post_init__(self) -> None:
        if not self.size:
            first = {"growing": FIRST, "all": self.n}.get(str(self.batch_size), self.batch_size)
            object.__setattr__(self, "size", self._allowed(int(first)))

    def _allowed(self, size: int) -> int:
        """Return the size of a growing mini-batch, or n if it would be a large part of all samples."""
        return self.n if self.batch_size == "growing" and WHOLE * size > self.n else size

    @property
    def whole(self) -> bool:
        """Whether loss and gradient are those over all samples, always the same."""
        return self.batch_size == "all" or (self.batch_size == "growing" and self.size == self.n)

    def loss(self, iteration: int) -> Sample | None:
        """Return the samples of loss and gradient in an iteration; None for all."""
        return None if self.whole else Sample(self.size, self.seed, iteration)

    def curvature(self, iteration: int) -> Sample | None:
        """Return the samples of curvature in an iteration; None for all."""
        size = self.curvature_batch_size
        if size == "part":
            part = max(self.size // 10, FIRST) if self.whole else max(self.size // 4, FIRST // 4)
            size = part if part < self.size else "same"
        return self.loss(iteration) if size == "same" else Sample(int(size), self.seed + 1, iteration)

    def after(self, gained: float, shown: float) -> "Draws":
        """Return the draws after a step: with a larger mini-batch, if the last ones were too small.

        Parameters
        ----------
        gained : float
            How much the step lowered the loss on its own mini-batch.
        shown : float
            How much lower the loss on the next mini-batch is than the loss before the step was on its own.

        Returns
        -------
        Draws
            The draws of the next iteration.
        """
        if self.whole or self.batch_size != "growing":
            return self
        missed = DECAY * self.missed + (gained - shown)
        gained = DECAY * self.gained + gained
        if missed > DOUBTFUL * gained:
            return self.enlarged()
        return replace(self, gained=gained, missed=missed)

    def enlarged(self, everything: bool = False) -> "Draws":
        """Return the draws with a growing mini-batch of twice the size, or with all samples."""
        if self.whole or self.batch_size != "growing":
            return self
        size = self.n if everything else self._allowed(GROWTH * self.size)
        return replace(self, size=size, gained=0.0, missed=0.0)


@lru_cache(maxsize=8)
def _epoch_order(offsets: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    """Return all rows in the order of an epoch: each stratum shuffled, then all interleaved evenly."""
    rows, keys = [], []
    if offsets[0] != 0 or any(stop < start for start, stop in pairwise(offsets)):
        raise ValueError(f"offsets: expected boundaries that ascend from 0, got {offsets}")
    for number, (start, stop) in enumerate(pairwise(offsets)):
        random = np.random.default_rng([seed, epoch, number])
        rows.append(start + random.permutation(stop - start))
        keys.append((np.arange(stop - start) + random.random()) / max(stop - start, 1))
    return np.concatenate(rows)[np.argsort(np.concatenate(keys), kind="stable")]


Batch: TypeAlias = tuple[np.ndarray, np.ndarray]  # inputs X and labels or targets Y of some samples


class Rows(Protocol):
    """Arrays X and Y with a row for each sample, such as a `hfnb.Dataset`."""

    @property
    def X(self) -> np.ndarray:
        """Inputs."""

    @property
    def Y(self) -> np.ndarray:
        """Labels or targets."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...


def default_partitions(n: int, least: int = CUTS[0]) -> int:
    """Return the number of partitions of a dataset for which nobody has chosen one.

    Parameters
    ----------
    n : int
        Number of samples.
    least : int
        The least number, such as that of the engines.

    Returns
    -------
    int
        The largest of `CUTS` that leaves `ROWS` rows to each partition, or the least number, if that is
        larger: 1, one of `CUTS`, or a multiple of 24.

    Examples
    --------
    >>> [default_partitions(n) for n in (500, 4000, 60_000)], default_partitions(500, least=5)
    ([4, 6, 24], 6)
    """
    fitting = max((count for count in CUTS if n >= count * ROWS), default=1)
    if fitting >= least:
        return fitting
    return next((count for count in (1, *CUTS) if count >= least), -(-least // STRATA) * STRATA)


class Shards:
    """The partitions of a dataset that this process holds.

    A dataset of n samples is cut into contiguous partitions of about equal length. An engine holds some of
    them, a single process all.

    Parameters
    ----------
    n : int
        Number of samples in the whole dataset, held here or not.
    partitions : int
        Number of partitions of the whole dataset; if there are fewer samples, some are empty.
    blocks : mapping
        {range of partitions: (X, Y)} with the rows of consecutive partitions that are held here.

    Attributes
    ----------
    n, partitions : int
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb.datasets import Dataset
    >>> shards = Shards.of(Dataset(np.eye(10), np.arange(10)), partitions=4)
    >>> shards.offsets.tolist(), shards.select([1, 2]).held
    ([0, 2, 5, 7, 10], (1, 2))
    """

    def __init__(self, n: int, partitions: int, blocks: Mapping[range, Batch]) -> None:
        self.n, self.partitions = n, partitions
        self._blocks = {numbers: blocks[numbers] for numbers in sorted(blocks, key=lambda each: each.start)}

    @classmethod
    def of(cls, data: Rows, partitions: int | None = None, order: np.ndarray | None = None) -> "Shards":
        """Return all partitions of a dataset, as views unless its rows are put in another order.

        Parameters
        ----------
        data : Dataset or Rows
            The samples.
        partitions : int, optional
            Number of partitions; `default_partitions` by default.
        order : ndarray of int, shape (n,), optional
            The row of the dataset at each place; by default the order of the data.

        Returns
        -------
        Shards
            All partitions.
        """
        if partitions is None:
            partitions = default_partitions(len(data))
        partitions = check_positive_int("partitions", partitions)
        rows = (data.X, data.Y) if order is None else (data.X[order], data.Y[order])
        return cls(len(data), partitions, {range(partitions): rows})

    @cached_property
    def offsets(self) -> np.ndarray:
        """The boundaries of the partitions, from 0 to n: integers, (partitions + 1,)."""
        return np.arange(self.partitions + 1) * self.n // self.partitions

    @cached_property
    def strata(self) -> np.ndarray:
        """The boundaries of the strata of mini-batches: those of 24 parts, or of finer ones.

        A partition consists of whole strata. Any number of partitions that divides 24 has the same strata,
        so that a mini-batch has the same rows.
        """
        count = -(-STRATA // self.partitions) * self.partitions
        return np.arange(count + 1) * self.n // count

    def by_stratum(self) -> dict[int, Batch]:
        """Return {number: (X, Y)} of the strata held here, as views."""
        each = (len(self.strata) - 1) // self.partitions
        return {
            number: self._between(block, *self.strata[number : number + 2])
            for block in self._blocks
            for number in range(block.start * each, block.stop * each)
        }

    @cached_property
    def parts(self) -> dict[int, Batch]:
        """{number: (X, Y)} of the partitions held here, as views."""
        return {
            number: self._between(block, *self.offsets[number : number + 2])
            for block in self._blocks
            for number in block
        }

    def _between(self, block: range, start: int, stop: int) -> Batch:
        """Return the rows from ``start`` to ``stop`` of the dataset, as views of those of their block."""
        (X, Y), first = self._blocks[block], self.offsets[block.start]
        return X[start - first : stop - first], Y[start - first : stop - first]

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the partitions held here."""
        return tuple(number for block in self._blocks for number in block)

    def select(self, numbers: Iterable[int]) -> "Shards":
        """Return the shards with only the partitions ``numbers``."""
        blocks = {range(number, number + 1): self.parts[number] for number in numbers}
        return Shards(self.n, self.partitions, blocks)

    @staticmethod
    def joined(shards: Sequence["Shards"]) -> "Shards":
        """Return the partitions of several shards, at least one, of the same dataset."""
        blocks = {numbers: rows for each in shards for numbers, rows in each._blocks.items()}
        return Shards(shards[0].n, shards[0].partitions, blocks)

    def count(self, sample: Sample | None = None) -> int:
        """Return how many samples of a mini-batch, or of all, are held here."""
        if sample is None:
            return sum(len(X) for X, _ in self._blocks.values())
        cuts = np.searchsorted(sample.rows(self.strata), self.offsets)
        return sum(int(cuts[block.stop] - cuts[block.start]) for block in self._blocks)

    def pieces(self, sample: Sample | None = None, apart: bool = False) -> list[Batch]:
        """Return the samples held here in pieces, none of which is empty.

        Parameters
        ----------
        sample : Sample, optional
            The mini-batch; all samples by default.
        apart : bool
            Whether each partition is a piece. Otherwise the pieces are as large as possible: the rows of
            consecutive partitions, or the whole mini-batch.

        Returns
        -------
        list of (X, Y)
            The rows of each piece; views, if they are not of a mini-batch.
        """
        if sample is None:
            pieces = [self.parts[number] for number in self.held] if apart else list(self._blocks.values())
        else:
            rows = sample.rows(self.strata)
            units = [range(number, number + 1) for number in self.held] if apart else list(self._blocks)
            pieces = [self._picked(rows, unit) for unit in units]
            if not apart and len(pieces) > 1:
                pieces = [(np.concatenate([X for X, _ in pieces]), np.concatenate([Y for _, Y in pieces]))]
        return [piece for piece in pieces if len(piece[0])]

    def _picked(self, rows: np.ndarray, unit: range) -> Batch:
        """Return those of the sorted ``rows`` that lie in a unit, some consecutive partitions of a block."""
        block = next(each for each in self._blocks if unit.start in each)
        start, stop = np.searchsorted(rows, self.offsets[[unit.start, unit.stop]])
        local = rows[start:stop] - self.offsets[block.start]
        X, Y = self._blocks[block]
        return X[local], Y[local]
