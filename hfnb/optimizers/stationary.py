"""What `hessian_free` does if the gradient vanishes, or if many steps in a row are rejected."""

from dataclasses import replace
from functools import partial

import numpy as np

from hfnb.krylov import NonFiniteProduct, norm
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.certificate import Certificate, certify_operator, gradient_scale
from hfnb.optimizers.history import State, Status
from hfnb.optimizers.steps import Step, negative_curvature_step

REJECTIONS = 10  # rejected steps in a row before a certificate is made; λ has then grown by a factor of 5·10⁹
LEAVES = 3  # number of attempts to leave a saddle after that, each with a new certificate


def needs_certificate(state: State, tol: float) -> bool:
    """Whether the gradient vanishes, or enough steps in a row were rejected that w may be stationary."""
    vanishing = tol * (min(1.0, state.steepest) if state.iteration else 1.0)
    return state.gradient_norm <= vanishing or (tol > 0 and state.rejected >= REJECTIONS)


def certificate_at(objective: ObjectiveLike, state: State, samples: Draws) -> Certificate:
    """Return a certificate at w; its random start differs between iterations, but not between engines."""
    H = objective.curvature(state.w, "hessian", samples.loss(state.iteration))
    seed = int(np.random.SeedSequence([samples.seed, state.iteration]).generate_state(1)[0])
    try:
        return certify_operator(H, seed=seed)
    except NonFiniteProduct as error:
        reason = f"the products with the Hessian are not finite ({error})"
        return Certificate("undecided", reason, np.nan, np.nan, 1.0, 0.0, 0, seed, np.zeros_like(state.w))


def ending_at(state: State, certificate: Certificate, tol: float) -> tuple[Status, str] | None:
    """Return the status and the message with which a certificate ends a run, None if the run goes on.

    The run ends at a point that is not a saddle if its gradient is small on the problem's own scale, or if
    too many steps were rejected. In the second case a minimum is a success if the possible decrease is
    smaller than rounding errors. That decrease, along −g, is at least ‖g‖²/2κ, where κ is the largest
    curvature. The rounding errors are 10 units of rounding of the loss, and the change of the loss when w is
    rounded.
    """
    if certificate.verdict == "saddle":
        return None
    g_norm, w_norm, largest = state.gradient_norm, norm(state.w), certificate.largest
    scale = max(state.steepest, gradient_scale(largest, state.w, state.loss))
    limit, said = tol * min(1.0, scale), f"{certificate.verdict}: {certificate.reason}"
    minimum = certificate.verdict == "minimum"
    if g_norm <= limit:
        how = f"tol = {tol:g}" if limit == tol else f"{limit:.1e} = tol x {scale:.1e}, the scale of gradients"
        message = f"gradient norm {g_norm:.1e} <= {how}; {said}"
        return Status.MINIMUM if minimum else Status.UNDECIDED, message
    if state.rejected < REJECTIONS:
        return None
    eps = float(np.finfo(state.w.dtype).eps)
    fall = g_norm**2 / (2 * largest) if largest else np.inf
    rounding = 10 * eps * (abs(state.loss) + g_norm * w_norm + eps * largest * w_norm**2)
    compared = "at most" if fall <= rounding else "more than"
    message = (
        f"no step lowered the loss in {state.rejected} iterations; with the gradient norm {g_norm:.1e} > "
        f"{limit:.1e} it could fall by {fall:.1e}, {compared} the rounding error {rounding:.1e}; {said}"
    )
    return Status.MINIMUM if minimum and fall <= rounding else Status.NO_PROGRESS, message


def step_off_saddle(
    objective: ObjectiveLike, state: State, certificate: Certificate, samples: Draws
) -> tuple[Step, State]:
    """Return a step along the direction that proves a point to be a saddle, and the state.

    A run that starts at a saddle has had no large gradient yet, with which later ones can be compared. The
    gradient after this step s has a norm of about |dᵀHd|‖s‖, which the state returned includes in `steepest`.
    """
    f, d = partial(objective.value, sample=samples.loss(state.iteration)), certificate.direction
    step = negative_curvature_step(f, state.w, d, state.loss, state.g, certificate.eigenvalue)
    met = abs(certificate.eigenvalue) * step.alpha * norm(step.direction)
    return step, replace(state, steepest=max(state.steepest, met))


def gives_up(state: State, tol: float) -> bool:
    """Whether too many steps were rejected; further attempts to leave a saddle need finite values."""
    return state.rejected >= REJECTIONS + (LEAVES if tol > 0 and not state.trouble else 0)


def why_no_progress(state: State) -> str:
    """Return the message of a run that gave up."""
    message = f"no step lowered the loss in {state.rejected} iterations"
    if state.trouble:
        return f"{message}: {state.trouble}"
    if state.rejected > REJECTIONS:
        return f"{message}, not even along the negative curvature of this saddle"
    return message
