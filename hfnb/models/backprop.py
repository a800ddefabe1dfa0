"""Back-propagation through a fully connected network, written out: loss, gradient and curvature products.

The same numbers as reverse mode over `hfnb.models.primitives` gives, with no tape: here it is known which
arrays are no longer needed, so that passes over activations work in place, in memory that stays in the
cache. A curvature product takes 2 matrix products for the first layer and then 6 (Hessian) or 4
(Gauss–Newton) for each.

Back-propagation: Rumelhart, Hinton & Williams (1986). R{x} is the derivative of x along v: Pearlmutter, "Fast
exact multiplication by the Hessian" (1994).
"""

import numpy as np

from hfnb.models.losses import LOSSES, PARTS
from hfnb.models.primitives import ACTIVATIONS


class Workspace:
    """Arrays that each batch of up to ``rows`` samples is worked through in: one workspace a thread."""

    def __init__(self, net, rows: int, dtype):
        # of each layer: u beside z or R{z}, which the backward pass of a Hessian product needs together
        self.pairs = [np.empty((2, rows, n), dtype) for n in net.sizes[1:]]
        self.u, self.z = ([pair[k] for pair in self.pairs] for k in (0, 1))
        self.t = [np.empty((rows, n), dtype) for n in net.sizes[1:]]
        self.W = [np.empty((layer.m, layer.n), dtype) for layer in net.layers]
        self.spare: Linearized | None = None


def forward(net, w: np.ndarray, X: np.ndarray, out: list[np.ndarray]) -> list[np.ndarray]:
    """Return the activations [X, a_1, …, a_L], all but X in the arrays ``out`` of as many rows or more."""
    activations = [X]
    for layer, name, z in zip(net.layers, net.activations, out, strict=True):
        a = np.matmul(activations[-1], layer.weights(w), out=z[: len(X)])
        a += layer.biases(w)
        activations.append(a if name == "linear" else ACTIVATIONS[name][0](a, out=a))
    return activations


def add_gradient(
    net, w: np.ndarray, X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Workspace, first: bool = False
) -> float:
    """Add the gradient of the summed loss to ``total``, (p,), or be the ``first`` there; return that loss."""
    activations = forward(net, w, X, work.z)
    loss, u, _ = PARTS[net.loss_name](activations[-1], Y)
    for number in reversed(range(len(net.layers))):  # u = ∂loss/∂a, d = ∂loss/∂z
        name, d = net.activations[number], u
        if name != "linear":
            d = ACTIVATIONS[name][1](activations[number + 1])
            d *= u
        _add_layer(net, number, activations[number], d, total, work, first)
        if number:
            u = np.matmul(d, net.layers[number].weights(w).T, out=work.u[number - 1][: len(d)])
    return float(loss)


def _add_layer(net, number, a, d, total, work, first):
    """Add aᵀd and the sum of d to the layer's place in ``total``, or put them there."""
    layer = net.layers[number]
    if first:
        np.matmul(a.T, d, out=layer.weights(total))
        d.sum(axis=0, out=layer.biases(total))
    else:
        _add_weights(net, number, a, d, total, work)
        layer.biases(total)[...] += d.sum(axis=0)


def _add_weights(net, number, a, d, total, work):
    """Add aᵀd to the weights' place in ``total``."""
    weights = net.layers[number].weights(total)
    weights += np.matmul(a.T, d, out=work.W[number])


class Linearized:
    """What products at one w on one batch have in common; of the Hessian or of the Gauss–Newton matrix."""

    def __init__(self, net, rows: int, dtype, hessian: bool):
        self.net, self.hessian = net, hessian
        self.a = [np.empty((rows, n), dtype) for n in net.sizes[1:]]
        kinds = 2 if hessian else 1  # φ' and u φ'', by which R{u} and R{a} give R{d}
        self.factors = [
            None if name == "linear" else np.empty((kinds, rows, n), dtype)
            for n, name in zip(net.sizes[1:], net.activations, strict=True)
        ]
        self.deltas = [np.empty((rows, n), dtype) for n in net.sizes[1:]] if hessian else []

    def at(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: Workspace) -> "Linearized":
        """Linearize at w, which must not change from then on, on the batch (X, Y), in its arrays."""
        self.w = w
        self.activations = forward(self.net, w, X, self.a)
        _, u, self.loss_product = PARTS[self.net.loss_name](self.a[-1], Y)
        for a, name, factors in zip(self.a, self.net.activations, self.factors, strict=True):
            if factors is not None:
                factors[0] = ACTIVATIONS[name][1](a)
        for number in reversed(range(len(self.net.layers))) if self.hessian else ():
            name, factors, d = self.net.activations[number], self.factors[number], self.deltas[number]
            if factors is None:
                d[...] = u
            else:
                np.multiply(u, factors[0], out=d)
                np.multiply(u, ACTIVATIONS[name][2](self.a[number]), out=factors[1])
            if number:
                u = np.matmul(d, self.net.layers[number].weights(w).T, out=work.u[number - 1][: len(d)])
        return self

    def add_product(self, v: np.ndarray, total: np.ndarray, work: Workspace, first: bool = False) -> None:
        """Add the product of the batch's summed curvature with v, (p,), to ``total``, or be the ``first``."""
        Ra: list[np.ndarray] = []
        rows = len(self.activations[0])
        for number, layer in enumerate(self.net.layers):
            Rz = np.matmul(self.activations[number], layer.weights(v), out=work.z[number][:rows])
            if number:
                Rz += np.matmul(Ra[-1], layer.weights(self.w), out=work.t[number][:rows])
            Rz += layer.biases(v)
            factors = self.factors[number]
            if factors is not None:
                Rz *= factors[0]
            Ra.append(Rz)
        work.u[-1][:rows] = self.loss_product(Ra[-1])
        self._add_back(v, Ra, total, work, first)

    def _add_back(self, v, Ra, total, work, first):
        """Run R{·} of the backward pass from R{∂loss/∂a_L}, adding R{gradient} on the way."""
        rows = len(self.activations[0])
        for number in reversed(range(len(self.net.layers))):
            layer, factors = self.net.layers[number], self.factors[number]
            Rd = work.u[number][:rows]
            if factors is not None and self.hessian:  # R{d} = R{u} φ' + R{a} u φ''
                pair = work.pairs[number][:, :rows]
                Rd = np.einsum("kij,kij->ij", factors, pair, out=work.t[number][:rows])
            elif factors is not None:
                Rd *= factors[0]
            _add_layer(self.net, number, self.activations[number], Rd, total, work, first)
            if number:
                Ru = np.matmul(Rd, layer.weights(self.w).T, out=work.u[number - 1][:rows])
                if self.hessian:  # R{aᵀd} = aᵀR{d} + R{a}ᵀd and R{d Wᵀ} = R{d} Wᵀ + d Vᵀ
                    d = self.deltas[number]
                    _add_weights(self.net, number, Ra[number - 1], d, total, work)
                    Ru += np.matmul(d, layer.weights(v).T, out=work.t[number - 1][:rows])


class ManualBackprop:
    """Sums over a batch of a `Network`, by back-propagation written out; safe to run in several threads."""

    parallel = True

    def __init__(self, net):
        self.net = net

    def workspace(self, rows: int, dtype) -> Workspace:
        return Workspace(self.net, rows, dtype)

    def loss(self, w, X, Y, work) -> float:
        return float(LOSSES[self.net.loss_name](forward(self.net, w, X, work.z)[-1], Y)) * len(X)

    def add_gradient(self, w, X, Y, total, work, first) -> float:
        return add_gradient(self.net, w, X, Y, total, work, first)

    def linearize(self, w, X, Y, kind: str, work, keep: bool) -> Linearized:
        """Linearize; what is not to be kept goes where the last one was that was not."""
        hessian = kind == "hessian"
        if keep:
            return Linearized(self.net, len(X), w.dtype, hessian).at(w, X, Y, work)
        spare = work.spare
        if spare is None or (len(spare.activations[0]), spare.hessian) != (len(X), hessian):
            work.spare = Linearized(self.net, len(X), w.dtype, hessian)
        return work.spare.at(w, X, Y, work)
