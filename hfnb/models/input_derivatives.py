"""Derivatives of a network with respect to its inputs, propagated forward together with its values.

The residual of a differential equation contains such derivatives, and training differentiates the residual
with respect to the parameters. With the derivatives written out here, autograd is called once and not
within itself, which is many times faster.
"""

from collections.abc import Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np

from hfnb.models.network import ACTIVATIONS, Network
from hfnb.models.row_jacobian import product
from hfnb.validation import check_sequence, check_vector, shown

SMOOTH = ("tanh", "sigmoid", "linear")  # activations whose derivatives in ACTIVATIONS autograd can follow


def derivatives(net: Network, w: np.ndarray, X: np.ndarray, orders: Sequence[int]) -> tuple[Any, ...]:
    """Return the outputs of a network and their derivatives along each input, in ``autograd.numpy``.

    Parameters
    ----------
    net : Network
        A network with the activations "tanh", "sigmoid" and "linear" only.
    w : ndarray, shape (p,)
        Parameters, with respect to which autograd can differentiate the result.
    X : ndarray, shape (rows, d)
        Inputs.
    orders : sequence of int
        For each of the d inputs the highest derivative: 0, 1 or 2.

    Returns
    -------
    u : ndarray, shape (rows, k)
        Outputs.
    *along : tuple of ndarray
        For each input j as many arrays of u's shape as ``orders[j]`` says: (), (∂u/∂xⱼ,) or
        (∂u/∂xⱼ, ∂²u/∂xⱼ²).

    Raises
    ------
    ValueError
        If the orders or the inputs do not fit the network, or an activation is another one.

    Notes
    -----
    A layer z = aW + b, followed by φ, maps the derivatives of its inputs along one coordinate as z′ = a′W and
    z″ = a″W, and those of its outputs are φ′(z) z′ and φ′(z) z″ + φ″(z) z′². The derivatives are stacked as
    rows of one matrix, so that each layer has two matrix products, both by `hfnb.models.product`, which makes
    the Jacobian of residuals quick.

    Examples
    --------
    Of a plane:

    >>> from hfnb import Dataset, Objective, levenberg_marquardt, models
    >>> net = models.mlp([2, 1], loss="squared_error")
    >>> u, (u_x, u_xx), (u_t,) = derivatives(net, np.array([3.0, 4.0, 5.0]), np.ones((1, 2)), orders=(2, 1))
    >>> u, u_x, u_xx, u_t
    (array([[12.]]), array([[3.]]), array([[0.]]), array([[4.]]))

    The differential equation u″ = −u with u(0) = 0 and u′(0) = 1, whose solution is sin x:

    >>> net = models.mlp([1, 8, 1], loss="squared_error")
    >>> def equation(w, X, Y):
    ...     u, (_, u_xx) = derivatives(net, w, X, orders=(2,))
    ...     return u_xx + u
    >>> def start(w, X, Y):
    ...     u, (u_x,) = derivatives(net, w, X, orders=(1,))
    ...     return anp.concatenate([u, u_x - 1], axis=1)
    >>> inside, zero = np.linspace(0, 3, 40)[:, None], np.zeros((1, 1))
    >>> data = [Dataset(inside, np.zeros((40, 1))), Dataset(zero, zero)]
    >>> objective = Objective.from_residuals([equation, start], data)
    >>> found = levenberg_marquardt(objective, net.init(0, dtype=float))
    >>> bool(np.abs(net.predict(found.x, inside) - np.sin(inside)).max() < 1e-4)
    True
    """
    check_vector("w", w, net.size)
    orders = check_sequence("orders", orders)
    if len(orders) != net.sizes[0] or any(order not in (0, 1, 2) for order in orders):
        raise ValueError(f"orders: expected 0, 1 or 2 for each of {net.sizes[0]} inputs, got {orders}")
    if np.ndim(X) != 2 or np.shape(X)[1] != net.sizes[0]:
        raise ValueError(f"X: expected shape (rows, {net.sizes[0]}), got {shown(X)}")
    if not set(net.activations) <= set(SMOOTH):
        raise ValueError(f"net: expected the activations {', '.join(SMOOTH)}, got {net.activations}")
    twice = [j for j, order in enumerate(orders) if order == 2]
    once = [j for j, order in enumerate(orders) if order == 1]
    rows, d = X.shape
    units = [np.tile(np.eye(d)[j], (rows, 1)) for j in twice + once]
    a, stack = X, np.concatenate([*units, np.zeros((len(twice) * rows, d))])
    ends = rows * np.cumsum([len(twice), len(once)])
    parts = anp.split(w, [stop for layer in net.layers for stop in (layer.middle, layer.stop)])
    for number, (layer, name) in enumerate(zip(net.layers, net.activations, strict=True)):
        W = anp.reshape(parts[2 * number], (layer.m, layer.n))
        z = product(a, W, parts[2 * number + 1])
        along = anp.split(product(stack, W), ends) if len(stack) else [stack] * 3
        a, *found = _activated(name, z, *along)
        stack = anp.concatenate(found) if len(stack) else stack
    blocks = anp.split(stack, len(stack) // rows) if len(stack) else []
    slopes, curvatures = blocks[: len(twice + once)], blocks[len(twice + once) :]
    slope_of = dict(zip(twice + once, slopes, strict=True))
    curvature_of = dict(zip(twice, curvatures, strict=True))
    return a, *(tuple(of[j] for of in (slope_of, curvature_of) if j in of) for j in range(d))


def _activated(name: str, z: Any, both: Any, once: Any, second: Any) -> list[Any]:
    """Return values and derivatives after an activation.

    ``both`` and ``second`` are the first and second derivatives of z along some inputs; ``once`` are the
    first derivatives along inputs whose second ones are not needed.
    """
    if name == "linear":
        return [z, both, once, second]
    activation = ACTIVATIONS[name]
    a = activation.function(z)
    slope = activation.slope(a)
    bend = slope * activation.slope_derivative(a)
    shape = np.shape(z)
    both, once, second = (anp.reshape(part, (-1, *shape)) for part in (both, once, second))
    found = slope * both, slope * once, slope * second + bend * both * both
    return [a, *(anp.reshape(part, (-1, shape[1])) for part in found)]
