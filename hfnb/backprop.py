"""Back-propagation through a fully connected network, written out: loss, gradient and curvature products.

The same numbers as reverse mode over `hfnb.fused` gives, with no tape: here it is known which arrays are
dead, so that passes over activations work in place, in memory that stays in the cache. A curvature product
takes 2 matrix products for the first layer and then 6 (Hessian) or 4 (Gauss–Newton) for each.

Back-propagation: Rumelhart, Hinton & Williams (1986). R{x} is the derivative of x along v: Pearlmutter, "Fast
exact multiplication by the Hessian" (1994).
"""

import numpy as np

from hfnb.fused import ACTIVATIONS
from hfnb.losses import PARTS


class Workspace:
    """Arrays that each batch of up to ``rows`` samples is worked through in."""

    def __init__(self, net, rows: int, dtype):
        self.z, self.u, self.t = ([np.empty((rows, n), dtype) for n in net.sizes[1:]] for _ in range(3))
        self.W = [np.empty((layer.m, layer.n), dtype) for layer in net.layers]


def forward(net, w: np.ndarray, X: np.ndarray, work: Workspace) -> list[np.ndarray]:
    """Return the activations [X, a_1, …, a_L], all but X in the workspace."""
    activations = [X]
    for layer, name, z in zip(net.layers, net.activations, work.z, strict=True):
        a = np.matmul(activations[-1], layer.weights(w), out=z[: len(X)])
        a += layer.biases(w)
        activations.append(a if name == "linear" else ACTIVATIONS[name][0](a, out=a))
    return activations


def add_gradient(
    net, w: np.ndarray, X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Workspace
) -> float:
    """Add the gradient of the summed loss to ``total``, (p,); return the summed loss."""
    activations = forward(net, w, X, work)
    loss, u, _ = PARTS[net.loss_name](activations[-1], Y)
    for number, a, _, d in _back(net, w, activations, u, work):
        _add_weights(net, number, a, d, total, work)
        net.layers[number].biases(total)[...] += d.sum(axis=0)
    return float(loss)


def _back(net, w, activations, u, work):
    """Yield (l, a_{l−1}, u_l = ∂loss/∂a_l, d_l = ∂loss/∂z_l) from the last layer to the first."""
    for number in reversed(range(len(net.layers))):
        name = net.activations[number]
        d = u
        if name != "linear":
            d = ACTIVATIONS[name][1](activations[number + 1])
            d *= u
        yield number, activations[number], u, d
        if number:
            u = np.matmul(d, net.layers[number].weights(w).T, out=work.u[number - 1][: len(d)])


def _add_weights(net, number, a, d, total, work):
    """Add aᵀd to the weights' place in ``total``."""
    weights = net.layers[number].weights(total)
    weights += np.matmul(a.T, d, out=work.W[number])


class Linearized:
    """A network at w on one batch, with what products there have in common; hessian=False is Gauss–Newton."""

    def __init__(self, net, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: Workspace, hessian: bool):
        self.net, self.w = net, w
        self.activations = [X] + [a.copy() for a in forward(net, w, X, work)[1:]]
        _, residual, self.loss_product = PARTS[net.loss_name](self.activations[-1], Y)
        named = list(zip(self.activations[1:], net.activations, strict=True))
        self.slopes: list = [None if name == "linear" else ACTIVATIONS[name][1](a) for a, name in named]
        self.bends: list = [None] * len(named)  # ∂(u φ')/∂a = u dφ'/da, where φ bends
        self.deltas: list = [None] * len(named)
        for number, _, u, d in _back(net, w, self.activations, residual, work) if hessian else ():
            a, name = named[number]
            self.bends[number] = None if name == "linear" else u * ACTIVATIONS[name][2](a)
            self.deltas[number] = d.copy()

    def add_product(self, v: np.ndarray, total: np.ndarray, work: Workspace) -> None:
        """Add the product of the batch's summed curvature with v, (p,), to ``total``."""
        Ra: list[np.ndarray] = []
        rows = len(self.activations[0])
        for number, layer in enumerate(self.net.layers):
            Rz = np.matmul(self.activations[number], layer.weights(v), out=work.z[number][:rows])
            if number:
                Rz += np.matmul(Ra[-1], layer.weights(self.w), out=work.t[number][:rows])
            Rz += layer.biases(v)
            if self.slopes[number] is not None:
                Rz *= self.slopes[number]
            Ra.append(Rz)
        self._add_back(v, Ra, self.loss_product(Ra[-1]), total, work)

    def _add_back(self, v, Ra, Ru, total, work):
        """Run R{·} of the backward pass from Ru = R{∂loss/∂a_L}, adding R{gradient} on the way."""
        for number in reversed(range(len(self.net.layers))):
            layer, d, bend = self.net.layers[number], self.deltas[number], self.bends[number]
            below = self.activations[number]
            if d is not None and number:
                _add_weights(self.net, number, Ra[number - 1], d, total, work)
            Rd = Ru if self.slopes[number] is None else np.multiply(Ru, self.slopes[number], out=Ru)
            if bend is not None:
                Ra[number] *= bend  # the last use of R{a} of this layer
                Rd += Ra[number]
            _add_weights(self.net, number, below, Rd, total, work)
            layer.biases(total)[...] += Rd.sum(axis=0)
            if number:
                Ru = np.matmul(Rd, layer.weights(self.w).T, out=work.u[number - 1][: len(Rd)])
                if d is not None:  # R{d Wᵀ} = R{d} Wᵀ + d Vᵀ
                    Ru += np.matmul(d, layer.weights(v).T, out=work.t[number - 1][: len(d)])


class Written:
    """Sums over a batch of a `Network`, by back-propagation written out."""

    def __init__(self, net):
        self.net = net

    def workspace(self, rows: int, dtype) -> Workspace:
        return Workspace(self.net, rows, dtype)

    def loss(self, w, X, Y, work) -> float:
        return float(self.net.output_loss(forward(self.net, w, X, work)[-1], Y)) * len(X)

    def add_gradient(self, w, X, Y, total, work) -> float:
        return add_gradient(self.net, w, X, Y, total, work)

    def linearize(self, w, X, Y, kind: str, work) -> Linearized:
        return Linearized(self.net, w, X, Y, work, hessian=kind == "hessian")
