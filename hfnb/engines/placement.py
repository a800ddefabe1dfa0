"""Which engine holds which partitions of a dataset."""

import weakref
from collections.abc import Callable

import numpy as np

from hfnb.datasets.dataset import fingerprint, is_sampled
from hfnb.engines import worker
from hfnb.engines.pool import EngineFailure, EngineLost, Pool
from hfnb.objectives.sampling import Shards


class Placement:
    """A dataset cut into partitions, sent to the engines once, in blocks of consecutive partitions.

    ``blocks`` maps the number of a block to (its partitions, its engine); what moves gets a new number. At
    every moment the blocks cover all partitions, so that no sum leaves one out after an exception or Ctrl-C.
    ``content`` is the fingerprint of the data. Engines free the blocks after the placement is gone.
    There are at least as many partitions as engines.
    """

    def __init__(self, pool: Pool, data, content: str, partitions: int):
        # The arrays, not the dataset: as long as that is there the placement is kept (`Placements`).
        self.X, self.Y, self.n, self.content = data.X, data.Y, len(data), content
        self.pool, self.key, self.offsets = pool, pool.key(), Shards.of(data, partitions).offsets
        self._next = 0  # number of the next block
        pool.forget_with(self)  # before anything is sent, so that no exception leaves blocks behind
        self.blocks: dict[int, tuple[range, int]] = self._place([range(partitions)])

    def __len__(self) -> int:
        """Number of samples."""
        return self.n

    def held(self) -> dict[int, list[int]]:
        """Return {engine: its blocks}."""
        return self._by_engine(self.blocks)

    def edited(self) -> bool:
        """Whether the data here is no longer what the engines were sent."""
        return fingerprint(self) != self.content

    def move(self, lost: dict[int, str]) -> dict[int, list[int]]:
        """Place what the lost engines held on the others; return {engine: new blocks}.

        EngineFailure where the data is no longer what the other engines have.
        """
        stranded = [numbers for numbers, engine in self.blocks.values() if engine in lost]
        if stranded and self.pool.engines and self.edited():
            raise EngineFailure(
                f"{self.pool.causes()}, and its part of the data cannot be sent to another engine: this "
                "objective's dataset, or one of the same content that was sent first, was edited in place "
                "since. Make a new objective"
            )
        new = self._place(stranded)
        self.blocks = {block: place for block, place in self.blocks.items() if place[1] not in lost} | new
        return self._by_engine(new)

    def _by_engine(self, blocks) -> dict[int, list[int]]:
        held: dict[int, list[int]] = {}
        for block in sorted(blocks):
            held.setdefault(blocks[block][1], []).append(block)
        return held

    def _place(self, waiting: list[range]) -> dict[int, tuple[range, int]]:
        """Send consecutive partitions to the engines in order, as evenly as it goes; return the blocks."""
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
        """Give blocks to their engines, of mapped rows only the place where they can; return the lost."""
        calls = {e: self._call(block, share, worker.reference) for block, (share, e) in new.items()}
        held, lost = self.pool.call(calls)
        calls = {e: self._call(block, share) for block, (share, e) in new.items() if not held.get(e, True)}
        return lost | self.pool.call(calls)[1] if calls else lost

    def _call(self, block: int, numbers: range, form: Callable = lambda rows: rows) -> tuple:
        rows = slice(self.offsets[numbers.start], self.offsets[numbers.stop])
        X, Y = form(self.X[rows]), form(self.Y[rows])
        return worker.hold, self.key, block, numbers, self.offsets, X, Y


class Placements:
    """The placements of datasets that are in use, by their content and the number of partitions.

    Data with the same content is sent once, be it one dataset or two; a dataset that was edited in place has
    another content. A placement lasts as long as a dataset with its content or an objective on it; then the
    engines free its blocks.
    """

    def __init__(self, pool: Pool):
        self._pool = pool
        self._known: weakref.WeakValueDictionary[tuple, Placement] = weakref.WeakValueDictionary()
        self._kept: dict[int, dict[int, Placement]] = {}  # id of a dataset: {partitions: its last placement}

    def of(self, data, content: str, partitions: int) -> Placement:
        """Return the placement of data with this fingerprint; it is sent if there is none."""
        # Of a very large array the fingerprint reads only a part: it has to be the same array as well. A
        # placement keeps its array as long as there is one, so that no other array can have its address.
        large = [A.__array_interface__["data"][0] for A in (data.X, data.Y) if is_sampled(A)]
        key = content, partitions, *large
        placement = self._known.get(key)
        if placement is None:
            placement = self._known[key] = Placement(self._pool, data, content, partitions)
        self._keep(data, partitions, placement)
        return placement

    def _keep(self, data, partitions: int, placement: Placement) -> None:
        """Keep the placement until the dataset is gone or has another content."""
        owner = id(data)
        if owner not in self._kept:
            try:
                weakref.finalize(data, Placements._release, weakref.ref(self), owner)
            except TypeError:  # not the project's Dataset, and nothing tells when it goes: objectives keep it
                return
            self._kept[owner] = {}
        self._kept[owner][partitions] = placement

    @staticmethod
    def _release(reference: "weakref.ref[Placements]", owner: int) -> None:
        if (placements := reference()) is not None:
            placements._kept.pop(owner, None)
