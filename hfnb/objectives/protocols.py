"""The members that an optimizer needs from an objective, and an objective from its evaluator and model."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.costs import Counts
from hfnb.objectives.profiler import Clock
from hfnb.objectives.sampling import Sample

# v ↦ B v, and the function (net, w, X, Y) ↦ (v ↦ B v) that a user may give as the kind of curvature.
Product: TypeAlias = Callable[[np.ndarray], np.ndarray]
CurvatureFunction: TypeAlias = Callable[[Any, np.ndarray, np.ndarray, np.ndarray], Product]
# (cell, w, *arguments) ↦ a vector: what `hfnb.Objective.average` evaluates in each cell, and the form in
# which an evaluator takes it, (evaluator of the cell, number of the cell, w, *arguments) ↦ a vector.
Task: TypeAlias = Callable[..., np.ndarray]


@runtime_checkable
class ObjectiveLike(Protocol):
    """A function F of parameters, with gradient and curvature: what optimizers minimize.

    `hfnb.Objective` is one, in one process or on engines. A class of your own with these members can be
    minimized as well.

    Attributes
    ----------
    n : int
        Number of samples. The costs of a run are counted in passes over all of them.
    counts : Counts
        What has been evaluated so far.
    """

    n: int
    counts: Counts

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return F(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        float
            F(w) over the sample.
        """
        ...

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        value : float
            F(w) over the sample.
        gradient : ndarray, shape (p,)
            ∇F(w), in the precision of w.
        """
        ...

    def curvature(
        self, w: np.ndarray, kind: str | CurvatureFunction = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the curvature at w as an operator.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters. The operator has to keep a copy: w may be changed afterwards.
        kind : str or callable
            "hessian", "gauss-newton", or another kind that the objective offers.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        LinearOperator, shape (p, p)
            A symmetric operator.
        """
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Sums of losses, gradients and curvature products over all samples, wherever these are stored.

    hfnb has three: `hfnb.objectives.evaluator.LocalEvaluator` for one process, and in
    `hfnb.engines.distributed_evaluators` a ``ClientEvaluator`` for a client that sends each evaluation to
    engines and an ``MPIEvaluator`` for an optimizer that runs on the engines.

    Attributes
    ----------
    n : int
        Number of samples.
    clock : Clock or None
        Measures where the time goes on engines (`hfnb.objectives.profiler`); None in one process.
    cells : int or None
        Number of cells of the dataset; None if its partitions are not cells (`hfnb.objectives.cells`).

    Notes
    -----
    All sums are *totals* as `hfnb.objectives.compensated_sums` defines them: in float64 arrays of shape
    (2, size), the sums and their rounding errors; in float32 arrays of shape (size,).
    """

    n: int
    cells: int | None

    @property
    def clock(self) -> Clock | None:
        """The clock that measures where the time goes on engines; None in one process."""

    def identity(self) -> dict[str, str]:
        """Return a description of the data, which is the same on any number of engines.

        Returns
        -------
        dict of str
            {name: text}, as `hfnb.objectives.run_identity.of_data` makes it.
        """
        ...

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses at w over a sample.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        ndarray
            A total of one number, in float64.
        """
        ...

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients at w over a sample and, as its last number, of the losses.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        ndarray
            A total of p + 1 numbers, in the precision of w.
        """
        ...

    def losses_along(
        self, w: np.ndarray, d: np.ndarray, alphas: np.ndarray, sample: Sample | None = None
    ) -> np.ndarray:
        """Return the totals of the losses over a sample at the points w + αd.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        d : ndarray, shape (p,) or (k, p)
            A direction, or one for each α.
        alphas : ndarray, shape (k,)
            Step lengths α.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        ndarray
            A total of k numbers, in float64.
        """
        ...

    def average(self, task: Task, w: np.ndarray, arguments: tuple[Any, ...], size: int) -> np.ndarray:
        """Return the total of the vectors that a task returns for each cell.

        Parameters
        ----------
        task : callable
            ``(evaluator of the cell, number of the cell, w, *arguments)`` -> vector of ``size`` numbers, in
            the precision of w.
        w : ndarray, shape (p,)
            Parameters.
        arguments : tuple
            Further arguments of the task, the same for all cells.
        size : int
            Length of the vectors.

        Returns
        -------
        ndarray
            A total of ``size`` numbers, in the precision of w.
        """
        ...

    def linearize(
        self, w: np.ndarray, kind: str | CurvatureFunction, sample: Sample | None = None
    ) -> Product:
        """Return the product with the curvature at w, summed over a sample, as a function of a vector.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        kind : str or callable
            "hessian", "gauss-newton", or a function (net, w, X, Y) -> product.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        callable
            v, (p,) ↦ the total of the products with v: p numbers, in the precision of w. w must not change
            while the function is in use.

        Raises
        ------
        ValueError
            If the kind is unknown.
        """
        ...


@runtime_checkable
class Model(Protocol):
    """What `hfnb.Objective` needs of a model; `hfnb.models.mlp` makes one.

    If the model has an attribute ``size``, the number p of parameters, w is checked against it. For
    Gauss–Newton curvature a model also has ``outputs(w, X)`` and ``output_loss(z, Y)``, with
    loss(w, X, Y) = output_loss(outputs(w, X), Y).

    Attributes
    ----------
    weight_decay : float
        c in the term ½ c ‖w‖² that the objective adds to the mean loss.
    """

    @property
    def weight_decay(self) -> float:
        """The coefficient c of the weight decay, at least 0."""

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss over some samples, computed with functions of ``autograd.numpy``.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        X, Y : ndarray
            Inputs, and labels or targets, a row for each sample.

        Returns
        -------
        float
            The mean over the rows, without the weight decay.
        """
        ...

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of the weight decay at v.

        Parameters
        ----------
        v : ndarray, shape (p,)
            Parameters, or a vector that the curvature is multiplied by.

        Returns
        -------
        ndarray, shape (p,)
            c v, with zeros for the parameters that do not decay.
        """
        ...
