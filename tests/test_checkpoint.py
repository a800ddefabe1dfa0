"""Checkpoints: resumed runs equal uninterrupted ones bit by bit, and damage is named and passed over."""

import datetime
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hfnb import Dataset, Objective, first_order, hessian_free, models
from hfnb.checkpoint import Checkpoint, CorruptCheckpoint
from hfnb.history import Record

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "run")


def test_state_comes_back_as_it_was(checkpoint):
    state = {
        "w": np.linspace(0, 1, 7, dtype=np.float32),
        "damping": np.float64(1 / 3),
        "warm": None,
        "loss": float("nan"),
        "memory": {"m": np.zeros(3)},
        "history": [Record(iteration=0, loss=0.1), Record(iteration=1, direction="newton")],
    }
    checkpoint.save(state)
    back = checkpoint.load()
    np.testing.assert_equal(back, state)
    assert back["w"].dtype == np.float32
    assert type(back["damping"]) is np.float64
    assert back["history"][1].direction == "newton"
    back["w"] += 1  # an optimizer may write into it


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("minimize", "options"),
    [
        (hessian_free, {"batch": 40, "curvature_batch": 20}),
        (hessian_free, {"solver": "cg", "curvature": "gauss-newton"}),
        (first_order, {"method": "adam", "batch": 8}),
        (first_order, {"method": "sgd", "batch": 8}),
    ],
    ids=["bicgstab", "cg", "adam", "sgd"],
)
def test_resumed_run_equals_uninterrupted_one(minimize, options, dtype, checkpoint):
    random = np.random.default_rng(3)
    data = Dataset(random.standard_normal((60, 5)).astype(dtype), random.integers(0, 3, 60))
    net = models.mlp([5, 4, 3])
    w0 = net.init(0, dtype=dtype)
    through = minimize(Objective(net, data), w0, max_iter=8, **options)
    minimize(Objective(net, data), w0, max_iter=3, resume=checkpoint, **options)
    resumed = minimize(Objective(net, data), w0, max_iter=8, resume=Checkpoint(checkpoint.folder), **options)
    assert resumed.x.dtype == dtype
    assert resumed.x.tobytes() == through.x.tobytes()
    for one, other in zip(resumed.history, through.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_only_the_last_ones_are_kept(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep=3)
    for iteration in range(12):
        checkpoint.save({"iteration": iteration})
        assert len(list(tmp_path.glob("checkpoint-*"))) == min(iteration + 1, 3)
    assert checkpoint.load() == {"iteration": 11}


def cut(content):
    return content[:-5]


def flip(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "SHA-256"), (flip, "SHA-256"), (lambda content: b"", "not a checkpoint")],
    ids=["cut", "flip", "empty"],
)
def test_damaged_checkpoint_is_named_and_passed_over(damage, message, checkpoint):
    for iteration in range(2):
        checkpoint.save({"iteration": iteration})
    older, newer = checkpoint.files
    newer.write_bytes(damage(newer.read_bytes()))
    with pytest.warns(UserWarning, match=f"{newer.name}.*{message}.*going back to .*{older.name}"):
        assert checkpoint.load() == {"iteration": 0}
    older.write_bytes(damage(older.read_bytes()))
    with pytest.raises(CorruptCheckpoint, match=f"{newer.name}.*{older.name}"):
        checkpoint.load()


def test_checkpoint_that_would_run_something_is_refused(checkpoint):
    payload = pickle.dumps({"f": os.getcwd})
    checkpoint.folder.mkdir()
    header = f"hfnb checkpoint 2, {hashlib.sha256(payload).hexdigest()}\n"
    (checkpoint.folder / "checkpoint-00000000").write_bytes(header.encode() + payload)
    with pytest.raises(CorruptCheckpoint, match=r"holds data only, not \w+\.getcwd"):
        checkpoint.load()


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), os.getcwd, np.array([Path("x")]), 1j])
def test_state_that_could_not_be_read_again_is_not_saved(value, checkpoint):
    with pytest.raises(TypeError, match="a checkpoint holds numbers, text, arrays"):
        checkpoint.save({"history": [Record(iteration=1, extra=value)]})
    assert checkpoint.files == []


def test_full_disk(checkpoint):
    checkpoint.save({"iteration": 0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"cannot save a checkpoint .*the last one is .*checkpoint-00000000"
        ):
            checkpoint.save({"w": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.load() == {"iteration": 0}
    assert [path.name for path in checkpoint.folder.iterdir() if path.name != ".lock"] == [
        "checkpoint-00000000"
    ]


SAVE_FOR_EVER = """
import sys, itertools, numpy as np
from hfnb.checkpoint import Checkpoint
for iteration in itertools.count():
    Checkpoint(sys.argv[1]).save({"iteration": iteration, "w": np.full(1_000_000, iteration)})
    print(iteration, flush=True)
"""


def test_killed_while_saving(checkpoint):
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(checkpoint.folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for delay in (0.0, 0.007, 0.013):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            for _ in range(3):
                saved = int(process.stdout.readline())
            time.sleep(delay)
            process.kill()
        state = checkpoint.load()
        assert state["iteration"] >= saved
        assert (state["w"] == state["iteration"]).all()


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep: expected a whole number of at least 1, got 0"):
        Checkpoint(tmp_path, keep=0)
