"""Checkpoints: resumed runs equal uninterrupted ones; another run, damage and a used folder are named."""

import datetime
import errno
import functools
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess
from scipy.sparse.linalg import aslinearoperator

from hfnb import Dataset, Objective, Progress, first_order, hessian_free, krylov, models, scipy_method
from hfnb.engines.engine_driven import Watch
from hfnb.objectives.costs import Counts
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.sampling import Shards
from hfnb.optimizers.checkpoint import Checkpoint, CorruptCheckpoint, FolderInUse
from hfnb.optimizers.history import Record
from hfnb.problems import random_saddle, rosenbrock

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
        (hessian_free, {"batch_size": 40, "curvature_batch_size": 20}),
        (hessian_free, {"solver": "cg", "curvature": "gauss-newton"}),
        (first_order, {"method": "adam", "batch_size": 8}),
        (first_order, {"method": "sgd", "batch_size": 8}),
    ],
    ids=["bicgstab", "cg", "adam", "sgd"],
)
def test_resumed_run_equals_uninterrupted_one(minimize, options, dtype, checkpoint):
    random = np.random.default_rng(3)
    data = Dataset(random.standard_normal((60, 5)).astype(dtype), random.integers(0, 3, 60))
    net = models.mlp([5, 4, 3])
    w0 = net.init(0, dtype=dtype)
    through = minimize(Objective(net, data), w0, max_iter=8, **options)
    minimize(Objective(net, data), w0, max_iter=3, checkpoint=checkpoint, **options)
    resumed = minimize(
        Objective(net, data), w0, max_iter=8, checkpoint=Checkpoint(checkpoint.folder), **options
    )
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
from hfnb.optimizers.checkpoint import Checkpoint
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


def network(activation="tanh", loss="cross_entropy", weight_decay=0.0, hidden=4):
    return models.mlp([5, hidden, 3], activation=activation, loss=loss, weight_decay=weight_decay)


RANDOM = np.random.default_rng(3)
DATA = Dataset(RANDOM.standard_normal((60, 5)), RANDOM.integers(0, 3, 60))
W0 = network().init(0, dtype=float)


def least_squares(w, X, Y):
    return anp.mean((anp.dot(X, w) - Y) ** 2)


def absolute_cubes(w, X, Y):
    return anp.mean(anp.abs(anp.dot(X, w) - Y) ** 3)


def slow_rate(t):
    return 0.01 / (1 + t)


def fast_rate(t):
    return 0.1 / (1 + t)


def begin(checkpoint, minimize=hessian_free, objective=None, w0=W0, max_iter=2, **options):
    objective = Objective(network(), DATA) if objective is None else objective
    return minimize(objective, w0, max_iter=max_iter, checkpoint=checkpoint, **options)


def changed(A, *place):
    A = A.copy()
    A[place] += 1
    return A


NOT_THIS_RUN = {
    "another activation": ({"objective": Objective(network("relu"), DATA)}, "network: .*'relu'.*'tanh'"),
    "another weight decay": ({"objective": Objective(network(weight_decay=0.1), DATA)}, "weight_decay=0.1"),
    "other sizes": (
        {"objective": Objective(network(hidden=6), DATA), "w0": network(hidden=6).init(0, dtype=float)},
        r"network: .*\(5, 6, 3\).*\(5, 4, 3\).*w0: ",
    ),
    "another loss": (
        {"objective": Objective(network(loss="squared_error"), Dataset(DATA.X, np.eye(3)[DATA.Y]))},
        "loss_name='squared_error'.*data.Y",
    ),
    "shifted inputs": (
        {"objective": Objective(network(), Dataset(DATA.X + 1, DATA.Y))},
        r"data.X: .*\(60, 5\)",
    ),
    "one input": ({"objective": Objective(network(), Dataset(changed(DATA.X, 31, 2), DATA.Y))}, "data.X"),
    "one label": (
        {"objective": Objective(network(), Dataset(DATA.X, (changed(DATA.Y, 59)) % 3))},
        "data.Y: .*int64",
    ),
    "another order": ({"objective": Objective(network(), DATA[::-1])}, "data.X: .*data.Y: "),
    "two rows exchanged": (
        {"objective": Objective(network(), DATA[np.r_[0, 2, 1, 3:60]])},
        "data.X: ",
    ),
    "fewer rows": ({"objective": Objective(network(), DATA[:50])}, r"data.X: expected float64 \(50, 5\)"),
    "data in float32": (
        {"objective": Objective(network(), Dataset(DATA.X.astype(np.float32), DATA.Y))},
        "data.X: expected float32 .* got float64",
    ),
    "other partitions": (
        {"objective": Objective(network(), DATA, partitions=5)},
        r"strata \(of partitions\): expected 25, got 24",
    ),
    "parameters in float32": ({"w0": W0.astype(np.float32)}, "w0: expected float32 .* got float64"),
    "another start": ({"w0": W0 + 1e-9}, "w0: expected float64"),
    "another optimizer": ({"minimize": first_order}, "optimizer: expected .*first_order, got .*hessian_free"),
    "another kind of objective": (
        {"objective": rosenbrock(), "w0": rosenbrock().start},
        "objective: expected .*Rosenbrock.*got hfnb.objectives.objective.Objective",
    ),
    "another own loss": (
        {"objective": Objective.from_loss(least_squares, DATA), "w0": np.ones(5)},
        "network: expected AnyLoss",
    ),
} | {
    name: ({name: value}, f"{name}: expected ")
    for name, value in {
        "solver": "cg",
        "curvature": "gauss-newton",
        "step": "subspace",
        "curvature_batch_size": 30,
        "batch_size": 30,
        "damping": 2.0,
        "warm_start_decay": 0.5,
        "seed": 1,
        "solver_options": {"max_iter": 7},
    }.items()
}


@pytest.mark.parametrize(("other", "said"), NOT_THIS_RUN.values(), ids=NOT_THIS_RUN.keys())
def test_another_run_is_refused_and_leaves_the_checkpoint_as_it_was(other, said, checkpoint):
    begin(checkpoint)
    before = {path.name: path.read_bytes() for path in checkpoint.files}
    with pytest.raises(
        ValueError, match=f"checkpoint: .*checkpoint.*{checkpoint.folder}.*another run .*{said}"
    ):
        begin(checkpoint, **{"max_iter": 4, **other})
    assert {path.name: path.read_bytes() for path in checkpoint.files} == before
    assert begin(checkpoint, max_iter=4).nit == 4


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("learning_rate", 0.1, 0.2),
        ("learning_rate", slow_rate, fast_rate),
        ("learning_rate", lambda t: 0.1, lambda t: 0.2),
        ("learning_rate", lambda t: slow_rate(t), lambda t: fast_rate(t)),
        ("learning_rate", functools.partial(min, 0.1), functools.partial(min, 0.2)),
        ("method", "sgd", "adam"),
        ("momentum", 0.9, 0.8),
    ],
)
def test_other_options_of_first_order_are_refused(name, one, other, checkpoint):
    begin(checkpoint, first_order, **{name: one})
    with pytest.raises(ValueError, match=f"checkpoint.*{name}: expected "):
        begin(checkpoint, first_order, max_iter=4, **{name: other})
    assert begin(checkpoint, first_order, max_iter=4, **{name: one}).nit == 4


def scaled(scale):
    def loss(w, X, Y):
        return scale * least_squares(w, X, Y)

    return loss


@pytest.mark.parametrize(
    ("one", "other"),
    [(least_squares, absolute_cubes), (scaled(1.0), scaled(2.0))],
    ids=["code", "variable around it"],
)
def test_other_losses_of_the_users_own_are_refused(one, other, checkpoint):
    begin(checkpoint, objective=Objective.from_loss(one, DATA), w0=np.ones(5))
    with pytest.raises(ValueError, match=r"checkpoint.*network: expected AnyLoss.*loss=.*code"):
        begin(checkpoint, objective=Objective.from_loss(other, DATA), w0=np.ones(5))
    assert begin(checkpoint, objective=Objective.from_loss(one, DATA), w0=np.ones(5), max_iter=3).nit == 3


class Quadratic:
    """An objective of the user's own, with the methods that an optimizer calls and no others."""

    n = 1

    def __init__(self, scale):
        self.scale, self.counts, self.path = scale, Counts(), []

    def value(self, w, sample=None):
        self.path.append(w)
        return self.scale * float(w @ w)

    def value_and_gradient(self, w, sample=None):
        return self.value(w), 2 * self.scale * w

    def curvature(self, w, kind="hessian", sample=None):
        return aslinearoperator(2 * self.scale * np.eye(w.size))


def test_any_objective_has_an_identity(checkpoint):
    begin(checkpoint, objective=Quadratic(1.0), w0=np.ones(3))
    with pytest.raises(ValueError, match=r"checkpoint.*objective: .*scale=3.*scale=1"):
        begin(checkpoint, objective=Quadratic(3.0), w0=np.ones(3))
    used = Quadratic(1.0)
    used.value(np.ones(3))
    begin(checkpoint, objective=used, w0=np.ones(3))


def test_scipys_functions_have_an_identity(tmp_path):
    def solve(fun, jac, hess, maxiter, args=()):
        method = scipy_method(checkpoint=tmp_path)
        options = {"maxiter": maxiter}
        return minimize(fun, [-1.2, 1.0], args, method=method, jac=jac, hess=hess, options=options)

    assert solve(rosen, rosen_der, rosen_hess, 3).nit == 3
    assert solve(rosen, rosen_der, rosen_hess, 5).nit == 5
    with pytest.raises(
        ValueError, match=r"checkpoint.*fun: expected .*lambda.*code.*got scipy.*rosen.*jac: "
    ):
        solve(lambda x: x @ x, lambda x: 2 * x, lambda x: 2 * np.eye(2), 5)
    with pytest.raises(ValueError, match=r"checkpoint.*args: expected \(2\), got \(\)"):
        solve(rosen, rosen_der, rosen_hess, 5, (2.0,))


@pytest.mark.parametrize("problem", [random_saddle(4, 1, seed=1), random_saddle(5, 1), rosenbrock()])
def test_problems_have_an_identity(problem, checkpoint):
    mine = random_saddle(4, 1)
    begin(checkpoint, objective=mine, w0=mine.start)
    with pytest.raises(ValueError, match=r"checkpoint.*objective: expected "):
        begin(checkpoint, objective=problem, w0=problem.start)
    assert begin(checkpoint, objective=random_saddle(4, 1), w0=mine.start, max_iter=3).nit == 3


def test_what_may_differ(checkpoint):
    """The limits, the callback and how the same values are given."""
    options = {"curvature_batch_size": np.int64(30), "solver_options": {"max_iter": 7, "rtol": 1e-3}}
    begin(checkpoint, damping=1, **options)
    again = Checkpoint(checkpoint.folder, keep=5)
    same = {
        "curvature_batch_size": 30,
        "solver_options": {"rtol": 1e-3, "max_iter": np.int32(7)},
        "damping": np.float64(1),
    }
    copied = Objective(network(), Dataset(DATA.X.copy(), DATA.Y.copy()), chunk=7)
    result = begin(again, objective=copied, max_iter=5, tol=1e-9, callback=lambda record: None, **same)
    assert result.nit == 5


@pytest.mark.parametrize("partitions", [1, 6, 24])
def test_a_run_goes_on_with_another_number_of_partitions(partitions, tmp_path):
    """Mini-batches are the same for every divisor of 24; float64 sums differ by rounding alone."""
    options = {"curvature_batch_size": 20, "seed": 5}
    expected = hessian_free(Objective(network(), DATA, partitions=4), W0, max_iter=6, **options)
    first = Objective(network(), DATA, partitions=4)
    hessian_free(first, W0, max_iter=3, checkpoint=tmp_path, **options)
    then = Objective(network(), DATA, partitions=partitions)
    found = hessian_free(then, W0, max_iter=6, checkpoint=tmp_path, **options)
    assert found.nit == 6
    np.testing.assert_allclose(found.x, expected.x, rtol=0, atol=1e-9)


def test_large_data_is_sampled_but_its_labels_are_not(monkeypatch):
    X, Y = np.arange(40_000.0).reshape(-1, 4), np.zeros(10_000, int)
    monkeypatch.setattr("hfnb.datasets.dataset.WHOLE", X.nbytes - 1)
    monkeypatch.setattr("hfnb.datasets.dataset.BLOCK", 1024)  # several blocks in each partition
    order = np.random.default_rng(0).permutation(10_000)

    def of(X, Y):
        return LocalEvaluator(None, Shards.of(Dataset(X, Y))).identity()

    mine = of(X, Y)
    assert of(X.copy(), Y.copy()) == mine
    for other in ((X + 1, Y), (X, changed(Y, 4567)), (X[order], Y), (X[::-1], Y), (changed(X, -1, 3), Y)):
        assert of(*other) != mine


def test_mapped_and_plain_arrays_are_the_same_data(tmp_path):
    np.save(tmp_path / "X.npy", DATA.X)
    mapped = Dataset(np.load(tmp_path / "X.npy", mmap_mode="r"), DATA.Y)
    assert Objective(network(), mapped).identity() == Objective(network(), DATA).identity()


def test_checkpoint_of_an_earlier_version_is_refused(checkpoint):
    payload = pickle.dumps({"w": W0, "history": []})
    write(checkpoint, "checkpoint-00000000", payload, version=1)
    assert checkpoint.load()["history"] == []
    with pytest.raises(ValueError, match=r"checkpoint.* an earlier version of hfnb wrote it"):
        begin(checkpoint)


def test_an_option_that_a_checkpoint_does_not_name_has_its_default(checkpoint):
    """The option did not exist when an earlier version wrote the checkpoint."""
    begin(checkpoint)
    state = checkpoint.load()
    del state["run"]["solves"], state["run"]["trial_steps"]
    checkpoint.save(state)
    with pytest.raises(ValueError, match=r"another run \(trial_steps: expected 3, got None\)"):
        begin(checkpoint, trial_steps=3, max_iter=4)
    assert begin(checkpoint, max_iter=4).nit == 4


@pytest.mark.parametrize("kind", [str, Path, Checkpoint])
@pytest.mark.parametrize("minimize", [hessian_free, first_order])
def test_a_path_is_a_checkpoint(kind, minimize, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(kind("run"), minimize)
    result = begin(kind(tmp_path / "run"), minimize, max_iter=4)
    assert [record.iteration for record in result.history] == [0, 1, 2, 3, 4]
    assert len(Checkpoint(tmp_path / "run").files) == 2


@pytest.mark.parametrize("given", [3, True, Checkpoint, b"run", ["run"]])
def test_what_is_no_checkpoint_is_refused(given):
    with pytest.raises(TypeError, match="checkpoint: expected a Checkpoint or the path of its folder, got"):
        begin(given)


def test_empty_path_is_refused():
    with pytest.raises(
        ValueError, match="checkpoint: expected a Checkpoint or the path of its folder, got an empty"
    ):
        begin("")
    with pytest.raises(ValueError, match="folder: expected the path of a folder"):
        Checkpoint("")
    with pytest.raises(TypeError, match="folder: expected the path of a folder, got 3"):
        Checkpoint(3)


@pytest.mark.parametrize("keep", [0, -1, 1.5, 2.0, True, np.True_, "2", None])
def test_keep_must_be_a_whole_number(keep, tmp_path):
    with pytest.raises((ValueError, TypeError), match="keep: expected a whole number of at least 1, got"):
        Checkpoint(tmp_path, keep=keep)


def test_keep_one_and_numpys_numbers(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep=np.int64(1))
    for iteration in range(3):
        checkpoint.save({"iteration": iteration})
        assert len(checkpoint.files) == 1
    assert checkpoint.load() == {"iteration": 2}


def write(checkpoint, name, payload, version=2):
    checkpoint.folder.mkdir(exist_ok=True)
    header = f"hfnb checkpoint {version}, {hashlib.sha256(payload).hexdigest()}\n"
    (checkpoint.folder / name).write_bytes(header.encode() + payload)


def test_other_files_are_left_alone(checkpoint):
    stray = ["checkpoint-old1", "checkpoint-1", "checkpoint-00000002.bak", "checkpoint-mine.part", "notes9"]
    checkpoint.folder.mkdir()
    for name in stray:
        (checkpoint.folder / name).write_text("mine")
    (checkpoint.folder / "checkpoint-00000001").mkdir()
    (checkpoint.folder / "checkpoint-00000003").write_text("a letter that somebody called so")
    for iteration in range(5):
        checkpoint.save({"iteration": iteration})
    assert checkpoint.load() == {"iteration": 4}
    assert all((checkpoint.folder / name).read_text() == "mine" for name in stray)
    assert (checkpoint.folder / "checkpoint-00000001").is_dir()
    assert (checkpoint.folder / "checkpoint-00000003").read_text().startswith("a letter")
    assert len(list(checkpoint.folder.iterdir())) == len(stray) + 2 + 2 + 1  # two checkpoints and the lock


def test_numbers_beyond_eight_digits_are_in_order(checkpoint):
    for name, iteration in (("checkpoint-99999999", 1), ("checkpoint-100000000", 2)):
        write(checkpoint, name, pickle.dumps({"iteration": iteration}))
    assert checkpoint.load() == {"iteration": 2}
    checkpoint.save({"iteration": 3})
    assert [path.name for path in checkpoint.files] == ["checkpoint-100000000", "checkpoint-100000001"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps(Path("x")),
        b"\x80\x05cnumpy\nndarray\n.",
        b"(lp0\n",
    ],
)
def test_whatever_cannot_be_read_is_passed_over(payload, checkpoint):
    checkpoint.save({"iteration": 0})
    write(checkpoint, "checkpoint-00000001", payload)
    with pytest.warns(UserWarning, match="damaged checkpoint .*00000001.*going back to .*00000000"):
        assert checkpoint.load() == {"iteration": 0}
    checkpoint.files[0].unlink()
    with pytest.raises(CorruptCheckpoint, match="checkpoint-00000001"):
        checkpoint.load()


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot save a checkpoint in .*file \(.*there is none yet"):
        begin(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="folder: expected a folder"):
        Checkpoint(tmp_path / "file").load()


@pytest.fixture
def as_another_user():
    """Nobody's rights where the tests run as root, whom no permission stops."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_read_only_folder(as_another_user):
    for folder in (as_another_user, as_another_user / "new"):
        with pytest.raises(PermissionError, match=r"cannot save a checkpoint in .*there is none yet"):
            begin(folder)
    assert list(as_another_user.iterdir()) == []


RUN = """
import sys, numpy as np
from hfnb import Dataset, Objective, hessian_free, models
from hfnb.optimizers import checkpoint
checkpoint.LOCK_WAIT = 0.5
random = np.random.default_rng(0)
net = models.mlp([5, 4, 3])
data = Dataset(random.standard_normal((60, 5)), random.integers(0, 3, 60))
def callback(record):
    if record.iteration == int(sys.argv[2]):
        print("halt", flush=True)
        sys.stdin.readline()
objective, w0 = Objective(net, data), net.init(0, dtype=float)
hessian_free(objective, w0, max_iter=4, callback=callback, checkpoint=sys.argv[1])
"""


def start(folder, halt=-1):
    command = [sys.executable, "-W", "error", "-c", RUN, str(folder), str(halt)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, **pipes)


def test_two_processes_in_one_folder(tmp_path):
    """The second one is refused, in words; the first one does not notice; then the folder is free."""
    with start(tmp_path, halt=2) as first:
        assert first.stdout.readline() == "halt\n"
        saved = Checkpoint(tmp_path).load()["iteration"]  # a look from elsewhere is free
        assert saved == 1
        with start(tmp_path) as second:
            _, errors = second.communicate(timeout=60)
        assert second.returncode == 1
        said = (
            f"checkpoint: the checkpoint folder {tmp_path} is in use by another run (process {first.pid} on "
        )
        assert said in errors.splitlines()[-1]
        assert Checkpoint(tmp_path).load()["iteration"] == 1
        first.communicate("go on\n", timeout=60)
    assert first.returncode == 0
    assert Checkpoint(tmp_path).load()["iteration"] == 4
    with start(tmp_path) as third:
        assert third.communicate(timeout=60) == ("", "")


def test_killed_run_leaves_no_lock(tmp_path):
    with start(tmp_path, halt=2) as first:
        assert first.stdout.readline() == "halt\n"
        first.kill()
    with start(tmp_path) as second:
        assert second.communicate(timeout=60) == ("", "")
    assert Checkpoint(tmp_path).load()["iteration"] == 4


def test_two_runs_of_one_process_in_one_folder(checkpoint, monkeypatch):
    """Refused at once: nobody else could free it."""
    monkeypatch.setattr("hfnb.optimizers.checkpoint.LOCK_WAIT", 150.0)
    refused = []

    def callback(record):
        if record.iteration == 1:
            for given in (checkpoint, Checkpoint(checkpoint.folder), checkpoint.folder):
                with pytest.raises(FolderInUse, match="in use by another run") as error:
                    begin(given)
                refused.append(error)

    start = time.monotonic()
    assert begin(checkpoint, callback=callback).nit == 2
    assert len(refused) == 3
    assert time.monotonic() - start < 150  # not one of the three has waited


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupted_run_frees_its_folder(error, checkpoint):
    def callback(record):
        if record.iteration == 2:
            raise error

    with pytest.raises(error) as kept:  # and with it the frames of the run
        begin(checkpoint, callback=callback, max_iter=5)
    assert begin(checkpoint, max_iter=5).nit == 5
    del kept


def test_file_system_without_locks_is_said(checkpoint, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("hfnb.optimizers.checkpoint._lock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked .*: use it in one run only"):
        assert begin(checkpoint).nit == 2


ANSWERS = [True, 1, "yes", np.True_, np.array(True), np.array([True]), np.array([[2.0]]), StopIteration]


def answering(answer):
    def callback(*_):
        if answer is StopIteration:
            raise StopIteration
        return answer

    return callback


def optimizers():
    objective = Objective(network(), DATA)
    yield "hessian_free", lambda callback: hessian_free(objective, W0, callback=callback, max_iter=3).nit
    yield "first_order", lambda callback: first_order(objective, W0, callback=callback, max_iter=3).nit
    yield (
        "Progress",
        lambda callback: (
            hessian_free(objective, W0, callback=Progress(3, callback, disable=True), max_iter=3).nit
        ),
    )
    yield (
        "Watch",
        lambda callback: hessian_free(objective, W0, callback=Watch(callback, None), max_iter=3).nit,
    )
    for name in ("cg", "minres", "bicgstab", "saddle_free"):
        solve, A = krylov.SOLVERS[name], np.diag([1.0, 2.0, 3.0, 4.0])
        yield name, lambda callback, solve=solve, A=A: solve(A, np.ones(4), callback=callback).iterations - 1


callers = pytest.mark.parametrize(
    "run", [run for _, run in optimizers()], ids=[name for name, _ in optimizers()]
)


@callers
@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_any_true_value_of_a_callback_stops(run, answer):
    assert run(answering(answer)) == 0


@callers
@pytest.mark.parametrize("answer", [None, False, 0, "", [], np.False_, np.array([0.0])], ids=repr)
def test_no_false_value_of_a_callback_stops(run, answer):
    assert run(answering(answer)) > 0


@callers
@pytest.mark.parametrize("answer", [np.array([True, False]), np.zeros(0), np.ones((2, 2))], ids=repr)
def test_answer_without_a_truth_value_is_an_error(run, answer):
    with pytest.raises(ValueError, match=r"callback: expected None or one truth value, .* array of shape \("):
        run(answering(answer))


class Decaying:
    """A schedule that keeps its rate in a private attribute."""

    def __init__(self, rate):
        self._rate = rate

    def __call__(self, t):
        return self._rate / (1 + t)


def test_a_schedule_with_private_settings_is_told_from_another(checkpoint):
    first_order(
        Objective(network(), DATA), W0, learning_rate=Decaying(0.1), max_iter=1, checkpoint=checkpoint
    )
    with pytest.raises(ValueError, match=r"checkpoint.*_rate=0\.2.*_rate=0\.1.*identity\(\)"):
        first_order(
            Objective(network(), DATA), W0, learning_rate=Decaying(0.2), max_iter=2, checkpoint=checkpoint
        )
