"""Preconditioners of the sub-problem (B + λI) s = −g, updated between the iterations of `hessian_free`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.datasets import Dataset
from hfnb.krylov import LBFGS, NonFiniteProduct, cg, diagonal
from hfnb.objectives import run_identity
from hfnb.objectives.curvature import CURVATURES
from hfnb.objectives.objective import Objective
from hfnb.objectives.protocols import CurvatureFunction, Model
from hfnb.optimizers.history import State
from hfnb.validation import check_choice, check_positive_int

# A user's preconditioner: it takes the state before a solve and returns M, or None for no preconditioner.
PreconditionerFunction: TypeAlias = Callable[[State], LinearOperator | None]


class Preconditioner(Protocol):
    """The methods that `hessian_free` calls before and after each solve."""

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return the operator to solve with, and M ≈ (B + λI)⁻¹ or, for a solve without one, None."""

    def remember(self, state: State) -> State:
        """Return the state with a ``memory`` of what ``prepare`` needs in the next iteration."""


class FromFunction:
    """A preconditioner that a function of the state returns.

    Parameters
    ----------
    function : callable
        (state) -> M or None; by default there is no preconditioner.
    """

    def __init__(self, function: PreconditionerFunction = lambda state: None) -> None:
        self.function = function

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B unchanged, and the result of the function."""
        return B, self.function(state)

    def remember(self, state: State) -> State:
        """Return the state unchanged."""
        return state


class QuasiNewton:
    """The L-BFGS inverse made of the curvature pairs (s, Bs) of the last solve (Morales & Nocedal 2000).

    Parameters
    ----------
    memory : int
        The largest number of pairs.
    """

    def __init__(self, memory: int = 20) -> None:
        self.updates = LBFGS(memory)

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B as an operator that records pairs, and the inverse made of the pairs of the last solve."""
        self.updates.pairs = state.memory["pairs"] if state.memory else []
        M = self.updates.operator(state.damping)
        self.updates.clear()
        return self.updates.watch(B), M

    def remember(self, state: State) -> State:
        """Return the state with the pairs of this solve."""
        return replace(state, memory={"pairs": self.updates.pairs})


class Jacobi:
    """The preconditioner `krylov.diagonal` of an estimate of the diagonal of B.

    The mean of v ∘ Bv over vectors v of random signs is the diagonal of B (Bekas, Kokiopoulou & Saad, "An
    estimator for the diagonal of a matrix", 2007). Each iteration takes one product for one v, and the
    results are averaged over iterations. Chapelle & Erhan (2011) precondition Hessian-free optimization by an
    estimate of this kind.

    Parameters
    ----------
    decay : float
        The weight of an iteration in the average, relative to the one after it.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self.memory: dict[str, Any] = {}

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B unchanged, and the preconditioner of the diagonal estimated so far."""
        signs = np.random.default_rng(state.iteration).integers(0, 2, state.w.size)
        v = (2 * signs - 1).astype(state.w.dtype)
        estimate, old = v * (B @ v), state.memory or {"sum": np.zeros_like(state.w), "weight": 0.0}
        if not np.isfinite(estimate).all():
            self.memory = old
            return B, None  # the solve meets the same products, and reports them
        total = old["sum"] * state.w.dtype.type(self.decay) + estimate
        weight = self.decay * old["weight"] + 1
        self.memory = {"sum": total, "weight": weight}
        entries = np.abs(total) / state.w.dtype.type(weight)
        least = max(
            float(np.finfo(entries.dtype).eps) * float(entries.max()), float(np.finfo(entries.dtype).tiny)
        )
        return B, diagonal(entries, state.damping + least)

    def remember(self, state: State) -> State:
        """Return the state with the weighted sum of the estimates."""
        return replace(state, memory=self.memory)


class SharedSamples:
    """A preconditioner from samples that every engine holds, which needs no communication.

    Before each global solve every engine solves (Bₛ + λI) s = −g with the curvature Bₛ of the same few
    samples. The curvature pairs of that solve make an L-BFGS inverse, as in "lbfgs"; but they belong to the
    present w and λ, and cost no reduction. Global solves then take fewer products for the same solution. The
    counts of a run do not include the products over these samples.

    Parameters
    ----------
    net : Network or Model
        The model.
    data : Dataset
        The samples, a random part of the training data such as 1,000 of 60,000. They travel to the engines
        with the options of the run.
    curvature : str or callable
        The kind of curvature, as `hessian_free` takes it. Gauss–Newton curvature gives pairs of positive
        curvature, which the inverse needs.
    iterations : int
        The maximum number of iterations of a local solve.

    References
    ----------
    Zhang & Lin, "DiSCO: Distributed optimization for self-concordant empirical loss" (2015), for samples that
    precondition without communication; Morales & Nocedal, "Automatic preconditioning by limited memory
    quasi-Newton updating" (2000).

    Examples
    --------
    >>> from hfnb import Dataset, Objective, hessian_free, models
    >>> random = np.random.default_rng(0)
    >>> net = models.mlp([4, 3, 2])
    >>> data = Dataset(random.standard_normal((60, 4)), random.integers(0, 2, 60))
    >>> shared = SharedSamples(net, data[:20])
    >>> bool(hessian_free(Objective(net, data), net.init(0), preconditioner=shared, max_iter=5).fun < 0.69)
    True
    """

    def __init__(
        self,
        net: Model,
        data: Dataset,
        *,
        curvature: str | CurvatureFunction = "gauss-newton",
        iterations: int = 20,
    ) -> None:
        if not callable(curvature):
            check_choice("curvature", curvature, CURVATURES, " or a function")
        self.net, self.data, self.curvature = net, data, curvature
        self.iterations = check_positive_int("iterations", iterations)
        self._objective = Objective(net, data, partitions=1)

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(SharedSamples, curvature=self.curvature, iterations=self.iterations)
        return make, (self.net, self.data)

    def identity(self) -> dict[str, str]:
        """Return a description of this preconditioner, by which a checkpoint recognizes its run.

        Returns
        -------
        dict of str
            {name: text}.
        """
        how = f"{run_identity.describe(self.curvature)}, {self.iterations} iterations"
        return {**self._objective.identity(), "preconditioner": how}

    def __call__(self, state: State) -> LinearOperator | None:
        """Return M ≈ (B + λI)⁻¹ at the parameters of a state; None if the local solve meets no curvature."""
        size = getattr(self.net, "size", state.w.size)
        if state.w.size != size:
            raise ValueError(
                "preconditioner: expected SharedSamples with the network of the run, of "
                f"{state.w.size} parameters, got one of {size}"
            )
        updates = LBFGS(self.iterations)
        B = updates.watch(self._objective.curvature(state.w, self.curvature))
        try:
            cg(B, -state.g, damping=state.damping, progress=0.0, max_iter=self.iterations)
        except NonFiniteProduct:  # the global solve meets such products as well, and reports them
            return None
        return updates.operator(state.damping)


PRECONDITIONERS: dict[str, Callable[[], Preconditioner]] = {"lbfgs": QuasiNewton, "diagonal": Jacobi}


def find_preconditioner(preconditioner: str | PreconditionerFunction | None) -> Preconditioner:
    """Return the preconditioner for a name or for a function of the state.

    Parameters
    ----------
    preconditioner : {"lbfgs", "diagonal"}, callable or None
        A name, a `SharedSamples`, or another function (state) -> M. It gets the
        `hfnb.optimizers.history.State` before a solve, and returns a symmetric positive definite operator of
        shape (p, p), or None for a solve without a preconditioner.

    Returns
    -------
    Preconditioner
        A new object, for one run; for None, one that never preconditions.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if preconditioner is None:
        return FromFunction()
    if callable(preconditioner):
        return FromFunction(preconditioner)
    return PRECONDITIONERS[
        check_choice("preconditioner", preconditioner, PRECONDITIONERS, ", a function or None")
    ]()
