"""Calls to simulated engines that fail in several ways at once, and where partitions are then."""

import random
import signal
from concurrent.futures import Future
from datetime import datetime

import numpy as np
import pytest
from ipyparallel.error import RemoteError

from hfnb import Dataset
from hfnb.datasets import fingerprint
from hfnb.engines import EngineFailure, EngineLost, launch, pool
from hfnb.engines.placement import Placement
from hfnb.engines.pool import Pool

DIED = RemoteError("EngineError", "Engine died", "")
RAISED = RemoteError("ArithmeticError", "no", "where it was raised")


class Reply(Future):
    """A reply as ipyparallel's, to be set."""

    metadata = {"started": datetime(2000, 1, 1), "completed": datetime(2000, 1, 1)}  # noqa: RUF012


class Engines:
    """A client of simulated engines; ``acts`` has their answers: value, exception, or None for silence."""

    def __init__(self, acts):
        self.acts, self.calls, self.history, self.ids = acts, [], [], list(range(10))

    def __getitem__(self, engine):
        return View(self, engine)


class View:
    def __init__(self, engines, engine):
        self.engines, self.engine = engines, engine

    def apply_async(self, function, *arguments):
        self.engines.calls.append(self.engine)
        self.engines.history.append("id")
        act, reply = self.engines.acts.get(self.engine, 0), Reply()
        if callable(act):
            act = act()
        if isinstance(act, KeyboardInterrupt):
            raise act
        if isinstance(act, BaseException):
            reply.set_exception(act)
        elif act is not None:
            reply.set_result([act])
        return reply


class Deaf:
    """An engine that hears nothing until it has been called so many times."""

    def __init__(self, times):
        self.times = times

    def __call__(self):
        self.times -= 1
        return None if self.times >= 0 else 0


def test_an_engine_that_missed_the_first_calls_is_called_again():
    """As on a busy machine, where a message can come before the engine's connection: it is dropped."""
    engines = Engines({0: Deaf(0), 1: Deaf(2), 2: Deaf(1)})
    assert launch.first_call(engines, [0, 1, 2], "pass", timeout=20) == []
    assert [engines.calls.count(engine) for engine in (0, 1, 2)] == [1, 3, 2]


def test_engines_that_never_answer_are_named():
    assert launch.first_call(Engines({1: None}), [0, 1], "pass", timeout=0.2) == [1]


def test_an_engine_that_is_gone_does_not_answer():
    """ipyparallel raises where it is called."""

    class Gone(Engines):
        def __getitem__(self, engine):
            raise IndexError(f"no engine {engine}")

    assert launch.first_call(Gone({}), [0, 1], "pass", timeout=20) == [0, 1]


def test_what_the_first_call_raises_is_raised():
    with pytest.raises(RemoteError, match="died"):
        launch.first_call(Engines({1: DIED}), [0, 1], "pass", timeout=20)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pool, "POLL", 0.01)
    monkeypatch.setattr(launch, "PATIENCE", 0.01)


def pool_of(acts, n=3, deadline=None):
    return Pool(Engines(acts), list(range(n)), lambda: True, deadline)


CALL = dict.fromkeys(range(3), (len, ()))


def test_values_come_back_by_engine():
    assert pool_of({0: 5, 1: 6, 2: 7}).call(CALL) == ({0: 5, 1: 6, 2: 7}, {})


def test_ids_of_calls_are_not_kept_for_ever():
    engines = pool_of({})
    for _ in range(2000):
        engines.call(CALL)
    assert len(engines.client.calls) == 6000
    assert len(engines.client.history) == pool.HISTORY


@pytest.mark.parametrize("acts", [{1: DIED, 2: RAISED}, {1: RAISED, 2: DIED}], ids=["before", "after"])
def test_an_engine_that_died_is_recorded_where_another_one_raised(acts):
    dead = next(engine for engine, act in acts.items() if act is DIED)
    engines = pool_of(acts)
    with pytest.raises(EngineFailure, match=rf"engine {3 - dead} raised ArithmeticError: no") as failure:
        engines.call(CALL)
    assert not isinstance(failure.value, EngineLost)
    assert engines.lost == {dead: "died"}
    assert engines.engines == [0, 3 - dead]


def test_engines_that_compute_are_kept_where_another_one_raised():
    engines = pool_of({0: None, 1: RAISED})
    with pytest.raises(EngineFailure, match="engine 1 raised"):
        engines.call(CALL)
    assert (engines.lost, engines.engines) == ({}, [0, 1, 2])


@pytest.mark.parametrize("late", [False, True])
def test_engines_that_wait_for_one_that_raised_are_given_up(late, monkeypatch):
    """Engine 1 raises outside of a sum, and the other two wait for its part of the next one, unless late."""
    monkeypatch.setattr(pool, "STUCK", 0.05)
    replies, own = [], View.apply_async
    monkeypatch.setattr(View, "apply_async", lambda *call: replies.append(own(*call)) or replies[-1])
    engines = pool_of({0: None, 1: RAISED, 2: None})
    with pytest.raises(EngineFailure, match="engine 1 raised"):
        engines.call_each(CALL)
    if late:
        replies[0].set_result([None])
    engines.client.acts = {}
    values, lost = engines.call(CALL)
    assert sorted(values) == engines.engines == ([0, 1] if late else [1])
    assert lost == dict.fromkeys(
        [2] if late else [0, 2], "was left waiting for an engine that raised an exception"
    )


def test_an_exception_that_a_death_may_have_caused_is_a_loss():
    """Engines that reduce together: where one dies, MPI raises on the others; the run can start again."""
    engines = pool_of({0: RAISED, 1: DIED})
    with pytest.raises(EngineLost, match=r"engine 1 died; engine 0 raised ArithmeticError"):
        engines.call_each(CALL)
    assert engines.engines == [0, 2]


def test_an_engine_that_was_given_up_is_not_called_again():
    engines = pool_of({1: None}, deadline=0.05)
    for _ in range(2):
        values, lost = engines.call(CALL)
        assert (values, lost) == ({0: 0, 2: 0}, {1: "gave no answer in 0.05 s"})
    assert engines.client.calls == [0, 1, 2, 0, 2]


@pytest.mark.parametrize("together", [False, True])
def test_an_engine_whose_death_has_no_reply_is_lost(together):
    """It died while the call was sent: ipyparallel does not know of the call, and will never answer it."""
    engines = pool_of({1: None})
    engines.client.ids.remove(1)
    values, lost = engines.call(CALL, together)
    assert (values, lost, engines.engines) == ({0: 0, 2: 0}, {1: "died"}, [0, 2])


def test_ctrl_c_among_the_calls_leaves_none_out():
    """Engines that wait for each other must all have the call, or none: the others would wait for ever."""

    def interrupt():
        signal.raise_signal(signal.SIGINT)
        return 0

    engines, before = pool_of({0: interrupt}), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            engines.call_all(len, ())
    finally:
        signal.signal(signal.SIGINT, before)
    assert engines.client.calls == [0, 1, 2]


def placed(placement):
    """The partitions in all blocks."""
    return sorted(number for numbers, _ in placement.blocks.values() for number in numbers)


DATA = Dataset(np.arange(40.0).reshape(20, 2), np.arange(20))


@pytest.mark.parametrize("seed", range(20))
def test_blocks_cover_all_partitions_whatever_happens(seed):
    """Engines die or raise, and Ctrl-C is pressed, while partitions move: none is lost, none is doubled."""
    draw, partitions, outcomes = random.Random(seed), 12, set()

    def act():
        return draw.choices([True, DIED, RAISED, KeyboardInterrupt()], [8, 2, 1, 1])[0]

    engines = pool_of({}, n=6)
    placement = Placement(engines, DATA, fingerprint(DATA), partitions)
    engines.client.acts = dict.fromkeys(range(6), act)
    for _ in range(12):
        try:
            _, lost = engines.call(dict.fromkeys(placement.held(), (len, ())))
            while lost:
                placement.move(lost)
                assert not {engine for _, engine in placement.blocks.values()} & set(lost)
                _, lost = engines.call(dict.fromkeys(placement.held(), (len, ())))
        except (EngineFailure, KeyboardInterrupt) as error:
            outcomes.add(type(error))
        assert placed(placement) == list(range(partitions))
    engines.client.acts = {}
    if engines.engines:
        placement.move(engines.call(dict.fromkeys(placement.held(), (len, ())))[1])
        assert {engine for _, engine in placement.blocks.values()} <= set(engines.engines)
        assert placed(placement) == list(range(partitions))
    assert outcomes


def test_partitions_of_a_lost_engine_do_not_move_once_the_data_was_edited():
    """The other engines have the data as it was; part of it new would be a sum of neither."""
    mine = Dataset(DATA.X.copy(), DATA.Y.copy())
    engines = pool_of({})
    placement = Placement(engines, mine, fingerprint(mine), 6)
    mine.X[0] += 1
    engines.client.acts = {1: DIED}
    _, lost = engines.call(CALL)
    for _ in range(2):
        with pytest.raises(EngineFailure, match=r"engine 1 died, .* edited in place .* Make a new objective"):
            placement.move(lost)
        assert placed(placement) == list(range(6))
    mine.X[0] -= 1
    placement.move(lost)
    assert {engine for _, engine in placement.blocks.values()} == {0, 2}
