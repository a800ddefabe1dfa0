"""First-order methods on the same objectives: SGD, momentum, Nesterov's acceleration, Adam."""

import os
from collections.abc import Callable
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

# Rate: the learning rate η of step t, in the precision of w. Update: a function (w, g, t, memory) that
# changes w in place; the dictionary memory keeps its arrays from one step to the next.
Rate: TypeAlias = Callable[[int], np.floating]
Memory: TypeAlias = dict[str, np.ndarray]
Update: TypeAlias = Callable[[np.ndarray, np.ndarray, int, Memory], None]


def sgd(learning_rate: Rate, momentum: float = 0.9) -> Update:
    """Return the update w ← w − ηg of stochastic gradient descent (Robbins & Monro 1951)."""

    def update(w: np.ndarray, g: np.ndarray, t: int, memory: Memory) -> None:
        w -= learning_rate(t) * g

    return update


def heavy_ball(learning_rate: Rate, momentum: float = 0.9) -> Update:
    """Return Polyak's update v ← μv − ηg, w ← w + v (1964)."""

    def update(w: np.ndarray, g: np.ndarray, t: int, memory: Memory) -> None:
        v = memory.setdefault("v", np.zeros_like(w))
        v *= momentum
        v -= learning_rate(t) * g
        w += v

    return update


def nesterov(learning_rate: Rate, momentum: float = 0.9) -> Update:
    """Return Nesterov's update v ← μv − ηg, w ← w + μv − ηg, in the form of Sutskever et al. (2013)."""

    def update(w: np.ndarray, g: np.ndarray, t: int, memory: Memory) -> None:
        v = memory.setdefault("v", np.zeros_like(w))
        step = learning_rate(t) * g
        v *= momentum
        v -= step
        w += momentum * v - step

    return update


def adam(learning_rate: Rate, momentum: float = 0.9, decay: float = 0.999, epsilon: float = 1e-8) -> Update:
    """Return Adam's update w ← w − η m̂ / (√v̂ + ε) with bias-corrected moments (Kingma & Ba 2015)."""

    def update(w: np.ndarray, g: np.ndarray, t: int, memory: Memory) -> None:
        m = memory.setdefault("m", np.zeros_like(w))
        v = memory.setdefault("v", np.zeros_like(w))
        m += (1 - momentum) * (g - m)
        v += (1 - decay) * (g * g - v)
        scale = learning_rate(t) * np.sqrt(1 - decay ** (t + 1)) / (1 - momentum ** (t + 1))
        w -= w.dtype.type(scale) * m / (np.sqrt(v) + w.dtype.type(epsilon * np.sqrt(1 - decay ** (t + 1))))

    return update


METHODS = {"sgd": sgd, "momentum": heavy_ball, "nesterov": nesterov, "adam": adam}


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
    rate = _schedule(learning_rate)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved["history"] if saved else None)
    w, memory = (saved["w"], saved["memory"]) if saved else (np.array(w0), {})
    update = METHODS[method](lambda t: w.dtype.type(rate(t)), momentum)
    loss, norm = _measure(objective, recorder, w)
    if not np.isfinite(loss + norm):
        raise ValueError("w0: expected a start with finite loss and gradient, got NaN or infinity")
    stop = not saved and recorder.add(w, iteration=0, loss=loss, gradient_norm=norm)
    steps = objective.n // batch_size

    while not (stop or norm <= tol or not np.isfinite(loss) or recorder.history[-1].iteration >= max_iter):
        epoch = recorder.history[-1].iteration
        for t in range(epoch * steps, (epoch + 1) * steps):
            update(w, objective.value_and_gradient(w, Sample(batch_size, seed, t))[1], t, memory)
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


def _schedule(learning_rate: float | Callable[[int], float]) -> Callable[[int], float]:
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
