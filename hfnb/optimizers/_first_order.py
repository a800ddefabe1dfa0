"""First-order methods on the same objectives: SGD, momentum, Nesterov's acceleration, Adam."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.krylov import norm
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.objectives.sampling import Sample
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.history import Record, Recorder, Status, watched
from hfnb.optimizers.options import check_run
from hfnb.validation import check_choice, check_fraction, check_nonnegative, check_positive_int, renamed

# Update: a function (w, g, rate, t, memory) that changes w in place by a step with a learning rate,
# in the precision of w. The dictionary memory keeps the moments of the update from one step to the next; t is
# the number of steps since it was empty.
Memory: TypeAlias = dict[str, np.ndarray]
Update: TypeAlias = Callable[[np.ndarray, np.ndarray, np.floating, int, Memory], None]


def sgd(momentum: float = 0.9) -> Update:
    """Return the update w ← w − ηg of stochastic gradient descent (Robbins & Monro 1951)."""

    def update(w: np.ndarray, g: np.ndarray, rate: np.floating, t: int, memory: Memory) -> None:
        w -= rate * g

    return update


def heavy_ball(momentum: float = 0.9) -> Update:
    """Return Polyak's update v ← μv − ηg, w ← w + v (1964)."""

    def update(w: np.ndarray, g: np.ndarray, rate: np.floating, t: int, memory: Memory) -> None:
        v = memory.setdefault("v", np.zeros_like(w))
        v *= momentum
        v -= rate * g
        w += v

    return update


def nesterov(momentum: float = 0.9) -> Update:
    """Return Nesterov's update v ← μv − ηg, w ← w + μv − ηg, in the form of Sutskever et al. (2013)."""

    def update(w: np.ndarray, g: np.ndarray, rate: np.floating, t: int, memory: Memory) -> None:
        v = memory.setdefault("v", np.zeros_like(w))
        step = rate * g
        v *= momentum
        v -= step
        w += momentum * v - step

    return update


def adam(momentum: float = 0.9, decay: float = 0.999, epsilon: float = 1e-8) -> Update:
    """Return Adam's update w ← w − η m̂ / (√v̂ + ε) with bias-corrected moments (Kingma & Ba 2015)."""

    def update(w: np.ndarray, g: np.ndarray, rate: np.floating, t: int, memory: Memory) -> None:
        m = memory.setdefault("m", np.zeros_like(w))
        v = memory.setdefault("v", np.zeros_like(w))
        m += (1 - momentum) * (g - m)
        v += (1 - decay) * (g * g - v)
        scale = rate * np.sqrt(1 - decay ** (t + 1)) / (1 - momentum ** (t + 1))
        w -= w.dtype.type(scale) * m / (np.sqrt(v) + w.dtype.type(epsilon * np.sqrt(1 - decay ** (t + 1))))

    return update


METHODS = {"sgd": sgd, "momentum": heavy_ball, "nesterov": nesterov, "adam": adam}
# The arrays, each as long as w, that an update keeps in its memory.
MOMENTS = {"sgd": (), "momentum": ("v",), "nesterov": ("v",), "adam": ("m", "v")}


@renamed(batch="batch_size", resume="checkpoint")
@watched
@resumable
def first_order(
    objective: ObjectiveLike,
    w0: np.ndarray,
    *,
    method: str = "sgd",
    learning_rate: float | Callable[[int], float] = 0.1,
    batch_size: int | None = None,
    momentum: float = 0.9,
    max_iter: int = 10,
    tol: float = 0.0,
    seed: int = 0,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: CheckpointLike | str | os.PathLike[str] | None = None,
) -> OptimizeResult:
    """Minimize an objective by steps along the gradients of mini-batches; an iteration is one epoch.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What is minimized.
    w0 : ndarray, shape (p,)
        The start, of float32 or float64.
    method : {"sgd", "momentum", "nesterov", "adam"}
        How a gradient becomes a step.
    learning_rate : float or callable
        η, or a schedule: a function of the number t = 0, 1, … of the step.
    batch_size : int, optional
        Samples of a step, none drawn twice within an epoch; 64 by default, or all if there are fewer.
    momentum : float
        The fraction of the last step that "momentum" and "nesterov" keep, and the decay rate of Adam's mean
        gradient; in [0, 1).
    max_iter : int
        The maximum number of epochs.
    tol : float
        The run ends, with success, when the norm of the gradient over all samples is at most this.
    seed : int
        Seed of the mini-batches.
    callback : callable, optional
        ``callback(record)`` after each epoch; any true value that it returns stops the run.
    checkpoint : Checkpoint or path, optional
        The run is saved to it after each epoch, and continues from it if it holds a state.

    Returns
    -------
    OptimizeResult
        The fields of the result of `hessian_free`; success means that the gradient norm is at most tol. After
        every epoch the loss and the norm of the gradient over all samples are recorded; these evaluations are
        not counted as costs of the method.

    Raises
    ------
    ValueError
        If the method is unknown, a number is out of range, or the start is not finite.
    TypeError
        If an argument is of another kind.

    Examples
    --------
    >>> from hfnb import Dataset, Objective, models
    >>> net = models.mlp([2, 2])
    >>> objective = Objective(net, Dataset(np.eye(2), np.array([0, 1])))
    >>> first_order(objective, net.init(0), method="adam", batch_size=2, max_iter=100).fun < 0.1
    True
    """
    check_choice("method", method, METHODS)
    check_run(objective, w0, max_iter=max_iter, tol=tol, seed=seed, callback=callback, checkpoint=checkpoint)
    batch_size = check_positive_int(
        "batch_size", min(64, objective.n) if batch_size is None else batch_size, at_most=objective.n
    )
    momentum, tol = check_fraction("momentum", momentum, below_one=True), float(tol)
    rate = schedule(learning_rate)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved["history"] if saved else None)
    w, memory = (saved["w"], saved["memory"]) if saved else (np.array(w0), {})
    update = METHODS[method](momentum)
    loss, norm = _measure(objective, recorder, w)
    if not np.isfinite(loss + norm):
        raise ValueError("w0: expected a start with finite loss and gradient, got NaN or infinity")
    stop = not saved and recorder.add(w, iteration=0, loss=loss, gradient_norm=norm)
    steps = objective.n // batch_size

    while not (stop or norm <= tol or not np.isfinite(loss) or recorder.history[-1].iteration >= max_iter):
        epoch = recorder.history[-1].iteration
        rates = map(rate, range(epoch * steps, (epoch + 1) * steps))
        take_steps(objective, w, update, memory, rates, batch_size, seed, first=epoch * steps)
        loss, norm = _measure(objective, recorder, w)
        stop = recorder.add(w, iteration=epoch + 1, loss=loss, gradient_norm=norm)
        if store:
            store.save({"w": w, "memory": memory, "history": recorder.history})

    if norm <= tol:
        ending = Status.SMALL_GRADIENT, f"gradient norm {norm:.1e} <= tol = {tol:.1e}"
    elif stop:
        ending = Status.CALLBACK, "stopped by the callback"
    elif not np.isfinite(loss):
        ending = Status.DIVERGED, "diverged: the loss is not finite"
    else:
        ending = Status.MAX_ITER, f"max_iter = {max_iter} epochs reached"
    return recorder.result(w, *ending)


def take_steps(
    objective: ObjectiveLike,
    w: np.ndarray,
    update: Update,
    memory: Memory,
    rates: Iterable[float],
    batch_size: int,
    seed: int,
    *,
    first: int,
    since: int = 0,
) -> None:
    """Change parameters in place by steps along the gradients of mini-batches, one for each learning rate.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What is minimized; each step evaluates one gradient, and nothing else is evaluated.
    w : ndarray, shape (p,)
        The parameters, which are changed.
    update : callable
        What a value of `METHODS` returns.
    memory : dict
        The moments of the update, which are changed; empty before the first step.
    rates : iterable of float
        The learning rates.
    batch_size, seed : int
        Samples of a mini-batch, and the seed by which they are drawn.
    first : int
        The number of the first step. Step t draws mini-batch t.
    since : int
        The number of the step before which the memory was empty.
    """
    for t, rate in enumerate(rates, first):
        g = objective.value_and_gradient(w, Sample(batch_size, seed, t))[1]
        update(w, g, w.dtype.type(rate), t - since, memory)


def schedule(learning_rate: float | Callable[[int], float]) -> Callable[[int], float]:
    """Return the function t ↦ learning rate, which checks each of its values."""
    if not callable(learning_rate):
        constant = check_nonnegative("learning_rate", learning_rate, finite=True)
        return lambda t: constant
    return lambda t: check_nonnegative(f"learning_rate({t})", learning_rate(t), finite=True)


def _measure(objective: ObjectiveLike, recorder: Recorder, w: np.ndarray) -> tuple[float, float]:
    """Return the loss and gradient norm over all samples, uncounted: the method itself does not need them."""
    with recorder.uncounted():
        loss, g = objective.value_and_gradient(w)
    return loss, norm(g)
