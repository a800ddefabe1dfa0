"""Networks as pure functions of one flat parameter vector."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hfnb.models.losses import LOSSES, check_targets
from hfnb.models.primitives import ACTIVATIONS, Layer, activate, affine
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


@dataclass(frozen=True)
class Network:
    """A fully connected network a_l = φ_l(a_{l−1} W_l + b_l) and its loss; `mlp` and `autoencoder` build it.

    ``activations`` names φ of each layer ("linear" for none), ``weight_decay`` is c in the term ½ c ‖W‖² that
    `hfnb.Objective` adds to the mean loss (weights only, not biases). ValueError for sizes below 1, unknown
    names and a negative weight decay, and for parameters, inputs and targets that do not fit.
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss_name: str = "cross_entropy"
    weight_decay: float = 0.0

    def __post_init__(self):
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
        for m, n in zip(self.sizes, self.sizes[1:], strict=False):
            layers.append(Layer(layers[-1].stop if layers else 0, m, n))
        return tuple(layers)

    @property
    def size(self) -> int:
        """Number p of parameters."""
        return self.layers[-1].stop

    def outputs(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return the network's outputs, (batch, k): logits where the last layer is linear."""
        check_vector("w", w, self.size)
        self._check_inputs("X", X)
        a = X
        for layer, name in zip(self.layers, self.activations, strict=True):
            a = affine(w, a, layer)
            if name != "linear":
                a = activate(a, name)
        return a

    def output_loss(self, z: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss of outputs z, (batch, k), against Y."""
        check_targets("Y", self.loss_name, z.shape, Y)
        return LOSSES[self.loss_name](z, Y)

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss over the batch, without weight decay."""
        return self.output_loss(self.outputs(w, X), Y)

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of ½ c ‖W‖² at v, (p,): c times v with the biases set to zero."""
        check_vector("v", v, self.size)
        out = v * v.dtype.type(self.weight_decay)
        for layer in self.layers:
            layer.biases(out)[...] = 0
        return out

    def predict(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return class labels (batch,) under cross-entropy, outputs (batch, k) under squared error.

        ValueError where an output is NaN, of which no class is the largest.
        """
        z = self.outputs(w, X)
        if self.loss_name != "cross_entropy":
            return z
        if np.isnan(z).any():
            row = int(np.isnan(z).any(axis=1).argmax())
            raise ValueError(f"w, X: expected outputs that are numbers, got NaN in row {row}")
        return z.argmax(axis=1)

    def error(self, w: np.ndarray, data, chunk: int = 4096) -> float:
        """Return the share of misclassified samples, or the mean of ‖z − y‖² under squared error.

        NaN where an output is NaN; ``chunk`` rows of the data are evaluated at a time. ValueError for
        parameters or data that do not fit the network, and for data without a sample.
        """
        check_vector("w", w, self.size)
        chunk = check_positive_int("chunk", chunk)
        self.check(data)
        wrong = 0.0
        for start in range(0, len(data.X), chunk):
            z = self.outputs(w, data.X[start : start + chunk].astype(w.dtype, copy=False))
            target = data.Y[start : start + chunk]
            if self.loss_name == "squared_error":
                wrong += np.sum((z - target) ** 2, dtype=float)
            elif np.isnan(z).any():  # argmax would take NaN for the largest output
                return np.nan
            else:
                wrong += np.sum(z.argmax(axis=1) != target)
        return float(wrong / len(data.X))

    def init(self, seed: int = 0, method: str = "glorot", dtype=np.float32) -> np.ndarray:
        """Return a random start (p,): "glorot" (Glorot & Bengio 2010) or "sparse" (Martens 2010, §5).

        Sparse gives every unit 15 incoming weights drawn from N(0, 1) and leaves the others at zero.
        Biases start at zero. Raises ValueError for another method, a negative seed, and a dtype that is not
        float32 or float64.
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

    def check(self, data) -> None:
        """Raise an error, naming the argument, where ``data`` does not fit the inputs, outputs or loss."""
        check_data("data", data)
        self._check_inputs("data.X", data.X)
        check_targets("data.Y", self.loss_name, (len(data.X), self.sizes[-1]), data.Y)

    def _check_inputs(self, name: str, X) -> None:
        """Refuse inputs that are not a (batch, d) array of real numbers for the d inputs of the network."""
        check_plain_array(name, X)
        shape, kind = getattr(X, "shape", None), getattr(getattr(X, "dtype", None), "kind", "none")
        d = self.sizes[0]
        if shape is None or kind not in "fiub":
            raise TypeError(f"{name}: expected an array (batch, {d}) of real numbers, got {shown(X)}")
        if len(shape) != 2 or shape[1] != d:
            raise ValueError(f"{name}: expected {d} columns for this network, got shape {shape}")


def mlp(sizes, activation: str = "tanh", loss: str = "cross_entropy", weight_decay: float = 0.0) -> Network:
    """Return a multilayer perceptron with layer ``sizes`` and linear outputs.

    activation: tanh, sigmoid, relu or softplus; loss: cross_entropy (of the softmax, integer labels) or
    squared_error (½‖z − y‖²); weight_decay: c ≥ 0. Raises ValueError, listing what exists, for anything else.

    >>> mlp([784, 400, 150, 10]).size
    375660
    """
    sizes = check_sequence("sizes", sizes)
    return Network(sizes, (*[activation] * (len(sizes) - 2), "linear"), loss, weight_decay)


def autoencoder(sizes, activation: str = "sigmoid", weight_decay: float = 0.0) -> Network:
    """Return a deep autoencoder with encoder ``sizes``, mirrored decoder, linear code, and squared error.

    The output layer has the same activation as the hidden ones (Hinton & Salakhutdinov 2006; Martens 2010);
    train it on a dataset whose Y is its X.

    >>> autoencoder([784, 1000, 500, 250, 30]).sizes
    (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    """
    sizes = check_sequence("sizes", sizes)
    half = [activation] * (len(sizes) - 2)
    activations = (*half, "linear", *half, activation)
    return Network(sizes + sizes[-2::-1], activations, "squared_error", weight_decay)
