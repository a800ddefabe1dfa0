"""Calls of functions on engines: replies are gathered, and what went wrong is said in one error."""

import itertools
import re
import signal
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import contextmanager, suppress

import cloudpickle
import ipyparallel as ipp
from ipyparallel.error import NoEnginesRegistered, RemoteError

from hfnb.engines import worker

POLL = 1.0  # seconds after which a waiting client checks again that the controller runs
HISTORY = 1000  # ids of calls that ipyparallel keeps; without a limit it keeps those of all calls
STUCK = 10.0  # seconds that engines have to finish a call after an exception on another engine ended it
LEAVING = 5.0  # seconds that engines which keep running have to free the data of a client that leaves
GONE = KeyError, IndexError, NoEnginesRegistered  # raised by a view of an engine that is no longer registered


class EngineFailure(RuntimeError):
    """An engine failed in a way that ends the run, such as an exception in the user's loss.

    Parameters
    ----------
    message : str
        What happened; for an exception on an engine with the traceback from there.
    engine : int, optional
        The number of the engine.

    Attributes
    ----------
    engine : int or None
        The number of the engine; None where several failed or none in particular.
    """

    def __init__(self, message: str, engine: int | None = None):
        super().__init__(message)
        self.engine = engine


class EngineLost(EngineFailure):
    """An engine died or did not answer, or the controller is gone; a run can go on from its checkpoint."""


@contextmanager
def hold_interrupts() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C in a block, so that it takes effect only where all processes started are known.

    Yields
    ------
    deliver : callable
        ``deliver()`` lets a Ctrl-C that was held back take effect at once; otherwise it does so at the end of
        the block.

    Notes
    -----
    Python raises KeyboardInterrupt between any two bytecodes, also between the start of a process and the
    assignment that remembers it. In the block a SIGINT is only noted. Delivering it calls the handler that
    was in place before, which raises KeyboardInterrupt by default. Only the main thread of Python receives
    signals. In another thread, and where SIGINT is ignored or handled outside Python, nothing is held back.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield lambda: None
        return
    noted: list[int] = []

    def deliver():
        if noted:
            noted.clear()
            signal.signal(signal.SIGINT, before)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.signal(signal.SIGINT, note)

    def note(number, frame):
        noted.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield deliver
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


class Pool:
    """The engines in use, in the order in which their partial sums are added.

    Parameters
    ----------
    client : ipyparallel.Client
    engines : list of int
        Numbers of the engines.
    is_alive : callable
        ``is_alive()`` returns whether the controller still runs.
    deadline : float, optional
        Seconds that an engine may take for one call. An engine that takes longer is lost, as one that died.

    Attributes
    ----------
    engines : list of int
        The engines that are not lost.
    lost : dict
        {engine: why it was lost}.
    seconds : dict
        {engine: seconds that the last call took there, by the engine's clock}.
    name : str
        The name of this client on the engines, with which every `key` begins.
    """

    def __init__(
        self, client: ipp.Client, engines: list[int], is_alive: Callable, deadline: float | None = None
    ):
        self.client, self.engines, self.deadline = client, list(engines), deadline
        self.lost: dict[int, str] = {}
        self.seconds: dict[int, float] = {}
        self.name, self._numbers = uuid.uuid4().hex, itertools.count()
        self._is_alive, self._views = is_alive, {engine: client[engine] for engine in engines}
        self._unanswered: dict = {}  # {engine: reply} of a call that an exception on another engine has ended
        self._dropped: list[str] = []  # keys that nothing here refers to any more

    def call(self, calls: dict[int, tuple], together: bool = False) -> tuple[dict, dict[int, str]]:
        """Run a function on each of some engines, and wait for all of them.

        Parameters
        ----------
        calls : dict
            {engine: (function, *arguments)}.
        together : bool, optional
            Whether the engines wait for each other in the call, so that the death of one ends it for all.

        Returns
        -------
        values : dict
            {engine: what its function returned}.
        lost : dict
            {engine: why it was lost}, for the engines that gave no value.

        Raises
        ------
        EngineFailure
            If a function raised; the message has the traceback from the engine.
        EngineLost
            If the controller is gone. Also if a function raised and another engine died, where the engines
            work ``together``: the death may have caused the exception.

        Notes
        -----
        Lost engines are recorded before anything is raised, and are not called again. After an interrupt the
        engines end the call that they are in, and nobody reads their replies.
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
                taken = reply.metadata["completed"] - reply.metadata["started"]
                self.seconds[engine] = taken.total_seconds()
            elif _is_death(error):
                lost[engine] = "died"
            else:
                failures.append((engine, error))
        if not failures:
            lost |= silent
        elif together:  # those that are silent may still compute: nobody has waited for them
            self._unanswered = {engine: pending[engine] for engine in silent}
        self.lost |= lost
        self.engines = [engine for engine in self.engines if engine not in lost]
        if failures and together and lost:
            raise EngineLost(f"{_names(lost)}; {_failure(failures)}")
        if failures:
            raise _failure(failures)
        return values, lost

    def call_each(self, calls: dict[int, tuple]) -> list:
        """Run a function on each of some engines that wait for each other.

        Parameters
        ----------
        calls : dict
            {engine: (function, *arguments)}.

        Returns
        -------
        list
            What the functions returned, in the order of ``calls``.

        Raises
        ------
        EngineFailure
            As `call` does.
        EngineLost
            If an engine is lost.
        """
        values, lost = self.call(calls, together=True)
        if lost:
            raise EngineLost(_names(lost))
        return [values[engine] for engine in calls]

    def call_all(self, function: Callable, *arguments) -> list:
        """Run ``function(*arguments)`` on every engine; `call_each` says what is returned and raised."""
        return self.call_each(dict.fromkeys(self.engines, (function, *arguments)))

    def notify_all(self, function: Callable, *arguments) -> None:
        """Run ``function(*arguments)`` on every engine, before any later call, and do not wait for it."""
        with hold_interrupts():
            for engine in self.engines:
                with suppress(*GONE):  # the engine died: the next call will notice
                    self._views[engine].apply_async(function, *arguments)

    def key(self) -> str:
        """Return a new key under which engines keep something for this client."""
        return f"{self.name}/{next(self._numbers)}"

    def forget_with(self, owner) -> None:
        """Have the engines forget what they keep under ``owner.key`` once nothing refers to the owner here.

        The engines are told with the next call, since an object can come to its end during another one.
        """
        weakref.finalize(owner, self._dropped.append, owner.key)

    def leave(self) -> None:
        """Tell engines to free all data of this client; wait for at most `LEAVING` seconds."""
        self.deadline = min(LEAVING, self.deadline or LEAVING)
        with suppress(EngineFailure):
            self.call_all(worker.leave, self.name)

    def causes(self) -> str:
        """Return a sentence that says which engines were lost and why."""
        return _names(self.lost, ", ")

    def _forget_dropped(self) -> None:
        """Tell the engines what to forget, before the next call."""
        if not self._dropped:
            return
        with hold_interrupts():
            keys = self._dropped[:]
            self.notify_all(worker.forget, keys)
            del self._dropped[: len(keys)]

    def _give_up_stuck(self) -> None:
        """Give up engines that have not come back from a call that an exception on another engine ended.

        An engine that computes gets `STUCK` seconds. One that waits for the part of the engine that raised
        would wait for ever.
        """
        if not self._unanswered:
            return
        wait(self._unanswered.values(), timeout=STUCK)
        stuck = [engine for engine, reply in self._unanswered.items() if not reply.done()]
        self._unanswered = {}
        self.lost |= dict.fromkeys(stuck, "was left waiting for an engine that raised an exception")
        self.engines = [engine for engine in self.engines if engine not in stuck]

    def _send(self, calls: dict[int, tuple]) -> tuple[dict, dict[int, str]]:
        """Send all calls before a Ctrl-C takes effect; return {engine: reply} and the engines lost."""
        pending, lost = {}, {}
        with hold_interrupts():
            for engine, call in calls.items():
                if engine in self.lost:
                    lost[engine] = self.lost[engine]
                    continue
                try:
                    pending[engine] = self._views[engine].apply_async(worker.answer, *call)
                except GONE:
                    lost[engine] = "died"
            del self.client.history[:-HISTORY]
        return pending, lost

    def _wait(self, pending: dict, together: bool) -> dict[int, str]:
        """Wait for all replies, the deadline or an exception; return {engine: why its reply is missing}.

        After an exception the replies that arrive within `POLL` seconds are taken as well. If all of them say
        that another engine raised an exception, that one gets `STUCK` seconds to say which.
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
                errors = [
                    error for reply in pending.values() if reply.done() and (error := reply.exception())
                ]
                if errors and all(map(_is_of_a_peer, errors)):
                    wait(rest.values(), timeout=STUCK)
                return dict.fromkeys(rest, "was left waiting") | dead
            if rest and end is not None and time.monotonic() >= end:
                return dict.fromkeys(rest, f"gave no answer in {self.deadline} s") | dead
            self._check_controller()
            # An engine that died while the call was sent: ipyparallel never gets a reply for it.
            dead |= dict.fromkeys((gone - set(self.client.ids)) & rest.keys(), "died")
            gone = rest.keys() - self.client.ids
            rest = {engine: reply for engine, reply in rest.items() if engine not in dead}
        return dead

    def _check_controller(self) -> None:
        """Raise EngineLost if the controller has ended."""
        if not self._is_alive():
            raise EngineLost("the controller of the cluster is gone")


def _names(lost: dict[int, str], separator: str = "; ") -> str:
    """Say which engines were lost and why."""
    return separator.join(f"engine {engine} {reason}" for engine, reason in sorted(lost.items()))


def _is_death(error: BaseException) -> bool:
    """Whether the error is ipyparallel's own message that the engine died, not an exception raised on it."""
    return isinstance(error, RemoteError) and error.ename == "EngineError"


def _is_of_a_peer(error: BaseException) -> bool:
    """Whether the error is a `PeerFailure`: another engine raised the exception; its reply may come later."""
    return isinstance(error, RemoteError) and error.ename == "PeerFailure"


def _failure(failures: list[tuple[int, BaseException]]) -> EngineFailure:
    """Return the error of one engine, with its traceback: the first that did not fail because of another."""
    engine, error = min(failures, key=lambda failure: _is_of_a_peer(failure[1]))
    if not isinstance(error, RemoteError):
        return EngineFailure(f"engine {engine}: {error}", engine)
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)  # without its colours
    return EngineFailure(
        f"engine {engine} raised {error.ename}: {error.evalue}\nOn the engine:\n{traceback}", engine
    )


def pack(name: str, value) -> bytes:
    """Pickle what engines need, functions and classes of a notebook as well.

    Parameters
    ----------
    name : str
        The argument that the error names.
    value : object

    Returns
    -------
    bytes
        For `hfnb.engines.worker.unpack`.

    Raises
    ------
    TypeError
        If the value cannot be pickled.
    """
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"{name}: expected something that can be pickled and sent to engines: {error}"
        ) from None
