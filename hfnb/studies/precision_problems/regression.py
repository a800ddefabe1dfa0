"""Fits to data: an oscillating function, deep autoencoders, and correlated features of a real data set."""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from hfnb import datasets
from hfnb.datasets import Dataset
from hfnb.models import Network, autoencoder, mlp
from hfnb.objectives import Objective
from hfnb.studies.precision_problems.problem import PrecisionProblem, relative_error
from hfnb.validation import check_extra, check_positive_int

SIDE = 28  # pixels on each side of an image
MARTENS_SIZES = (784, 1000, 500, 250, 30)  # the encoder of Martens (2010)


def oscillating(x: np.ndarray) -> np.ndarray:
    """Return sin 12x + ½x² + 0.3 sin(30x + 1).

    Parameters
    ----------
    x : ndarray
        Points.

    Returns
    -------
    ndarray
        The values, of the same shape.
    """
    return np.sin(12 * x) + 0.5 * x**2 + 0.3 * np.sin(30 * x + 1)


def oscillation(hidden: Sequence[int] = (40, 40), points: int = 1000) -> PrecisionProblem:
    """Return the regression of an oscillating function (`oscillating`) on [−1, 1], by a tanh network.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers.
    points : int
        Number of random points.

    Returns
    -------
    PrecisionProblem
        Its error is relative in the L² norm on 4,001 points. The goal corresponds to a loss of 1e-6, half
        the mean square of the residuals.

    Examples
    --------
    >>> oscillation().start(0).shape
    (1761,)
    """
    net = mlp([1, *hidden, 1], loss="squared_error")
    grid = np.linspace(-1, 1, 4001)[:, None]
    answer = oscillating(grid)

    def objective(seed: int) -> Objective:
        x = np.random.default_rng(seed).uniform(-1, 1, (points, 1))
        return Objective(net, Dataset(x, oscillating(x)), partitions=1)

    def error(w: np.ndarray) -> float:
        return relative_error(net.predict(w, grid), answer)

    goal = float(np.sqrt(2e-6 / np.mean(answer**2)))
    return PrecisionProblem(
        "oscillation", objective, lambda seed: net.init(seed, dtype=np.float64), error, net.shapes, goal
    )


def draw_curves(count: int, seed: int = 0, samples: int = 60) -> np.ndarray:
    """Return images of random quadratic Bézier curves, each given by three points.

    Parameters
    ----------
    count : int
        Number of images.
    seed : int
        At least 0; a seed always gives the same images.
    samples : int
        Points of each curve from which distances are measured.

    Returns
    -------
    ndarray, shape (count, 784)
        Images of 28 × 28 pixels from 0 to 1, in float64: lines that are two pixels wide with smooth edges.

    Notes
    -----
    A pixel at the distance r from the curve, in pixels, has the intensity 1.5 − r, cut off to [0, 1]. The six
    coordinates of the three points determine an image, so that an autoencoder needs a code of six numbers;
    images in the spirit of [1]_.

    References
    ----------
    .. [1] G. Hinton, R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science
       313, 2006.

    Examples
    --------
    >>> images = draw_curves(3)
    >>> images.shape, float(images.min()), bool(0.9 < images.max() <= 1)
    ((3, 784), 0.0, True)
    """
    points = np.random.default_rng(seed).uniform(3, SIDE - 4, (count, 3, 2))
    t = np.linspace(0, 1, samples)[:, None]
    weights = np.hstack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    pixels = np.arange(SIDE)
    images = np.empty((count, SIDE * SIDE))
    for image, curve in zip(images, weights @ points, strict=True):
        across, down = ((curve[:, axis, None] - pixels) ** 2 for axis in (0, 1))
        distance = np.sqrt((across[:, None, :] + down[:, :, None]).min(axis=0))
        image[:] = np.clip(1.5 - distance, 0, 1).ravel()
    return images


def curves(sizes: Sequence[int] = (784, 60, 25, 6), images: int = 500) -> PrecisionProblem:
    """Return the deep autoencoder of synthetic curves (`draw_curves`), with a code of six numbers.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer of the encoder, and of the code;
        (784, 400, 200, 100, 50, 25, 6) in the literature [1]_ [2]_.
    images : int
        Number of training images; 20,000 in the literature.

    Returns
    -------
    PrecisionProblem
        Its error is the training loss, ½‖output − image‖² in the mean over images; the images are the same
        for each seed.

    References
    ----------
    .. [1] G. Hinton, R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science
       313, 2006.
    .. [2] J. Martens, "Deep learning via Hessian-free optimization", ICML 2010.

    Examples
    --------
    >>> problem = curves(images=10)
    >>> w = problem.start(0)
    >>> abs(problem.error(w) / problem.objective(1).value(w) - 1) < 1e-12
    True
    """
    return _reconstruction("curves autoencoder", autoencoder(sizes), draw_curves(images))


def mnist_autoencoder(sizes: Sequence[int] = (784, 60, 25, 10), images: int = 500) -> PrecisionProblem:
    """Return a deep autoencoder of the first images of MNIST.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of the units of each hidden layer of the encoder, and of the code;
        `MARTENS_SIZES` in the literature [1]_.
    images : int
        Number of training images, the first ones; 60,000 in the literature.

    Returns
    -------
    PrecisionProblem
        Its error is the training loss, ½‖output − image‖² in the mean over images; the images are the same
        for each seed.

    References
    ----------
    .. [1] J. Martens, "Deep learning via Hessian-free optimization", ICML 2010.

    Examples
    --------
    >>> mnist_autoencoder(images=10).start(0).shape
    (98544,)
    """
    train, _ = datasets.mnist()
    name = f"MNIST autoencoder{', large' if tuple(sizes) == MARTENS_SIZES else ''}"
    return _reconstruction(name, autoencoder(sizes), train.X[:images].astype(np.float64))


def _reconstruction(name: str, net: Network, X: np.ndarray) -> PrecisionProblem:
    """Return the problem of an autoencoder whose targets are its inputs, with Martens' sparse start."""
    data = Dataset(X, X)

    def error(w: np.ndarray) -> float:
        return net.error(w, data) / 2

    def start(seed: int) -> np.ndarray:
        return net.init(seed, method="sparse", dtype=np.float64)

    return PrecisionProblem(
        name, lambda seed: Objective(net, data), start, error, net.shapes, batch_size=min(100, len(X))
    )


def quadratic_features(X: np.ndarray) -> np.ndarray:
    """Return the standardized features and their products in pairs, again standardized.

    Parameters
    ----------
    X : ndarray, shape (rows, d)
        Features, of which none is constant.

    Returns
    -------
    ndarray, shape (rows, d (d + 3) / 2)
        Columns of mean 0 and variance 1: the features, their squares, and the products of two.

    Examples
    --------
    >>> quadratic_features(np.array([[1.0, 2.0], [2.0, 0.0], [4.0, 5.0], [0.0, 1.0]])).shape
    (4, 5)
    """
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    rows, columns = np.triu_indices(X.shape[1])
    Z = np.hstack([Z, Z[:, rows] * Z[:, columns]])
    return (Z - Z.mean(axis=0)) / Z.std(axis=0)


def breast_cancer(features: int = 30) -> PrecisionProblem:
    """Return linear least squares with quadratic features (`quadratic_features`) of a real data set.

    Parameters
    ----------
    features : int
        How many of the 30 measurements of cell nuclei are used, from the first.

    Returns
    -------
    PrecisionProblem
        Its error is that of the coefficients and the intercept, relative in the Euclidean norm, with the
        solution of least squares by the singular value decomposition as answer.

    Raises
    ------
    ImportError
        If scikit-learn, which brings the data, is not installed.

    Notes
    -----
    The target is 1 for a benign and −1 for a malignant tumour, for 569 patients [1]_. Radius, perimeter and
    area of a nucleus are nearly functions of each other. The matrix has the condition number 9e5 with all
    measurements and 2e4 with 10; that of the Hessian is its square. The error is that of the coefficients, as
    in tests of statistical software, because the predictions hardly depend on the directions of small
    curvature.

    References
    ----------
    .. [1] W. Street, W. Wolberg, O. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
       IS&T/SPIE Symposium on Electronic Imaging, 1993.

    Examples
    --------
    >>> breast_cancer(features=10).start(0).shape
    (66,)
    """
    check_extra("hfnb.studies.precision_problems.breast_cancer", "test", "sklearn")
    from sklearn.datasets import load_breast_cancer  # an extra

    features = check_positive_int("features", features, at_most=30)
    X, labels = load_breast_cancer(return_X_y=True)
    Z, y = quadratic_features(X[:, :features]), 2.0 * labels[:, None] - 1
    net, data = mlp([Z.shape[1], 1], loss="squared_error"), Dataset(Z, y)
    answer = linalg.lstsq(np.hstack([Z, np.ones((len(Z), 1))]), y[:, 0])[0]

    def start(seed: int) -> np.ndarray:
        return net.init(seed, dtype=np.float64)

    def error(w: np.ndarray) -> float:
        return relative_error(w, answer)

    return PrecisionProblem(
        "breast cancer", lambda seed: Objective(net, data, partitions=1), start, error, net.shapes
    )
