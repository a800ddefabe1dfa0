"""Back-propagation through a fully connected network by hand [1]_: loss, gradient and curvature products.

The results are those of autograd on `Network.loss`, which the tests compare them with. This code, unlike
autograd, knows which arrays are needed later; it therefore works in place, in memory that stays in the cache.
A curvature product takes 2 matrix products for the first layer and 6 (Hessian) or 4 (Gauss–Newton [3]_) for
each further one.

Notation: layer l computes z_l = a_{l-1} W_l + b_l and a_l = φ(z_l); u = ∂loss/∂a and d = ∂loss/∂z = u φ'(z).
R{x} is the derivative of x with respect to the parameters along v [2]_.

References
----------
.. [1] D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors",
   Nature 323, 1986.
.. [2] B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
.. [3] N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
   Computation 14, 2002.
"""

import numpy as np
from numpy.typing import DTypeLike

from hfnb.models.losses import LOSSES
from hfnb.models.network import ACTIVATIONS, Network


class Workspace:
    """The arrays in which one thread works through batches, one after the other.

    Parameters
    ----------
    net : Network
        The network.
    rows : int
        The largest number of samples in a batch.
    dtype : dtype
        The precision of parameters and inputs.
    """

    def __init__(self, net: Network, rows: int, dtype: DTypeLike):
        # For each layer an array for u or R{u} and, next to it, one for a or R{a}: a Hessian product reads
        # both.
        self.pairs = [np.empty((2, rows, n), dtype) for n in net.sizes[1:]]
        self.u, self.a = ([pair[k] for pair in self.pairs] for k in (0, 1))
        self.scratch = [np.empty((rows, n), dtype) for n in net.sizes[1:]]
        self.W = [np.empty((layer.m, layer.n), dtype) for layer in net.layers]
        self.reusable: Linearized | None = None


def add_gradient(
    net: Network,
    w: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    total: np.ndarray,
    work: Workspace,
    overwrite: bool = False,
) -> float:
    """Add the gradient of the summed loss over a batch to a total.

    Parameters
    ----------
    net : Network
        The network.
    w : ndarray, shape (p,)
        Parameters.
    X : ndarray, shape (batch, d)
        Inputs, in the precision of w.
    Y : ndarray
        Targets, as the loss of the network needs them.
    total : ndarray, shape (p,)
        What the gradient is added to.
    work : Workspace
        Arrays for at least batch rows.
    overwrite : bool
        Store the gradient in ``total`` instead of adding it.

    Returns
    -------
    float
        The sum of the losses.
    """
    activations = net.forward(w, X, work.a)
    loss, u, _ = LOSSES[net.loss_name].derivatives(activations[-1], Y)
    for number in reversed(range(len(net.layers))):
        name, d = net.activations[number], u
        if name != "linear":
            d = ACTIVATIONS[name].slope(activations[number + 1])
            d *= u
        _add_layer(net, number, activations[number], d, total, work, overwrite)
        if number:
            u = np.matmul(d, net.layers[number].weights(w).T, out=work.u[number - 1][: len(d)])
    return loss


def _add_layer(
    net: Network,
    number: int,
    a: np.ndarray,
    d: np.ndarray,
    total: np.ndarray,
    work: Workspace,
    overwrite: bool,
) -> None:
    """Add aᵀd to the place of the layer's weights in ``total`` and the sum of d to that of its biases."""
    layer = net.layers[number]
    if overwrite:
        np.matmul(a.T, d, out=layer.weights(total))
        d.sum(axis=0, out=layer.biases(total))
    else:
        _add_weights(net, number, a, d, total, work)
        layer.biases(total)[...] += d.sum(axis=0)


def _add_weights(
    net: Network, number: int, a: np.ndarray, d: np.ndarray, total: np.ndarray, work: Workspace
) -> None:
    """Add aᵀd to the place of the layer's weights in ``total``."""
    weights = net.layers[number].weights(total)
    weights += np.matmul(a.T, d, out=work.W[number])


class Linearized:
    """What all products with the curvature at one w on one batch have in common.

    Parameters
    ----------
    net : Network
        The network.
    rows : int
        Number of samples in the batch.
    dtype : dtype
        The precision of parameters and inputs.
    hessian : bool
        Products are with the Hessian if true, with the Gauss–Newton matrix if false.
    """

    def __init__(self, net: Network, rows: int, dtype: DTypeLike, hessian: bool):
        self.net, self.hessian = net, hessian
        self.a = [np.empty((rows, n), dtype) for n in net.sizes[1:]]
        # φ' and, for the Hessian, u ∂φ'/∂a: R{d} = R{u} φ' + R{a} u ∂φ'/∂a
        kinds = 2 if hessian else 1
        self.factors = [
            None if name == "linear" else np.empty((kinds, rows, n), dtype)
            for n, name in zip(net.sizes[1:], net.activations, strict=True)
        ]
        self.deltas = [np.empty((rows, n), dtype) for n in net.sizes[1:]] if hessian else []

    @property
    def nbytes(self) -> int:
        """The size in bytes of the arrays that this object keeps, besides inputs and parameters."""
        return sum(each.nbytes for each in (*self.a, *self.factors, *self.deltas) if each is not None)

    def at(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: Workspace) -> "Linearized":
        """Linearize at w on the batch (X, Y), and overwrite the previous linearization of this object.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters. They are not copied: do not change them before the last product.
        X : ndarray, shape (rows, d)
            Inputs, in the precision of w.
        Y : ndarray
            Targets, as the loss of the network needs them.
        work : Workspace
            Arrays for at least as many rows.

        Returns
        -------
        Linearized
            This object.
        """
        self.w = w
        self.activations = self.net.forward(w, X, self.a)
        _, u, self.loss_product = LOSSES[self.net.loss_name].derivatives(self.a[-1], Y)
        for a, name, factors in zip(self.a, self.net.activations, self.factors, strict=True):
            if factors is not None:
                factors[0] = ACTIVATIONS[name].slope(a)
        for number in reversed(range(len(self.net.layers))) if self.hessian else ():
            name, factors, d = self.net.activations[number], self.factors[number], self.deltas[number]
            if factors is None:
                d[...] = u
            else:
                np.multiply(u, factors[0], out=d)
                np.multiply(u, ACTIVATIONS[name].slope_derivative(self.a[number]), out=factors[1])
            if number:
                u = np.matmul(d, self.net.layers[number].weights(w).T, out=work.u[number - 1][: len(d)])
        return self

    def add_product(self, v: np.ndarray, total: np.ndarray, work: Workspace, overwrite: bool = False) -> None:
        """Add the product of the batch's summed curvature with a vector to a total.

        Parameters
        ----------
        v : ndarray, shape (p,)
            What is multiplied, in the precision of w.
        total : ndarray, shape (p,)
            What the product is added to.
        work : Workspace
            Arrays for at least as many rows as the batch has.
        overwrite : bool
            Store the product in ``total`` instead of adding it.
        """
        Ra: list[np.ndarray] = []
        rows = len(self.activations[0])
        for number, layer in enumerate(self.net.layers):
            Rz = np.matmul(self.activations[number], layer.weights(v), out=work.a[number][:rows])
            if number:
                Rz += np.matmul(Ra[-1], layer.weights(self.w), out=work.scratch[number][:rows])
            Rz += layer.biases(v)
            factors = self.factors[number]
            if factors is not None:
                Rz *= factors[0]
            Ra.append(Rz)
        work.u[-1][:rows] = self.loss_product(Ra[-1])
        self._add_back(v, Ra, total, work, overwrite)

    def _add_back(
        self, v: np.ndarray, Ra: list[np.ndarray], total: np.ndarray, work: Workspace, overwrite: bool
    ) -> None:
        """Run R{·} of the backward pass from R{∂loss/∂a_L} in ``work.u[-1]``; add R{gradient} to a total."""
        rows = len(self.activations[0])
        for number in reversed(range(len(self.net.layers))):
            layer, factors = self.net.layers[number], self.factors[number]
            Rd = work.u[number][:rows]
            if factors is not None and self.hessian:  # R{d} = R{u} φ' + R{a} u ∂φ'/∂a
                pair = work.pairs[number][:, :rows]
                Rd = np.einsum("kij,kij->ij", factors, pair, out=work.scratch[number][:rows])
            elif factors is not None:
                Rd *= factors[0]
            _add_layer(self.net, number, self.activations[number], Rd, total, work, overwrite)
            if number:
                Ru = np.matmul(Rd, layer.weights(self.w).T, out=work.u[number - 1][:rows])
                if self.hessian:  # R{aᵀd} = aᵀR{d} + R{a}ᵀd and R{d Wᵀ} = R{d} Wᵀ + d Vᵀ
                    d = self.deltas[number]
                    _add_weights(self.net, number, Ra[number - 1], d, total, work)
                    Ru += np.matmul(d, layer.weights(v).T, out=work.scratch[number - 1][:rows])


def output_jacobian(net: Network, w: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the derivatives of all outputs with respect to the parameters.

    Parameters
    ----------
    net : Network
        The network.
    w : ndarray, shape (p,)
        Parameters.
    X : ndarray, shape (rows, d)
        Inputs, in the precision of w.

    Returns
    -------
    ndarray, shape (rows * k, p)
        The k rows of the first sample, one for each output, then those of the second.

    Examples
    --------
    >>> net = Network((2, 1), ("linear",), "squared_error")
    >>> output_jacobian(net, np.zeros(3), np.array([[5.0, 7.0]]))
    array([[5., 7., 1.]])
    """
    a = net.forward(w, X)
    rows, k = a[-1].shape
    J = np.empty((rows, k, net.size), w.dtype)
    d = np.broadcast_to(np.eye(k, dtype=w.dtype), (rows, k, k))  # ∂outputs/∂a, then ∂outputs/∂z, of a layer
    for number in reversed(range(len(net.layers))):
        layer, name = net.layers[number], net.activations[number]
        if name != "linear":
            d = d * ACTIVATIONS[name].slope(a[number + 1])[:, None, :]
        weights = a[number][:, None, :, None] * d[:, :, None, :]
        J[:, :, layer.start : layer.middle] = weights.reshape(rows, k, -1)
        J[:, :, layer.middle : layer.stop] = d
        d = d @ layer.weights(w).T
    return J.reshape(rows * k, -1)


class ManualBackprop:
    """Sums over a batch by back-propagation; several threads may use it, each with a workspace of its own.

    Parameters
    ----------
    net : Network
        The network.
    """

    parallel = True

    def __init__(self, net: Network):
        self.net = net
        tail = net.sizes[1:], net.activations[1:], net.loss_name
        self._tail = Network(*tail) if len(net.layers) > 1 else None  # all layers but the first

    def workspace(self, rows: int, dtype: DTypeLike) -> Workspace:
        """Return a `Workspace` for batches of at most ``rows`` samples."""
        return Workspace(self.net, rows, dtype)

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: Workspace) -> float:
        """Return the sum of the losses over a batch."""
        return LOSSES[self.net.loss_name].total(self.net.forward(w, X, work.a)[-1], Y)

    def losses_along(
        self,
        w: np.ndarray,
        d: np.ndarray,
        alphas: np.ndarray,
        X: np.ndarray,
        Y: np.ndarray,
        work: Workspace,
    ) -> np.ndarray:
        """Return the sums of the losses over a batch at the points w + αd.

        Parameters
        ----------
        w, d : ndarray, shape (p,)
            Parameters and a direction.
        alphas : ndarray, shape (k,)
            Step lengths α.
        X : ndarray, shape (batch, inputs)
            Inputs, in the precision of w.
        Y : ndarray
            Targets, as the loss of the network needs them.
        work : Workspace
            Arrays for at least batch rows.

        Returns
        -------
        ndarray, shape (k,)
            The sums.

        Notes
        -----
        The first layer, usually the largest, takes two matrix products for all α, because it is linear in the
        parameters: X(W + αD) + b + αc = (XW + b) + α(XD + c).
        """
        first, name = self.net.layers[0], self.net.activations[0]
        z, change, a = work.scratch[0][: len(X)], work.u[0][: len(X)], work.a[0][: len(X)]
        for v, out in ((w, z), (d, change)):
            np.matmul(X, first.weights(v), out=out)
            out += first.biases(v)
        losses = np.empty(len(alphas))
        for number, alpha in enumerate(alphas.astype(w.dtype)):
            np.multiply(change, alpha, out=a)
            a += z
            outputs = a if name == "linear" else ACTIVATIONS[name].value(a, out=a)
            if self._tail is not None:
                point = w[first.stop :] + alpha * d[first.stop :]
                outputs = self._tail.forward(point, outputs, work.a[1:])[-1]
            losses[number] = LOSSES[self.net.loss_name].total(outputs, Y)
        return losses

    def add_gradient(
        self,
        w: np.ndarray,
        X: np.ndarray,
        Y: np.ndarray,
        total: np.ndarray,
        work: Workspace,
        overwrite: bool,
    ) -> float:
        """Add the gradient of the summed loss to ``total``, or store it there; see `add_gradient`."""
        return add_gradient(self.net, w, X, Y, total, work, overwrite)

    def linearize(
        self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, kind: str, work: Workspace, keep: bool
    ) -> Linearized:
        """Linearize at w on the batch (X, Y).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters. They are not copied: do not change them before the last product.
        X : ndarray, shape (rows, d)
            Inputs, in the precision of w.
        Y : ndarray
            Targets, as the loss of the network needs them.
        kind : {"hessian", "gauss-newton"}
            The curvature.
        work : Workspace
            Arrays for at least as many rows.
        keep : bool
            If true, the result has arrays of its own. If false, it is valid until the next call with the
            same workspace, which may use its arrays again.

        Returns
        -------
        Linearized
            What makes products with the curvature.
        """
        hessian = kind == "hessian"
        if keep:
            return Linearized(self.net, len(X), w.dtype, hessian).at(w, X, Y, work)
        last = work.reusable
        if last is None or (len(last.activations[0]), last.hessian) != (len(X), hessian):
            last = work.reusable = Linearized(self.net, len(X), w.dtype, hessian)
        return last.at(w, X, Y, work)
