"""Which engine holds which partitions of a dataset: sent once, moved when an engine is lost, freed unused."""

import weakref
from collections.abc import Callable

import numpy as np

from hfnb.datasets.dataset import fingerprint, is_sampled
from hfnb.engines import worker
from hfnb.engines.pool import EngineFailure, EngineLost, Pool
from hfnb.objectives import cells
from hfnb.objectives.sampling import Shards


class Placement:
    """A dataset that the engines hold, in blocks of consecutive partitions.

    Parameters
    ----------
    pool : Pool
        The engines.
    data : Dataset
    content : str
        Its fingerprint, as `hfnb.datasets.fingerprint` returns it.
    partitions : int
        How many partitions the data is cut into, at least as many as there are engines.
    seed : int, optional
        Seed of the random order in which the data is cut; by default the order of the data.

    Attributes
    ----------
    n : int
        Number of samples.
    X, Y, offsets : ndarray
        The data, and the first sample of each partition.
    order : ndarray of int, or None
        The row of the data at each place, as `hfnb.objectives.cells.order` returns it.
    blocks : dict
        {number of a block: (its partitions, its engine)}. A block that moves gets a new number.
    key : str
        The key of the dataset on the engines.

    Notes
    -----
    At every moment the blocks cover all partitions, so that no sum leaves one out, not even after an
    exception or Ctrl-C. When nothing refers to the placement any more, the engines free its blocks.
    """

    def __init__(self, pool: Pool, data, content: str, partitions: int, seed: int | None = None):
        # The arrays, not the dataset: `Placements` keeps a placement as long as the dataset exists.
        self.X, self.Y, self.n, self.content = data.X, data.Y, len(data), content
        self.pool, self.key, self.partitions = pool, pool.key(), partitions
        self.offsets, self.order = Shards.of(data, partitions).offsets, cells.order(self.n, seed)
        self._next = 0  # number of the next block
        pool.forget_with(self)  # before anything is sent, so that no exception leaves blocks behind
        self.blocks: dict[int, tuple[range, int]] = self._place([range(partitions)])

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.n

    def held(self) -> dict[int, list[int]]:
        """Return {engine: numbers of its blocks, ascending}."""
        return _by_engine(self.blocks)

    def is_edited(self) -> bool:
        """Return whether the data here has changed since the engines were sent it."""
        return fingerprint(self) != self.content

    def move(self, lost: dict[int, str]) -> dict[int, list[int]]:
        """Place the partitions of lost engines on the other engines.

        Parameters
        ----------
        lost : dict
            {engine: why it was lost}.

        Returns
        -------
        dict
            {engine: numbers of its new blocks}.

        Raises
        ------
        EngineFailure
            If the client's data was edited, so that it differs from what the remaining engines hold.
        EngineLost
            If no engine is left.
        """
        stranded = [numbers for numbers, engine in self.blocks.values() if engine in lost]
        if stranded and self.pool.engines and self.is_edited():
            raise EngineFailure(
                f"{self.pool.causes()}, and its part of the data cannot be sent to another engine: this "
                "objective's dataset, or one of the same content that was sent first, was edited in place "
                "since. Make a new objective"
            )
        new = self._place(stranded)
        self.blocks = {block: place for block, place in self.blocks.items() if place[1] not in lost} | new
        return _by_engine(new)

    def _place(self, waiting: list[range]) -> dict[int, tuple[range, int]]:
        """Send consecutive partitions to the engines in order, as evenly as possible; return the blocks."""
        placed, waiting = dict[int, tuple[range, int]](), waiting[::-1]
        while waiting:
            new = self._cut(waiting.pop())
            lost = self._send(new)
            self._next += len(new)  # not before: a call that failed is made again with the same numbers
            placed |= {block: place for block, place in new.items() if place[1] not in lost}
            waiting += [numbers for numbers, engine in new.values() if engine in lost]
        return placed

    def _cut(self, numbers: range) -> dict[int, tuple[range, int]]:
        """Cut consecutive partitions into new blocks, at most one for each engine."""
        engines = self.pool.engines
        if not engines:
            raise EngineLost(f"all engines are lost: {self.pool.causes()}")
        cuts = np.arange(len(engines) + 1) * len(numbers) // len(engines)
        shares = [(numbers[a:b], e) for e, a, b in zip(engines, cuts[:-1], cuts[1:], strict=True) if b > a]
        return dict(enumerate(shares, self._next))

    def _send(self, new: dict[int, tuple[range, int]]) -> dict[int, str]:
        """Send blocks to their engines, of a mapped file only the location; return the engines lost."""
        calls = {e: self._call(block, share, worker.reference) for block, (share, e) in new.items()}
        held, lost = self.pool.call(calls)
        calls = {e: self._call(block, share) for block, (share, e) in new.items() if not held.get(e, True)}
        return lost | self.pool.call(calls)[1] if calls else lost

    def _call(self, block: int, numbers: range, form: Callable = lambda rows: rows) -> tuple:
        """Return the call that makes an engine hold a block, whose rows are sent as ``form`` returns them."""
        place = slice(self.offsets[numbers.start], self.offsets[numbers.stop])
        rows = place if self.order is None else self.order[place]
        X, Y = form(self.X[rows]), form(self.Y[rows])
        return worker.hold, self.key, block, numbers, self.n, self.partitions, X, Y


def _by_engine(blocks: dict[int, tuple[range, int]]) -> dict[int, list[int]]:
    """Return {engine: numbers of its blocks, ascending}."""
    held: dict[int, list[int]] = {}
    for block in sorted(blocks):
        held.setdefault(blocks[block][1], []).append(block)
    return held


class Placements:
    """The placements of all datasets that are in use, so that data of the same content is sent once.

    Parameters
    ----------
    pool : Pool
        The engines.

    Notes
    -----
    Two datasets with the same content share a placement; a dataset that was edited in place has another
    content. A placement lasts as long as a dataset with its content or an objective on it.
    """

    def __init__(self, pool: Pool):
        self._pool = pool
        self._known: weakref.WeakValueDictionary[tuple, Placement] = weakref.WeakValueDictionary()
        # id of a dataset: {(partitions, seed of their order): its last placement}
        self._kept: dict[int, dict[tuple, Placement]] = {}

    def of(self, data, content: str, partitions: int, seed: int | None = None) -> Placement:
        """Return the placement of a dataset, which is sent to the engines if there is none yet.

        Parameters
        ----------
        data : Dataset
        content : str
            Its fingerprint.
        partitions : int
            How many partitions it is cut into.
        seed : int, optional
            Seed of the random order in which it is cut; by default the order of the data.

        Returns
        -------
        Placement
        """
        # The fingerprint of a very large array reads only a part of it: the array must be the same as well. A
        # placement refers to its array, so that no other array can have the address as long as it exists.
        large = [A.__array_interface__["data"][0] for A in (data.X, data.Y) if is_sampled(A)]
        cut = partitions, seed
        key = content, cut, *large
        placement = self._known.get(key)
        if placement is None:
            placement = self._known[key] = Placement(self._pool, data, content, *cut)
        self._keep(data, cut, placement)
        return placement

    def _keep(self, data, cut: tuple, placement: Placement) -> None:
        """Keep the placement until the dataset is gone or has another content."""
        owner = id(data)
        if owner not in self._kept:
            try:
                weakref.finalize(data, Placements._release, weakref.ref(self), owner)
            except TypeError:  # another class than Dataset, whose end cannot be noticed: objectives keep it
                return
            self._kept[owner] = {}
        self._kept[owner][cut] = placement

    @staticmethod
    def _release(reference: "weakref.ref[Placements]", owner: int) -> None:
        """Stop keeping the placements of a dataset that is gone."""
        if (placements := reference()) is not None:
            placements._kept.pop(owner, None)
