"""Recurrent networks that must remember: the adding problem, and the memorization of strings."""

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from hfnb.datasets import Dataset
from hfnb.models import product, recurrent_states
from hfnb.objectives import Objective
from hfnb.studies.precision_problems.problem import ONE_RECORD, PrecisionProblem
from hfnb.validation import check_positive_int

TEST_SEED = 2**32  # beyond the seeds of training samples, which are small numbers
SOLVED = 0.002  # test loss at which the adding problem counts as solved
INPUT_SCALE = 0.3  # standard deviation of the first weights of the inputs


@dataclass(frozen=True)
class RecurrentNetwork:
    """A tanh network hₜ = tanh(xₜ A + hₜ₋₁ B + b) with linear outputs hₜ C + c, as functions of one vector.

    Attributes
    ----------
    inputs, hidden, outputs : int
        Numbers of inputs, of hidden units, and of outputs in each step. h₀ = 0.

    Examples
    --------
    >>> net = RecurrentNetwork(2, 40, 1)
    >>> net.size, net.last_outputs(net.start(0), np.ones((10, 5, 2)), 3).shape
    (1761, (5, 3, 1))
    """

    inputs: int
    hidden: int
    outputs: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of A, B, b, C and c, in the order in which the parameters hold them."""
        hidden = self.hidden
        return (self.inputs, hidden), (hidden, hidden), (hidden,), (hidden, self.outputs), (self.outputs,)

    @property
    def size(self) -> int:
        """Number p of parameters."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def start(self, seed: int, input_scale: float = INPUT_SCALE) -> np.ndarray:
        """Return random parameters: B is orthogonal, so that states last as long as tanh is nearly linear.

        Parameters
        ----------
        seed : int
            At least 0.
        input_scale : float
            Standard deviation of the entries of A. States add up the inputs of all steps; the longer
            sequences with inputs in each step are, the smaller it must be.

        Returns
        -------
        ndarray, shape (p,)
            Parameters in float64. Biases are zero.
        """
        random = np.random.default_rng(seed)
        A = input_scale * random.standard_normal((self.inputs, self.hidden))
        B = np.linalg.qr(random.standard_normal((self.hidden, self.hidden)))[0]
        C = random.standard_normal((self.hidden, self.outputs)) / np.sqrt(self.hidden)
        parts = A, B, np.zeros(self.hidden), C, np.zeros(self.outputs)
        return np.concatenate([part.ravel() for part in parts])

    def last_outputs(self, w: np.ndarray, X: np.ndarray, count: int) -> Any:
        """Return the outputs of the last steps, in ``autograd.numpy``.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X : ndarray, shape (steps, rows, inputs)
            The inputs xₜ of all sequences.
        count : int
            Number of steps whose outputs are returned.

        Returns
        -------
        ndarray, shape (rows, count, outputs)
            The outputs.
        """
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = zip(anp.split(w, ends), self.shapes, strict=True)
        A, B, b, C, c = (anp.reshape(part, shape) for part, shape in parts)
        Z = product(X.reshape(-1, self.inputs), A, b)
        states = recurrent_states(anp.reshape(Z, (*X.shape[:2], self.hidden)), B)
        outputs = product(anp.reshape(states[-count:], (-1, self.hidden)), C, c)
        return anp.transpose(anp.reshape(outputs, (count, -1, self.outputs)), (1, 0, 2))


def adding_sequences(count: int, length: int, seed: int) -> Dataset:
    """Return sequences of random numbers of which two are marked, and the sums of these two.

    Parameters
    ----------
    count : int
        Number of sequences.
    length : int
        Number of steps T, at least 2.
    seed : int
        At least 0; a seed always gives the same sequences.

    Returns
    -------
    Dataset
        X (count, 2T): T numbers, uniform in [0, 1], and T marks, 0 or 1. Y (count, 1): the sum of the marked.

    Notes
    -----
    One mark is in the first half of the steps, the other in the second half, as in [1]_; in the original
    problem [2]_ both are in the first half, and lengths vary.

    References
    ----------
    .. [1] M. Arjovsky, A. Shah, Y. Bengio, "Unitary evolution recurrent neural networks", ICML 2016, §5.2.
    .. [2] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, §5.4.

    Examples
    --------
    >>> data = adding_sequences(100, 50, seed=0)
    >>> data.X.shape, float(data.X[:, 50:].sum())
    ((100, 100), 200.0)
    """
    if check_positive_int("length", length) < 2:
        raise ValueError(f"length: expected at least 2 steps, got {length}")
    random = np.random.default_rng(seed)
    values, marks = random.random((count, length)), np.zeros((count, length))
    marks[np.arange(count), random.integers(0, length // 2, count)] = 1
    marks[np.arange(count), random.integers(length // 2, length, count)] = 1
    return Dataset(np.hstack([values, marks]), (values * marks).sum(axis=1, keepdims=True))


def adding(length: int = 50, hidden: int = 20, sequences: int = 2000) -> PrecisionProblem:
    """Return the adding problem: a recurrent network must add two marked numbers of a long sequence.

    Parameters
    ----------
    length : int
        Number of steps, at least 2; usually 50, 100 or 200.
    hidden : int
        Number of hidden units.
    sequences : int
        Number of training sequences.

    Returns
    -------
    PrecisionProblem
        Its error is the mean square of the output minus the sum, over 1,000 sequences that are not trained
        on, the same for each seed. The problem is solved at 0.002; always 1 as the output has an error of
        1/6.

    Notes
    -----
    There must be several times as many sequences as parameters, because a network that fits all of fewer
    sequences need not add. The first weights of the inputs have the standard deviation 10 / length.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, §5.4.
    .. [2] J. Martens, I. Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML
       2011.

    Examples
    --------
    >>> adding().start(0).shape
    (481,)
    """
    net = RecurrentNetwork(2, hidden, 1)
    test = adding_sequences(1000, length, TEST_SEED)

    def residuals(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Any:
        inputs = np.stack([X[:, :length].T, X[:, length:].T], axis=2)
        return net.last_outputs(w, inputs, 1)[:, 0] - Y

    def objective(seed: int) -> Objective:
        return Objective.from_residuals(residuals, adding_sequences(sequences, length, seed), **ONE_RECORD)

    def error(w: np.ndarray) -> float:
        return float(np.mean(residuals(w, test.X, test.Y) ** 2))

    def start(seed: int) -> np.ndarray:
        return net.start(seed, input_scale=10 / length)

    return PrecisionProblem(
        f"adding, {length} steps",
        objective,
        start,
        error,
        net.shapes,
        SOLVED,
        batch_size=min(100, sequences),
        curvature_batch_size=min(250, sequences),
    )


def strings(count: int, length: int, symbols: int, seed: int) -> np.ndarray:
    """Return random strings, as numbers of their symbols.

    Parameters
    ----------
    count : int
        Number of strings.
    length : int
        Number of symbols in each.
    symbols : int
        Size of the alphabet.
    seed : int
        At least 0; a seed always gives the same strings.

    Returns
    -------
    ndarray, shape (count, length)
        Integers from 0 to symbols − 1.

    Examples
    --------
    >>> strings(100, 5, 4, seed=0).shape
    (100, 5)
    """
    return np.random.default_rng(seed).integers(0, symbols, (count, length))


def memorization(
    delay: int = 30, length: int = 5, symbols: int = 4, hidden: int = 20, sequences: int = 300
) -> PrecisionProblem:
    """Return noiseless memorization: a recurrent network reads a string and repeats it after a delay.

    Parameters
    ----------
    delay : int
        Number of steps T between the string and the signal to repeat it; usually 30 to 200.
    length, symbols : int
        Length of the strings, and size of their alphabet.
    hidden : int
        Number of hidden units.
    sequences : int
        Number of training strings.

    Returns
    -------
    PrecisionProblem
        Its error is ‖output − symbol‖² in the mean over all symbols of 1,000 random strings, the same for
        each seed, where a symbol is a unit vector. ``symbol_error`` is the fraction of symbols at which
        another output is the largest. Always 1/symbols as outputs have the error 1 − 1/symbols.

    Notes
    -----
    A sequence has T + 2 length steps: the string, zeros, the signal in the last step of the delay, and the
    steps of the answer, again with zeros as input. [1]_ also trains the outputs of all earlier steps, which
    are to be blank; here only the answer counts.

    References
    ----------
    .. [1] J. Martens, I. Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML
       2011.

    Examples
    --------
    >>> memorization().start(0).shape
    (604,)
    """
    net = RecurrentNetwork(symbols + 1, hidden, symbols)  # one input is the signal
    units, delay = np.eye(symbols + 1), check_positive_int("delay", delay)
    test = strings(1000, length, symbols, TEST_SEED)

    def answers(w: np.ndarray, X: np.ndarray) -> Any:
        inputs = np.zeros((delay + 2 * length, len(X), symbols + 1))
        inputs[:length] = units[X.astype(int).T]
        inputs[length + delay - 1] = units[symbols]
        return net.last_outputs(w, inputs, length)

    def residuals(w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Any:
        return anp.reshape(answers(w, X) - np.eye(symbols)[X.astype(int)], (len(X), -1))

    def objective(seed: int) -> Objective:
        X = strings(sequences, length, symbols, seed).astype(np.float64)  # as a dataset holds them
        return Objective.from_residuals(residuals, Dataset(X, np.zeros((len(X), 1))), **ONE_RECORD)

    def error(w: np.ndarray) -> float:
        return float(np.sum(residuals(w, test, test) ** 2) / test.size)

    def symbol_error(w: np.ndarray) -> float:
        return float(np.mean(answers(w, test).argmax(axis=-1) != test))

    name = f"memorization, {delay} steps"
    return PrecisionProblem(
        name,
        objective,
        net.start,
        error,
        net.shapes,
        symbol_error=symbol_error,
        batch_size=min(100, sequences),
    )
