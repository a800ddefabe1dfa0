"""Partitions of a dataset and mini-batches drawn from them, which are the same on any number of engines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np

from hfnb.validation import check_nonnegative_int, check_positive_int, shown


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
    samples from each partition in proportion to its length, so that engines have equal work.

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
        offsets : ndarray of int, shape (partitions + 1,)
            The boundaries of the partitions, from 0 to n.

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
            raise ValueError(f"offsets: expected the partitions' boundaries, integers, got {shown(offsets)}")
        n = int(offsets[-1])
        if self.size > n:
            raise ValueError(f"size: expected 1 to {n} samples (the dataset's), got {self.size}")
        epoch, position = divmod(self.index, n // self.size)
        order = _epoch_order(tuple(offsets.tolist()), self.seed, epoch)
        return np.sort(order[position * self.size : (position + 1) * self.size])


@dataclass(frozen=True)
class Draws:
    """Which samples an iteration uses.

    Parameters
    ----------
    seed : int
        Seed of the draws.
    batch_size : int or None
        Samples for loss and gradient; None for all.
    curvature_batch_size : int or None
        Samples for the curvature; None for those of loss and gradient.

    Examples
    --------
    >>> Draws(seed=1, batch_size=None, curvature_batch_size=32).curvature(5)
    Sample(size=32, seed=2, index=5)
    """

    seed: int
    batch_size: int | None
    curvature_batch_size: int | None

    def loss(self, iteration: int) -> Sample | None:
        """Return the samples of loss and gradient in an iteration; None for all."""
        return None if self.batch_size is None else Sample(self.batch_size, self.seed, iteration)

    def curvature(self, iteration: int) -> Sample | None:
        """Return the samples of curvature in an iteration; None for all."""
        if self.curvature_batch_size is None:
            return self.loss(iteration)
        return Sample(self.curvature_batch_size, self.seed + 1, iteration)


@lru_cache(maxsize=8)
def _epoch_order(offsets: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    """Return all rows in the order of an epoch: each partition shuffled, then all interleaved evenly."""
    rows, keys = [], []
    if offsets[0] != 0 or any(stop < start for start, stop in pairwise(offsets)):
        raise ValueError(f"offsets: expected boundaries that ascend from 0, got {offsets}")
    for number, (start, stop) in enumerate(pairwise(offsets)):
        random = np.random.default_rng([seed, epoch, number])
        rows.append(start + random.permutation(stop - start))
        keys.append((np.arange(stop - start) + random.random()) / max(stop - start, 1))
    return np.concatenate(rows)[np.argsort(np.concatenate(keys), kind="stable")]


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


class Shards:
    """The partitions of a dataset that this process holds.

    A dataset of n samples is cut into contiguous partitions, independently of the number of engines. An
    engine holds some of them, a single process all.

    Parameters
    ----------
    offsets : ndarray of int, shape (partitions + 1,)
        The boundaries of the partitions, from 0 to n.
    parts : dict
        {number: (X, Y)} of the partitions held here.

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb.datasets import Dataset
    >>> shards = Shards.of(Dataset(np.eye(10), np.arange(10)), partitions=4)
    >>> shards.offsets.tolist(), shards.select([1, 2]).held
    ([0, 2, 5, 7, 10], (1, 2))
    """

    def __init__(self, offsets: np.ndarray, parts: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
        self.offsets, self.parts = offsets, dict(sorted(parts.items()))

    @classmethod
    def of(cls, data: Rows, partitions: int = 24) -> "Shards":
        """Return all partitions of a dataset, as views.

        Parameters
        ----------
        data : Dataset or Rows
            The samples.
        partitions : int
            Number of partitions; if there are fewer samples, some are empty.

        Returns
        -------
        Shards
            All partitions.
        """
        partitions = check_positive_int("partitions", partitions)
        offsets = np.arange(partitions + 1) * len(data) // partitions
        return cls(offsets, {i: (data.X[a:b], data.Y[a:b]) for i, (a, b) in enumerate(pairwise(offsets))})

    @property
    def n(self) -> int:
        """Number of samples in the whole dataset, held here or not."""
        return int(self.offsets[-1])

    @property
    def partitions(self) -> int:
        """Number of partitions of the whole dataset, held here or not."""
        return len(self.offsets) - 1

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the partitions held here."""
        return tuple(self.parts)

    def select(self, numbers: Iterable[int]) -> "Shards":
        """Return the shards with only the partitions ``numbers``."""
        return Shards(self.offsets, {i: self.parts[i] for i in numbers})

    def count(self, sample: Sample | None = None) -> int:
        """Return how many samples of a mini-batch, or of all, are held here."""
        if sample is None:
            return sum(len(X) for X, _ in self.parts.values())
        cuts = np.searchsorted(sample.rows(self.offsets), self.offsets)
        return sum(int(cuts[number + 1] - cuts[number]) for number in self.parts)

    def batches(
        self, sample: Sample | None = None, chunk: int | None = None, apart: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the samples held here in chunks.

        Parameters
        ----------
        sample : Sample, optional
            The mini-batch; all samples by default.
        chunk : int, optional
            The maximum number of rows at a time; all rows of a partition by default.
        apart : bool
            Whether each chunk of a mini-batch has rows of one partition only. It is faster to join the rows
            of all partitions.

        Yields
        ------
        X, Y : ndarray
            The rows of a chunk.
        """
        pieces = list(self.parts.values()) if sample is None else self._picked(sample)
        if sample is not None and not apart:
            pieces = [(np.concatenate([X for X, _ in pieces]), np.concatenate([Y for _, Y in pieces]))]
        for X, Y in pieces:
            if len(X):
                step = -(-len(X) // -(-len(X) // (chunk or len(X))))  # chunks of about equal size
                for start in range(0, len(X), step):
                    yield X[start : start + step], Y[start : start + step]

    def _picked(self, sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows of a mini-batch, partition by partition."""
        rows = sample.rows(self.offsets)
        cuts = np.searchsorted(rows, self.offsets)
        local = {i: rows[cuts[i] : cuts[i + 1]] - self.offsets[i] for i in self.parts}
        return [(X[local[i]], Y[local[i]]) for i, (X, Y) in self.parts.items()]
