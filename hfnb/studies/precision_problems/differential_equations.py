"""Differential equations whose solution is a network: Poisson, convection, Burgers, an unknown coefficient.

A network of this kind is called physics-informed: its residuals are the differential equation at random
points inside the domain, and the boundary conditions at random points of the boundary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np

from hfnb.datasets import Dataset
from hfnb.models import Network, derivatives, mlp
from hfnb.objectives import Objective
from hfnb.studies.precision_problems.problem import ONE_RECORD, PrecisionProblem, relative_error

BETA = 30.0  # speed of the convection equation
VISCOSITY = 0.01 / np.pi  # ν of Burgers' equation
NODES, WEIGHTS = np.polynomial.hermite.hermgauss(120)  # of the Gauss–Hermite quadrature


def _network(inputs: int, hidden: Sequence[int]) -> Network:
    """Return a tanh network with one output."""
    return mlp([inputs, *hidden, 1], loss="squared_error")


def _column(values: Any) -> Any:
    """Return a vector as a matrix of one column, the shape of a network's output."""
    return anp.reshape(values, (-1, 1))


def _grid(*axes: np.ndarray) -> np.ndarray:
    """Return all points of a rectangular grid, as rows."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _scattered(random: np.random.Generator, side: int) -> np.ndarray:
    """Return a random point in each cell of a side × side grid on the unit square: no large gap is left.

    Where independent points leave a gap, a network can change abruptly without a residual that shows it.
    """
    cells = _grid(*[np.arange(side)] * 2)
    return (cells + random.random(cells.shape)) / side


def _without_targets(X: np.ndarray) -> Dataset:
    """Return points at which residuals are zero for the right answer, whatever the targets."""
    return Dataset(X, np.zeros((len(X), 1)))


def _problem(
    name: str, objective: Callable[[int], Objective], net: Network, error: Callable[[np.ndarray], float]
) -> PrecisionProblem:
    """Return the problem whose parameters are those of a network."""
    return PrecisionProblem(name, objective, lambda seed: net.init(seed, dtype=np.float64), error, net.shapes)


def poisson_solution(X: np.ndarray) -> np.ndarray:
    """Return sin πx sin πy, which is zero on the boundary of the unit square.

    Parameters
    ----------
    X : ndarray, shape (rows, 2)
        Points (x, y).

    Returns
    -------
    ndarray, shape (rows, 1)
        u with u_xx + u_yy = −2π² u, in ``autograd.numpy``.
    """
    return _column(anp.sin(np.pi * X[:, 0]) * anp.sin(np.pi * X[:, 1]))


def poisson(
    hidden: Sequence[int] = (32, 32), interior: int = 800, boundary: int = 200, weight: float = 20.0
) -> PrecisionProblem:
    """Return Poisson's equation u_xx + u_yy = −2π² sin πx sin πy on the unit square, with u = 0 around it.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers of a tanh network u(x, y).
    interior, boundary : int
        Number of random points inside, and on the boundary.
    weight : float
        Factor of the mean square on the boundary.

    Returns
    -------
    PrecisionProblem
        Its error is that of u, relative in the L² norm on a grid of 41 × 41 points.

    Examples
    --------
    >>> poisson().start(0).shape
    (1185,)
    """
    net = _network(2, hidden)
    grid = _grid(*[np.linspace(0, 1, 41)] * 2)
    answer = poisson_solution(grid)

    def equation(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        _, (_, u_xx), (_, u_yy) = derivatives(net, w, X, (2, 2))
        return u_xx + u_yy - Y

    def around(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return derivatives(net, w, X, (0, 0))[0] - Y

    def objective(seed: int) -> Objective:
        random = np.random.default_rng(seed)
        inside, edge = random.random((interior, 2)), random.random((boundary, 2))
        side = random.integers(0, 4, boundary)
        edge[np.arange(boundary), side // 2] = side % 2
        data = [Dataset(inside, -2 * np.pi**2 * poisson_solution(inside)), _without_targets(edge)]
        return Objective.from_residuals([equation, around], data, weights=[1.0, weight], **ONE_RECORD)

    def error(w: np.ndarray) -> float:
        return relative_error(net.predict(w, grid), answer)

    return _problem("poisson", objective, net, error)


def convection_solution(X: np.ndarray) -> np.ndarray:
    """Return sin(x − βt) with β = 30.

    Parameters
    ----------
    X : ndarray, shape (rows, 2)
        Points (x, t).

    Returns
    -------
    ndarray, shape (rows, 1)
        u with u_t + β u_x = 0, in ``autograd.numpy``.
    """
    return _column(anp.sin(X[:, 0] - BETA * X[:, 1]))


def _around_a_circle(X: np.ndarray) -> np.ndarray:
    """Return (cos x, sin x, 2t − 1) for points (x, t): a function of these has the period 2π in x."""
    return np.column_stack([np.cos(X[:, 0]), np.sin(X[:, 0]), 2 * X[:, 1] - 1])


def convection(hidden: Sequence[int] = (20, 20), side: int = 40, initial: int = 100) -> PrecisionProblem:
    """Return u_t / β + u_x = 0 with β = 30 for x in [0, 2π] and t in [0, 1], periodic, with u(x, 0) = sin x.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers of a tanh network u(cos x, sin x, 2t − 1), which is periodic in x.
    side : int
        There are side × side points inside, a random one in each cell of a grid.
    initial : int
        Number of random points at t = 0.

    Returns
    -------
    PrecisionProblem
        Its error is that of u, relative in the L² norm on a grid of 65 × 101 points.

    Notes
    -----
    The difficulty grows with β: usual methods end with a network that solves the equation for short times
    only [1]_. The points must be dense. With fewer residuals than parameters or with gaps between the points,
    a network can satisfy the equation at all of them and still be wrong in between.

    References
    ----------
    .. [1] A. Krishnapriyan et al., "Characterizing possible failure modes in physics-informed neural
       networks", NeurIPS 2021.

    Examples
    --------
    >>> convection().start(0).shape
    (521,)
    """
    net = _network(3, hidden)
    grid = _grid(np.linspace(0, 2 * np.pi, 65), np.linspace(0, 1, 101))
    answer = convection_solution(grid)

    def equation(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        inputs = _around_a_circle(X)
        _, (u_cos,), (u_sin,), (u_third,) = derivatives(net, w, inputs, (1, 1, 1))
        u_x = inputs[:, :1] * u_sin - inputs[:, 1:2] * u_cos
        return 2 * u_third / BETA + u_x

    def initially(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return derivatives(net, w, _around_a_circle(X), (0, 0, 0))[0] - Y

    def objective(seed: int) -> Objective:
        random = np.random.default_rng(seed)
        inside = _scattered(random, side) * [2 * np.pi, 1.0]
        start = random.random((initial, 2)) * [2 * np.pi, 0.0]
        data = [_without_targets(inside), Dataset(start, convection_solution(start))]
        return Objective.from_residuals([equation, initially], data, **ONE_RECORD)

    def error(w: np.ndarray) -> float:
        return relative_error(net.predict(w, _around_a_circle(grid)), answer)

    return _problem("convection", objective, net, error)


def burgers_solution(X: np.ndarray) -> np.ndarray:
    """Return the solution of Burgers' equation by the Cole–Hopf transformation.

    Parameters
    ----------
    X : ndarray, shape (rows, 2)
        Points (x, t) with x in [−1, 1] and t in [0, 1].

    Returns
    -------
    ndarray, shape (rows, 1)
        u with u_t + u u_x = ν u_xx and u(x, 0) = −sin πx, in ``autograd.numpy``.

    Notes
    -----
    With f(y) = exp(−cos(πy) / 2πν) and s = √(4νt),

        u(x, t) = − ∫ sin(π(x − sη)) f(x − sη) exp(−η²) dη / ∫ f(x − sη) exp(−η²) dη,

    computed by Gauss–Hermite quadrature [1]_.

    References
    ----------
    .. [1] C. Basdevant et al., "Spectral and finite difference solutions of the Burgers equation", Computers
       & Fluids 14, 1986.

    Examples
    --------
    >>> burgers_solution(np.array([[0.5, 0.0], [0.0, 0.7]])).round(12).tolist()
    [[-1.0], [0.0]]
    """
    y = np.pi * (X[:, :1] - anp.sqrt(4 * VISCOSITY * X[:, 1:]) * NODES)
    f = WEIGHTS * anp.exp(-(1 + anp.cos(y)) / (2 * np.pi * VISCOSITY))  # the factor exp(−1/2πν) cancels
    return _column(-anp.sum(anp.sin(y) * f, axis=1) / anp.sum(f, axis=1))


def burgers(
    hidden: Sequence[int] = (16, 16), side: int = 45, boundary: int = 100, weight: float = 10.0
) -> PrecisionProblem:
    """Return u_t + u u_x = ν u_xx for x in [−1, 1], t in [0, 1], with u(x, 0) = −sin πx and u(±1, t) = 0.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers of a tanh network u(x, t).
    side : int
        There are side × side points inside, a random one in each cell of a grid.
    boundary : int
        Number of random points at t = 0, and of those at x = ±1.
    weight : float
        Factor of the mean squares of the initial values and of the values at x = ±1.

    Returns
    -------
    PrecisionProblem
        Its error is that of u, relative in the L² norm on a grid of 201 × 21 points.

    Notes
    -----
    ν = 0.01/π. From t = 1/π on, u falls from about 1 to about −1 within a layer around x = 0 whose width is
    of order ν. The points are denser towards x = 0: x = ± s², where s is uniform. The problem became a
    standard by [1]_.

    References
    ----------
    .. [1] M. Raissi, P. Perdikaris, G. Karniadakis, "Physics-informed neural networks", Journal of
       Computational Physics 378, 2019.

    Examples
    --------
    >>> burgers().start(0).shape
    (337,)
    """
    net = _network(2, hidden)
    grid = _grid(np.linspace(-1, 1, 201), np.linspace(0, 1, 21))
    answer = burgers_solution(grid)

    def equation(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        u, (u_x, u_xx), (u_t,) = derivatives(net, w, X, (2, 1))
        return u_t + u * u_x - VISCOSITY * u_xx

    def known(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return derivatives(net, w, X, (0, 0))[0] - Y

    def objective(seed: int) -> Objective:
        random = np.random.default_rng(seed)
        inside = _scattered(random, side) * [2.0, 1.0] - [1.0, 0.0]
        inside[:, 0] *= np.abs(inside[:, 0])
        start = np.column_stack([random.uniform(-1, 1, boundary), np.zeros(boundary)])
        ends = np.column_stack([random.choice([-1.0, 1.0], boundary), random.random(boundary)])
        data = [_without_targets(inside), Dataset(start, burgers_solution(start)), _without_targets(ends)]
        return Objective.from_residuals(
            [equation, known, known], data, weights=[1.0, weight, weight], **ONE_RECORD
        )

    def error(w: np.ndarray) -> float:
        return relative_error(net.predict(w, grid), answer)

    return _problem("burgers", objective, net, error)


def diffusion_coefficient(x: np.ndarray) -> np.ndarray:
    """Return a(x) = 1 + ½ sin 2πx, in ``autograd.numpy``.

    Parameters
    ----------
    x : ndarray
        Points in [0, 1].

    Returns
    -------
    ndarray
        The coefficient, of the same shape.
    """
    return 1 + 0.5 * anp.sin(2 * np.pi * x)


def diffusion_solution(x: np.ndarray) -> np.ndarray:
    """Return u(x) = sin πx, in ``autograd.numpy``.

    Parameters
    ----------
    x : ndarray
        Points in [0, 1].

    Returns
    -------
    ndarray
        The solution, of the same shape.
    """
    return anp.sin(np.pi * x)


def diffusion_source(x: np.ndarray) -> np.ndarray:
    """Return f = −(a u′)′ for the coefficient a and the solution u, in ``autograd.numpy``.

    Parameters
    ----------
    x : ndarray
        Points in [0, 1].

    Returns
    -------
    ndarray
        π² (a(x) sin πx − cos 2πx cos πx), of the same shape.
    """
    inner = diffusion_coefficient(x) * anp.sin(np.pi * x)
    return np.pi**2 * (inner - anp.cos(2 * np.pi * x) * anp.cos(np.pi * x))


def unknown_coefficient(
    hidden: Sequence[int] = (24, 24),
    interior: int = 400,
    measurements: int = 200,
    noise: float = 1e-4,
    weight: float = 1e4,
) -> PrecisionProblem:
    """Return the inverse problem −(a u′)′ = f on [0, 1]: a and u are unknown, u is measured with noise.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers of each of the two tanh networks, u(x) and a(x).
    interior, measurements : int
        Number of random points of the equation, and of those where u is measured.
    noise : float
        Standard deviation of the errors of measurement, which are normal; the largest value of u is 1.
    weight : float
        Factor of the mean square of the differences from the measurements.

    Returns
    -------
    PrecisionProblem
        Its error is that of a, relative in the L² norm on 201 points. The noise sets a limit to it, however
        well a method minimizes.

    Notes
    -----
    a = 1 + ½ sin 2πx and u = sin πx. Since u′ = 0 at x = ½, no further condition determines a, and only
    weakly around there: the flux a u′ at x is the integral of f from x to ½.

    Examples
    --------
    >>> unknown_coefficient().start(0).shape
    (1346,)
    """
    net = _network(1, hidden)
    grid = _grid(np.linspace(0, 1, 201))
    answer = diffusion_coefficient(grid)

    def equation(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        of_u, of_a = anp.split(w, 2)
        _, (u_x, u_xx) = derivatives(net, of_u, X, (2,))
        a, (a_x,) = derivatives(net, of_a, X, (1,))
        return a * u_xx + a_x * u_x + Y

    def measured(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return derivatives(net, anp.split(w, 2)[0], X, (0,))[0] - Y

    def objective(seed: int) -> Objective:
        random = np.random.default_rng(seed)
        inside, points = random.random((interior, 1)), random.random((measurements, 1))
        values = diffusion_solution(points) + noise * random.standard_normal(points.shape)
        data = [Dataset(inside, diffusion_source(inside)), Dataset(points, values)]
        return Objective.from_residuals([equation, measured], data, weights=[1.0, weight], **ONE_RECORD)

    def start(seed: int) -> np.ndarray:
        return np.concatenate([net.init(2 * seed + number, dtype=np.float64) for number in range(2)])

    def error(w: np.ndarray) -> float:
        return relative_error(net.predict(np.split(w, 2)[1], grid), answer)

    return PrecisionProblem("unknown coefficient", objective, start, error, 2 * net.shapes)
