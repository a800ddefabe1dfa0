"""The state of Hessian-free optimization between two iterations."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hfnb.krylov import KrylovResult, norm
from hfnb.optimizers.certificate import Certificate
from hfnb.optimizers.steps import Step


@dataclass(frozen=True)
class State:
    """What one iteration of `hessian_free` passes on to the next, and a checkpoint saves.

    Attributes
    ----------
    w, g : ndarray, shape (p,)
        Parameters and gradient.
    loss : float
        The loss at w.
    damping : float
        λ.
    solution : ndarray, shape (p,), optional
        The last solution of the sub-problem, from which the next solve starts; None after a rejected step.
    iteration : int
        Number of iterations so far.
    rejected : int
        Number of steps in a row that were rejected; 0 after an accepted step.
    plateau : bool
        Whether the last iteration hardly lowered the loss.
    next_probe, interval : int
        The iteration of the next probe for negative curvature, and the number of iterations between probes.
    steepest : float
        The largest gradient norm so far, with which later ones are compared.
    trusted : float
        λ after the last accepted step.
    trouble : str
        What was not finite, if that is why the last step was rejected.
    memory : dict, optional
        Data that a preconditioner keeps between iterations (`hfnb.optimizers.preconditioning`).
    """

    w: np.ndarray
    g: np.ndarray
    loss: float
    damping: float
    solution: np.ndarray | None = None
    iteration: int = 0
    rejected: int = 0
    plateau: bool = True
    next_probe: int = 0
    interval: int = 1
    steepest: float = 0.0
    trusted: float = 0.0
    trouble: str = ""
    memory: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steepest", max(self.steepest, self.gradient_norm))
        object.__setattr__(self, "trusted", self.trusted or self.damping)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> "State":
        """Return the state that a checkpoint holds; ValueError if another version of hfnb wrote it."""
        if saved.keys() != {field.name for field in fields(cls)}:
            raise ValueError("checkpoint: expected one of this version of hfnb, got one of another version")
        return cls(**saved)

    @property
    def gradient_norm(self) -> float:
        """‖g‖."""
        return norm(self.g)

    def with_damping(self, damping: float) -> "State":
        """Return this state with another λ; ``trusted`` becomes λ unless the last step was rejected."""
        return replace(self, damping=damping, trusted=self.trusted if self.rejected else damping)

    def entries(
        self, step: Step | None = None, found: KrylovResult | Certificate | None = None
    ) -> dict[str, Any]:
        """Return the entries for the `Record` of an iteration.

        Parameters
        ----------
        step : Step, optional
            The step of the iteration; None before the first one.
        found : KrylovResult or Certificate, optional
            The result of the solve, or the certificate that replaced it; None if products were not finite.

        Returns
        -------
        dict
            {name: value}.
        """
        step = None if self.rejected else step
        solution = found if isinstance(found, KrylovResult) else None
        certificate = found if isinstance(found, Certificate) else None
        status = solution.status if solution else certificate.reason if certificate else self.trouble
        return {
            "iteration": self.iteration,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "damping": self.damping,
            "direction": step.name if step else "none",
            "alpha": step.alpha if step else 0.0,
            "step_norm": step.alpha * norm(step.direction) if step else 0.0,
            "curvature": certificate.eigenvalue if certificate else solution and solution.curvature,
            "krylov_iterations": solution.iterations if solution else 0,
            "krylov_status": str(status),
        }
