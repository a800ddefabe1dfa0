"""What an optimizer needs of an objective, an objective of an evaluator and of a model."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.costs import Counts
from hfnb.objectives.profiler import Clock
from hfnb.objectives.sampling import Sample


@runtime_checkable
class ObjectiveLike(Protocol):
    """A function F of parameters, with gradient and curvature: what optimizers minimize.

    `hfnb.Objective` is one, in one process or with engines behind it. A class of your own with these members
    can be minimized as well.

    Attributes
    ----------
    n : int
        Number of samples: the costs of a run are counted in passes over so many.
    counts : Counts
        What has been evaluated so far.
    """

    n: int
    counts: Counts

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return F(w) over all samples, or over a mini-batch."""

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w), an array of shape (p,) like w."""

    def curvature(
        self, w: np.ndarray, kind: str | Callable = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the curvature at w as a symmetric operator of shape (p, p).

        ``kind`` is "hessian", "gauss-newton", or what else the objective knows. The operator has to keep its
        point: w may be changed afterwards.
        """


@runtime_checkable
class Evaluator(Protocol):
    """Sums of losses, gradients and curvature products over all samples, wherever these are.

    There are three: `hfnb.objectives.evaluator.LocalEvaluator` in one process,
    `hfnb.engines.client_evaluator.ClientEvaluator`, with which a client sends each evaluation to engines, and
    `hfnb.engines.mpi_evaluator.MPIEvaluator` beside an optimizer that runs on the engines.

    Attributes
    ----------
    n : int
        Number of samples.
    clock : Clock or None
        Where the time goes on engines (`hfnb.objectives.profiler`); None in one process.

    Notes
    -----
    All sums are *totals* as `hfnb.objectives.compensated_sums` defines them: in float64 arrays of shape
    (2, size), the sums and their rounding errors, in float32 arrays of shape (size,).
    """

    n: int

    @property
    def clock(self) -> Clock | None:
        """Where the time goes on engines; None in one process."""

    def identity(self) -> dict[str, str]:
        """Return a description of the data, by name, the same on any number of engines."""

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses at w over a sample: one number in float64."""

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and, last, of the losses: p + 1 numbers in the precision of w."""

    def linearize(
        self, w: np.ndarray, kind: str | Callable, sample: Sample | None = None
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function v ↦ the total of the curvature products with v at w: p numbers."""


@runtime_checkable
class Model(Protocol):
    """What `hfnb.Objective` needs of a model; `hfnb.models.mlp` makes one.

    ``size``, the number p of parameters, is checked where the model has it. For Gauss–Newton curvature a
    model also has ``outputs(w, X)`` and ``output_loss(z, Y)``, with
    loss(w, X, Y) = output_loss(outputs(w, X), Y).

    Attributes
    ----------
    weight_decay : float
        c in the term ½ c ‖w‖² that the objective adds to the mean loss.
    """

    @property
    def weight_decay(self) -> float:
        """c, at least 0."""

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss over the rows of X, in functions of ``autograd.numpy``."""

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return c v, with zeros for the parameters that do not decay."""
