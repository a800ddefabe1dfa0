"""The objective: the mean loss of a model over a dataset, with gradient and curvature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from hfnb.datasets import Dataset
from hfnb.krylov import dot
from hfnb.objectives import compensated_sums, run_identity
from hfnb.objectives.cells import COUNTED, Cells, checked, order, packed, unpacked
from hfnb.objectives.costs import Counts
from hfnb.objectives.curvature import operator
from hfnb.objectives.evaluator import LocalEvaluator, point_along
from hfnb.objectives.profiler import Clock
from hfnb.objectives.protocols import CurvatureFunction, Evaluator, Model, Task
from hfnb.objectives.residuals import LeastSquares, check_least_squares
from hfnb.objectives.sampling import Sample, Shards, default_partitions
from hfnb.validation import (
    check_callable,
    check_data,
    check_methods,
    check_nonnegative,
    check_nonnegative_int,
    check_positive_int,
    check_real,
    check_vector,
    shown,
)


class Objective:
    """F(w) = (1/n) Σ loss(w; xᵢ, yᵢ) + ½ c ‖W‖², with its gradient and curvature, over a dataset.

    Parameters
    ----------
    net : Network or Model
        What `hfnb.models.mlp` returns, or another `hfnb.objectives.Model`. `Objective.from_loss` makes one of
        a loss function.
    data : Dataset
        n samples: inputs X, (n, d), and labels or targets Y.
    partitions : int, optional
        Number of parts that the data is cut into. With the same number, sums in float64 are the same on any
        number of engines. By default it is 4 to 24, depending on n (`sampling.default_partitions`).
    chunk : int, optional
        The maximum number of rows evaluated at a time; 512 by default.
    memory : int, optional
        Bytes that may be kept between curvature products at one w, so that they are faster; what exceeds it
        is computed again for each product. By default an eighth of the machine's memory; it must be at
        least 0.
    cells : int, optional
        Number of random parts of the data that can work alone (`average`), which local solves and local steps
        need; 16 are usual. They are then the partitions: a copy of the data is put in random order.
    cell_seed : int, optional
        Seed of that order. None keeps the order of the data: if that is sorted, for example by label, the
        cells differ from each other.

    Attributes
    ----------
    n : int
        Number of samples.
    cells : int or None
        Number of cells; None without.
    number : int
        The number of the cell whose objective this is, from 0; 0 for an objective over all samples.
    counts : Counts
        What has been evaluated so far: losses, gradients, products, samples, reductions, bytes.

    Raises
    ------
    TypeError
        If ``net`` or ``data`` is of another kind.
    ValueError
        If the data does not fit the network or has no sample.

    See Also
    --------
    hfnb.Cluster.objective : The same objective, evaluated on engines.

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> net = models.mlp([4, 3, 2])
    >>> objective = Objective(net, Dataset(np.eye(4), np.array([0, 1, 0, 1])))
    >>> round(objective.value(np.zeros(net.size)), 4)
    0.6931
    """

    def __init__(
        self,
        net: Model,
        data: Dataset,
        *,
        partitions: int | None = None,
        chunk: int | None = None,
        memory: int | None = None,
        cells: int | None = None,
        cell_seed: int | None = 0,
    ) -> None:
        chunk, memory = check_objective(net, data, chunk, memory)
        if (drawn := Cells.of(len(data), partitions, cells, cell_seed)) is None:
            shards = Shards.of(data, partitions)
        else:
            shards = Shards.of(data, drawn.number, order(len(data), drawn.seed))
        self._set(net, LocalEvaluator(net, shards, chunk, memory, drawn))

    @classmethod
    def from_evaluator(cls, net: Model, evaluator: Evaluator) -> "Objective":
        """Return the objective whose sums over samples come from an evaluator.

        Parameters
        ----------
        net : Network or Model
            The model.
        evaluator : Evaluator
            What sums over the samples, for example on many engines.

        Returns
        -------
        Objective
            The objective.
        """
        objective = cls.__new__(cls)
        objective._set(net, evaluator)
        return objective

    @classmethod
    def from_loss(
        cls,
        loss: Callable[..., Any],
        data: Dataset,
        *,
        outputs: Callable[..., Any] | None = None,
        output_loss: Callable[..., Any] | None = None,
        weight_decay: float = 0.0,
        partitions: int | None = None,
        chunk: int | None = None,
        memory: int | None = None,
        cells: int | None = None,
        cell_seed: int | None = 0,
    ) -> "Objective":
        """Return the objective of any loss that autograd can differentiate, plus ½ c ‖w‖².

        Parameters
        ----------
        loss : callable
            (w, X, Y) -> the mean loss over the rows of X, in functions of ``autograd.numpy``.
        data : Dataset
            The samples.
        outputs, output_loss : callable, optional
            The loss in two parts, loss(w, X, Y) = output_loss(outputs(w, X), Y), which Gauss–Newton
            curvature needs. Give both or none.
        weight_decay : float
            c.
        partitions, chunk, memory, cells, cell_seed : int, optional
            As for `Objective`, except that the default is one partition for fewer than 2,048 samples: each
            has a record of its own, and autograd may take long for a record of few rows.

        Returns
        -------
        Objective
            The objective. `hfnb.Cluster.objective` takes its ``net`` to evaluate the same on engines.

        Raises
        ------
        TypeError
            If ``loss``, ``outputs`` or ``output_loss`` is not a function.
        ValueError
            If only one of the two parts is given, or the weight decay is negative.

        Examples
        --------
        >>> import autograd.numpy as np
        >>> from hfnb import Dataset
        >>> data = Dataset(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
        >>> line = Objective.from_loss(lambda w, X, Y: np.mean((X * w[0] + w[1] - Y) ** 2), data)
        >>> line.value(np.zeros(2)), line.curvature(np.zeros(2)) @ np.array([0.0, 1.0])
        (11.666666666666666, array([2., 2.]))
        """
        model = AnyLoss(loss, outputs, output_loss, weight_decay)
        check_data("data", data)
        if partitions is None and cells is None:
            partitions = default_partitions(len(data), least=1)
        return cls(
            model,
            data,
            partitions=partitions,
            chunk=chunk,
            memory=memory,
            cells=cells,
            cell_seed=cell_seed,
        )

    @classmethod
    def from_residuals(
        cls,
        residuals: Callable[..., Any] | Sequence[Callable[..., Any]],
        data: Dataset | Sequence[Dataset],
        *,
        weights: Sequence[float] | None = None,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> "Objective":
        """Return the objective of least squares, F(w) = Σₜ weightₜ · ½ meanᵢ ‖rₜ(w; xᵢ, yᵢ)‖² + ½ c ‖w‖².

        The sum over t is over terms, such as a differential equation inside a domain and the values on its
        boundary; `hfnb.models.derivatives` has an example. Gauss–Newton curvature and Jacobian need no
        further function. The Jacobian is quick where networks are `hfnb.models.Network`, or their layers are
        computed by `hfnb.models.product`; up to 16 further parameters may be used in any way.

        Parameters
        ----------
        residuals : callable or sequence of callable
            r(w, X, Y), of shape (rows,) or (rows, k) for the rows of X and Y, in functions of
            ``autograd.numpy``; one function for each term.
        data : Dataset or sequence of Dataset
            The samples of each term.
        weights : sequence of float, optional
            A positive weight for each term; 1 by default.
        weight_decay : float
            c.
        **options
            ``partitions``, ``chunk``, ``memory``, ``cells``, ``cell_seed``, as for `from_loss`.

        Returns
        -------
        Objective
            The objective. To evaluate it on engines, give `hfnb.Cluster.objective` its ``net``, and
            ``net.packed([data of each term])``.

        Raises
        ------
        TypeError
            If a residual is not a function, or samples are not a dataset.
        ValueError
            If numbers of terms differ, or a weight is not positive. When it is evaluated: if residuals do not
            have a row for each sample, or do not depend on w.

        Notes
        -----
        Unknown coefficients of an equation are further entries of w: give the network ``w[: net.size]``, and
        use ``w[net.size]`` in the equation. Weights matter little where all residuals can become zero; with
        noisy data, a weight is best the inverse of the variance of its residuals. A small loss says nothing
        about other points: evaluate the objective of points that were not used. Rows may be evaluated in
        several calls, so that a residual must not depend on how many rows it gets.

        Examples
        --------
        >>> import autograd.numpy as np
        >>> from hfnb import Dataset
        >>> line = lambda w, X, Y: w[0] * X + w[1] - Y
        >>> data = Dataset(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
        >>> start = Dataset(np.zeros((1, 1)), np.ones((1, 1)))
        >>> objective = Objective.from_residuals([line, line], [data, start], weights=[1, 100])
        >>> round(objective.value(np.zeros(2)), 4), objective.value(np.array([2.0, 1.0]))
        (55.8333, 0.0)
        """
        model, packed = LeastSquares.of(residuals, data, weights, weight_decay)
        options.setdefault("partitions", None)
        if options["partitions"] is None and options.get("cells") is None:
            options["partitions"] = default_partitions(len(packed), least=1)
        return cls(model, packed, **options)

    def _set(self, net: Model, evaluator: Evaluator) -> None:
        """Set the attributes of a new objective."""
        self.net, self.evaluator, self.n, self.counts = net, evaluator, evaluator.n, Counts()
        self.number = 0
        self._decays = net.weight_decay > 0 if hasattr(net, "weight_decay") else False
        self._at: tuple[np.ndarray, LinearOperator] | None = None

    @property
    def clock(self) -> Clock | None:
        """The clock that measures where the time goes on engines; None in one process."""
        return self.evaluator.clock

    @property
    def cells(self) -> int | None:
        """The number of cells; None if the data is not cut into cells."""
        return self.evaluator.cells

    def identity(self) -> dict[str, str]:
        """Return a description of this objective, by which a checkpoint recognizes its run.

        Returns
        -------
        dict of str
            {name: text} of network and data, the same wherever the objective is evaluated
            (`hfnb.objectives.run_identity`).
        """
        return {"network": run_identity.describe(self.net), **self.evaluator.identity()}

    def _size(self, w: np.ndarray, sample: Sample | None) -> int:
        """Return the number of samples, or raise an error if w cannot be parameters."""
        check_vector("w", w, getattr(self.net, "size", None))
        if sample is None:
            return self.n
        if not isinstance(sample, Sample):
            raise TypeError(f"sample: expected a hfnb.Sample or None, got {shown(sample)}")
        return sample.size

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return F(w); one reduction of one number.

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
        size = self._size(w, sample)
        self.counts.add("losses", size, 1, compensated_sums.nbytes(1, float))
        value = float(compensated_sums.value(self.evaluator.loss(w, sample))[0]) / size
        return value + 0.5 * dot(w, self.net.decay(w)) if self._decays else value

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w); one reduction of p + 1 numbers.

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
        size = self._size(w, sample)
        self.counts.add("gradients", size, w.size + 1, compensated_sums.nbytes(w.size + 1, w.dtype))
        total = compensated_sums.value(self.evaluator.gradient(w, sample))
        total /= w.dtype.type(size)
        value, gradient = float(total[-1]), total[:-1]
        if self._decays:
            decay = self.net.decay(w)
            value += 0.5 * dot(w, decay)
            gradient += decay
        return value, gradient

    def values_along(
        self, w: np.ndarray, d: np.ndarray, alphas: ArrayLike, sample: Sample | None = None
    ) -> np.ndarray:
        """Return F(w + αd) for several α: one reduction of as many numbers, for a whole line search.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.
        d : ndarray, shape (p,) or (k, p)
            A direction, or one for each α.
        alphas : array_like, shape (k,)
            Step lengths α, at least one.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        ndarray, shape (k,)
            The values, in float64.

        Examples
        --------
        >>> import autograd.numpy as np
        >>> from hfnb import Dataset
        >>> data = Dataset(np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]))
        >>> mean = Objective.from_loss(lambda w, X, Y: np.mean((w - X) ** 2), data)
        >>> mean.values_along(np.zeros(1), np.ones(1), [0, 1, 2])
        array([5., 2., 1.])
        """
        size = self._size(w, sample)
        steps = check_real("alphas", alphas).astype(float)
        if steps.ndim != 1 or not steps.size:
            raise ValueError(f"alphas: expected a list of step lengths, at least one, got {shown(alphas)}")
        d = np.ascontiguousarray(check_real("d", d), dtype=w.dtype)
        if d.shape not in (w.shape, (steps.size, w.size)):
            shapes = f"({w.size},) or ({steps.size}, {w.size})"
            raise ValueError(f"d: expected shape {shapes} to match w and alphas, got {d.shape}")
        nbytes = compensated_sums.nbytes(steps.size, float)
        self.counts.add("losses", size * steps.size, steps.size, nbytes, times=steps.size)
        values = compensated_sums.value(self.evaluator.losses_along(w, d, steps, sample)) / size
        if self._decays:
            for number in range(steps.size):
                point = point_along(w, d, steps, number)
                values[number] += 0.5 * dot(point, self.net.decay(point))
        return values

    def average(self, task: Task, w: np.ndarray, *arguments: Any, size: int) -> np.ndarray:
        """Return the mean over the cells of what a task returns in each: one reduction of its numbers.

        Parameters
        ----------
        task : callable
            ``(cell, w, *arguments)`` -> vector of ``size`` numbers. ``cell`` is the objective over the
            samples of one cell, with its ``number``. The result must depend on these arguments alone, because
            a cell may move to another engine. The task may change w and arguments that are arrays, of which
            each cell has its own copies, but not lists or dictionaries, which cells may share.
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.
        *arguments
            Further arguments of the task.
        size : int
            Length of the vectors.

        Returns
        -------
        ndarray, shape (size,)
            Σₖ nₖ vₖ / n with the vector vₖ of a cell of nₖ samples, in the precision of w.

        Raises
        ------
        ValueError
            If the objective has no cells, or the task returns something else.
        TypeError
            If the task is not a function, or ``size`` is not a whole number.

        Notes
        -----
        Since the cells hold all samples, the mean of losses or gradients is the loss or gradient over all.
        Entries that are not finite in one cell are not finite in the mean.

        Examples
        --------
        >>> import numpy as np
        >>> from hfnb import Dataset, models
        >>> net = models.mlp([4, 2])
        >>> data = Dataset(np.eye(4), np.array([0, 1, 0, 1]))
        >>> objective, w = Objective(net, data, cells=2), np.zeros(net.size)
        >>> mean = objective.average(lambda cell, w: cell.value_and_gradient(w)[1], w, size=net.size)
        >>> np.allclose(mean, objective.value_and_gradient(w)[1])
        True
        """
        self._size(w, None)
        check_callable("task", task, "(cell, w, *arguments) -> vector")
        if self.cells is None:
            raise ValueError(
                "average: expected an objective with cells, got one without: give cells=16 where it is made"
            )
        size = check_positive_int("size", size)
        numbers = size + COUNTED
        total = self.evaluator.average(partial(_in_cell, task, size), w, arguments, numbers)
        sums = compensated_sums.value(total)
        nbytes = compensated_sums.nbytes(numbers, w.dtype)
        self.counts.add("averages", unpacked(sums[size:]), numbers, nbytes)
        return sums[:size] / w.dtype.type(self.n)

    def residuals(self, w: np.ndarray) -> np.ndarray:
        """Return the residuals of least squares over all samples, in one process.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.

        Returns
        -------
        ndarray, shape (m,)
            r with F(w) = ½ ‖r‖²: the residuals of the samples divided by √n, and one for each parameter that
            decays.

        Raises
        ------
        ValueError
            If the loss is not least squares, or the samples are on engines.

        Examples
        --------
        >>> from hfnb import Dataset, models
        >>> import numpy as np
        >>> net = models.mlp([2, 1], loss="squared_error")
        >>> objective = Objective(net, Dataset(np.eye(2), np.array([[3.0], [4.0]])))
        >>> r = objective.residuals(np.zeros(net.size))
        >>> float(r @ r / 2), objective.value(np.zeros(net.size))
        (6.25, 6.25)
        """
        evaluator = self._least_squares(w)
        self.counts.add("losses", self.n, 1, 0)
        r = evaluator.residuals(w) / w.dtype.type(np.sqrt(self.n))
        if not self._decays:
            return r
        decaying, root = self._decaying(w)
        return np.concatenate([r, root * w[decaying]])

    def jacobian(self, w: np.ndarray) -> np.ndarray:
        """Return the Jacobian of `residuals`, as a dense matrix, in one process.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters, of float32 or float64.

        Returns
        -------
        ndarray, shape (m, p)
            J with ∇F(w) = Jᵀr. Its cost is counted as one gradient, which has as many operations; but since
            its rows are computed one by one, it takes longer.

        Raises
        ------
        ValueError
            If the loss is not least squares, the samples are on engines, or J exceeds the memory that the
            objective may use.
        """
        evaluator = self._least_squares(w)
        self.counts.add("gradients", self.n, 1, 0)
        J = evaluator.jacobian(w)
        J /= w.dtype.type(np.sqrt(self.n))
        if not self._decays:
            return J
        decaying, root = self._decaying(w)
        rows = np.zeros((len(decaying), w.size), w.dtype)
        rows[np.arange(len(decaying)), decaying] = root
        return np.concatenate([J, rows])

    def _least_squares(self, w: np.ndarray) -> LocalEvaluator:
        """Return the evaluator, or raise an error unless this is least squares in one process."""
        self._size(w, None)
        check_least_squares(self.net)
        if not isinstance(self.evaluator, LocalEvaluator):
            raise ValueError("objective: expected one in this process, got one on engines")
        return self.evaluator

    def _decaying(self, w: np.ndarray) -> tuple[np.ndarray, np.floating]:
        """Return the indices of the parameters that decay, and √c."""
        ones = self.net.decay(np.ones_like(w))
        return np.flatnonzero(ones), np.sqrt(ones.max())

    def hessp(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²F(w) v, in the form that ``scipy.optimize.minimize`` takes as ``hessp``.

        Parameters
        ----------
        w, v : ndarray, shape (p,)
            Parameters and a vector. The part that all products at one w share is computed once.

        Returns
        -------
        ndarray, shape (p,)
            The product.
        """
        self._size(w, None)
        v = self._vector(v, w)
        if self._at is None or self._at[0].dtype != w.dtype or not np.array_equal(self._at[0], w):
            self._at = w.copy(), self.curvature(w)
        return self._at[1] @ v

    def curvature(
        self, w: np.ndarray, kind: str | CurvatureFunction = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the curvature at w as an operator; each product is one reduction of p numbers.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters. The operator keeps a copy: w may be changed afterwards.
        kind : str or callable
            "hessian", "gauss-newton", or a function (net, w, X, Y) -> (v -> B v) whose products are sums
            over the rows of X.
        sample : Sample, optional
            A mini-batch; all samples by default.

        Returns
        -------
        LinearOperator, shape (p, p)
            A symmetric SciPy operator in the precision of w.

        Raises
        ------
        ValueError
            If the kind is unknown.
        """
        size = self._size(w, sample)
        w = np.array(w)  # a copy, which products read
        parts = self.evaluator.linearize(w, kind, sample)

        def product(v: np.ndarray) -> np.ndarray:
            v = self._vector(v, w)
            self.counts.add("products", size, w.size, compensated_sums.nbytes(w.size, w.dtype))
            total = compensated_sums.value(parts(v))
            total /= w.dtype.type(size)
            if self._decays:
                total += self.net.decay(v)
            return total

        return operator(product, w)

    def _vector(self, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return v, (p,) or (p, 1), as a vector in the precision of w."""
        v = check_real("v", v)
        if v.size != w.size:
            raise ValueError(f"v: expected shape ({w.size},) to match w, got {v.shape}")
        return np.ascontiguousarray(v, dtype=w.dtype).ravel()


def _in_cell(
    task: Task, size: int, evaluator: LocalEvaluator, number: int, w: np.ndarray, *arguments: Any
) -> np.ndarray:
    """Run a task in one cell; return its vector times the number of samples, and how many it has seen."""
    cell = Objective.from_evaluator(evaluator.net, evaluator)
    cell.number = number
    own = [each.copy() if isinstance(each, np.ndarray) else each for each in (w, *arguments)]
    vector = checked(task(cell, *own), size, w, task) * w.dtype.type(cell.n)
    return np.concatenate([vector, packed(cell.counts.samples, w.dtype)])


def check_objective(
    net: Model, data: Dataset, chunk: int | None, memory: int | None
) -> tuple[int | None, int | None]:
    """Return chunk and memory if these arguments make an objective; else an error names the wrong one."""
    check_methods("net", net, ("loss", "decay"), "a network, as hfnb.models.mlp returns,")
    check_data("data", data)
    if hasattr(net, "check"):
        net.check(data)
    chunk = None if chunk is None else check_positive_int("chunk", chunk)
    return chunk, None if memory is None else check_nonnegative_int("memory", memory)


@dataclass(frozen=True)
class AnyLoss:
    """A user's own loss(w, X, Y) as a `hfnb.objectives.Model`; see `Objective.from_loss`."""

    loss: Callable[..., Any]
    outputs: Callable[..., Any] | None = None
    output_loss: Callable[..., Any] | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_callable("loss", self.loss, "(w, X, Y) -> mean loss")
        check_callable("outputs", self.outputs, "(w, X) -> z", optional=True)
        check_callable("output_loss", self.output_loss, "(z, Y) -> mean loss", optional=True)
        if (self.outputs is None) != (self.output_loss is None):
            given = "outputs" if self.output_loss is None else "output_loss"
            raise ValueError(f"outputs, output_loss: expected both or none, got {given} alone")
        check_nonnegative("weight_decay", self.weight_decay, finite=True)

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of ½ c ‖w‖² at v, (p,)."""
        return v.dtype.type(self.weight_decay) * v
