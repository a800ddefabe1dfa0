"""What a reader sees of a run: whether its bar ended or was cut off, and a line after an interrupt."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy.optimize import OptimizeResult
from tqdm.notebook import tqdm as widget

from hfnb import Dataset, Objective, Progress, first_order, hessian_free, models
from hfnb.engines.engine_driven import Watch
from hfnb.optimizers.history import Record

NET = models.mlp([2, 3, 2])
OPTIMIZERS = [hessian_free, first_order]
START = {"objective": Objective(NET, Dataset(np.eye(64)[:, :2], np.arange(64) % 2)), "w0": NET.init(0)}


@pytest.fixture(autouse=True)
def notebook(monkeypatch):
    """Bars are the widgets of a notebook."""
    monkeypatch.setattr("tqdm.auto.tqdm", widget)


def shown(bar):
    """The colour of a bar's widget, where it stands, where it ends, and its text."""
    _, stripe, text = bar._bar.container.children
    return stripe.bar_style, stripe.value, stripe.max, text.value.replace("\u2007", " ").split("[")[0].strip()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_its_callback_stops_is_complete(optimizer):
    bar = Progress(12, lambda record: record.iteration >= 3, display=False)
    optimizer(**START, max_iter=12, callback=bar)
    assert shown(bar) == ("success", 3, 3, "3/3")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_ends_by_itself_is_complete(optimizer):
    """The optimizer reaches its own limit, and calls nobody after that."""
    bar = Progress(12, display=False)
    optimizer(**START, max_iter=2, callback=bar)
    assert shown(bar) == ("success", 2, 2, "2/2")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_is_cut_off_is_red(optimizer, error, caplog):
    def fail(record):
        if record.iteration == 2:
            raise error

    bar = Progress(12, fail, display=False)
    with pytest.raises(error):
        optimizer(**START, max_iter=12, callback=bar)
    assert shown(bar) == ("danger", 2, 12, "2/12")
    told = caplog.messages.count("stopped after iteration 2 by an interrupt; run the cell again")
    assert told == (error is KeyboardInterrupt)


def test_a_bar_that_is_closed_by_hand_or_shown_nowhere():
    bar = Progress(5, display=False)
    bar(Record(iteration=2, loss=1.0))
    bar.close()
    bar.close()
    assert shown(bar) == ("success", 2, 2, "2/2")
    Progress(5, disable=True).close()


@pytest.mark.parametrize(("value", "disabled"), [("1", True), ("0", False), ("", False)])
def test_a_variable_turns_bars_off_in_a_notebook_too(monkeypatch, value, disabled):
    """Saved and compared notebooks have no bars."""
    monkeypatch.setenv("TQDM_DISABLE", value)
    assert Progress(5, display=False)._bar.disable == disabled


def test_engines_that_run_watched_optimizers_end_the_bar_the_same_way(monkeypatch):
    bars = []
    for error in (None, ZeroDivisionError):
        watch = Watch(None, 12)
        bars.append(watch._bar)
        try:
            with watch.watching():
                watch(Record(iteration=4, loss=1.0))
                if error:
                    raise error
        except ZeroDivisionError:
            pass
    assert [shown(bar)[:3] for bar in bars] == [("success", 4, 4), ("danger", 4, 12)]


def test_an_interrupted_run_of_a_cluster_says_so(caplog):
    watch = Watch(None, None)
    with watch.watching():
        os.kill(os.getpid(), signal.SIGINT)
    result = watch.finish(OptimizeResult(nit=4, success=True, message=""))
    assert caplog.messages == ["stopped after iteration 4 by an interrupt; run the cell again"]
    assert not result.success


LONG = """
import numpy as np, hfnb
net = hfnb.models.mlp([20, 30, 5])
random = np.random.default_rng(0)
data = hfnb.Dataset(random.standard_normal((2000, 20)), random.integers(0, 5, 2000))
say = lambda record: print(record.iteration, flush=True)
hfnb.{0}(hfnb.Objective(net, data), net.init(0), max_iter=10**6, tol=0.0, callback=say)
"""


@pytest.mark.parametrize("optimizer", ["hessian_free", "first_order"])
def test_ctrl_c_in_the_middle_of_a_run(optimizer):
    command = [sys.executable, "-c", LONG.format(optimizer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        timer = threading.Timer(60, run.kill)
        timer.start()
        for line in run.stdout:
            if int(line) == 3:
                break
        run.send_signal(signal.SIGINT)
        iterations, messages = run.stdout.read().splitlines(), run.stderr.read().splitlines()
        assert messages[-1] == "KeyboardInterrupt"
        timer.cancel()
    last = int(iterations[-1]) if iterations else 3
    # The interrupt may come as the next iteration has ended and is not printed yet.
    ends = [f"stopped after iteration {i} by an interrupt; run the cell again" for i in (last, last + 1)]
    assert messages[0] in ends
