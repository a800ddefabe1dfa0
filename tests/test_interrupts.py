"""Ctrl-C at random moments of a cluster's start, run and stop: the program ends, and nothing of it is left.

HFNB_INTERRUPTS=50 python -m pytest -m slow tests/test_interrupts.py tries so many moments of each kind.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from on_engines import MPI, PATHS

from hfnb.engines import options
from hfnb.engines.pool import hold_interrupts

MOMENTS = int(os.environ.get("HFNB_INTERRUPTS", "6"))
BOUND = 60  # seconds in which an interrupted program must have ended
CLIENT = """
import os, signal, sys
import numpy as np
from hfnb import Dataset, models
from hfnb.engines import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)
random = np.random.default_rng(0)
data, net = Dataset(random.standard_normal((60, 4)), random.integers(0, 3, 60)), models.mlp([4, 5, 3])
{first}
print("begin", flush=True)
with Cluster(n=2, engines=sys.argv[1]) as cluster:
    print("up", flush=True)
    cluster.minimize(net, data, net.init(0), progress=False, max_iter=5)
    print("ran", flush=True)
print("end", flush=True)
"""


class Client:
    """A program with a cluster, all of whose processes bear a mark in their environment."""

    def __init__(self, kind, folder, first=""):
        """``first``: what the program does before it starts the cluster."""
        self.mark = uuid.uuid4().hex
        variables = {**PATHS, "HFNB_TEST_MARK": self.mark, "IPYTHONDIR": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT.format(first=first), kind],
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout.readline() == "begin\n"
        self.began = time.monotonic()

    def interrupt(self, after):
        """Send SIGINT so many seconds after the program has begun, if it still runs then."""
        time.sleep(max(self.began + after - time.monotonic(), 0))
        self.process.send_signal(signal.SIGINT)

    def end(self):
        """Wait for the program's end; return what it printed."""
        try:
            return self.process.communicate(timeout=BOUND)[0].split()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def left(self):
        """The processes that bear the mark and run, wherever they hang in the tree."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HFNB_TEST_MARK") == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def left_after_10_seconds(self):
        """Those that run 10 s later; an empty list at once when there is none."""
        end = time.monotonic() + 10
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.1)
        return left


# The moment in which a process runs of which ipyparallel knows nothing so far.
AFTER_FORK = """
import ipyparallel.cluster.launcher as launcher
class Popen(launcher.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        if "ipyparallel.{program}" in arguments[0]:
            print("started", flush=True)
            os.kill(os.getpid(), signal.{name})
launcher.Popen = Popen
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("program", ["controller", "engine"])
def test_nothing_is_left_where_a_process_has_just_been_started(program, name, tmp_path):
    client = Client("local", tmp_path, AFTER_FORK.format(program=program, name=name))
    assert set(client.end()) == {"started"}
    assert client.process.returncode == -getattr(signal, name)
    assert not client.left_after_10_seconds()


@MPI
@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="no /dev/shm here")
def test_interrupted_start_leaves_no_shared_memory(tmp_path):
    """Engines that have initialized MPI, and are stopped before the client has heard of them."""
    client, mapped, end = Client("mpi", tmp_path), set(), time.monotonic() + BOUND
    while not mapped and time.monotonic() < end:
        for process in client.left():
            with suppress(psutil.Error, OSError):
                maps = (each.path for each in process.memory_maps())
                mapped |= {path.removesuffix(" (deleted)") for path in maps if "mpich_shm" in path}
    client.process.send_signal(signal.SIGINT)
    client.end()
    assert not client.left_after_10_seconds()
    assert mapped or not options._one_machine_mpiexec()
    assert not [path for path in mapped if Path(path).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("kind", [pytest.param("mpi", marks=MPI), "local"])
def test_nothing_is_left_after_an_interrupt(kind, times, tmp_path):
    """The moments are spread evenly, at random within equal parts of the time that the program takes."""
    whole = Client(kind, tmp_path)
    assert whole.end()[-1] == "end"
    duration = time.monotonic() - whole.began
    assert not whole.left()
    random, reached = np.random.default_rng(times), []
    for part in range(MOMENTS):
        client = Client(kind, tmp_path)
        moment = duration * (part + random.random()) / MOMENTS
        client.interrupt(moment)
        if times == 2:
            client.interrupt(moment + random.random())
        lines = client.end()
        reached.append(lines[-1] if lines else "start")
        left = client.left_after_10_seconds()
        assert not left, f"interrupted after {moment:.3f} of {duration:.3f} s, {reached[-1]}: {left}"
        assert list((tmp_path / "profile_default" / "security").glob("*")) == []
    print(f"{kind}, {times} signals, {MOMENTS} moments of {duration:.1f} s: {reached}")
    assert {"start", "up"} & set(reached)


@pytest.fixture
def default_handler():
    """A shell's background jobs ignore SIGINT otherwise."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, kept)


def hold_and_interrupt(signals, reached, deliver_each=False):
    with hold_interrupts() as deliver:
        for _ in range(signals):
            signal.raise_signal(signal.SIGINT)
            if deliver_each:
                deliver()
        reached.append("end of the block")
    reached.append("after the block")


@pytest.mark.parametrize("signals", [1, 3])
def test_interrupts_are_held_until_the_end_of_the_block(signals, default_handler):
    reached = []
    with pytest.raises(KeyboardInterrupt):
        hold_and_interrupt(signals, reached)
    assert reached == ["end of the block"]
    assert signal.getsignal(signal.SIGINT) is default_handler


def test_interrupt_is_delivered_where_the_block_says_so(default_handler):
    reached = []
    with pytest.raises(KeyboardInterrupt):
        hold_and_interrupt(1, reached, deliver_each=True)
    assert reached == []
    assert signal.getsignal(signal.SIGINT) is default_handler


def test_own_handler_gets_what_was_held(default_handler):
    seen, reached = [], []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    hold_and_interrupt(2, reached, deliver_each=True)
    assert seen == [signal.SIGINT] * 2
    assert reached == ["end of the block", "after the block"]


def test_ignored_interrupts_stay_ignored(default_handler):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reached = []
    hold_and_interrupt(1, reached)
    assert reached == ["end of the block", "after the block"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
