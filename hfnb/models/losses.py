"""Losses of a network's outputs as autograd primitives: means over the batch, exact at any order."""

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive

from hfnb.validation import check_plain_array, shown


@primitive
def softmax(z: np.ndarray) -> np.ndarray:
    """Return the class probabilities exp(z) / Σ exp(z), row by row."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


@primitive
def minus_labels(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return p with 1 taken off at each row's label: p − onehot(labels), never building the latter."""
    r = p.copy()
    r[np.arange(len(p)), labels] -= 1.0
    return r


@primitive
def cross_entropy(z: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of −log softmax(z)[label], labels (batch,) of integers."""
    top = z.max(axis=1)
    log_sum = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top
    return np.mean(log_sum - z[np.arange(len(z)), labels], dtype=np.float64)


@primitive
def squared_error(z: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean over the batch of ½‖z − target‖²."""
    r = z - targets
    return 0.5 * np.einsum("ij,ij->", r, r, dtype=np.float64) / len(z)


def _softmax_product(p, g):
    pg = p * g
    return pg - p * anp.sum(pg, axis=1, keepdims=True)


@primitive
def cast(g: float, dtype: np.dtype) -> np.floating:
    """Return the scalar in the given precision: a float64 one would lift float32 sensitivities to float64."""
    return dtype.type(g)


def _per_sample(g, z):
    return cast(g / len(z), z.dtype)


defvjp(cast, lambda ans, g, dtype: lambda h: cast(h, np.dtype(np.float64)))
defvjp(softmax, lambda p, z: lambda g: _softmax_product(p, g))
defvjp(minus_labels, lambda r, p, labels: lambda g: g, None)
defvjp(
    cross_entropy,
    lambda loss, z, labels: lambda g: minus_labels(softmax(z), labels) * _per_sample(g, z),
    None,
)
defvjp(squared_error, lambda loss, z, targets: lambda g: (z - targets) * _per_sample(g, z), None)
defjvp(cast, lambda dg, ans, g, dtype: cast(dg, dtype))
defjvp(softmax, lambda dz, p, z: _softmax_product(p, dz))
defjvp(minus_labels, lambda dp, r, p, labels: dp, None)
defjvp(
    cross_entropy,
    lambda dz, loss, z, labels: anp.sum(dz * minus_labels(softmax(z), labels)) / len(z),
    None,
)
defjvp(squared_error, lambda dz, loss, z, targets: anp.sum(dz * (z - targets)) / len(z), None)

LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def check_targets(name: str, loss: str, outputs: tuple[int, int], Y) -> None:
    """Refuse targets of ``outputs`` of another shape (batch, k): a negative label is read from the end."""
    check_plain_array(name, Y)
    shape, kind = getattr(Y, "shape", None), getattr(getattr(Y, "dtype", None), "kind", "none")
    batch, k = outputs
    if shape is None:
        raise TypeError(f"{name}: expected an array for the loss {loss}, got {shown(Y)}")
    if loss == "cross_entropy":
        if len(shape) != 1 or kind not in "iu":
            raise ValueError(
                f"{name}: expected integer class labels (n,) for the loss cross_entropy, got {shown(Y)}"
            )
    elif kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers for the loss squared_error, got {shown(Y)}")
    expected = (batch,) if loss == "cross_entropy" else (batch, k)
    if shape != expected:
        raise ValueError(f"{name}: expected shape {expected} for the loss {loss}, got {shape}")
    if loss == "cross_entropy" and batch and not 0 <= Y.min() <= Y.max() < k:
        wrong = Y.min() if Y.min() < 0 else Y.max()
        raise ValueError(f"{name}: expected labels from 0 and below {k}, the number of outputs, got {wrong}")


def _cross_entropy_parts(z, labels):
    top = z.max(axis=1, keepdims=True)
    p = np.exp(z - top)
    sums = p.sum(axis=1, keepdims=True)
    p /= sums
    rows = np.arange(len(z))
    loss = np.sum((np.log(sums) + top)[:, 0] - z[rows, labels], dtype=np.float64)
    residual = p.copy()
    residual[rows, labels] -= 1

    def product(v):
        out = v - np.einsum("ij,ij->i", p, v)[:, None]
        out *= p
        return out

    return loss, residual, product


def _squared_error_parts(z, targets):
    residual = z - targets
    return 0.5 * np.einsum("ij,ij->", residual, residual, dtype=np.float64), residual, lambda v: v


# name: (z, Y) -> sum of the losses, its gradient by z, and the product with its Hessian by z
PARTS = {"cross_entropy": _cross_entropy_parts, "squared_error": _squared_error_parts}
