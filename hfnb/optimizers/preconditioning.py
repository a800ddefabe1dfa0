"""Preconditioners of the sub-problem (B + λI) s = −g, updated between the iterations of `hessian_free`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov import LBFGS, diagonal
from hfnb.optimizers.state import State
from hfnb.validation import check_choice


class Preconditioner(Protocol):
    """What `hessian_free` calls before and after each solve."""

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return the curvature to solve with, and M ≈ (B + λI)⁻¹, or None for a solve without one."""

    def remember(self, state: State) -> State:
        """Return the state with what the next iteration's ``prepare`` needs in its ``memory``."""


class FromFunction:
    """A preconditioner that a function of the state returns."""

    def __init__(self, function: Callable[[State], LinearOperator | None] = lambda state: None):
        self.function = function

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B as it is, and what the function returns."""
        return B, self.function(state)

    def remember(self, state: State) -> State:
        """Return the state as it is."""
        return state


class QuasiNewton:
    """The L-BFGS inverse of the curvature pairs (s, Bs) of the solve before (Morales & Nocedal 2000)."""

    def __init__(self, memory: int = 20):
        self.updates = LBFGS(memory)

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B with its products recorded, and the inverse made of the pairs of the last solve."""
        self.updates.pairs = state.memory["pairs"] if state.memory else []
        M = self.updates.operator(state.damping)
        self.updates.clear()
        return self.updates.watch(B), M

    def remember(self, state: State) -> State:
        """Keep the pairs of this solve."""
        return replace(state, memory={"pairs": self.updates.pairs})


class Jacobi:
    """A power of the diagonal of |B| + λI, estimated by one product an iteration, averaged over iterations.

    v ∘ Bv has the diagonal of B as its mean over vectors v of random signs (Bekas, Kokiopoulou & Saad, "An
    estimator for the diagonal of a matrix", 2007). Chapelle & Erhan (2011) precondition Hessian-free
    optimization by an estimate of this kind.
    """

    def __init__(self, decay: float = 0.9):
        self.decay = decay
        self.memory: dict = {}

    def prepare(self, B: LinearOperator, state: State) -> tuple[LinearOperator, LinearOperator | None]:
        """Return B as it is, and the inverse of the diagonal estimated so far."""
        signs = np.random.default_rng(state.iteration).integers(0, 2, state.w.size)
        v = (2 * signs - 1).astype(state.w.dtype)
        estimate, old = v * (B @ v), state.memory or {"sum": np.zeros_like(state.w), "weight": 0.0}
        total = old["sum"] * state.w.dtype.type(self.decay) + estimate
        weight = self.decay * old["weight"] + 1
        self.memory = {"sum": total, "weight": weight}
        entries = np.abs(total) / state.w.dtype.type(weight)
        least = max(
            float(np.finfo(entries.dtype).eps) * float(entries.max()), float(np.finfo(entries.dtype).tiny)
        )
        return B, diagonal(entries, state.damping + least)

    def remember(self, state: State) -> State:
        """Keep the sum of the estimates."""
        return replace(state, memory=self.memory)


PRECONDITIONERS: dict[str, Callable[[], Preconditioner]] = {"lbfgs": QuasiNewton, "diagonal": Jacobi}


def find_preconditioner(preconditioner: str | Callable | None) -> Preconditioner:
    """Return the preconditioner of a name, of a function of the state, or none.

    Parameters
    ----------
    preconditioner : {"lbfgs", "diagonal"}, callable or None
        A function (state) -> M returns an operator of shape (p, p), symmetric positive definite, for the
        `hfnb.optimizers.state.State` before the solve, or None for a solve without one.

    Returns
    -------
    Preconditioner
        A new one: it belongs to one run.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if preconditioner is None:
        return FromFunction()
    if callable(preconditioner):
        return FromFunction(preconditioner)
    return PRECONDITIONERS[
        check_choice("preconditioner", preconditioner, PRECONDITIONERS, ", a function or None")
    ]()
