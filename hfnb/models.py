"""Networks as pure functions of one flat parameter vector."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hfnb.fused import ACTIVATIONS, Layer, activate, affine
from hfnb.losses import LOSSES


@dataclass(frozen=True)
class Network:
    """A fully connected network a_l = φ_l(a_{l−1} W_l + b_l) and its loss; `mlp` and `autoencoder` build it.

    ``activations`` names φ of each layer ("linear" for none), ``weight_decay`` is c in the term ½ c ‖W‖² that
    `hfnb.Objective` adds to the mean loss (weights only, not biases).
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss_name: str = "cross_entropy"
    weight_decay: float = 0.0

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
        a = X
        for layer, name in zip(self.layers, self.activations, strict=True):
            a = affine(w, a, layer)
            if name != "linear":
                a = activate(a, name)
        return a

    def output_loss(self, z: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss of outputs z, (batch, k), against Y."""
        return LOSSES[self.loss_name](z, Y)

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss over the batch, without weight decay."""
        return self.output_loss(self.outputs(w, X), Y)

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of ½ c ‖W‖² at v, (p,): c times v with the biases set to zero."""
        out = v * v.dtype.type(self.weight_decay)
        for layer in self.layers:
            layer.biases(out)[...] = 0
        return out

    def predict(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return class labels (batch,) under cross-entropy, outputs (batch, k) under squared error."""
        z = self.outputs(w, X)
        return z.argmax(axis=1) if self.loss_name == "cross_entropy" else z

    def error(self, w: np.ndarray, data, chunk: int = 4096) -> float:
        """Return the share of misclassified samples, or the mean of ‖z − y‖² under squared error."""
        wrong = 0.0
        for start in range(0, len(data), chunk):
            found = self.predict(w, data.X[start : start + chunk].astype(w.dtype, copy=False))
            target = data.Y[start : start + chunk]
            wrong += (
                np.sum(found != target) if found.ndim == 1 else np.sum((found - target) ** 2, dtype=float)
            )
        return float(wrong / len(data))

    def init(self, seed: int = 0, method: str = "glorot", dtype=np.float32) -> np.ndarray:
        """Return a random start (p,): "glorot" (Glorot & Bengio 2010) or "sparse" (Martens 2010, §5).

        Sparse gives every unit 15 incoming weights drawn from N(0, 1) and leaves the others at zero.
        Biases start at zero. Raises ValueError for another method.
        """
        if method not in ("glorot", "sparse"):
            raise ValueError(f"method: expected 'glorot' or 'sparse', got {method!r}")
        random, w = np.random.default_rng(seed), np.zeros(self.size)
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
        """Raise ValueError, naming the argument, where ``data`` does not fit the inputs, outputs or loss."""
        if data.X.shape[1] != self.sizes[0]:
            raise ValueError(
                f"data.X: expected {self.sizes[0]} columns for this network, got {data.X.shape[1]}"
            )
        k = self.sizes[-1]
        if self.loss_name == "cross_entropy":
            if data.Y.ndim != 1 or data.Y.dtype.kind not in "iu":
                raise ValueError("data.Y: expected integer class labels (n,) for the loss cross_entropy")
            if len(data.Y) and int(data.Y.max()) >= k:
                raise ValueError(
                    f"data.Y: expected labels below {k}, the number of outputs, got {data.Y.max()}"
                )
        elif data.Y.shape[1:] != (k,):
            raise ValueError(
                f"data.Y: expected shape (n, {k}) for the loss squared_error, got {data.Y.shape}"
            )


def mlp(sizes, activation: str = "tanh", loss: str = "cross_entropy", weight_decay: float = 0.0) -> Network:
    """Return a multilayer perceptron with layer ``sizes`` and linear outputs.

    activation: tanh, sigmoid, relu or softplus; loss: cross_entropy (of the softmax, integer labels) or
    squared_error (½‖z − y‖²); weight_decay: c ≥ 0. Raises ValueError, listing what exists, for anything else.

    >>> mlp([784, 400, 150, 10]).size
    375660
    """
    return _network(sizes, [activation] * (len(tuple(sizes)) - 2) + ["linear"], loss, weight_decay)


def autoencoder(sizes, activation: str = "sigmoid", weight_decay: float = 0.0) -> Network:
    """Return a deep autoencoder with encoder ``sizes``, mirrored decoder, linear code, and squared error.

    The output layer has the same activation as the hidden ones (Hinton & Salakhutdinov 2006; Martens 2010);
    train it on a dataset whose Y is its X.

    >>> autoencoder([784, 1000, 500, 250, 30]).sizes
    (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    """
    sizes, half = tuple(sizes), [activation] * (len(tuple(sizes)) - 2)
    return _network(
        sizes + sizes[-2::-1], [*half, "linear", *half, activation], "squared_error", weight_decay
    )


def _network(sizes, activations, loss, weight_decay):
    sizes = tuple(int(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: expected at least two positive layer sizes, got {list(sizes)}")
    for name in activations:
        if name != "linear" and name not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay: expected a number >= 0, got {weight_decay!r}")
    return Network(sizes, tuple(activations), loss, float(weight_decay))
