"""What an iteration of Hessian-free optimization knows, and writes down."""

from dataclasses import dataclass

import numpy as np

from hfnb.krylov import KrylovResult, norm
from hfnb.optimizers.certificate import Certificate
from hfnb.optimizers.steps import Step


@dataclass
class State:
    """All that one iteration hands to the next, and a checkpoint keeps; ``warm`` is the last solution.

    ``steepest`` is the largest gradient norm met, by which small is told from large; ``trusted`` the λ that
    the last accepted step left; ``trouble`` what was not finite where the last step was rejected for that.
    """

    w: np.ndarray
    g: np.ndarray
    loss: float
    damping: float
    warm: np.ndarray | None = None
    iteration: int = 0
    rejected: int = 0
    plateau: bool = True  # whether the last iteration hardly lowered the loss
    next_probe: int = 0  # iteration of the next probe for negative curvature
    interval: int = 1  # iterations between probes
    steepest: float = 0.0
    trusted: float = 0.0
    trouble: str = ""

    def __post_init__(self):
        self.steepest = max(self.steepest, self.gradient_norm)
        self.trusted = self.trusted or self.damping

    @property
    def gradient_norm(self) -> float:
        return norm(self.g)

    def entries(self, step: Step | None = None, found: KrylovResult | Certificate | None = None) -> dict:
        """What the history says of this iteration, ``found`` being what its products went to."""
        step = None if self.rejected else step
        solution = found if isinstance(found, KrylovResult) else None
        certificate = found if isinstance(found, Certificate) else None
        return {
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "damping": self.damping,
            "direction": step.name if step else "none",
            "alpha": step.alpha if step else 0.0,
            "step_norm": step.alpha * norm(step.direction) if step else 0.0,
            "curvature": certificate.eigenvalue if certificate else solution and solution.curvature,
            "krylov_iterations": solution.iterations if solution else 0,
            "krylov_status": str(solution.status)  # plain text, which checkpoints and JSON hold
            if solution
            else certificate.reason
            if certificate
            else self.trouble,
        }
