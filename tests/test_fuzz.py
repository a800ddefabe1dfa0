"""Wrong, odd and special inputs for every argument of the public surface.

No silent wrong answer, no error that does not name the argument, no run that does not end. The answers are
compared with plain NumPy: dense matrices, loops written out, difference quotients.
"""

import inspect
import itertools
import tempfile
from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from fuzz import (
    EITHER,
    FINE,
    WRONG,
    Target,
    backwards,
    choices,
    counts,
    either,
    fine,
    finite,
    functions,
    identity,
    inf,
    locked,
    matrices,
    nan,
    numbers,
    relabelled,
    seeds,
    spread,
    vectors,
    without,
    wrong,
)
from scipy import sparse
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import hfnb
from hfnb import Checkpoint, Cluster, Dataset, Objective, Progress, Sample, certify, checks, krylov, problems
from hfnb.models import autoencoder, mlp
from hfnb.optimizers.certificate import certify_operator
from hfnb.optimizers.history import Record

RANDOM = np.random.default_rng(0)
SIZES = [4, 5, 3]
NET = mlp(SIZES)
W = NET.init(1, dtype=float) + 0.05
P = W.size
X, Y = RANDOM.standard_normal((30, 4)), RANDOM.integers(0, 3, 30)
DATA = Dataset(X, Y)
V = RANDOM.standard_normal(P)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # some inputs are float32


def masked(v):
    return isinstance(v, np.ma.MaskedArray)


# --- the same in plain NumPy --------------------------------------------------------------------------------


def layers(w):
    w = np.asarray(w, dtype=float).ravel()
    return w[:20].reshape(4, 5), w[20:25], w[25:40].reshape(5, 3), w[40:43]


def logits(w, X):
    W1, b1, W2, b2 = layers(w)
    return np.tanh(np.asarray(X, dtype=float) @ W1 + b1) @ W2 + b2


def loss(w, X=X, Y=Y):
    z = logits(w, X)
    return float(np.mean([np.log(np.sum(np.exp(row))) - row[label] for row, label in zip(z, Y, strict=True)]))


def gradient(w, X=X, Y=Y):
    W1, b1, W2, b2 = layers(w)
    a = np.tanh(X @ W1 + b1)
    p = np.exp(a @ W2 + b2)
    d = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[Y]) / len(X)
    c = (d @ W2.T) * (1 - a**2)
    return np.concatenate([(X.T @ c).ravel(), c.sum(axis=0), (a.T @ d).ravel(), d.sum(axis=0)])


def hessian(w, X=X, Y=Y):
    h = 1e-5
    return np.stack([(gradient(w + h * e, X, Y) - gradient(w - h * e, X, Y)) / (2 * h) for e in np.eye(P)])


def rows_of(sample, partitions=24):
    return sample.rows(np.arange(partitions + 1) * len(X) // partitions)


def finite_or_same(result, expected):
    """The same numbers, or NaN and infinity in the same places."""
    if np.isfinite(expected).all():
        close(result, expected)
    else:
        np.testing.assert_array_equal(np.isfinite(result), np.isfinite(expected))


# --- Krylov solvers -----------------------------------------------------------------------------------------

Q, _ = np.linalg.qr(RANDOM.standard_normal((6, 6)))
A = (Q * np.array([1.0, 1.5, 2.0, 3.0, 4.0, 5.0])) @ Q.T
A = (A + A.T) / 2
B = RANDOM.standard_normal(6)
MATRICES = matrices(A, lists=FINE, sparse_too=FINE) + fine(
    aslinearoperator(A), np.rint(A + A.T).astype(int) + 9 * np.eye(6, dtype=int)
)
MATRICES += wrong(
    np.triu(A),
    LinearOperator((6, 6), matvec=lambda v: (A @ v)[:3], dtype=float),
    LinearOperator((6, 6), matvec=lambda v: A @ v * 1j, dtype=float),
    LinearOperator((6, 6), matvec=lambda v: A @ v * nan, dtype=float),
    LinearOperator((6, 6), matvec=lambda v: None, dtype=float),
    LinearOperator((6, 5), matvec=lambda v: A @ v, dtype=float),
)
OPERATORS = matrices(A, lists=FINE, not_finite=FINE, sparse_too=FINE)
OPERATORS = without(OPERATORS, lambda v: isinstance(v, np.ndarray) and v.shape in ((6, 5), (6, 12), (6,)))
EXTREME = either(B * 1e200, B * 1e-200, B * 1e150, B * 1e-150, B * 0, B * 1e-310, np.full(6, 1e308))


def dense(A):
    return A @ np.eye(A.shape[1]) if hasattr(A, "shape") else np.array(A, dtype=float)


def solves(result, given):
    """Where it says that it solved the system, it has."""
    A, b = np.asarray(dense(given["A"]), dtype=float), np.asarray(given["b"], dtype=float)
    shifted = A + float(given["damping"]) * np.eye(len(b))
    assert isinstance(result, krylov.KrylovResult)
    assert np.shape(result.x) == b.shape
    assert np.isfinite(result.x).all()
    scale = np.linalg.norm(b / max(np.abs(b).max(), 1e-300)) * np.abs(b).max()
    if result.success and result.status.startswith("converged"):
        bound = max(float(given.get("rtol", 1e-5)) * scale, float(given.get("atol", 0)))
        if "accuracy" in given:  # accuracy / 3κ of the first residual, κ > 2
            first = b if given.get("x0") is None else b - shifted @ np.asarray(given["x0"], dtype=float)
            bound = max(bound, float(given["accuracy"]) / 6 * np.linalg.norm(first / scale) * scale)
        eps = np.finfo(result.x.dtype).eps
        residual = np.linalg.norm(b - shifted @ result.x)
        assert residual <= 1.01 * bound + 100 * eps * scale, f"residual {residual}, bound {bound}"
    if np.all(b == 0):
        assert not result.x.any()
    if result.direction is not None:
        assert result.direction @ A @ result.direction < 0, "A has no negative curvature"


FLAGS = fine(True, False, np.bool_(True)) + wrong(None, 1, "yes", [], np.ones(2))
STARTS = vectors(B, lists=FINE, optional=True) + fine(np.zeros(6), np.rint(B).astype(int))


def solver(name):
    def callback(x):
        x.sum()
        return False

    options = {} if name == "capped_cg" else {"low": -inf}
    table = {
        "A": MATRICES,
        "b": vectors(B, lists=FINE) + EXTREME,
        "x0": relabelled(STARTS, EITHER, lambda v: v.shape == (6,) and v.dtype in (bool, np.float16)),
        "damping": finite(0.5, **options) + (wrong(0.0, -1.0) if name == "capped_cg" else fine(0.0)),
        "rtol": numbers(1e-8) + fine(0.0, 1e-300),
        "atol": numbers(1e-3) + fine(0.0),
        "progress": numbers(1e-3) + fine(0.0),
        "max_iter": counts(20, optional=True),
        "callback": functions(callback, lambda x: True, optional=True),
        "check": fine(True, False),
    }
    M = wrong(*(value for _, value in matrices(np.linalg.inv(A + np.eye(6))) if value is not None))
    if name not in ("capped_cg", "saddle_free"):
        inverse = np.linalg.inv(A + np.eye(6))
        M = matrices(inverse, lists=FINE, sparse_too=FINE) + wrong(-np.eye(6), np.zeros((6, 6)))
        M = [each for each in M if each[1] is not None]
    table["M"] = M + fine(None)
    extra = {
        "cg": {
            "overhead": numbers(12.0, closed=False, optional=True),
            "radius": numbers(100.0, closed=False),
        },
        "capped_cg": {"accuracy": finite(0.5, closed=False)},
        "bicgstab": {"stop_indefinite": FLAGS},
        "minres": {"stop_indefinite": FLAGS},
    }
    base = {"A": A, "b": B, "damping": 1.0, "progress": 0.0}
    if name == "capped_cg":
        base["accuracy"] = 1e-6
    aliases = {"b": "b|A"}
    return Target(krylov.SOLVERS[name], lambda: dict(base), {**table, **extra.get(name, {})}, solves, aliases)


TARGETS = {f"krylov.{name}": solver(name) for name in krylov.SOLVERS}


def holds(result, given):
    assert {name: getattr(result, name) for name in given} == given


def smallest(result, given):
    values = np.linalg.eigvalsh(np.asarray(dense(given["A"]), dtype=float))
    assert values[0] - 1e-4 <= result.eigenvalue <= values[-1] + 1e-4
    if result.success:
        gap = np.abs(values - result.eigenvalue).min()
        assert gap <= max(float(given.get("tol", 1e-3)), 1e-5) * np.abs(values).max()


def pairs(x, y):
    return {"x": x, "y": y}


def process(A, start, steps, bound):
    system = krylov.System(A, B)
    *_, last = krylov.lanczos_process(system, start, steps)
    return last, last.failure(bound)


def orthonormal(result, given):
    T, failure = result
    close(T.V @ T.V.T, np.eye(len(T.V)))
    close(T.alphas, [v @ A @ v for v in T.V])
    assert 0 <= failure <= 1


def added(y, a, x):
    y = y.copy() if isinstance(y, np.ndarray) and y.flags.writeable else y
    krylov.axpy(y, a, x)
    return y


LONG = RANDOM.standard_normal(256)
SHORT = vectors(LONG, not_finite=EITHER) + wrong(LONG[:128], LONG[:1])
SHORT = relabelled(SHORT, EITHER, lambda v: v.dtype == ">f8" and v.shape == (256,))
SHORT = relabelled(SHORT, WRONG, lambda v: v.dtype == np.float16 or masked(v))


def preconditions(result, given):
    squares, damping, exponent = (
        np.asarray(given[name], dtype=float) for name in ("squares", "damping", "exponent")
    )
    close(result @ np.ones(6), (squares + damping) ** -exponent)


def watched(memory, A, damping):
    pairs = krylov.LBFGS(memory)
    watching = pairs.watch(A)
    for e in np.eye(6):
        watching @ e
    return pairs.operator(damping)


def secant(M, given):
    """The L-BFGS inverse maps the last y + damping s to s."""
    e = np.eye(6)[-1] if int(given["memory"]) >= 6 else None
    if M is not None and e is not None:
        close(M @ ((np.asarray(dense(given["A"])) + float(given["damping"]) * np.eye(6)) @ e), e)


TARGETS |= {
    "krylov.lanczos": Target(
        krylov.lanczos,
        lambda: {"A": A, "seed": 0},
        {
            "A": MATRICES,
            "start": vectors(B, lists=FINE, optional=True) + wrong(B * 0, B * 1e200, B * 1e-200),
            "seed": seeds(optional=True),
            "tol": numbers(1e-4),
            "max_iter": counts(6),
        },
        smallest,
        {"A": "A|start", "start": "start|A"},
    ),
    "krylov.Stopping": Target(
        krylov.Stopping,
        lambda: {},
        {
            "rtol": numbers(1e-8) + fine(0.0),
            "atol": numbers(1e-3) + fine(0.0),
            "progress": numbers(1e-3) + fine(0.0),
            "overhead": numbers(12.0, closed=False, optional=True),
            "max_iter": counts(20, optional=True),
            "stop_indefinite": FLAGS,
            "callback": functions(lambda x: True, optional=True),
        },
        holds,
    ),
    "krylov.random_start": Target(
        krylov.random_start,
        lambda: {"A": A, "seed": 0},
        {
            "A": OPERATORS,
            "seed": seeds(optional=True),
        },
        lambda result, given: close(np.shape(result[0]), (6,)),
    ),
    "krylov.find_solver": Target(
        krylov.find_solver,
        lambda: {},
        {"solver": choices(*krylov.SOLVERS, function=True)},
        lambda result, given: solves(
            result(A, B, damping=1.0),
            {"A": A, "b": B, "damping": 1.0} | ({"accuracy": 0.5} if given["solver"] == "capped_cg" else {}),
        ),
    ),
    "krylov.lanczos_process": Target(
        process,
        lambda: {"A": A, "start": B, "steps": 6, "bound": -1.0},
        {"start": vectors(B) + wrong(B * 0), "steps": counts(4), "bound": finite(-0.5, low=-inf)},
        orthonormal,
        {"start": "start|b|A"},
    ),
    "krylov.dot": Target(
        krylov.dot,
        lambda: pairs(LONG, LONG),
        {"x": SHORT, "y": SHORT},
        lambda result, given: finite_or_same(result, np.dot(*(np.asarray(v, float) for v in given.values()))),
    ),
    "krylov.norm": Target(
        krylov.norm,
        lambda: {"x": LONG},
        {"x": relabelled(SHORT, EITHER, lambda v: v.dtype == float and v.ndim == 1 and not masked(v))},
        lambda result, given: finite_or_same(result, np.sqrt(np.sum(np.asarray(given["x"], float) ** 2))),
    ),
    "krylov.axpy": Target(
        added,
        lambda: {"y": LONG, "a": 0.5, "x": LONG},
        {
            "y": relabelled(SHORT, EITHER, lambda v: not v.flags.writeable),
            "x": SHORT,
            "a": fine(2, -1.5, np.float32(0.5), 0.0),
        },
        lambda result, given: finite_or_same(
            result, np.asarray(given["y"]) + given["a"] * np.asarray(given["x"])
        ),
    ),
    "krylov.diagonal": Target(
        krylov.diagonal,
        lambda: {"squares": B**2, "damping": 0.5, "exponent": 0.75},
        {"squares": vectors(B**2, sized=False), "damping": finite(0.5, low=-1e3), "exponent": finite(0.5)},
        lambda result, given: preconditions(result, given) if np.shape(given["squares"]) == (6,) else None,
        {"damping": "damping|squares"},
    ),
    "krylov.LBFGS": Target(
        watched,
        lambda: {"memory": 8, "A": A, "damping": 0.0},
        {
            "memory": counts(8),
            "damping": finite(0.5, low=-inf),
            "A": fine(A, A.tolist(), sparse.csr_matrix(A)) + wrong(None, "abc", 3, identity, A + 1j),
        },
        secant,
    ),
}

# --- checkers -----------------------------------------------------------------------------------------------


def not_nan_for_nothing(result, given):
    """Zero up to rounding, the arguments being exact; NaN or infinity where one of them is not a number."""
    entries = dense(given["A"]) if "A" in given else given["w"]
    if np.isfinite(np.asarray(entries, dtype=float)).all() or ("w" in given and not np.isnan(entries).any()):
        assert result < given.get("tolerance", 1e-2)
    else:
        assert not np.isfinite(result)


TRIALS = {"trials": counts(2), "seed": seeds()}
OBJECTIVE = Objective(NET, DATA)
STEPS = finite(1e-4, closed=False)[:-3] + wrong(0.0, None, inf)
START = vectors(W, not_finite=FINE, single=False)

TARGETS |= {
    "checks.dense": Target(
        checks.dense,
        lambda: {"A": A},
        {"A": OPERATORS},
        lambda result, given: finite_or_same(result, np.asarray(dense(given["A"]), dtype=float)),
    ),
    "checks.symmetry_error": Target(
        checks.symmetry_error,
        lambda: {"A": A},
        {"A": OPERATORS + wrong(np.ones((2, 3))), **TRIALS},
        not_nan_for_nothing,
    ),
    "checks.adjoint_error": Target(
        checks.adjoint_error,
        lambda: {"A": A, "B": A.T},
        {
            "A": OPERATORS,
            "B": fine(None, A.T, A.tolist()) + wrong(np.ones((2, 3)), "abc", 3, A + 1j),
            **TRIALS,
        },
        not_nan_for_nothing,
        {"A": "A|B"},
    ),
    "checks.mean_error": Target(
        checks.mean_error,
        lambda: {"loss": NET.loss, "w": W, "data": DATA},
        {
            "w": START,
            "parts": counts(3) + fine(100),
            "loss": functions(NET.loss),
            "data": wrong(None, 3, "abc", (X, Y), X),
        },
        not_nan_for_nothing,
    ),
    "checks.gradient_error": Target(
        checks.gradient_error,
        lambda: {"objective": OBJECTIVE, "w": W},
        {"w": START, "step": STEPS, "objective": wrong(None, NET, loss, 3, "abc", DATA), **TRIALS},
        not_nan_for_nothing,
    ),
    "checks.gauss_newton_error": Target(
        checks.gauss_newton_error,
        lambda: {"objective": OBJECTIVE, "w": W, "data": DATA},
        {
            "w": START,
            "step": STEPS,
            "objective": wrong(None, NET, loss, 3, "abc", DATA),
            "data": wrong(None, 3, "abc", (X, Y), X),
            **TRIALS,
        },
        not_nan_for_nothing,
    ),
    "checks.hessian_error": Target(
        checks.hessian_error,
        lambda: {"objective": OBJECTIVE, "w": W},
        {"w": START, "step": STEPS, "objective": wrong(None, NET, loss, 3, "abc", DATA), **TRIALS},
        not_nan_for_nothing,
    ),
}

# --- models -------------------------------------------------------------------------------------------------

SIZE_TABLE = wrong(
    None, 3, "345", b"345", [], [4], [4, 0, 3], [4, -5, 3], [4, 5.0, 3], [4, 2.7, 3], [4, nan, 3]
)
SIZE_TABLE += wrong(
    [4, True, 3], [4, "5", 3], [[4, 5], 3], [4, None, 3], object(), identity, {}, np.array([4.0, 3])
)
SIZE_TABLE += fine([4, 3], (4, 5, 3), np.array([4, 5, 3]), range(3, 6), [np.int64(4), 3])
DECAYS = finite(0.25)
ACTIVATIONS = choices("tanh", "sigmoid", "relu", "softplus")
INPUTS = matrices(X, lists=WRONG, not_finite=EITHER) + fine(
    X.astype(np.float32), np.rint(X).astype(int), X[:1]
)
INPUTS = relabelled(INPUTS, EITHER, lambda v: v.shape == (0, 4))
LABELS = wrong(
    None, "abc", 3, Y.astype(float), Y[:, None], Y - 1, Y + 1, Y[:-1], np.append(Y, 0), Y > 0, Y[:1]
)
LABELS += wrong(
    np.ma.masked_array(Y, Y > 0), sparse.csr_matrix(Y[None]), Y.astype(object), Y + 0j, np.full(30, 2**40)
)
LABELS += fine(Y, Y.astype(np.uint8), Y.astype(np.int32), spread(Y), backwards(Y), locked(Y)) + wrong(
    object(), {}
)


def size(net, given):
    sizes = list(given["sizes"]) or [4, 5, 3]  # a generator is exhausted by now
    assert net.size == sum((m + 1) * n for m, n in zip(net.sizes, net.sizes[1:], strict=False))
    assert net.sizes[: len(sizes)] == tuple(sizes)
    assert net.weight_decay == float(given.get("weight_decay", 0.0))


def same_error(result, given):
    z = logits(given["w"], X)
    close(result, nan if np.isnan(z).any() else np.mean(z.argmax(axis=1) != Y))


def initial(result, given):
    again = NET.init(**given)
    np.testing.assert_array_equal(result, again)
    assert result.shape == (P,)
    assert result.dtype in (np.float32, np.float64)
    assert result.any()


def classes(result, given):
    z = logits(given["w"], given["X"])
    assert np.isfinite(z).all(), "NaN has no class"
    np.testing.assert_array_equal(result, z.argmax(axis=1))


TARGETS |= {
    "models.mlp": Target(
        mlp,
        lambda: {"sizes": SIZES},
        {
            "sizes": SIZE_TABLE,
            "activation": ACTIVATIONS,
            "loss": choices("cross_entropy", "squared_error"),
            "weight_decay": DECAYS,
        },
        size,
    ),
    "models.autoencoder": Target(
        autoencoder,
        lambda: {"sizes": SIZES},
        {"sizes": SIZE_TABLE, "activation": ACTIVATIONS, "weight_decay": DECAYS},
        size,
    ),
    "Network.outputs": Target(
        NET.outputs,
        lambda: {"w": W, "X": X},
        {"w": vectors(W, not_finite=FINE), "X": INPUTS},
        lambda result, given: finite_or_same(result, logits(given["w"], given["X"])),
    ),
    "Network.predict": Target(
        NET.predict,
        lambda: {"w": W, "X": X},
        {"w": vectors(W, not_finite=EITHER), "X": INPUTS},
        classes,
    ),
    "Network.loss": Target(
        NET.loss,
        lambda: {"w": W, "X": X, "Y": Y},
        {
            "w": vectors(W, not_finite=FINE),
            "X": without(INPUTS, lambda v: isinstance(v, np.ndarray) and v.shape == (1, 4)),
            "Y": LABELS,
        },
        lambda result, given: finite_or_same(result, loss(*given.values())),
        {"X": "X|Y"},
    ),
    "Network.output_loss": Target(
        NET.output_loss,
        lambda: {"z": logits(W, X), "Y": Y},
        {"Y": LABELS},
        lambda result, given: close(result, loss(W, X, given["Y"])),
    ),
    "Network.decay": Target(
        mlp(SIZES, weight_decay=0.5).decay,
        lambda: {"v": W},
        {"v": vectors(W, not_finite=FINE)},
        lambda result, given: close(result[:20], 0.5 * given["v"][:20]),
    ),
    "Network.error": Target(
        NET.error,
        lambda: {"w": W, "data": DATA},
        {
            "w": vectors(W, not_finite=FINE),
            "chunk": counts(7) + fine(1, 10**6),
            "data": wrong(
                None, 3, (X, Y), X, DATA[:0], Dataset(X[:, :3], Y), Dataset(X, Y + 1), Dataset(X, X)
            ),
        },
        same_error,
    ),
    "Network.init": Target(
        NET.init,
        lambda: {"seed": 0},
        {
            "seed": seeds(),
            "method": choices("glorot", "sparse"),
            "dtype": fine(float, np.float32, np.float64, "float32")
            + wrong(int, complex, None, "abc", np.float16, bool, object, 3),
        },
        initial,
    ),
}

# --- data, samples, objectives ------------------------------------------------------------------------------


def kept(data, given):
    np.testing.assert_array_equal(data.X, np.asarray(given["X"]))
    np.testing.assert_array_equal(data.Y, np.asarray(given["Y"]))


DATA_X = relabelled(matrices(X), EITHER, lambda v: v.shape in ((30, 3), (30, 8)) and v.dtype == float)
ODD = wrong(None, "abc", 3, np.ma.masked_array(Y, Y > 0), sparse.csr_matrix(Y[None]), X * nan)
DATA_Y = without(LABELS, lambda v: not isinstance(v, np.ndarray) or masked(v))
DATA_Y = relabelled(DATA_Y, EITHER, lambda v: v.shape == (30,) and v.dtype.kind in "iu" and v.min() >= 0)
DATA_Y += ODD + fine(X, Y.tolist(), X[:, :1])
ROWS = wrong(
    None,
    3,
    "abc",
    1.5,
    np.array(2),
    [[0, 1]],
    [0.5, 1.5],
    ["a"],
    [30],
    [-31],
    [True],
    np.ones(29, bool),
    object(),
    {},
    1j,
    [1j],
    np.ma.masked_array([1, 2], [0, 1]),
    [None],
)
ROWS += fine(
    slice(3),
    slice(None, None, -1),
    [0, 5],
    np.array([3, -1]),
    Y > 0,
    [],
    (1, 2),
    np.uint8([3]),
    range(4),
    slice(0, 0),
    slice(50, 90),
)
OFFSETS = np.array([0, 10, 20, 30])


def picked(result, given):
    rows = given["rows"] if isinstance(given["rows"], slice) else list(given["rows"])
    expected = X[rows] if rows != [] else X[:0]
    np.testing.assert_array_equal(result.X, expected)
    np.testing.assert_array_equal(result.Y, Y[rows] if rows != [] else Y[:0])


def draws(result, given):
    rows = Sample(given["size"], given["seed"], given["index"]).rows(np.asarray(given["offsets"]))
    np.testing.assert_array_equal(result, rows)
    assert len(set(result.tolist())) == int(given["size"])
    assert min(result) >= 0
    assert max(result) < 30


SAMPLE = Sample(7, 1, 2)
SAMPLES = wrong(3, "abc", 0, True, [0, 1], np.arange(3), object(), (7, 1, 2), Sample(31), Sample(10**12))
SAMPLES += fine(None, SAMPLE, Sample(30), Sample(1, 0, 10**6))
SAMPLE_WORDS = {"sample": "sample|size"}


def of(sample):
    rows = slice(None) if sample is None else rows_of(sample)
    return X[rows], Y[rows]


def given_value(result, given):
    finite_or_same(result, loss(given["w"], *of(given.get("sample"))))


def given_gradient(result, given):
    w, sample = given["w"], given.get("sample")
    finite_or_same(result[0], loss(w, *of(sample)))
    finite_or_same(result[1], gradient(np.asarray(w, dtype=float), *of(sample)))


def given_product(result, given):
    w = np.asarray(given["w"], dtype=float)
    finite_or_same(np.ravel(result), hessian(w) @ np.ravel(np.asarray(given["v"], dtype=float)))


def curvature(**arguments):
    return OBJECTIVE.curvature(**arguments) @ V


def jacobian_curvature(w, X, Y):
    """JᵀLJ by difference quotients of the logits."""
    h, total = 1e-6, np.zeros((P, P))
    J = np.stack([(logits(w + h * e, X) - logits(w - h * e, X)) / (2 * h) for e in np.eye(P)], axis=2)
    z = logits(w, X)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    for row, each in zip(p, J, strict=True):
        total += each.T @ (np.diag(row) - np.outer(row, row)) @ each
    return total / len(X)


def curved(result, given):
    w, kind = np.asarray(given["w"], dtype=float), given.get("kind", "hessian")
    if np.isnan(w).any():
        assert np.isnan(result).all()
        return
    matrix = hessian if kind == "hessian" else jacobian_curvature
    np.testing.assert_allclose(result, matrix(w, *of(given.get("sample"))) @ V, rtol=1e-4, atol=1e-5)


ANY_V = vectors(V, lists=EITHER, not_finite=FINE)


def half(net, w, X, Y):
    return lambda v: v / 2


NETS = wrong(None, 3, "abc", loss, DATA, np.ones(3), object(), type(NET), [NET])
DATAS = wrong(None, 3, "abc", (X, Y), X, {"X": X, "Y": Y}, object(), Dataset, DATA[:0], [DATA])
DATAS += fine(DATA, Dataset(np.asfortranarray(X), spread(Y)), Dataset(locked(X), locked(Y)))
FUNCTIONS = wrong(
    lambda net, w, X, Y: None,
    lambda net, w, X, Y: 3,
    lambda net, w, X, Y: lambda v: v[:3],
    lambda net, w, X, Y: lambda v: v * 1j,
    lambda net, w, X, Y: lambda v: None,
    lambda net, w, X, Y: lambda v: "abc",
    lambda net, w, X, Y: lambda v: v.astype(object),
)


def fitted(w, X, Y):
    return anp.mean((anp.dot(X, w[:4]) + w[4]) ** 2)


LINE = Objective.from_loss(fitted, DATA)
IN_CELLS = Objective(NET, DATA, cells=4)
ALPHAS = [-0.5, 0.0, 2.0]
DIRECTIONS = relabelled(
    vectors(V, lists=EITHER, not_finite=FINE),
    EITHER,
    lambda v: v.shape == (P,) and v.dtype.kind in "fbi" and not masked(v),
)
DIRECTIONS += fine(
    np.outer([1, 2, 3], V), np.asfortranarray(np.outer([1, 2, 3], V)), np.tile(V, 3).reshape(3, P)
)
LENGTHS = wrong(
    None, "abc", 3, 1.5, [], np.array([]), [[1.0]], ["a"], [None], [1j], [[1], [1, 2]], object(), {}
)
LENGTHS += wrong(np.ma.masked_array([1.0, 2.0], [0, 1]), sparse.csr_matrix([[1.0]]), identity)
LENGTHS += fine([1], (0.5, 2), np.array([3, -1]), np.float32([0.5, 2.5]), ALPHAS * 7, [nan], [inf, 1.0])


def slope(cell, w):
    return cell.value_and_gradient(w)[1]


def given_line(result, given):
    d = np.asarray(given["d"], dtype=float)
    alphas = np.asarray(given["alphas"], dtype=float)
    points = np.asarray(given["w"], dtype=float) + alphas[:, None] * d
    finite_or_same(result, [loss(point, *of(given.get("sample"))) for point in points])


TARGETS |= {
    "Dataset": Target(Dataset, lambda: {"X": X, "Y": Y}, {"X": DATA_X, "Y": DATA_Y}, kept, {"X": "X|Y"}),
    "Dataset[rows]": Target(
        lambda rows: DATA[rows],
        lambda: {},
        {"rows": ROWS},
        picked,
    ),
    "Sample": Target(
        lambda size, seed, index, offsets: Sample(size, seed, index).rows(offsets),
        lambda: {"size": 7, "seed": 1, "index": 2, "offsets": OFFSETS},
        {
            "size": counts(7, largest=30),
            "seed": seeds(),
            "index": seeds(),
            "offsets": fine(OFFSETS, OFFSETS.tolist(), OFFSETS.astype(np.int32))
            + wrong(
                None,
                3,
                "abc",
                OFFSETS * 0.5,
                [0],
                [],
                OFFSETS[::-1],
                [0, 20, 10, 30],
                [5, 30],
                np.array([OFFSETS]),
            ),
        },
        draws,
        {"offsets": "offsets|size"},
    ),
    "Objective": Target(
        lambda net, data, **options: Objective(net, data, **options).value_and_gradient(W),
        lambda: {"net": NET, "data": DATA},
        {
            "net": NETS,
            "data": DATAS,
            "partitions": counts(5, optional=True) + fine(1, 100),
            "chunk": counts(4, optional=True) + fine(1, 10**6),
            "memory": counts(4, optional=True, zero=True) + fine(10**12),
            "cells": counts(5, optional=True, largest=30) + fine(1, 30),
            "cell_seed": seeds(optional=True),
        },
        lambda result, given: given_gradient(result, {"w": W}),
    ),
    "Objective.value": Target(
        lambda **given: Objective(NET, DATA).value(**given),
        lambda: {"w": W},
        {"w": vectors(W, not_finite=FINE), "sample": SAMPLES},
        given_value,
        SAMPLE_WORDS,
    ),
    "Objective.value_and_gradient": Target(
        OBJECTIVE.value_and_gradient,
        lambda: {"w": W},
        {"w": vectors(W, not_finite=FINE), "sample": SAMPLES},
        given_gradient,
        SAMPLE_WORDS,
    ),
    "Objective.values_along": Target(
        OBJECTIVE.values_along,
        lambda: {"w": W, "d": V, "alphas": ALPHAS},
        {
            "w": vectors(W, not_finite=FINE),
            "d": DIRECTIONS,
            "alphas": LENGTHS,
            "sample": SAMPLES,
        },
        given_line,
        {**SAMPLE_WORDS, "alphas": "alphas|d"},
    ),
    "Objective.average": Target(
        IN_CELLS.average,
        lambda: {"task": slope, "w": W, "size": P},
        {
            "w": vectors(W, not_finite=FINE),
            "task": functions(slope)
            + wrong(
                lambda cell, w: None,
                lambda cell, w: 3.0,
                lambda cell, w: w[:3],
                lambda cell, w: w * 1j,
                lambda cell, w: w[:, None],
                lambda cell, w: "abc",
                lambda cell, w: w.astype(object),
            ),
            "size": counts(P) + wrong(P - 1, P + 1),
        },
        lambda result, given: finite_or_same(result, gradient(np.asarray(given["w"], dtype=float))),
        {"size": "size|task"},
    ),
    "Objective.hessp": Target(
        OBJECTIVE.hessp,
        lambda: {"w": W, "v": V},
        {
            "w": vectors(W, not_finite=FINE),
            "v": relabelled(ANY_V, EITHER, lambda v: v.size == P and v.dtype.kind in "fbi" and not masked(v)),
        },
        given_product,
    ),
    "Objective.curvature": Target(
        curvature,
        lambda: {"w": W},
        {
            "w": vectors(W, not_finite=FINE, single=False),
            "kind": choices("hessian", "gauss-newton", function=True) + FUNCTIONS,
            "sample": SAMPLES,
        },
        curved,
        {**SAMPLE_WORDS, "kind": "curvature"},
    ),
    "Objective.from_loss": Target(
        lambda loss, data, **options: Objective.from_loss(loss, data, **options).value(W[:5]),
        lambda: {"loss": fitted, "data": DATA},
        {
            "loss": functions(fitted)
            + wrong(
                lambda w, X, Y: None,
                lambda w, X, Y: X @ w[:4],
                lambda w, X, Y: "abc",
                lambda w, X, Y: 1j,
                NET,
            ),
            "outputs": functions(optional=True),
            "output_loss": functions(optional=True),
            "data": DATAS,
            "weight_decay": finite(0.25),
            "partitions": counts(5, optional=True),
            "chunk": counts(5, optional=True),
            "memory": counts(5, optional=True, zero=True),
            "cells": counts(5, optional=True, largest=30),
            "cell_seed": seeds(optional=True),
        },
        lambda result, given: close(
            result,
            np.mean((X @ W[:4] + W[4]) ** 2) + 0.5 * float(given.get("weight_decay", 0)) * W[:5] @ W[:5],
        ),
    ),
}

# --- problems -----------------------------------------------------------------------------------------------


def stationary(problem, given):
    """The gradient is zero at the stationary point, the Hessian has so many negative eigenvalues."""
    w, h = problem.stationary, 1e-4
    f, eye = problem.f, np.eye(problem.size)
    slopes = [(f(w + h * e) - f(w - h * e)) / (2 * h) for e in eye]
    np.testing.assert_allclose(slopes, 0, atol=1e-5)
    curvatures = (
        np.array([[f(w + h * (d + e)) - f(w + h * d) - f(w + h * e) + f(w) for d in eye] for e in eye]) / h**2
    )
    assert np.sum(np.linalg.eigvalsh(curvatures) < -1e-2) == problem.index


def spectrum(system, given):
    np.testing.assert_array_equal(system.A, system.A.T)
    assert system.b.shape == (int(given["n"]),)


SADDLE = problems.quartic_saddle()
POINT = np.array([0.5, 0.7])


def quartic(w):
    x, y = np.asarray(w, dtype=float)
    return x**2 / 2 - y**2 / 2 + y**4 / 4, [x, y**3 - y], np.diag([1.0, 3 * y**2 - 1])


KEPT = wrong(None, 3, "01", [0, 0], [5], [-1], [0.5], [True], [None], ["a"], [0, 1, 2], object()) + fine(
    [], [1], (0, 1), np.array([1])
)
WIDTHS = wrong(
    None, 3, "424", [4], [4, 4], [], [4, 0, 4], [4, 2.0, 4], [4, nan, 4], [4, True, 4], [4, "2", 4], object()
)
WIDTHS += fine([4, 2, 4], (3, 2, 3), np.array([4, 2, 4]), [3, 1, 2])
TARGETS |= {
    "problems.deep_linear": Target(
        problems.deep_linear,
        lambda: {"widths": (4, 2, 4), "kept": (1,), "seed": 0},
        {"widths": WIDTHS, "kept": KEPT, "seed": seeds()},
        stationary,
    ),
    "problems.tiny_network": Target(
        problems.tiny_network,
        lambda: {},
        {"activation": choices("tanh", "sigmoid"), "hidden": counts(2), "inputs": counts(2), "seed": seeds()},
        stationary,
    ),
    "problems.random_saddle": Target(
        problems.random_saddle,
        lambda: {"n": 6, "index": 2},
        {"n": counts(5), "index": counts(3, zero=True, largest=6), "seed": seeds()},
        stationary,
        {"n": "n|index"},
    ),
    "problems.tensor_decomposition": Target(
        problems.tensor_decomposition,
        lambda: {"d": 4, "components": 2},
        {"d": counts(3), "components": counts(2, largest=4), "seed": seeds()},
        stationary,
    ),
    "problems.rosenbrock": Target(problems.rosenbrock, lambda: {}, {"n": counts(4) + wrong(1)}, stationary),
    "problems.linear_system": Target(
        problems.linear_system,
        lambda: {"kind": "indefinite", "n": 8},
        {"kind": choices(*problems.SPECTRA), "n": counts(12) + wrong(1, 2), "seed": seeds()},
        spectrum,
    ),
    "problems.strict_saddles": Target(
        lambda count: len(list(problems.strict_saddles(count))),
        lambda: {},
        {"count": counts(3, zero=True)},
        lambda result, given: close(result, given["count"]),
    ),
    "Problem.value_and_gradient": Target(
        SADDLE.value_and_gradient,
        lambda: {"w": POINT},
        {"w": vectors(POINT, not_finite=FINE)},
        lambda result, given: [
            finite_or_same(a, b) for a, b in zip(result, quartic(given["w"]), strict=False)
        ],
    ),
    "Problem.value": Target(
        SADDLE.value,
        lambda: {"w": POINT},
        {"w": vectors(POINT, not_finite=FINE)},
        lambda result, given: finite_or_same(result, quartic(given["w"])[0]),
    ),
    "Problem.curvature": Target(
        lambda w, kind="hessian": SADDLE.curvature(w, kind) @ np.ones(2),
        lambda: {"w": POINT},
        {
            "w": vectors(POINT, not_finite=EITHER),
            "kind": wrong("gauss-newton", "abc", None, 3, [], identity) + fine("hessian"),
        },
        lambda result, given: finite_or_same(result, quartic(given["w"])[2] @ np.ones(2)),
        {"kind": "curvature"},
    ),
    "Problem.near": Target(
        SADDLE.near,
        lambda: {"distance": 0.5},
        {"distance": finite(0.25), "seed": seeds()},
        lambda result, given: close(np.linalg.norm(result), float(given["distance"])),
    ),
}

# --- optimizers ---------------------------------------------------------------------------------------------


class Kept:
    """A checkpoint that lives in memory."""

    def load(self):
        return None

    def save(self, state):
        self.state = state


def broken(change):
    """A solver whose result is changed."""

    def solve(A, b, x0=None, *, damping=0.0):
        result = krylov.cg(A, b, x0, damping=damping)
        for name, value in change(result).items():
            setattr(result, name, value)
        return result

    return solve


def own(A, b, x0=None, *, damping=0.0):
    return krylov.cg(A, b, x0, damping=damping)


SOLUTIONS = wrong(
    broken(lambda result: {"x": result.x[:-1]}),
    broken(lambda result: {"best": result.best[:-1]}),
    broken(lambda result: {"x": result.x * nan}),
    broken(lambda result: {"best": result.best * inf}),
    broken(lambda result: {"x": result.x.astype(np.float32)}),
    broken(lambda result: {"best": result.best.astype(int)}),
    broken(lambda result: {"x": list(result.x)}),
    broken(lambda result: {"x": None}),
    broken(lambda result: {"best": result.best[:, None]}),
    broken(lambda result: {"x": result.x + 1j}),
    broken(lambda result: {"models": []}),
    broken(lambda result: {"iterates": [(1, result.x[:-1])]}),
    broken(lambda result: {"direction": result.x[:-1], "curvature": -1.0}),
    broken(lambda result: {"direction": result.x, "curvature": None}),
    lambda A, b, x0=None, **options: b,
    lambda A, b, x0=None, **options: None,
    lambda A, b, x0=None, **options: (b, 0),
)
OPTIONS = wrong(
    3, "abc", [], [("max_iter", 3)], {"unknown": 3}, {"damping": 1.0}, {"b": 1}, {3: 4}, {"A": A}, True
)
OPTIONS += wrong({"max_iter": 0}, {"rtol": -1.0}, {"progress": nan}, {"max_iter": 2.7}, {"maxiter": 5})
OPTIONS += fine(None, {}, {"max_iter": 5})


def improves(result, given):
    """The result is what it says: its loss that of its parameters, and no more than at the start."""
    history = result.history
    assert result.nit == history[-1].iteration == len(history) - 1
    assert [record.iteration for record in history] == list(range(len(history)))
    assert result.x.shape == (P,)
    assert np.isfinite(result.x).all()
    assert np.isfinite(result.fun)
    close(result.fun, loss(result.x) if given.get("batch_size") is None else result.fun)
    if given.get("batch_size") is None:
        assert result.fun <= loss(given["w0"]) * (1 + 1e-6)
        losses = [record.loss for record in history]
        assert all(after <= before for before, after in itertools.pairwise(losses))
    assert result.nit <= int(given["max_iter"])


def descends(result, given):
    history = result.history
    assert result.nit == history[-1].iteration == len(history) - 1 <= int(given["max_iter"])
    assert result.x.shape == (P,)
    assert np.isfinite(result.x).all()
    close(result.fun, loss(result.x))
    close(history[0].loss, loss(given["w0"]))


def stays(cell, w, iterations, seed):
    return w


OBJECTIVES = wrong(None, 3, "abc", loss, NET, DATA, [OBJECTIVE], np.ones(3), Objective, object(), True)
COMMON = {
    "w0": vectors(W, lists=FINE, not_finite=WRONG),
    "max_iter": counts(2, zero=True),
    "tol": numbers(1e-8),
    "seed": seeds(),
    "callback": functions(lambda record: None, lambda record: record.iteration > 0, optional=True),
    "checkpoint": wrong(3, "", [], {}, True, object(), identity, Checkpoint) + fine(None, Kept()),
    "objective": OBJECTIVES,
}
SQUARED = mlp(SIZES, loss="squared_error")
ONE_HOT = np.eye(3)[Y]
SQUARES = Objective(SQUARED, Dataset(X, ONE_HOT))


def fits(result, given):
    history = result.history
    assert result.nit == history[-1].iteration == len(history) - 1 <= int(given["max_iter"])
    assert result.x.shape == (P,)
    close(result.fun, SQUARED.loss(np.asarray(result.x, float), X, ONE_HOT))
    assert result.fun <= history[0].loss


BATCHES = counts(10, optional=True, largest=30) + fine(1, 30)
TARGETS |= {
    "hessian_free": Target(
        hfnb.hessian_free,
        lambda: {"objective": Objective(NET, DATA), "w0": W.copy(), "max_iter": 2},
        {
            **COMMON,
            "solver": choices(*krylov.SOLVERS, optional=True, function=True) + SOLUTIONS + fine(own),
            "method": choices("paper", "martens", "auto"),
            "curvature": choices("hessian", "gauss-newton", optional=True, function=True)
            + FUNCTIONS
            + fine(half),
            "stopping_rule": choices("martens", "marginal-gain", optional=True),
            "line_search_sample": choices("loss", "curvature", optional=True),
            "probe": wrong(1, 0.5, "yes", [], np.nan) + fine(True, False, None, np.bool_(True)),
            "lengthen": wrong(1, 0.5, "yes", [], np.nan) + fine(True, False, None, np.bool_(True)),
            "step": choices("better", "newton", "curvilinear", "subspace"),
            "batch_size": BATCHES + fine("all", "growing"),
            "curvature_batch_size": BATCHES + fine("same", "part"),
            "damping": finite(0.5, optional=True) + fine(1e6, 1e-12, 10, 0.0, "gradient"),
            "warm_start_decay": numbers(0.5, high=1.0) + fine(0, 1, 0.0, 1.0),
            "solver_options": OPTIONS,
            "solves": choices("global") + wrong("local"),  # the objective has no cells
            "trial_steps": counts(3, optional=True) + fine(1, 9),
        },
        improves,
        {"solver_options": "solver_options|max_iter|rtol|progress", "solves": "solves|objective"},
    ),
    "local_steps": Target(
        hfnb.local_steps,
        lambda: {"objective": IN_CELLS, "w0": W.copy(), "max_iter": 1, "iterations": 1},
        {
            **COMMON,
            "objective": OBJECTIVES + wrong(OBJECTIVE),  # without cells
            "inner": choices("hessian_free", "sgd", "momentum", "nesterov", "adam", function=True)
            + fine(stays)
            + wrong(lambda *arguments: None, lambda *arguments: 3.0, lambda *arguments: W[:-1]),
            "iterations": counts(2) + fine(1),
            "options": wrong(3, "abc", [], [("damping", 1.0)], {"unknown": 3}, {3: 4}, True, {"max_iter": 2})
            + wrong({"solves": "local"}, {"damping": -1.0}, {"trial_steps": 0})
            + fine(None, {}, {"damping": 0.5}, {"method": "paper"}),
            "outer": choices("search", "mean", "momentum", "nesterov"),
            "outer_learning_rate": wrong("abc", [], 1.0, 1j, -1.0, nan, object()) + fine(None),
            "outer_momentum": numbers(0.5, high=1.0) + wrong(1.0) + fine(0, 0.0, 0.99),
        },
        descends,
    ),
    "levenberg_marquardt": Target(
        hfnb.levenberg_marquardt,
        lambda: {"objective": SQUARES, "w0": W.copy(), "max_iter": 2},
        {
            **COMMON,
            "objective": OBJECTIVES + wrong(OBJECTIVE),
            "damping": finite(0.5) + fine(0.0, 1e-30, 1e6),
        },
        fits,
    ),
    "fit": Target(
        hfnb.fit,
        lambda: {"model": SQUARED, "X": X, "Y": ONE_HOT, "max_iter": 2},
        {
            "model": wrong(None, 3, "abc", NET, DATA, [SQUARED], object(), np.ones(3)),
            "X": relabelled(matrices(X), WRONG, lambda v: v.ndim < 2),
            "Y": relabelled(matrices(ONE_HOT), WRONG, lambda v: v.ndim < 2),
            "w0": vectors(W, lists=FINE, optional=True),
            "weight_decay": finite(0.0) + wrong(0.5),  # a network has its own
            "max_iter": counts(2, zero=True),
            "seed": seeds(),
        },
        fits,
        {"X": "X|inputs", "Y": "Y|targets"},
    ),
    "first_order": Target(
        hfnb.first_order,
        lambda: {"objective": Objective(NET, DATA), "w0": W.copy(), "max_iter": 2, "batch_size": 10},
        {
            **COMMON,
            "method": choices("sgd", "momentum", "nesterov", "adam"),
            "batch_size": counts(10, largest=30, optional=True) + fine(1, 30),
            "momentum": numbers(0.5, high=1.0) + wrong(1.0, 1, 1.5) + fine(0, 0.0, 0.999),
            "learning_rate": [each for each in finite(0.25) if each[1] is not identity]
            + fine(0.0, lambda t: 0.1 / (1 + t), lambda t: np.float32(0.1))
            + wrong(
                lambda t: nan,
                lambda t: -1.0,
                lambda t: None,
                lambda t: "abc",
                lambda t: inf,
                lambda t: 1j,
                lambda t: [0.1],
            ),
        },
        descends,
    ),
}

# --- what else is public ------------------------------------------------------------------------------------

HAND = np.diag([1.0, 2.0, -3.0])


def judged(certificate, given):
    values = np.linalg.eigvalsh(np.asarray(dense(given["A"]), dtype=float))
    if certificate.verdict == "minimum":
        assert values[0] >= -certificate.tolerance * 1.01
    elif certificate.verdict == "saddle":
        d = certificate.direction
        assert d @ np.asarray(dense(given["A"]), dtype=float) @ d < 0


def judged_at(certificate, given):
    w = np.asarray(given["w"], dtype=float)
    _value, slope, matrix = quartic(w)
    if np.linalg.norm(slope) > float(given.get("gradient_tol", 1e-5)):
        assert certificate.verdict == "undecided"
    elif certificate.verdict == "minimum":
        assert np.linalg.eigvalsh(matrix)[0] >= -certificate.tolerance
    assert np.isfinite(w).all()


def made_plain_by_scipy(v):
    """Whether a start is no vector of two numbers, or one that `minimize` itself makes a plain array of."""
    return np.size(v) != 2 or (isinstance(v, list) and np.ndim(v) != 1) or isinstance(v, np.ma.MaskedArray)


def whole(v):
    return isinstance(v, float) and v.is_integer()


def rosenbrock(**changes):
    options = {
        name: changes.pop(name)
        for name in list(changes)
        if name in ("maxiter", "gtol", "tol", "max_iter", "damping", "seed")
    }
    arguments = {"fun": rosen, "x0": [-1.2, 1.0], "jac": rosen_der, "hessp": rosen_hess_prod, **changes}
    return minimize(**arguments, method=hfnb.scipy_method(), options=options)


def minimized(result, given):
    if result.success:
        close(result.x, np.ones_like(result.x), atol=1e-2)
    close(result.fun, rosen(result.x))


def cluster(**arguments):
    return Cluster(**arguments)  # nothing is started


def shown(**arguments):
    bar = Progress(**arguments, disable=True)
    return bar(Record(iteration=1, loss=0.5))


def saved(folder, keep=2, **unknown):
    checkpoint = Checkpoint(folder, keep, **unknown)
    checkpoint.save({"iteration": 3})
    return checkpoint.load()


def temporary():
    folder = tempfile.mkdtemp(dir=saved.root)
    return {"folder": folder}


STARTS_2 = vectors(np.array([-1.2, 1.0]), lists=FINE, single=False)
STARTS_2 = relabelled(STARTS_2, EITHER, lambda v: v.dtype.kind in "bOU" or v.dtype == np.float16)
LATER = {
    "certify": Target(
        certify,
        lambda: {"objective": problems.quartic_saddle(), "w": np.array([0.0, 1.0]), "seed": 0},
        {
            "objective": wrong(None, 3, "abc", loss, NET, DATA, object()),
            "w": vectors(np.array([0.0, 1.0])),
            "gradient_tol": numbers(1e-4),
            "curvature": wrong("unknown", "", None, 3, []) + fine("hessian"),
            "tol": numbers(1e-4, optional=True),
            "failure": numbers(1e-3, low=0.0, high=1.0, closed=False) + wrong(1.0, 1, 0),
            "seed": seeds(optional=True),
            "max_products": counts(10),
        },
        judged_at,
    ),
    "certify_operator": Target(
        certify_operator,
        lambda: {"A": HAND, "seed": 0},
        {
            "A": matrices(A, lists=FINE, sparse_too=FINE) + fine(HAND, -HAND, np.zeros((3, 3))),
            "tol": numbers(1e-4, optional=True),
            "failure": numbers(1e-3, low=0.0, high=1.0, closed=False) + wrong(1.0, 1, 0),
            "seed": seeds(optional=True),
            "max_products": counts(10),
        },
        judged,
        {"A": "A|b"},
    ),
    "Progress": Target(
        shown,
        lambda: {"total": 3},
        {"total": counts(3, zero=True), "callback": functions(lambda record: False, optional=True)},
        lambda result, given: close(result, False),
    ),
    "Cluster": Target(
        cluster,
        lambda: {},
        {
            "n": counts(2, optional=True),
            "threads": counts(1),
            "timeout": numbers(30.0, closed=False),
            "deadline": numbers(30.0, closed=False, optional=True),
        },
        lambda result, given: None,
    ),
    "set_threads": Target(
        lambda n: (hfnb.set_threads(n), hfnb.set_threads(None)),
        lambda: {},
        {"n": counts(1, optional=True)},
        lambda result, given: None,
    ),
    "scipy_method": Target(
        rosenbrock,
        lambda: {},
        {
            "x0": without(STARTS_2, made_plain_by_scipy),
            "maxiter": without(counts(3, zero=True, optional=True), whole),  # SciPy takes 100.0
            "gtol": numbers(1e-4, optional=True),
            "damping": finite(0.5, optional=True),
            "seed": seeds(),
            "jac": without(functions(rosen_der), lambda v: v is True or np.ndim(v)),  # SciPy's own cases
            "hessp": functions(rosen_hess_prod),
        },
        minimized,
        {"x0": "x0|w0", "maxiter": "maxiter|max_iter", "gtol": "gtol|tol", "hessp": "hess|hessp"},
    ),
    "scipy_method(optimizer)": Target(
        lambda optimizer: minimize(
            rosen,
            [-1.2, 1.0],
            jac=rosen_der,
            hess=rosen_hess,
            method=hfnb.scipy_method(optimizer),
        ),
        lambda: {},
        {"optimizer": functions(hfnb.hessian_free)},
        minimized,
    ),
    "Checkpoint": Target(
        saved,
        temporary,
        {"keep": counts(2), "folder": wrong(None, 3, [], {}, object(), True, 1.5, identity)},
        lambda result, given: np.testing.assert_equal(result, {"iteration": 3}),
    ),
}
TARGETS |= LATER


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_answered_wrongly_or_refused_obscurely(name, tmp_path):
    saved.root = tmp_path
    findings = TARGETS[name].findings()
    assert not findings, f"{len(findings)} of {TARGETS[name].size} inputs:\n" + "\n".join(findings)


def test_these_are_many_inputs():
    assert sum(target.size for target in TARGETS.values()) >= 1500


def test_every_public_callable_has_its_inputs():
    """What is added to the public surface is added here, or is here said to take no arguments of its own."""
    tried = {part for name in TARGETS for part in name.replace("(", ".").replace("[", ".").split(".")}
    plain = {
        "Certificate",
        "CorruptCheckpoint",
        "EngineFailure",
        "EngineLost",
        "FolderInUse",
        "Record",
        "KrylovResult",
        "LanczosResult",
        "NonFiniteProduct",
        "LinearSystem",
    }
    plain |= {
        "quartic_saddle",
        "monkey_saddle",
        "hard_case",
        "Problem",
        "Tridiagonal",
        "newton_mr",
        "System",
        "Monitor",
        "Status",
        "option_names",
    }
    for module in (hfnb, krylov, problems, checks):
        names = getattr(
            module,
            "__all__",
            [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__],
        )
        public = {n for n in names if callable(getattr(module, n)) and not n.startswith("_")}
        assert public - tried - plain == set()
