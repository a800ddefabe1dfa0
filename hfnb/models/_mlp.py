"""Networks of the usual shapes, by their layer sizes."""

from collections.abc import Sequence

from hfnb.models.network import Network
from hfnb.validation import check_sequence


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
