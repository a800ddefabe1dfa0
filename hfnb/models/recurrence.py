"""The states of a tanh recurrent network, as one operation of autograd with derivatives of any order.

autograd would record several operations for each step. With a few dozen units, to follow them takes longer
than to compute them. Here all steps are one operation. Its derivatives are made of linear recurrences,

    pₜ = (1 − hₜ²) (vₜ + pₜ₋₁ B)   in the direction of time, and   pₜ = (1 − hₜ²) (vₜ + pₜ₊₁ B)   against it,

and each of them, with Bᵀ instead of B, is the transpose of the other, so that further derivatives need no
other recurrence.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, defvjp_argnums, primitive
from autograd.tracer import getval

from hfnb.models import row_jacobian


def recurrent_states(Z: Any, B: Any) -> Any:
    """Return the states hₜ = tanh(zₜ + hₜ₋₁ B) of a recurrent network, in ``autograd.numpy``.

    Parameters
    ----------
    Z : ndarray, shape (steps, rows, hidden)
        What the inputs add to each step, xₜ A + b.
    B : ndarray, shape (hidden, hidden)
        Weights between states: entries of the parameters, cut out and reshaped.

    Returns
    -------
    ndarray, shape (steps, rows, hidden)
        The states; h₀ = 0 is not among them.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    P. J. Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the IEEE 78
    (1990).

    Examples
    --------
    >>> recurrent_states(np.array([[[0.5]], [[0.0]]]), np.array([[2.0]])).ravel()
    array([0.46211716, 0.7278944 ])
    """
    if np.ndim(Z) != 3 or len(Z) == 0:
        raise ValueError(f"Z: expected shape (steps, rows, hidden), got {np.shape(Z)}")
    if np.shape(B) != 2 * np.shape(Z)[2:]:
        raise ValueError(f"B: expected shape {2 * np.shape(Z)[2:]}, got {np.shape(B)}")
    if row_jacobian.following.products is None:
        return _states(Z, B)
    # All products hₜ₋₁ B count as one, whose inputs hₜ₋₁ are known after the states. On the way back, what
    # arrives at zₜ is the derivative with respect to zₜ + hₜ₋₁ B.
    made = row_jacobian.Product(None, B, None)
    row_jacobian.following.products.append(made)
    H = _states(anp.reshape(row_jacobian.seen(anp.reshape(Z, (-1, Z.shape[2])), made), Z.shape), B)
    made.a = _flat(_neighbour(getval(H), False))
    return H


@primitive
def _states(Z: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return hₜ = tanh(zₜ + hₜ₋₁ B)."""
    H, B = np.empty(Z.shape, np.result_type(Z, B, np.float32)), np.ascontiguousarray(B)
    np.tanh(Z[0], out=H[0], dtype=H.dtype)
    for t in range(1, len(Z)):
        h = H[t]
        np.dot(H[t - 1], B, out=h)
        h += Z[t]
        np.tanh(h, out=h)
    return H


@primitive
def _linear_recurrence(V: np.ndarray, H: np.ndarray, B: np.ndarray, backward: bool) -> np.ndarray:
    """Return pₜ = (1 − hₜ²) (vₜ + p B) with the p of the step before, or after if ``backward``."""
    # 1 − h² is made step by step: large arrays cost more to allocate than to compute.
    P, D = np.empty(V.shape, np.result_type(V, H, B)), np.empty(V.shape[1:], H.dtype)
    B = np.ascontiguousarray(B)
    order = range(len(V))[:: -1 if backward else 1]
    for before, t in pairwise([order[0], *order]):
        p = P[t]
        if before == t:
            p[...] = V[t]
        else:
            np.dot(P[before], B, out=p)
            p += V[t]
        np.multiply(H[t], H[t], out=D)
        np.subtract(1, D, out=D)
        p *= D
    return P


@primitive
def _neighbour(P: np.ndarray, backward: bool) -> np.ndarray:
    """Return for each step the entry of the step before, or after if ``backward``; 0 where there is none."""
    shifted = np.zeros(P.shape, P.dtype)
    if backward:
        shifted[:-1] = P[1:]
    else:
        shifted[1:] = P[:-1]
    return shifted


@primitive
def _times(P: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return p B for each step and row."""
    return (_flat(P) @ B).reshape(P.shape)


@primitive
def _outer(P: np.ndarray, Q: np.ndarray, backward: bool) -> np.ndarray:
    """Return Σ pᵀ qₜ over steps and rows, (hidden, hidden), with the p of the step before, or after."""
    return _flat(P[1:]).T @ _flat(Q[:-1]) if backward else _flat(P[:-1]).T @ _flat(Q[1:])


def _sum_of_outer(P: Any, Q: Any) -> Any:
    """Return Σ pᵀ q over steps and rows, both of the same step."""
    return anp.dot(_flat(P).T, _flat(Q))


def _flat(P: Any) -> Any:
    """Return steps and rows as rows of one matrix."""
    return anp.reshape(P, (-1, P.shape[-1]))


# autograd calls these with the numbers of the arguments to differentiate, the answer, and all arguments.
def _vjp_of_states(argnums: Sequence[int], H: Any, arguments: Any, _: Any) -> Callable[[Any], list[Any]]:
    _, B = arguments

    def back(g: Any) -> list[Any]:
        G = _linear_recurrence(g, H, B.T, True)
        return [G if each == 0 else _outer(H, G, False) for each in argnums]

    return back


def _vjp_of_linear_recurrence(
    argnums: Sequence[int], P: Any, arguments: Any, _: Any
) -> Callable[[Any], list[Any]]:
    V, H, B, backward = arguments

    def back(g: Any) -> list[Any]:
        G = _linear_recurrence(g, H, B.T, not backward)
        parts = {
            0: lambda: G,
            1: lambda: (
                (-2 * H)
                * (V + _times(_neighbour(P, backward), B))
                * (g + _times(_neighbour(G, not backward), B.T))
            ),
            2: lambda: _outer(P, G, backward),
        }
        return [parts[each]() for each in argnums]

    return back


defvjp_argnums(_states, _vjp_of_states)
defvjp_argnums(_linear_recurrence, _vjp_of_linear_recurrence)
defvjp(_neighbour, lambda _, P, backward: lambda g: _neighbour(g, not backward), argnums=(0,))
defvjp(_times, lambda _, P, B: lambda g: _times(g, B.T), lambda _, P, B: lambda g: _sum_of_outer(P, g))
defvjp(
    _outer,
    lambda _, P, Q, backward: lambda g: _neighbour(_times(Q, g.T), not backward),
    lambda _, P, Q, backward: lambda g: _times(_neighbour(P, backward), g),
    argnums=(0, 1),
)
