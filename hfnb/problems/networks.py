"""Small networks whose saddles are known."""

from collections.abc import Sequence

import autograd.numpy as np

from hfnb.problems.problem import Problem
from hfnb.validation import check_choice, check_nonnegative_int, check_positive_int, check_sequence

ACTIVATIONS = {"tanh": np.tanh, "sigmoid": lambda z: 0.5 * (1 + np.tanh(z / 2))}


def deep_linear(widths: Sequence[int] = (4, 2, 4), kept: Sequence[int] = (1,), seed: int = 0) -> Problem:
    """Return ½‖W_L ⋯ W₁ − T‖² for a random target T: a linear network at one of its saddles.

    ``widths`` are those of the layers, input first. At every saddle the product is T with only some of
    its singular values, s₀ > s₁ > …: ``kept`` says which (none for all weights zero). Each pair of a
    missing sᵢ and a smaller kept sⱼ < sᵢ gives one negative eigenvalue, and in a network of two layers so
    does each pair of a missing sᵢ and an idle hidden unit; idle units of more layers leave the Hessian
    zero. The least value is ½ Σ sᵢ² over what the narrowest layer cannot hold. ValueError for kept values
    that do not fit.

    Source: Baldi & Hornik (1989); Kawaguchi, "Deep learning without poor local minima" (2016).

    >>> deep_linear((3, 2, 3), kept=(0, 1)).index, deep_linear((3, 2, 3), kept=(1, 2)).index
    (0, 2)
    """
    widths = [check_positive_int("widths", width) for width in check_sequence("widths", widths)]
    kept = sorted(check_nonnegative_int("kept", each) for each in check_sequence("kept", kept))
    if len(widths) < 3:
        raise ValueError(f"widths: expected at least three layers, got {widths}")
    random, rank = np.random.default_rng(check_nonnegative_int("seed", seed)), min(widths[0], widths[-1])
    hidden = min(*widths[1:-1], rank)
    if len(set(kept)) != len(kept) or len(kept) > hidden or any(not 0 <= i < rank for i in kept):
        raise ValueError(f"kept: expected up to {hidden} different numbers from 0 to {rank - 1}, got {kept}")
    U, _ = np.linalg.qr(random.standard_normal((widths[-1], rank)))
    V, _ = np.linalg.qr(random.standard_normal((widths[0], rank)))
    s = np.linspace(2.0, 0.5, rank)
    T, shapes = (U * s) @ V.T, list(zip(widths[1:], widths[:-1], strict=False))

    def f(w):
        product, position = np.eye(widths[0]), 0
        for rows, columns in shapes:
            W = np.reshape(w[position : position + rows * columns], (rows, columns))
            product, position = np.dot(W, product), position + rows * columns
        return 0.5 * np.sum((product - T) ** 2)

    power = s[kept] ** (1 / len(shapes))
    weights = [np.zeros((rows, columns)) for rows, columns in shapes]
    weights[0][: len(kept)] = power[:, None] * V[:, kept].T
    for middle in weights[1:-1]:
        np.fill_diagonal(middle, [*power, *[0.0] * min(middle.shape)][: min(middle.shape)])
    weights[-1][:, : len(kept)] = power * U[:, kept]
    missing = [i for i in range(rank) if i not in kept]
    index = sum(i < j for i in missing for j in kept)
    if len(shapes) == 2:
        index += len(missing) * (widths[1] - len(kept))
    saddle = np.concatenate([W.ravel() for W in weights])
    minimum, start = 0.5 * float(np.sum(s[hidden:] ** 2)), 0.5 * random.standard_normal(saddle.size)
    return Problem("deep linear network", f, saddle, index, minimum, start)


def tiny_network(activation: str = "tanh", hidden: int = 3, inputs: int = 3, seed: int = 0) -> Problem:
    """Return ½ mean (a(x)ᵀv + c − y)², a = tanh(Wx) or sigmoid(Wx), y by a network of the same form.

    Over 20 random samples; parameters (W, v, c), c only with the sigmoid. With W = 0, v = 0, c = mean y
    every hidden unit does the same and the gradient is zero: a strict saddle with a negative eigenvalue
    for each hidden unit. Networks are started near it: ``start`` is 0.02 away. The least value is 0.
    ValueError for another activation.

    >>> tiny_network("sigmoid", hidden=2).index
    2
    """
    act = ACTIVATIONS[check_choice("activation", activation, ACTIVATIONS)]
    hidden, inputs = check_positive_int("hidden", hidden), check_positive_int("inputs", inputs)
    random = np.random.default_rng(check_nonnegative_int("seed", seed))
    offset = activation == "sigmoid"  # where a(0) = 1/2, an offset takes the mean; tanh(0) = 0 needs none
    X = random.standard_normal((20, inputs))

    def outputs(w):
        W, v = np.reshape(w[: hidden * inputs], (hidden, inputs)), w[hidden * inputs : hidden * (inputs + 1)]
        return np.dot(act(np.dot(X, W.T)), v) + (w[-1] if offset else 0.0)

    teacher = random.standard_normal(hidden * (inputs + 1) + offset)
    y = outputs(teacher)

    def f(w):
        return 0.5 * np.mean((outputs(w) - y) ** 2)

    saddle = np.zeros(teacher.size)
    saddle[-1] = y.mean() if offset else 0.0
    problem = Problem(f"tiny {activation} network", f, saddle, hidden, 0.0, saddle)
    problem.start = problem.near(0.02, seed)
    return problem
