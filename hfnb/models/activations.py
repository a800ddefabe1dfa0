"""Activation functions, by name: each in autograd, and as values and derivatives for back-propagation.

To add one, add an entry to `ACTIVATIONS`; the tests compare its derivatives with those of autograd.
"""

from collections.abc import Callable
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np


class Activation(NamedTuple):
    """One activation function φ, elementwise: for autograd and for back-propagation.

    Attributes
    ----------
    function : callable
        ``function(z)``: φ(z) in ``autograd.numpy``, which differentiates it.
    value : callable
        ``value(z, out=None)``: φ(z) in NumPy; ``out`` may be z itself.
    slope : callable
        ``slope(a)``: φ'(z) as a function of a = φ(z), so that z need not be kept.
    slope_derivative : callable
        ``slope_derivative(a)``: the derivative of ``slope`` with respect to a; φ''(z) is its product with
        ``slope(a)``.
    """

    function: Callable[[np.ndarray], np.ndarray]
    value: Callable[..., np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    slope_derivative: Callable[[np.ndarray], np.ndarray]


def _sigmoid(z: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return ½ (1 + tanh(z / 2)), which equals 1 / (1 + exp(−z)) and cannot overflow."""
    out = np.multiply(z, 0.5, out=out)
    np.tanh(out, out=out)
    out += 1
    out *= 0.5
    return out


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(anp.tanh, np.tanh, lambda a: 1.0 - a * a, lambda a: -2.0 * a),
    "sigmoid": Activation(
        lambda z: 0.5 * (1.0 + anp.tanh(0.5 * z)),
        _sigmoid,
        lambda a: a * (1.0 - a),
        lambda a: 1.0 - 2.0 * a,
    ),
    # The derivative at 0 is 0 here. Autograd's derivative of clip is 0 there, too; that of maximum is ½.
    "relu": Activation(
        lambda z: anp.clip(z, 0.0, np.inf),
        lambda z, out=None: np.maximum(z, 0, out=out),
        lambda a: (a > 0).astype(a.dtype),
        lambda a: 0.0 * a,
    ),
    "softplus": Activation(
        lambda z: anp.logaddexp(z, 0.0),
        lambda z, out=None: np.logaddexp(z, z.dtype.type(0), out=out),
        lambda a: -np.expm1(-a),
        lambda a: np.exp(-a),
    ),
}
