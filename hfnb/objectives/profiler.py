"""Where the time of each iteration goes, engine by engine: who computes, who waits, and for what.

A sum over engines costs each of them the time to compute its part and, from then on, the time until it has
the total. No barrier is added to tell why that takes long: the engine for which it is shortest was the last
to arrive and waited for nobody, so its time is the ``reduction``; what others spend beyond it is ``waiting``
for the slowest. Every engine reads its own clock and only differences are compared, so the clocks of several
machines need not agree.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

KINDS = ("gradient", "product", "loss", "reduction", "waiting", "optimizer", "idle")
MOST = 10_000  # laps kept: who never asks, as no optimizer does, shall not run out of memory
Lap = tuple[str, dict]  # what was summed, {engine: (seconds to compute its part, seconds to the total)}
Profile = dict[int, dict[str, float]]  # {engine: {kind: seconds}}


class Clock:
    """The sums that one process has taken part in since it was last asked, and the time since then."""

    def __init__(self):
        self.laps: list[Lap] = []
        self._start = time.perf_counter()

    def lap(self, what: str, engines: dict) -> None:
        """Note one sum, of "gradient", "product" or "loss"."""
        if len(self.laps) < MOST:
            self.laps.append((what, engines))

    def take(self) -> tuple[list[Lap], float]:
        """Return the laps and the seconds since the last call, and begin anew."""
        now, start, laps = time.perf_counter(), self._start, self.laps
        self.laps, self._start = [], now
        return laps, now - start

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave out what happens inside."""
        laps, start = len(self.laps), time.perf_counter()
        yield
        del self.laps[laps:]
        self._start += time.perf_counter() - start

    def entries(self) -> dict:
        """What a record says of the iteration: nothing, where others know who waited for whom."""
        return {}


class ClientClock(Clock):
    """The clock of a client-driven run: it sees all engines, which are idle while it computes itself."""

    def entries(self) -> dict:
        laps, seconds = self.take()
        engines = {engine for _, each in laps for engine in each}
        busy = {e: sum(sum(each.get(e, ())) for _, each in laps) for e in engines}
        return {"profile": profile(laps, {engine: (seconds, seconds - busy[engine]) for engine in engines})}


def profile(laps: Iterable[Lap], seconds: dict[int, tuple[float, float]]) -> Profile:
    """Return {engine: {kind: seconds}} of one iteration.

    ``laps``: its sums; ``seconds``: {engine: (all of its seconds, those in which it was idle)}. What is left
    over is the optimizer's own, vectors in the Krylov loop most of all.

    >>> laps = [("product", {0: (3.0, 0.5), 1: (2.0, 1.5)})]
    >>> found = profile(laps, {0: (4.0, 0.0), 1: (4.0, 0.0)})[1]
    >>> {kind: seconds for kind, seconds in found.items() if seconds}
    {'product': 2.0, 'reduction': 0.5, 'waiting': 1.0, 'optimizer': 0.5}
    """
    found = {engine: dict.fromkeys(KINDS, 0.0) | {"idle": idle} for engine, (_, idle) in seconds.items()}
    for what, engines in laps:
        least = min((rest for _, rest in engines.values()), default=0.0)
        for engine, (computing, rest) in engines.items():
            found[engine][what] += computing
            found[engine]["reduction"] += least
            found[engine]["waiting"] += rest - least
    for engine, kinds in found.items():
        kinds["optimizer"] = max(seconds[engine][0] - sum(kinds.values()), 0.0)
    return found


def of_engines(pieces: dict[int, tuple[list, float, float]]) -> Profile:
    """Return the profile of an iteration that the engines drove: {engine: (its laps, seconds, idle)}."""
    laps = []
    for each in zip(*(laps for laps, _, _ in pieces.values()), strict=True):  # the same sum on every engine
        own = {engine: next(iter(lap.values())) for engine, (_, lap) in zip(pieces, each, strict=True)}
        laps.append((each[0][0], own))
    return profile(laps, {engine: (seconds + idle, idle) for engine, (_, seconds, idle) in pieces.items()})


def rows(history: Iterable[dict]) -> list[dict]:
    """Return the profiles of a history as a table: one row for each iteration and engine, in seconds."""
    return [
        {"iteration": record["iteration"], "engine": engine, **kinds}
        for record in history
        for engine, kinds in record.get("profile", {}).items()
    ]


def totals(history: Iterable[dict]) -> Profile:
    """Return {engine: {kind: seconds}} over a whole history; empty for a run in one process."""
    found: Profile = {}
    for row in rows(history):
        kinds = found.setdefault(row["engine"], dict.fromkeys(KINDS, 0.0))
        for kind in KINDS:
            kinds[kind] += row[kind]
    return found


def table(history: Iterable[dict]) -> str:
    """Return `totals` as text: for each engine its seconds, and what per cent of them went where."""
    lines = ["".join(f"{name:>10}" for name in ("engine", "seconds", *KINDS))]
    for engine, kinds in totals(history).items():
        whole = sum(kinds.values())
        shares = "".join(f"{100 * kinds[kind] / whole if whole else 0:>9.1f}%" for kind in KINDS)
        lines.append(f"{engine:>10}{whole:>10.3f}{shares}")
    return "\n".join(lines)
