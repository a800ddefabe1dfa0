"""Which engine holds which partitions of a dataset."""

import itertools
import uuid
import weakref
from collections.abc import Callable

import numpy as np

from hfnb.engines import worker
from hfnb.engines.pool import EngineLost, Pool
from hfnb.sampling import Shards


class Placement:
    """A dataset cut into partitions, sent to the engines once, in blocks of consecutive partitions.

    ``blocks`` maps the number of a block to (its partitions, its engine); what moves gets a new number.
    ValueError where there are more engines than partitions.
    """

    def __init__(self, pool: Pool, data, partitions: int):
        if partitions < len(pool.engines):
            raise ValueError(
                f"partitions: expected at least {len(pool.engines)}, one an engine, got {partitions}"
            )
        self.pool, self.data, self.key = pool, data, uuid.uuid4().hex
        self.offsets, self.n = Shards.of(data, partitions).offsets, len(data)
        self.blocks: dict[int, tuple[range, int]] = {}
        self._numbers, self._garbage = itertools.count(), list[str]()
        self._place(range(partitions))

    def held(self) -> dict[int, list[int]]:
        """Return {engine: its blocks}, after engines have been told what to forget."""
        garbage, self._garbage[:] = self._garbage[:], []
        if garbage:
            self.pool.tell_all(worker.forget, garbage)
        return self._by_engine(self.blocks)

    def move(self, lost: dict[int, str]) -> dict[int, list[int]]:
        """Place what the lost engines held on the others; return {engine: new blocks}."""
        stranded = [numbers for numbers, engine in self.blocks.values() if engine in lost]
        self.blocks = {block: place for block, place in self.blocks.items() if place[1] not in lost}
        return self._by_engine([block for numbers in stranded for block in self._place(numbers)])

    def forget_with(self, owner) -> None:
        """Have the engines forget what they keep under ``owner.key`` once it is no longer in use here."""
        weakref.finalize(owner, self._garbage.append, owner.key)

    def _by_engine(self, blocks) -> dict[int, list[int]]:
        held: dict[int, list[int]] = {}
        for block in sorted(blocks):
            held.setdefault(self.blocks[block][1], []).append(block)
        return held

    def _place(self, numbers: range) -> list[int]:
        """Deal consecutive partitions to the engines, in order and as evenly as it goes."""
        while engines := self.pool.engines:
            cuts = np.arange(len(engines) + 1) * len(numbers) // len(engines)
            shares = {e: numbers[a:b] for e, a, b in zip(engines, cuts[:-1], cuts[1:], strict=True) if b > a}
            new = {next(self._numbers): (share, engine) for engine, share in shares.items()}
            if not self._send(new):
                self.blocks |= new
                return list(new)
        raise EngineLost(f"all engines are lost: {self.pool.causes()}")

    def _send(self, new: dict[int, tuple[range, int]]) -> dict[int, str]:
        """Give blocks to their engines, of mapped rows only the place where they can; return the lost."""
        calls = {e: self._call(block, share, worker.reference) for block, (share, e) in new.items()}
        held, lost = self.pool.ask(calls)
        calls = {e: self._call(block, share) for block, (share, e) in new.items() if not held.get(e, True)}
        return lost | self.pool.ask(calls)[1] if calls else lost

    def _call(self, block: int, numbers: range, form: Callable = lambda rows: rows) -> tuple:
        rows = slice(self.offsets[numbers.start], self.offsets[numbers.stop])
        X, Y = form(self.data.X[rows]), form(self.data.Y[rows])
        return worker.hold, self.key, block, numbers, self.offsets, X, Y
