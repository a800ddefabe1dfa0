"""Where the time of each iteration goes, engine by engine: computing, reducing, waiting for the slowest.

A sum over engines costs each of them the time to compute its part and, from then on, the time until it has
the total. The engine with the shortest time from its own part to the total finished last and did not wait.
Its time is the ``reduction``; the excess of every other engine is ``waiting``. No barrier is needed for that.
Every engine reads its own clock, and only differences are compared, so that the clocks of several machines
need not agree.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# "cells" is the work of cells between two reductions (`hfnb.Objective.average`).
KINDS = ("gradient", "product", "loss", "cells", "reduction", "waiting", "optimizer", "idle")
MOST = 10_000  # laps kept, so that a clock that nobody reads does not fill the memory
Engines = dict[int, tuple[float, float]]  # {engine: (seconds to compute its part, seconds to the total)}
Lap = tuple[str, Engines]  # what was summed
Profile = dict[int, dict[str, float]]  # {engine: {kind: seconds}}


class Clock:
    """The sums that a process has taken part in since the clock was last read, and the time since then.

    Attributes
    ----------
    laps : list of tuple
        (what was summed, {engine: (seconds to compute its part, seconds from then on to the total)}).
    """

    def __init__(self) -> None:
        self.laps: list[Lap] = []
        self._start = time.perf_counter()

    def lap(self, what: str, engines: Engines) -> None:
        """Note one sum.

        Parameters
        ----------
        what : {"gradient", "product", "loss", "cells"}
            What was summed.
        engines : dict
            {engine: (seconds to compute its part, seconds from then on to the total)}.
        """
        if len(self.laps) < MOST:
            self.laps.append((what, engines))

    def take(self) -> tuple[list[Lap], float]:
        """Read the clock and start it anew.

        Returns
        -------
        laps : list of tuple
            The sums since the last call.
        seconds : float
            The time since then.
        """
        now, start, laps = time.perf_counter(), self._start, self.laps
        self.laps, self._start = [], now
        return laps, now - start

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Exclude the sums and the time of the block from this clock."""
        laps, start = len(self.laps), time.perf_counter()
        yield
        del self.laps[laps:]
        self._start += time.perf_counter() - start

    def entries(self) -> dict[str, Profile]:
        """Return the clock's entries for a record: none, because this clock measures one engine only."""
        return {}


class ClientClock(Clock):
    """The clock of a client-driven run: it knows all engines, which are idle while the client computes."""

    def entries(self) -> dict[str, Profile]:
        """Return {"profile": {engine: {kind: seconds}}} of the iteration, and start the clock anew."""
        laps, seconds = self.take()
        engines = {engine for _, each in laps for engine in each}
        busy = {e: sum(sum(each.get(e, ())) for _, each in laps) for e in engines}
        return {"profile": profile(laps, {engine: (seconds, seconds - busy[engine]) for engine in engines})}


def profile(laps: Iterable[Lap], seconds: dict[int, tuple[float, float]]) -> Profile:
    """Return where the time of one iteration went.

    Parameters
    ----------
    laps : iterable of tuple
        Its sums, as `Clock.take` returns them.
    seconds : dict
        {engine: (all of its seconds, those in which it was idle)}.

    Returns
    -------
    dict
        {engine: {kind: seconds}}, the kinds being `KINDS`. What is left over is the ``optimizer``'s own,
        mostly vectors in the Krylov loop.

    Examples
    --------
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


def of_engines(pieces: dict[int, tuple[list[Lap], float, float]]) -> Profile:
    """Return where the time of one iteration of an engine-driven run went.

    Parameters
    ----------
    pieces : dict
        {engine: (laps, seconds, idle seconds)}, by the engine's own clock. All engines have the same sums.

    Returns
    -------
    dict
        As `profile` returns it.
    """
    laps = []
    for each in zip(*(laps for laps, _, _ in pieces.values()), strict=True):  # the same sum on every engine
        own = {engine: next(iter(lap.values())) for engine, (_, lap) in zip(pieces, each, strict=True)}
        laps.append((each[0][0], own))
    return profile(laps, {engine: (seconds + idle, idle) for engine, (_, seconds, idle) in pieces.items()})


def rows(history: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the profiles of a history as a table.

    Parameters
    ----------
    history : iterable of Record
        The ``history`` of an optimizer's result.

    Returns
    -------
    list of dict
        One row for each iteration and engine: ``iteration``, ``engine`` and the seconds of each of `KINDS`.
    """
    return [
        {"iteration": record["iteration"], "engine": engine, **kinds}
        for record in history
        for engine, kinds in record.get("profile", {}).items()
    ]


def totals(history: Iterable[dict[str, Any]]) -> Profile:
    """Return where the time of a whole run went.

    Parameters
    ----------
    history : iterable of Record
        The ``history`` of an optimizer's result.

    Returns
    -------
    dict
        {engine: {kind: seconds}}, the kinds being `KINDS`, without "cells" if no cell worked; empty for a run
        in one process.
    """
    found: Profile = {}
    listed = rows(history)
    used = [kind for kind in KINDS if kind != "cells" or any(row.get(kind) for row in listed)]
    for row in listed:
        kinds = found.setdefault(row["engine"], dict.fromkeys(used, 0.0))
        for kind in used:
            kinds[kind] += row.get(kind, 0.0)  # records of earlier versions have no "cells"
    return found


def table(history: Iterable[dict[str, Any]]) -> str:
    """Return `totals` as text: for each engine its seconds, and which percentage of them each kind took.

    Parameters
    ----------
    history : iterable of Record
        The ``history`` of an optimizer's result.

    Returns
    -------
    str
    """
    found = totals(history)
    names = next(iter(found.values()), KINDS)
    lines = ["".join(f"{name:>10}" for name in ("engine", "seconds", *names))]
    for engine, kinds in found.items():
        whole = sum(kinds.values())
        shares = "".join(f"{100 * each / whole if whole else 0:>9.1f}%" for each in kinds.values())
        lines.append(f"{engine:>10}{whole:>10.3f}{shares}")
    return "\n".join(lines)
