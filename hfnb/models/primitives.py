"""Autograd primitives that keep the tape of a network short.

A taped reverse-over-reverse product replays each primitive of the forward pass, of the gradient, and of
nothing else. So each primitive here does one matrix product or one pass over the activations, reads its
weights straight from the flat parameter vector, and has derivatives that are primitives of the same family:
exact at any order, and as few as the algebra allows. Derivations: Pearlmutter (1994), Schraudolph (2002).
"""

from collections.abc import Callable
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
from autograd.extend import SparseObject, VSpace, defjvp, defvjp, primitive, vspace


@dataclass(frozen=True)
class Layer:
    """Where the (m, n) weights and n biases of a layer lie in the flat parameter vector."""

    start: int
    m: int
    n: int

    @property
    def middle(self) -> int:
        """Where the weights end and the biases begin."""
        return self.start + self.m * self.n

    @property
    def stop(self) -> int:
        """Where the layer ends."""
        return self.middle + self.n

    def weights(self, w: np.ndarray) -> np.ndarray:
        """Return the (m, n) view of the weights in w."""
        return w[self.start : self.middle].reshape(self.m, self.n)

    def biases(self, w: np.ndarray) -> np.ndarray:
        """Return the (n,) view of the biases in w."""
        return w[self.middle : self.stop]


# --- one layer: z = a W + b, and the two products that its derivatives need ---------------------------------


@primitive
def affine(w: np.ndarray, a: np.ndarray, layer: Layer, bias: bool = True) -> np.ndarray:
    """Return a W + b, (batch, n), from activations a (batch, m); without b if not ``bias``."""
    z = a @ layer.weights(w)
    if bias:
        z += layer.biases(w)
    return z


@primitive
def backward(w: np.ndarray, d: np.ndarray, layer: Layer) -> np.ndarray:
    """Return d Wᵀ, (batch, m), from d (batch, n): how a sensitivity moves back through the layer."""
    return d @ layer.weights(w).T


@primitive
def outer(a: np.ndarray, d: np.ndarray, layer: Layer, space: VSpace, bias: bool = True) -> SparseObject:
    """Return aᵀd (and the sum of d, for the biases) as a sum into the layer's place in the flat vector."""

    def add_to(total):
        layer.weights(total)[...] += a.T @ d
        if bias:
            layer.biases(total)[...] += d.sum(axis=0)
        return total

    return SparseObject(space, add_to)


defvjp(
    affine,
    lambda z, w, a, layer, bias=True: lambda g: outer(a, g, layer, vspace(w), bias),
    lambda z, w, a, layer, bias=True: lambda g: backward(w, g, layer),
)
defvjp(
    backward,
    lambda c, w, d, layer: lambda g: outer(g, d, layer, vspace(w), False),
    lambda c, w, d, layer: lambda g: affine(w, g, layer, False),
)
defvjp(
    outer,
    lambda ans, a, d, layer, space, bias=True: lambda v: backward(v, d, layer),
    lambda ans, a, d, layer, space, bias=True: lambda v: affine(v, a, layer, bias),
)
defjvp(
    affine,
    lambda dw, z, w, a, layer, bias=True: affine(dw, a, layer, bias),
    lambda da, z, w, a, layer, bias=True: affine(w, da, layer, False),
)
defjvp(
    backward,
    lambda dw, c, w, d, layer: backward(dw, d, layer),
    lambda dd, c, w, d, layer: backward(w, dd, layer),
)
defjvp(
    outer,
    lambda da, ans, a, d, layer, space, bias=True: outer(da, d, layer, space, False),
    lambda dd, ans, a, d, layer, space, bias=True: outer(a, dd, layer, space, bias),
)


# --- activations: the derivative is a function of the output, so nothing is computed twice ------------------


def _sigmoid(z, out=None):
    out = np.multiply(z, 0.5, out=out)
    np.tanh(out, out=out)
    out += 1
    out *= 0.5
    return out


# name: (φ(z), φ' as a function of a = φ(z), dφ'/da); φ writes to ``out`` if it is given one
ACTIVATIONS: dict[str, tuple[Callable, Callable, Callable]] = {
    "tanh": (np.tanh, lambda a: 1.0 - a * a, lambda a: -2.0 * a),
    "sigmoid": (_sigmoid, lambda a: a * (1.0 - a), lambda a: 1.0 - 2.0 * a),
    "relu": (
        lambda z, out=None: np.maximum(z, 0, out=out),
        lambda a: (a > 0).astype(a.dtype),
        lambda a: 0.0 * a,
    ),
    "softplus": (
        lambda z, out=None: np.logaddexp(z, z.dtype.type(0), out=out),
        lambda a: -anp.expm1(-a),
        lambda a: anp.exp(-a),
    ),
}


@primitive
def activate(z: np.ndarray, name: str) -> np.ndarray:
    """Return φ(z) for the activation φ of that name."""
    return ACTIVATIONS[name][0](z)


@primitive
def slope(a: np.ndarray, name: str) -> np.ndarray:
    """Return φ'(z) from a = φ(z)."""
    return ACTIVATIONS[name][1](a)


defvjp(activate, lambda a, z, name: lambda g: g * slope(a, name))
defvjp(slope, lambda s, a, name: lambda g: g * ACTIVATIONS[name][2](a))
defjvp(activate, lambda dz, a, z, name: dz * slope(a, name))
defjvp(slope, lambda da, s, a, name: da * ACTIVATIONS[name][2](a))
