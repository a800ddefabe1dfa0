"""Functions whose stationary point and least value are known: polynomials, small networks, strict saddles.

An argument that does not fit raises ValueError or TypeError with its name and what was expected.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import autograd.numpy as anp
import numpy as np
from autograd import hessian, make_hvp, value_and_grad
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.costs import Counts
from hfnb.objectives.sampling import Sample
from hfnb.validation import (
    check_choice,
    check_nonnegative,
    check_nonnegative_int,
    check_positive_int,
    check_sequence,
    check_vector,
)


@dataclass(eq=False)
class Problem:
    """A function f of a vector with a known stationary point and a known least value.

    It is an `hfnb.objectives.ObjectiveLike`, so that optimizers take it. There are no samples: the methods
    ignore their argument ``sample``.

    Parameters
    ----------
    name : str
        What messages and plots call it.
    f : callable
        ``f(w)``, from (p,) to a number, written in ``autograd.numpy``.
    stationary : ndarray, shape (p,)
        A point where ∇f = 0.
    index : int
        Number of negative eigenvalues of the Hessian there; the point is a strict saddle if it is positive.
    minimum : float
        The least value of f.
    start : ndarray, shape (p,)
        Where a run usually begins.
    n : int
        Number of samples that an evaluation counts as.
    counts : Counts
        What has been evaluated so far.

    Examples
    --------
    >>> from autograd.numpy import sum
    >>> bowl = Problem("bowl", lambda w: sum(w**2), np.zeros(2), 0, 0.0, np.ones(2))
    >>> bowl.value(bowl.start), bowl.gradient(bowl.start)
    (2.0, array([2., 2.]))
    """

    name: str
    f: Callable[[np.ndarray], float]
    stationary: np.ndarray
    index: int
    minimum: float
    start: np.ndarray
    n: int = 1
    counts: Counts = field(default_factory=Counts, repr=False)

    @property
    def size(self) -> int:
        """Number p of parameters."""
        return self.stationary.size

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : optional
            Ignored.

        Returns
        -------
        float
            The value.
        """
        check_vector("w", w, self.size)
        self.counts.add("losses", 1, 0)
        return float(self.f(w))

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return f(w) and ∇f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : optional
            Ignored.

        Returns
        -------
        value : float
            f(w).
        gradient : ndarray, shape (p,)
            ∇f(w).
        """
        check_vector("w", w, self.size)
        self.counts.add("gradients", 1, 0)
        value, gradient = value_and_grad(self.f)(w)
        return float(value), gradient

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return ∇f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.

        Returns
        -------
        ndarray, shape (p,)
            The gradient.
        """
        return self.value_and_gradient(w)[1]

    def curvature(self, w: np.ndarray, kind: str = "hessian", sample: Sample | None = None) -> LinearOperator:
        """Return the Hessian at w as an operator.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        kind : {"hessian"}
            The only curvature that a function without a network has.
        sample : optional
            Ignored.

        Returns
        -------
        LinearOperator, shape (p, p)
            The Hessian at this w, even if the array is changed later.

        Raises
        ------
        ValueError
            If ``kind`` is another one.
        """
        if kind != "hessian":
            raise ValueError(f"curvature: expected 'hessian', the only one {self.name} has, got {kind!r}")
        check_vector("w", w, self.size)
        apply, _ = make_hvp(self.f)(np.array(w))  # a copy, because the product refers to its point

        def product(v: np.ndarray) -> np.ndarray:
            self.counts.add("products", 1, 0)
            return apply(v.ravel().astype(w.dtype, copy=False))

        return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)

    def hessian_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²f(w) v.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        v : ndarray, shape (p,)
            What is multiplied.

        Returns
        -------
        ndarray, shape (p,)
            The product.
        """
        check_vector("v", v, self.size)
        return self.curvature(w) @ v

    def hessian(self, w: np.ndarray) -> np.ndarray:
        """Return the Hessian at w as a dense matrix, which takes p products.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.

        Returns
        -------
        ndarray, shape (p, p)
            The Hessian.
        """
        check_vector("w", w, self.size)
        return hessian(self.f)(w)

    def scaled(self, loss: float = 1.0, stretch: float | np.ndarray = 1.0) -> "Problem":
        """Return the same problem in other units: w ↦ loss · f(w / stretch).

        Parameters
        ----------
        loss : float
            Factor of the value, positive.
        stretch : float or ndarray, shape (p,)
            Factor of all coordinates, or of each one; positive.

        Returns
        -------
        Problem
            A problem whose stationary point, least value and start are scaled in the same way.

        Raises
        ------
        ValueError
            If a factor is not positive and finite.

        Examples
        --------
        >>> from hfnb.problems import rosenbrock
        >>> wide = rosenbrock().scaled(loss=1e-8, stretch=1e6)
        >>> wide.stationary, bool(np.isclose(wide.value(wide.start), 24.2e-8))
        (array([1000000., 1000000.]), True)
        """
        unit = np.broadcast_to(np.asarray(stretch, dtype=float), self.stationary.shape)
        for name, value in (("loss", np.asarray(loss)), ("stretch", unit)):
            if not np.all((value > 0) & np.isfinite(value)):
                raise ValueError(f"{name}: expected positive numbers, got {value}")

        def f(w: np.ndarray) -> float:
            return loss * self.f(w / unit.astype(w.dtype))

        name = f"{self.name}, scaled"
        return Problem(name, f, unit * self.stationary, self.index, loss * self.minimum, unit * self.start)

    def near(self, distance: float, seed: int = 0) -> np.ndarray:
        """Return a point near the stationary one, in a random direction from it.

        Parameters
        ----------
        distance : float
            Euclidean distance from the stationary point, at least 0.
        seed : int
            At least 0; a seed always gives the same direction.

        Returns
        -------
        ndarray, shape (p,)
            The point.
        """
        check_nonnegative("distance", distance, finite=True)
        direction = np.random.default_rng(check_nonnegative_int("seed", seed)).standard_normal(self.size)
        return self.stationary + distance * direction / np.linalg.norm(direction)


def quartic_saddle() -> Problem:
    """Return ½x² − ½y² + ¼y⁴, which has a strict saddle at 0 and minima −¼ at (0, ±1).

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    At every (x, 0) the gradient points along x, and methods that follow gradients end at the saddle. SciPy's
    Newton methods report this as success.

    Examples
    --------
    >>> float(quartic_saddle().value(np.array([0.0, 1.0])))
    -0.25
    """

    def f(w: np.ndarray) -> float:
        x, y = w[0], w[1]
        return x**2 / 2 - y**2 / 2 + y**4 / 4

    return Problem("quartic saddle", f, np.zeros(2), 1, -0.25, np.array([1.0, 0.0]))


def monkey_saddle() -> Problem:
    """Return x³ − 3xy² + ¼(x² + y²)², which falls from 0 in three directions to minima −27/4 at radius 3.

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    The saddle is degenerate: its Hessian is zero, so that second-order information cannot tell it from a
    minimum.

    Examples
    --------
    >>> monkey_saddle().value(np.array([-3.0, 0.0]))
    -6.75
    """

    def f(w: np.ndarray) -> float:
        x, y = w[0], w[1]
        return x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2 / 4

    return Problem("monkey saddle", f, np.zeros(2), 0, -6.75, np.array([0.5, 0.3]))


def random_saddle(n: int = 20, index: int = 5, seed: int = 0) -> Problem:
    """Return ½wᵀHw + ¼‖w‖⁴ with a random H, which has a saddle at 0.

    Parameters
    ----------
    n : int
        Number of parameters, at least 1.
    index : int
        Number of negative eigenvalues of H, from 0 to n.
    seed : int
        At least 0; a seed always gives the same problem.

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    The absolute values of the eigenvalues are uniform in (0.1, 1), the eigenvectors uniform; [1]_ studies
    such quadratics. The quartic term bounds the function from below: its least value is −λ²/4, where λ is the
    most negative eigenvalue.

    References
    ----------
    .. [1] Y. Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional
       non-convex optimization", NeurIPS 2014.

    Examples
    --------
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

    def f(w: np.ndarray) -> float:
        return 0.5 * anp.dot(w, anp.dot(H, w)) + 0.25 * anp.dot(w, w) ** 2

    minimum = -0.25 * min(eigenvalues.min(), 0.0) ** 2
    return Problem("random saddle", f, np.zeros(n), index, minimum, random.standard_normal(n))


def tensor_decomposition(d: int = 6, components: int = 3, seed: int = 0) -> Problem:
    """Return ½‖T − u⊗u⊗u⊗u‖² with T = Σᵢ aᵢ⊗aᵢ⊗aᵢ⊗aᵢ over d orthonormal aᵢ.

    Parameters
    ----------
    d : int
        Number of parameters and of components aᵢ.
    components : int
        How many aᵢ the stationary point combines, from 1 to d.
    seed : int
        At least 0; a seed always gives the same problem.

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    Every ±aᵢ is a minimum, of value (d − 1)/2. By symmetry, every u = m^(−3/4) (± aᵢ ± aⱼ …), over m of the
    aᵢ, is stationary, with m − 1 negative eigenvalues. This is the unconstrained form of the problem of [1]_.

    References
    ----------
    .. [1] R. Ge, F. Huang, C. Jin, Y. Yuan, "Escaping from saddle points: online stochastic gradient for
       tensor decomposition", COLT 2015.

    Examples
    --------
    >>> tensor_decomposition(d=4, components=2).minimum
    1.5
    """
    d = check_positive_int("d", d)
    components = check_positive_int("components", components, at_most=d)
    random = np.random.default_rng(check_nonnegative_int("seed", seed))
    A, _ = np.linalg.qr(random.standard_normal((d, d)))

    def f(u: np.ndarray) -> float:
        return 0.5 * (d - 2 * anp.sum(anp.dot(A, u) ** 4) + anp.dot(u, u) ** 4)

    saddle = components**-0.75 * A[:components].sum(axis=0)
    start = 0.5 * random.standard_normal(d)
    return Problem("tensor decomposition", f, saddle, components - 1, (d - 1) / 2, start)


def rosenbrock(n: int = 2) -> Problem:
    """Return Σ 100(wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)², a curved valley with its minimum 0 at (1, …, 1).

    Parameters
    ----------
    n : int
        Number of parameters, at least 2.

    Returns
    -------
    Problem
        The problem.

    References
    ----------
    .. [1] H. Rosenbrock, "An automatic method for finding the greatest or least value of a function", The
       Computer Journal 3, 1960.

    Examples
    --------
    >>> rosenbrock().value(np.array([-1.2, 1.0]))
    24.2
    """
    if check_positive_int("n", n) < 2:
        raise ValueError(f"n: expected at least 2, got {n}")

    def f(w: np.ndarray) -> float:
        return anp.sum(100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2)

    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    return Problem("Rosenbrock", f, np.ones(n), 0, 0.0, start)


def hard_case() -> Problem:
    """Return −x² + ½y² − y + ¼(x² + y²)²: the hard case of trust regions at every point with x = 0.

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    At x = 0 the gradient is orthogonal to the direction of negative curvature, and so is each Krylov space
    that begins with the gradient. Solvers that use only this space end at the saddle (0, y), y + y³ = 1 [1]_.
    The minima are −7/6 at (±√17/3, 1/3).

    References
    ----------
    .. [1] A. Conn, N. Gould, P. Toint, "Trust-Region Methods", SIAM 2000, §7.3.1.

    Examples
    --------
    >>> round(hard_case().value(np.array([np.sqrt(17) / 3, 1 / 3])), 6)
    -1.166667
    """

    def f(w: np.ndarray) -> float:
        x, y = w[0], w[1]
        return -(x**2) + y**2 / 2 - y + (x**2 + y**2) ** 2 / 4

    # The real root of y³ + y = 1, by Cardano's formula.
    y = np.cbrt(0.5 + np.sqrt(31 / 108)) + np.cbrt(0.5 - np.sqrt(31 / 108))
    return Problem("hard case", f, np.array([0.0, y]), 1, -7 / 6, np.zeros(2))


ACTIVATIONS = {"tanh": anp.tanh, "sigmoid": lambda z: 0.5 * (1 + anp.tanh(z / 2))}


def deep_linear(widths: Sequence[int] = (4, 2, 4), kept: Sequence[int] = (1,), seed: int = 0) -> Problem:
    """Return ½‖W_L ⋯ W₁ − T‖² for a random T: a linear network at one of its saddles.

    Parameters
    ----------
    widths : sequence of int
        Numbers of inputs, of the units of each hidden layer, and of outputs.
    kept : sequence of int
        Numbers i of the singular values s₀ > s₁ > … of T that W_L ⋯ W₁ has at the stationary point; the
        others are zero there. If it is empty, all weights are zero.
    seed : int
        At least 0; a seed always gives the same problem.

    Returns
    -------
    Problem
        The problem.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form, or if more values are kept than the narrowest layer has units.

    Notes
    -----
    Each pair of a missing sᵢ and a smaller kept sⱼ gives one negative eigenvalue. With two weight matrices,
    each pair of a missing sᵢ and a hidden unit with zero weights gives one as well; with more, such units add
    zero eigenvalues only [1]_ [2]_. The least value is ½ Σ sᵢ² over i ≥ h, the width of the narrowest layer.

    References
    ----------
    .. [1] P. Baldi, K. Hornik, "Neural networks and principal component analysis", Neural Networks 2, 1989.
    .. [2] K. Kawaguchi, "Deep learning without poor local minima", NeurIPS 2016.

    Examples
    --------
    >>> deep_linear((3, 2, 3), kept=(0, 1)).index, deep_linear((3, 2, 3), kept=(1, 2)).index
    (0, 2)
    """
    widths = [check_positive_int("widths", width) for width in check_sequence("widths", widths)]
    kept = sorted(check_nonnegative_int("kept", each) for each in check_sequence("kept", kept))
    if len(widths) < 3:
        raise ValueError(f"widths: expected at least three (inputs, hidden, outputs), got {widths}")
    random, rank = np.random.default_rng(check_nonnegative_int("seed", seed)), min(widths[0], widths[-1])
    hidden = min(*widths[1:-1], rank)
    if len(set(kept)) != len(kept) or len(kept) > hidden or any(not 0 <= i < rank for i in kept):
        raise ValueError(f"kept: expected up to {hidden} different numbers from 0 to {rank - 1}, got {kept}")
    U, _ = np.linalg.qr(random.standard_normal((widths[-1], rank)))
    V, _ = np.linalg.qr(random.standard_normal((widths[0], rank)))
    s = np.linspace(2.0, 0.5, rank)
    T, shapes = (U * s) @ V.T, list(zip(widths[1:], widths[:-1], strict=False))

    def f(w: np.ndarray) -> float:
        product, position = np.eye(widths[0]), 0
        for rows, columns in shapes:
            W = anp.reshape(w[position : position + rows * columns], (rows, columns))
            product, position = anp.dot(W, product), position + rows * columns
        return 0.5 * anp.sum((product - T) ** 2)

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
    """Return ½ mean (φ(Wx)ᵀv + c − y)² over 20 random samples, y from a network of the same form.

    Parameters
    ----------
    activation : {"tanh", "sigmoid"}
        φ. The offset c is a parameter with "sigmoid" only.
    hidden, inputs : int
        Numbers of hidden units and of inputs, at least 1.
    seed : int
        At least 0; a seed always gives the same problem.

    Returns
    -------
    Problem
        The problem.

    Notes
    -----
    The parameters are (W, v, c). With W = 0, v = 0 and c the mean of y, all hidden units do the same and the
    gradient is zero: a strict saddle with a negative eigenvalue for each hidden unit. Networks are usually
    started near it; ``start`` is 0.02 away. The least value is 0.

    Examples
    --------
    >>> tiny_network("sigmoid", hidden=2).index
    2
    """
    act = ACTIVATIONS[check_choice("activation", activation, ACTIVATIONS)]
    hidden, inputs = check_positive_int("hidden", hidden), check_positive_int("inputs", inputs)
    random = np.random.default_rng(check_nonnegative_int("seed", seed))
    offset = (
        activation == "sigmoid"
    )  # sigmoid(0) = 1/2, so the saddle needs an offset, the mean of y; tanh(0) = 0 does not
    X = random.standard_normal((20, inputs))

    def outputs(w: np.ndarray) -> np.ndarray:
        W, v = anp.reshape(w[: hidden * inputs], (hidden, inputs)), w[hidden * inputs : hidden * (inputs + 1)]
        return anp.dot(act(anp.dot(X, W.T)), v) + (w[-1] if offset else 0.0)

    teacher = random.standard_normal(hidden * (inputs + 1) + offset)
    y = outputs(teacher)

    def f(w: np.ndarray) -> float:
        return 0.5 * anp.mean((outputs(w) - y) ** 2)

    saddle = np.zeros(teacher.size)
    saddle[-1] = y.mean() if offset else 0.0
    problem = Problem(f"tiny {activation} network", f, saddle, hidden, 0.0, saddle)
    problem.start = problem.near(0.02, seed)
    return problem


# Families of strict saddles: a member for each seed.
STRICT_SADDLES: dict[str, Callable[[int], Problem]] = {
    "random quadratic, 1 of 20 negative": lambda seed: random_saddle(20, 1, seed),
    "random quadratic, 10 of 20 negative": lambda seed: random_saddle(20, 10, seed),
    "linear network, 2 layers": lambda seed: deep_linear((4, 2, 4), (), seed),
    "linear network, 2 layers, rank 1": lambda seed: deep_linear((4, 2, 4), (1,), seed),
    "linear network, 3 layers": lambda seed: deep_linear((4, 2, 2, 4), (1, 2), seed),
    "tanh network": lambda seed: tiny_network("tanh", seed=seed),
    "sigmoid network": lambda seed: tiny_network("sigmoid", seed=seed),
    "tensor decomposition": lambda seed: tensor_decomposition(6, 3, seed),
    "quartic saddle": lambda seed: quartic_saddle(),
    "hard case": lambda seed: hard_case(),
}


def strict_saddles(count: int) -> Iterator[tuple[str, int, Problem]]:
    """Yield strict saddles, one from each family of ``STRICT_SADDLES`` in turn.

    Parameters
    ----------
    count : int
        How many, at least 0. Every round through the families has the next seed.

    Yields
    ------
    family : str
        A name in ``STRICT_SADDLES``.
    seed : int
        The seed of this member, from 0.
    problem : Problem
        The problem.

    Examples
    --------
    >>> [(family, seed) for family, seed, _ in strict_saddles(11)][-1]
    ('random quadratic, 1 of 20 negative', 1)
    """
    for number, family in islice(enumerate(cycle(STRICT_SADDLES)), check_nonnegative_int("count", count)):
        seed = number // len(STRICT_SADDLES)
        yield family, seed, STRICT_SADDLES[family](seed)
