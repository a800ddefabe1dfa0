"""Gradients and curvature products made in each way: a function from a `Case` to what is timed.

A way returns (call, flat): ``call()`` makes one gradient or product and waits for it, ``flat`` turns what it
returned into a vector in the order of ours. Libraries are imported where they are used: each way runs in a
process of its own, since thread pools of two libraries in one process disturb each other.
"""

from typing import NamedTuple

import numpy as np

from hfnb import models
from hfnb.datasets import Dataset
from hfnb.objectives import Objective
from hfnb.objectives.evaluator import CHUNK

NETWORKS = {
    "784-400-150-10": lambda: models.mlp([784, 400, 150, 10]),
    "360-512-512-183": lambda: models.mlp([360, 512, 512, 183]),
    "autoencoder": lambda: models.autoencoder([784, 1000, 500, 250, 30]),
}
# Products a W, d Wᵀ and aᵀd for each layer above the first, which needs one a W and one aᵀd alone.
PRODUCTS = {"gradient": (1, 1, 1), "hessian": (2, 2, 2), "gauss-newton": (2, 1, 1)}


class Case(NamedTuple):
    """A network at w, a vector v, a batch, and what to make of them."""

    net: models.Network
    w: np.ndarray
    v: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    what: str

    @classmethod
    def of(cls, network: str, batch: int, what: str, dtype: str) -> "Case":
        """Return the case with random numbers in place of data: the same for every way."""
        net, random = NETWORKS[network](), np.random.default_rng(batch)
        X = random.random((batch, net.sizes[0]), np.float32).astype(dtype, copy=False)
        Y = X if net.loss_name == "squared_error" else random.integers(net.sizes[-1], size=batch)
        v = random.standard_normal(net.size).astype(dtype)
        return cls(net, net.init(0, dtype=dtype), v, X, Y, what)

    def parts(self, vector: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the (weights, biases) of each layer in a flat vector."""
        return [(layer.weights(vector), layer.biases(vector)) for layer in self.net.layers]


def joined(parts):
    """Return the flat vector of arrays, layer by layer."""
    return np.concatenate([np.ravel(each) for pair in parts for each in pair])


def ours(case, memory=None):
    """What a user gets without any option."""
    objective = Objective(case.net, Dataset(case.X, case.Y), memory=memory)
    if case.what == "gradient":
        return lambda: objective.value_and_gradient(case.w)[1], np.asarray
    product = objective.curvature(case.w, case.what)
    return lambda: product @ case.v, np.asarray


def nothing_kept(case):
    return ours(case, memory=0)


def gemm(case, chunk=None):
    """The matrix products alone, in memory made beforehand: no way is faster with this BLAS."""
    random, rows, calls = np.random.default_rng(0), chunk or len(case.X), []
    below = case.X
    for number, layer in enumerate(case.net.layers):
        W = case.net.layers[number].weights(case.w)
        d = random.random((len(below), layer.n), np.float32).astype(case.w.dtype)
        z, u, G = (np.empty(shape, case.w.dtype) for shape in ((rows, layer.n), (rows, layer.m), W.shape))
        calls.append((PRODUCTS[case.what] if number else (1, 0, 1), below, d, W, z, u, G))
        below = d

    def call():
        for start in range(0, len(case.X), rows):
            for (forward, back, outer), below, d, W, z, u, G in calls:
                a, delta = below[start : start + rows], d[start : start + rows]
                for _ in range(forward):
                    np.matmul(a, W, out=z[: len(a)])
                for _ in range(back):
                    np.matmul(delta, W.T, out=u[: len(a)])
                for _ in range(outer):
                    np.matmul(a.T, delta, out=G)

    return call, lambda _: None


def gemm_chunks(case):
    return gemm(case, CHUNK)


def plain_autograd(case):
    """What one writes first: slices of the flat vector, and autograd's own operators taped once."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.differential_operators import make_hvp

    from hfnb.objectives.curvature import gauss_newton_product

    net = case.net
    act = {"tanh": anp.tanh, "sigmoid": lambda z: 1 / (1 + anp.exp(-z)), "linear": lambda z: z}

    def outputs(w):
        a, start = case.X, 0
        for m, n, name in zip(net.sizes, net.sizes[1:], net.activations, strict=False):
            W, b = w[start : start + m * n], w[start + m * n : start + m * n + n]
            a, start = act[name](anp.dot(a, anp.reshape(W, (m, n))) + b), start + m * n + n
        return a

    def output_loss(z):
        if net.loss_name == "squared_error":
            return 0.5 * anp.sum((z - case.Y) ** 2) / len(z)
        top = anp.max(z, axis=1, keepdims=True)
        log_sum = anp.log(anp.sum(anp.exp(z - top), axis=1)) + top[:, 0]
        return anp.mean(log_sum - z[anp.arange(len(z)), case.Y])

    def loss(w):
        return output_loss(outputs(w))

    if case.what == "gradient":
        gradient = value_and_grad(loss)
        return lambda: gradient(case.w)[1], np.asarray
    if case.what == "gauss-newton":
        product = gauss_newton_product(outputs, output_loss, case.w)
    else:
        product = make_hvp(loss)(case.w)[0]
    return lambda: product(case.v), np.asarray
