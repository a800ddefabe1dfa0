"""Fully connected networks as pure functions of one flat parameter vector: activations, layers, usual shapes.

Each activation is given in autograd, and as values and derivatives for back-propagation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
from numpy.typing import DTypeLike

from hfnb.datasets.dataset import Dataset
from hfnb.models.losses import LOSSES, check_targets
from hfnb.models.row_jacobian import product
from hfnb.validation import (
    FLOATS,
    check_choice,
    check_data,
    check_nonnegative,
    check_nonnegative_int,
    check_plain_array,
    check_positive_int,
    check_sequence,
    check_vector,
    shown,
)


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


# To add one, add an entry; the tests compare its derivatives with those of autograd.
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


@dataclass(frozen=True)
class Layer:
    """Where the weights and the biases of one layer lie in the flat parameter vector.

    Attributes
    ----------
    start : int
        Index of the first weight.
    m, n : int
        Number of inputs and of outputs: the weights are an (m, n) matrix, which n biases follow.

    Examples
    --------
    >>> layer = Layer(start=0, m=2, n=3)
    >>> layer.weights(np.arange(9)), layer.biases(np.arange(9))
    (array([[0, 1, 2],
           [3, 4, 5]]), array([6, 7, 8]))
    """

    start: int
    m: int
    n: int

    @property
    def middle(self) -> int:
        """Index after the last weight, which is that of the first bias."""
        return self.start + self.m * self.n

    @property
    def stop(self) -> int:
        """Index after the last bias."""
        return self.middle + self.n

    def weights(self, w: np.ndarray) -> np.ndarray:
        """Return the weights (m, n) in the parameters w, (p,), as a view."""
        return w[self.start : self.middle].reshape(self.m, self.n)

    def biases(self, w: np.ndarray) -> np.ndarray:
        """Return the biases (n,) in the parameters w, (p,), as a view."""
        return w[self.middle : self.stop]


@dataclass(frozen=True)
class Network:
    """A fully connected network and its loss; `mlp` and `autoencoder` build the usual ones.

    Layer l computes a_l = φ_l(a_{l−1} W_l + b_l) from a_0 = X. Every method takes the parameters as one flat
    vector w, (p,), of float32 or float64.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each layer, and of outputs.
    activations : sequence of str
        φ of each layer: "tanh", "sigmoid", "relu", "softplus", or "linear" for none.
    loss_name : {"cross_entropy", "squared_error"}
        The loss of one sample: −log softmax(z)[label], or ½‖z − target‖².
    weight_decay : float
        c ≥ 0 in the term ½ c ‖W‖² that `hfnb.Objective` adds to the mean loss. It is over the weights; biases
        do not decay.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form. Methods raise them for parameters, inputs and targets that do not
        fit the network.

    Examples
    --------
    >>> net = Network((2, 3, 1), ("tanh", "linear"), "squared_error")
    >>> net.size, net.outputs(np.zeros(net.size), np.ones((4, 2))).shape
    (13, (4, 1))
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss_name: str = "cross_entropy"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        sizes = tuple(check_positive_int("sizes", size) for size in check_sequence("sizes", self.sizes))
        if len(sizes) < 2:
            raise ValueError(f"sizes: expected at least two positive layer sizes, got {list(sizes)}")
        activations = check_sequence("activations", self.activations)
        for name in activations:
            if name != "linear":
                check_choice("activation", name, ACTIVATIONS)
        if len(activations) != len(sizes) - 1:
            raise ValueError(f"activations: expected {len(sizes) - 1}, one a layer, got {len(activations)}")
        check_choice("loss", self.loss_name, LOSSES)
        decay = check_nonnegative("weight_decay", self.weight_decay, finite=True)
        for field, value in (("sizes", sizes), ("activations", activations), ("weight_decay", decay)):
            object.__setattr__(self, field, value)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Where each layer's weights and biases lie in the flat vector."""
        layers: list[Layer] = []
        for m, n in pairwise(self.sizes):
            layers.append(Layer(layers[-1].stop if layers else 0, m, n))
        return tuple(layers)

    @property
    def size(self) -> int:
        """Number p of parameters."""
        return self.layers[-1].stop

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of W₁, b₁, W₂, b₂, …, in the order in which the parameters hold them."""
        return tuple(shape for layer in self.layers for shape in ((layer.m, layer.n), (layer.n,)))

    def outputs(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return the outputs, in ``autograd.numpy``: logits where the last layer is linear.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X : ndarray, shape (batch, d)
            Inputs.

        Returns
        -------
        ndarray, shape (batch, k)
            Outputs, which autograd differentiates with respect to w or X to any order.
        """
        check_vector("w", w, self.size)
        self._check_inputs("X", X)
        # Autograd turns a split into one concatenation of gradients; slices would cost it a sum for each.
        parts = anp.split(w, [end for layer in self.layers for end in (layer.middle, layer.stop)])
        a = X
        for number, (layer, name) in enumerate(zip(self.layers, self.activations, strict=True)):
            W = anp.reshape(parts[2 * number], (layer.m, layer.n))
            a = product(a, W, parts[2 * number + 1])
            a = a if name == "linear" else ACTIVATIONS[name].function(a)
        return a

    def output_loss(self, z: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss of outputs, in ``autograd.numpy``.

        Parameters
        ----------
        z : ndarray, shape (batch, k)
            Outputs.
        Y : ndarray
            Targets: labels (batch,) for cross-entropy, (batch, k) for the squared error.

        Returns
        -------
        float
            The mean over the batch.
        """
        check_targets("Y", self.loss_name, z.shape, Y)
        return LOSSES[self.loss_name].mean(z, Y)

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss over a batch, without weight decay, in ``autograd.numpy``.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X : ndarray, shape (batch, d)
            Inputs.
        Y : ndarray
            Targets: labels (batch,) for cross-entropy, (batch, k) for the squared error.

        Returns
        -------
        float
            The mean over the batch.
        """
        return self.output_loss(self.outputs(w, X), Y)

    def forward(
        self, w: np.ndarray, X: np.ndarray, out: Sequence[np.ndarray | None] | None = None
    ) -> list[np.ndarray]:
        """Return the activations of all layers, in NumPy: quicker than `outputs`, and not differentiable.

        Arguments are not checked.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X : ndarray, shape (batch, d)
            Inputs.
        out : sequence of ndarray, optional
            For each layer an array of at least batch rows to compute in.

        Returns
        -------
        list of ndarray
            [X, a_1, …, a_L], the last of which are the outputs (batch, k).
        """
        activations = [X]
        for layer, name, rows in zip(
            self.layers, self.activations, out or [None] * len(self.layers), strict=True
        ):
            a = np.matmul(activations[-1], layer.weights(w), out=None if rows is None else rows[: len(X)])
            a += layer.biases(w)
            activations.append(a if name == "linear" else ACTIVATIONS[name].value(a, out=a))
        return activations

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of the weight decay ½ c ‖W‖², which is linear in the parameters.

        Parameters
        ----------
        v : ndarray, shape (p,)
            Parameters, or a vector to multiply by the Hessian of the weight decay.

        Returns
        -------
        ndarray, shape (p,)
            c times v, with the biases set to zero.
        """
        check_vector("v", v, self.size)
        out = v * v.dtype.type(self.weight_decay)
        for layer in self.layers:
            layer.biases(out)[...] = 0
        return out

    def predict(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return what the network predicts for each row of X.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X : ndarray, shape (batch, d)
            Inputs.

        Returns
        -------
        ndarray
            Class labels (batch,) under cross-entropy, outputs (batch, k) under the squared error.

        Raises
        ------
        ValueError
            If an output is NaN under cross-entropy: no class is then the largest.
        """
        check_vector("w", w, self.size)
        self._check_inputs("X", X)
        z = self.forward(w, X)[-1]
        if self.loss_name != "cross_entropy":
            return z
        if np.isnan(z).any():
            row = int(np.isnan(z).any(axis=1).argmax())
            raise ValueError(f"w, X: expected outputs that are numbers, got NaN in row {row}")
        return z.argmax(axis=1)

    def error(self, w: np.ndarray, data: Dataset, chunk: int = 4096) -> float:
        """Return the share of misclassified samples, or the mean of ‖z − y‖² under the squared error.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        data : Dataset
            At least one sample.
        chunk : int
            Number of rows that are evaluated at a time, at least 1.

        Returns
        -------
        float
            The error; NaN if an output is NaN.
        """
        check_vector("w", w, self.size)
        chunk = check_positive_int("chunk", chunk)
        self.check(data)
        total = 0.0
        for start in range(0, len(data.X), chunk):
            z = self.forward(w, data.X[start : start + chunk].astype(w.dtype, copy=False))[-1]
            target = data.Y[start : start + chunk]
            if self.loss_name == "squared_error":
                total += np.sum((z - target) ** 2, dtype=float)
            elif np.isnan(z).any():  # argmax would take NaN for the largest output
                return np.nan
            else:
                total += np.sum(z.argmax(axis=1) != target)
        return float(total / len(data.X))

    def init(self, seed: int = 0, method: str = "glorot", dtype: DTypeLike = np.float32) -> np.ndarray:
        """Return random parameters to start from; biases are zero.

        Parameters
        ----------
        seed : int
            At least 0; a seed always gives the same parameters.
        method : {"glorot", "sparse"}
            "glorot" draws every weight uniformly from ±√(6 / (m + n)) [1]_. "sparse" draws 15 incoming
            weights of every unit from N(0, 1) and leaves the others at zero [2]_.
        dtype : {float32, float64}
            Precision of the parameters, and so of all that is computed from them.

        Returns
        -------
        ndarray, shape (p,)
            Parameters.

        Raises
        ------
        ValueError
            If the method, the seed or the dtype is another one.

        References
        ----------
        .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
           networks", AISTATS 2010.
        .. [2] J. Martens, "Deep learning via Hessian-free optimization", ICML 2010, §5.
        """
        check_choice("method", method, ("glorot", "sparse"))
        if dtype not in FLOATS and dtype is not float and dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected float32 or float64, got {shown(dtype)}")
        random, w = np.random.default_rng(check_nonnegative_int("seed", seed)), np.zeros(self.size)
        for layer in self.layers:
            W = layer.weights(w)
            if method == "glorot":
                W[...] = random.uniform(-1, 1, W.shape) * np.sqrt(6 / (layer.m + layer.n))
            else:
                k = min(15, layer.m)
                inputs = random.permuted(np.tile(np.arange(layer.m), (layer.n, 1)), axis=1)[:, :k]
                W[inputs, np.arange(layer.n)[:, None]] = random.standard_normal((layer.n, k))
        return w.astype(dtype)

    def check(self, data: Dataset) -> None:
        """Raise an error that names the argument unless a dataset fits the inputs, the outputs and the loss.

        Parameters
        ----------
        data : Dataset
            What the network is to be trained or tested on.

        Raises
        ------
        ValueError, TypeError
            If ``data.X`` or ``data.Y`` has another shape or type, or a label is no class.
        """
        check_data("data", data)
        self._check_inputs("data.X", data.X)
        check_targets("data.Y", self.loss_name, (len(data.X), self.sizes[-1]), data.Y)

    def _check_inputs(self, name: str, X: np.ndarray) -> None:
        """Raise an error unless X is an array (batch, d) of real numbers for the d inputs of the network."""
        check_plain_array(name, X)
        shape, kind = getattr(X, "shape", None), getattr(getattr(X, "dtype", None), "kind", "none")
        d = self.sizes[0]
        if shape is None or kind not in "fiub":
            raise TypeError(f"{name}: expected an array (batch, {d}) of real numbers, got {shown(X)}")
        if len(shape) != 2 or shape[1] != d:
            raise ValueError(f"{name}: expected {d} columns for this network, got shape {shape}")


def mlp(
    sizes: Sequence[int],
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_decay: float = 0.0,
) -> Network:
    """Return a multilayer perceptron with linear outputs.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer, and of outputs.
    activation : {"tanh", "sigmoid", "relu", "softplus"}
        Activation of the hidden layers.
    loss : {"cross_entropy", "squared_error"}
        "cross_entropy" of the softmax, for integer labels; "squared_error" is ½‖z − y‖².
    weight_decay : float
        c ≥ 0 in the term ½ c ‖W‖² that `hfnb.Objective` adds to the mean loss.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form; where it is a name, the message lists the names that exist.

    Examples
    --------
    >>> mlp([784, 400, 150, 10]).size
    375660
    """
    sizes = check_sequence("sizes", sizes)
    return Network(sizes, (*[activation] * (len(sizes) - 2), "linear"), loss, weight_decay)


def autoencoder(sizes: Sequence[int], activation: str = "sigmoid", weight_decay: float = 0.0) -> Network:
    """Return a deep autoencoder: an encoder, a linear code, the mirrored decoder, and the squared error.

    Train it on a dataset whose Y is its X. The output layer has the same activation as the hidden ones
    [1]_ [2]_.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer of the encoder, and of the code.
    activation : {"tanh", "sigmoid", "relu", "softplus"}
        Activation of all layers but the code.
    weight_decay : float
        c ≥ 0 in the term ½ c ‖W‖² that `hfnb.Objective` adds to the mean loss.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form; where it is a name, the message lists the names that exist.

    References
    ----------
    .. [1] G. Hinton, R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science
       313, 2006.
    .. [2] J. Martens, "Deep learning via Hessian-free optimization", ICML 2010.

    Examples
    --------
    >>> autoencoder([784, 1000, 500, 250, 30]).sizes
    (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    """
    sizes = check_sequence("sizes", sizes)
    half = [activation] * (len(sizes) - 2)
    activations = (*half, "linear", *half, activation)
    return Network(sizes + sizes[-2::-1], activations, "squared_error", weight_decay)
