"""Call functions on engines and gather what comes back, or say in one error what went wrong."""

import itertools
import re
import time
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, wait
from contextlib import suppress

import cloudpickle
import ipyparallel as ipp
from ipyparallel.error import NoEnginesRegistered, RemoteError

from hfnb.engines import worker
from hfnb.engines.interrupts import held

POLL = 1.0  # seconds between two looks at whether the controller is still there
HISTORY = 1000  # calls whose ids ipyparallel keeps; by itself it keeps those of all
STUCK = 10.0  # seconds that engines may go on with a call that an exception on another one has ended
PATIENCE = 2.0  # seconds that an engine may take for its first answer until it is called again
LEAVING = 5.0  # seconds that engines which stay may take to forget what a client gave them
GONE = KeyError, IndexError, NoEnginesRegistered  # what a view raises whose engine is no longer registered


class EngineFailure(RuntimeError):
    """An engine failed: ``engine`` is its number, or None for all; the message has the remote traceback."""

    def __init__(self, message: str, engine: int | None = None):
        super().__init__(message)
        self.engine = engine


class EngineLost(EngineFailure):
    """An engine died or hung, or the controller is gone; the run can go on from a checkpoint."""


def boxed(function: Callable, *arguments) -> list:
    """Return [function(*arguments)]: the client takes the value out of the list.

    Replies are kept for a while, until Python collects cycles: empty lists rather than vectors of millions.
    """
    return [function(*arguments)]


def greet(client: ipp.Client, engines: list[int], code: str, timeout: float) -> list[int]:
    """Run code on each engine, and return those that have not answered within ``timeout`` seconds.

    An engine is listed as soon as its heart beats, and ZeroMQ drops messages to it until its other
    connections are made, too, a moment later on a busy machine. So engines that do not answer are sent the
    code again, each time after twice as long; it must do no harm where it runs twice.
    """
    end, patience, waiting = time.monotonic() + timeout, PATIENCE, set(engines)
    replies: dict[int, list] = {engine: [] for engine in engines}
    while waiting and (now := time.monotonic()) < end:
        for engine in waiting:
            with suppress(*GONE):  # an engine that died is one that does not answer
                replies[engine].append(client[engine].apply_async(exec, code))
        again, patience = min(now + patience, end), 2 * patience
        while waiting and (now := time.monotonic()) < again:
            sent = [reply for engine in waiting for reply in replies[engine]]
            if not sent:  # all that have not answered have died
                return sorted(waiting)
            wait(sent, timeout=again - now, return_when=FIRST_COMPLETED)
            answered = {engine for engine in waiting if any(reply.done() for reply in replies[engine])}
            for reply in (reply for engine in answered for reply in replies[engine] if reply.done()):
                reply.result()  # raises what the engine did
            waiting -= answered
    return sorted(waiting)


class Pool:
    """The engines in use, in the order in which their partial sums are added.

    ``alive``: a function that says whether the controller still runs. ``deadline``: the seconds that an
    engine may take for one call; one that takes longer is given up like one that died.
    """

    def __init__(
        self, client: ipp.Client, engines: list[int], alive: Callable, deadline: float | None = None
    ):
        self.client, self.engines, self.alive, self.deadline = client, list(engines), alive, deadline
        self._views = {engine: client[engine] for engine in engines}
        self.lost: dict[int, str] = {}
        self.seconds: dict[int, float] = {}  # that each engine took for the last call, by its own clock
        self.name, self._numbers = uuid.uuid4().hex, itertools.count()
        self._unanswered: dict = {}  # {engine: reply} of a call that an exception on another engine has ended
        self._dropped: list[str] = []  # keys that nothing here refers to any more

    def call(self, calls: dict[int, tuple], together: bool = False) -> tuple[dict, dict[int, str]]:
        """Run {engine: (function, *arguments)}; return {engine: value} and {engine: why it was lost}.

        ``together``: the engines may wait for each other, so that the death of one ends the call of all.
        Raises EngineFailure for a Python exception on an engine; EngineLost where the controller is gone and,
        ``together``, for an exception that came with the death of another engine, which may have caused it.
        Lost engines are recorded before anything is raised, and not called again.
        Interrupted, it leaves: an engine ends its call, and the late reply has no reader.
        """
        self._check_controller()
        self._give_up_stuck()
        self._forget_dropped()
        pending, lost = self._send(calls)
        missing = self._wait(pending, together)
        values, failures, silent, self.seconds = {}, [], {}, {}
        for engine, reply in pending.items():
            if not reply.done():
                silent[engine] = missing[engine]
            elif (error := reply.exception()) is None:
                values[engine] = reply.result().pop()
                self.seconds[engine] = (
                    reply.metadata["completed"] - reply.metadata["started"]
                ).total_seconds()
            elif _is_death(error):
                lost[engine] = "died"
            else:
                failures.append((engine, error))
        if not failures:
            lost |= silent
        elif together:  # those that are silent may well be computing: they were not waited for
            self._unanswered = {engine: pending[engine] for engine in silent}
        self.lost |= lost
        self.engines = [engine for engine in self.engines if engine not in lost]
        if failures and together and lost:
            raise EngineLost(f"{_names(lost)}; {_failure(failures)}")
        if failures:
            raise _failure(failures)
        return values, lost

    def _give_up_stuck(self) -> None:
        """Give up engines that do not come back from a call that an exception on another engine has ended.

        They may compute, and get some seconds; or they wait for the sums of that engine, and will for ever.
        """
        if not self._unanswered:
            return
        wait(self._unanswered.values(), timeout=STUCK)
        stuck = [engine for engine, reply in self._unanswered.items() if not reply.done()]
        self._unanswered = {}
        self.lost |= dict.fromkeys(stuck, "was left waiting for an engine that raised an exception")
        self.engines = [engine for engine in self.engines if engine not in stuck]

    def _send(self, calls: dict[int, tuple]) -> tuple[dict, dict[int, str]]:
        """Send all calls before a Ctrl-C takes effect; return {engine: reply} and those that are lost."""
        pending, lost = {}, {}
        with held():
            for engine, (function, *arguments) in calls.items():
                if engine in self.lost:
                    lost[engine] = self.lost[engine]
                    continue
                try:
                    pending[engine] = self._views[engine].apply_async(boxed, function, *arguments)
                except GONE:
                    lost[engine] = "died"
            del self.client.history[:-HISTORY]
        return pending, lost

    def call_each(self, calls: dict[int, tuple]) -> list:
        """Run {engine: (function, *arguments)}; EngineLost if one is lost."""
        values, lost = self.call(calls, together=True)
        if lost:
            raise EngineLost(_names(lost))
        return [values[engine] for engine in calls]

    def call_all(self, function: Callable, *arguments) -> list:
        """Run the same call on every engine; EngineLost if one is lost."""
        return self.call_each(dict.fromkeys(self.engines, (function, *arguments)))

    def notify_all(self, function: Callable, *arguments) -> None:
        """Run the same call on every engine without waiting: engines take calls in order."""
        with held():
            for engine in self.engines:
                with suppress(*GONE):  # the engine died: the next call will notice
                    self._views[engine].apply_async(function, *arguments)

    def key(self) -> str:
        """Return a new key under which engines keep something for this client."""
        return f"{self.name}/{next(self._numbers)}"

    def forget_with(self, owner) -> None:
        """Have the engines forget what they keep under ``owner.key`` once nothing here refers to the owner.

        They are told with the next call: the end of an object can come in the midst of another call.
        """
        weakref.finalize(owner, self._dropped.append, owner.key)

    def _forget_dropped(self) -> None:
        """Tell the engines what to forget, before the next call."""
        if not self._dropped:
            return
        with held():
            keys = self._dropped[:]
            self.notify_all(worker.forget, keys)
            del self._dropped[: len(keys)]

    def leave(self) -> None:
        """Have engines that stay forget all that this client gave them, within a few seconds."""
        self.deadline = min(LEAVING, self.deadline or LEAVING)
        with suppress(EngineFailure):
            self.call_all(worker.leave, self.name)

    def causes(self) -> str:
        """Say which engines were lost and why."""
        return _names(self.lost, ", ")

    def _wait(self, pending: dict, together: bool) -> dict[int, str]:
        """Wait for all replies, an exception and what follows at once, the deadline, or the end.

        Return {engine: why its reply is missing}, for those that are.
        """
        end = None if self.deadline is None else time.monotonic() + self.deadline
        rest, gone, dead = dict(pending), set[int](), dict[int, str]()
        while rest:
            left = POLL if end is None else min(POLL, end - time.monotonic())
            done, _ = wait(rest.values(), timeout=max(left, 0), return_when=FIRST_EXCEPTION)
            errors = [error for reply in done if (error := reply.exception())]
            rest = {engine: reply for engine, reply in rest.items() if reply not in done}
            if (dead and together) or any(together or not _is_death(error) for error in errors):
                wait(rest.values(), timeout=POLL)
                return dict.fromkeys(rest, "was left waiting") | dead
            if rest and end is not None and time.monotonic() >= end:
                return dict.fromkeys(rest, f"gave no answer in {self.deadline} s") | dead
            self._check_controller()
            # An engine that died while the call was sent: ipyparallel has no reply for it, now or ever.
            dead |= dict.fromkeys((gone - set(self.client.ids)) & rest.keys(), "died")
            gone = rest.keys() - self.client.ids
            rest = {engine: reply for engine, reply in rest.items() if engine not in dead}
        return dead

    def _check_controller(self) -> None:
        if not self.alive():
            raise EngineLost("the controller of the cluster is gone")


def _names(lost: dict[int, str], separator: str = "; ") -> str:
    return separator.join(f"engine {engine} {reason}" for engine, reason in sorted(lost.items()))


def _is_death(error: BaseException) -> bool:
    """Whether the error is ipyparallel's own news that the engine died, not an exception raised on it."""
    return isinstance(error, RemoteError) and error.ename == "EngineError"


def _failure(failures: list[tuple[int, BaseException]]) -> EngineFailure:
    """Put the engine that began it, the exception and the remote traceback in one error."""
    engine, error = min(failures, key=lambda failure: getattr(failure[1], "ename", "") == "PeerFailure")
    if not isinstance(error, RemoteError):
        return EngineFailure(f"engine {engine}: {error}", engine)
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)  # without its colours
    return EngineFailure(
        f"engine {engine} raised {error.ename}: {error.evalue}\nOn the engine:\n{traceback}", engine
    )


def pack(name: str, value) -> bytes:
    """Pickle what engines need, a notebook's functions and classes too; TypeError for what cannot be sent."""
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"{name}: expected something that can be pickled and sent to engines: {error}"
        ) from None
