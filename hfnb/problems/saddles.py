"""Polynomials and small networks whose saddles are known."""

from collections.abc import Sequence

import autograd.numpy as np

from hfnb.problems.problem import Problem
from hfnb.validation import check_choice, check_nonnegative_int, check_positive_int, check_sequence


def quartic_saddle() -> Problem:
    """Return ½x² − ½y² + ¼y⁴: a strict saddle at 0, minima −¼ at (0, ±1).

    From (0, 0), and from (x, 0) but for rounding, the gradient shows no way down: SciPy's Newton methods
    return the saddle as a success.

    >>> float(quartic_saddle().value(np.array([0.0, 1.0])))
    -0.25
    """

    def f(w):
        x, y = w[0], w[1]
        return x**2 / 2 - y**2 / 2 + y**4 / 4

    return Problem("quartic saddle", f, np.zeros(2), 1, -0.25, np.array([1.0, 0.0]))


def monkey_saddle() -> Problem:
    """Return x³ − 3xy² + ¼(x² + y²)²: three ways down from 0, to minima −27/4 at radius 3.

    A degenerate saddle, with Hessian zero: no second-order method or certificate sees it.

    >>> monkey_saddle().value(np.array([-3.0, 0.0]))
    -6.75
    """

    def f(w):
        x, y = w[0], w[1]
        return x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2 / 4

    return Problem("monkey saddle", f, np.zeros(2), 0, -6.75, np.array([0.5, 0.3]))


def random_saddle(n: int = 20, index: int = 5, seed: int = 0) -> Problem:
    """Return ½wᵀHw + ¼‖w‖⁴, H random with ``index`` negative eigenvalues: a saddle at 0.

    The eigenvalues of either sign are uniform in (0.1, 1), the eigenvectors uniform: Dauphin et al.
    (2014) study such quadratics; the quartic term bounds them, the least value being −λmin²/4. ValueError
    for another index.

    >>> random_saddle(n=3, index=1).index
    1
    """
    n, index = check_positive_int("n", n), check_nonnegative_int("index", index)
    if index > n:
        raise ValueError(f"index: expected 0 to {n} negative eigenvalues, got {index}")
    random = np.random.default_rng(check_nonnegative_int("seed", seed))
    Q, _ = np.linalg.qr(random.standard_normal((n, n)))
    eigenvalues = random.uniform(0.1, 1.0, n) * np.where(np.arange(n) < index, -1.0, 1.0)
    H = (Q * eigenvalues) @ Q.T

    def f(w):
        return 0.5 * np.dot(w, np.dot(H, w)) + 0.25 * np.dot(w, w) ** 2

    minimum = -0.25 * min(eigenvalues.min(), 0.0) ** 2
    return Problem("random saddle", f, np.zeros(n), index, minimum, random.standard_normal(n))


def tensor_decomposition(d: int = 6, components: int = 3, seed: int = 0) -> Problem:
    """Return ½‖T − u⊗u⊗u⊗u‖², T = Σᵢ aᵢ⊗aᵢ⊗aᵢ⊗aᵢ over d orthonormal aᵢ: each ±aᵢ is a minimum, (d − 1)/2.

    Symmetry makes saddles: wherever u weighs m of the aᵢ equally, by m^(−3/4), it is stationary of index
    m − 1; ``components`` is that m. The unconstrained form of the problem of Ge, Huang, Jin & Yuan,
    "Escaping from saddle points" (2015). ValueError unless 1 <= components <= d.

    >>> tensor_decomposition(d=4, components=2).minimum
    1.5
    """
    d = check_positive_int("d", d)
    components = check_positive_int("components", components, at_most=d)
    random = np.random.default_rng(check_nonnegative_int("seed", seed))
    A, _ = np.linalg.qr(random.standard_normal((d, d)))

    def f(u):
        return 0.5 * (d - 2 * np.sum(np.dot(A, u) ** 4) + np.dot(u, u) ** 4)

    saddle = components**-0.75 * A[:components].sum(axis=0)
    start = 0.5 * random.standard_normal(d)
    return Problem("tensor decomposition", f, saddle, components - 1, (d - 1) / 2, start)


def rosenbrock(n: int = 2) -> Problem:
    """Return Σ 100(wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)²: a curved valley to its minimum 0 at (1, …, 1).

    Source: Rosenbrock (1960). ValueError for n < 2.

    >>> rosenbrock().value(np.array([-1.2, 1.0]))
    24.2
    """
    if check_positive_int("n", n) < 2:
        raise ValueError(f"n: expected at least 2, got {n}")

    def f(w):
        return np.sum(100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2)

    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    return Problem("Rosenbrock", f, np.ones(n), 0, 0.0, start)


def hard_case() -> Problem:
    """Return −x² + ½y² − y + ¼(x² + y²)²: the trust region's hard case at every point with x = 0.

    There the gradient is orthogonal to the direction of negative curvature, and so is each Krylov space
    that begins with it: all of these solvers end at the saddle (0, y), y + y³ = 1. The minima are −7/6 at
    (±√17/3, 1/3). Source: Conn, Gould & Toint, Trust-Region Methods (2000), §7.3.1.

    >>> round(hard_case().value(np.array([np.sqrt(17) / 3, 1 / 3])), 6)
    -1.166667
    """

    def f(w):
        x, y = w[0], w[1]
        return -(x**2) + y**2 / 2 - y + (x**2 + y**2) ** 2 / 4

    # The real root of y³ + y = 1, by Cardano's formula.
    y = np.cbrt(0.5 + np.sqrt(31 / 108)) + np.cbrt(0.5 - np.sqrt(31 / 108))
    return Problem("hard case", f, np.array([0.0, y]), 1, -7 / 6, np.zeros(2))


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
