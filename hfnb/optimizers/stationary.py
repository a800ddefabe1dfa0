"""What `hessian_free` does where the gradient vanishes, or where one step after another is rejected."""

from dataclasses import replace
from functools import partial

import numpy as np

from hfnb.krylov import NonFiniteProduct, norm
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.certificate import Certificate, certify_operator, gradient_scale
from hfnb.optimizers.history import Status
from hfnb.optimizers.line_search import Step
from hfnb.optimizers.state import State
from hfnb.optimizers.steps import negative_curvature_step

REJECTIONS = 10  # steps rejected one after another before a certificate is made: λ has grown 5·10⁹-fold
LEAVES = 3  # how often a run then tries to leave a saddle, with a fresh certificate each time


def needs_certificate(state: State, tol: float) -> bool:
    """Whether the gradient vanishes, or so many steps were rejected that the point may be stationary."""
    vanishing = tol * (min(1.0, state.steepest) if state.iteration else 1.0)
    return state.gradient_norm <= vanishing or (tol > 0 and state.rejected >= REJECTIONS)


def certificate_at(objective: ObjectiveLike, state: State, samples: Draws) -> Certificate:
    """Return a certificate at w; its random start is new each time, and the same on all engines."""
    H = objective.curvature(state.w, "hessian", samples.loss(state.iteration))
    seed = int(np.random.SeedSequence([samples.seed, state.iteration]).generate_state(1)[0])
    try:
        return certify_operator(H, seed=seed)
    except NonFiniteProduct as error:
        reason = f"the products with the Hessian are not finite ({error})"
        return Certificate("undecided", reason, np.nan, np.nan, 1.0, 0.0, 0, seed, np.zeros_like(state.w))


def ending_at(state: State, certificate: Certificate, tol: float) -> tuple[Status, str] | None:
    """Return the status and the message with which a certificate ends a run, None where the run goes on.

    A point is a minimum where its gradient is small at the problem's own scale. It also is one where no step
    lowered the loss because what a step promises is less than rounding. A step along −g promises at least
    ‖g‖²/2κ, κ the largest curvature. Rounding is 10 units of that of the loss, and what the rounding of w
    does to the loss.
    """
    if certificate.verdict == "saddle":
        return None
    g_norm, w_norm, largest = state.gradient_norm, norm(state.w), certificate.largest
    scale = max(state.steepest, gradient_scale(largest, state.w, state.loss))
    limit, said = tol * min(1.0, scale), f"{certificate.verdict}: {certificate.reason}"
    minimum = certificate.verdict == "minimum"
    if g_norm <= limit:
        how = f"tol = {tol:g}" if limit == tol else f"{limit:.1e} = tol x {scale:.1e}, the largest gradient"
        message = f"gradient norm {g_norm:.1e} <= {how}; {said}"
        return Status.MINIMUM if minimum else Status.UNDECIDED, message
    if state.rejected < REJECTIONS:
        return None
    eps = float(np.finfo(state.w.dtype).eps)
    fall = g_norm**2 / (2 * largest) if largest else np.inf
    rounding = 10 * eps * (abs(state.loss) + g_norm * w_norm + eps * largest * w_norm**2)
    lost = f"lost in rounding, {rounding:.1e}" if fall <= rounding else "more than rounding can hide"
    message = (
        f"no step lowered the loss in {state.rejected} iterations; the gradient norm {g_norm:.1e} > "
        f"{limit:.1e} promises a fall of {fall:.1e}, {lost}; {said}"
    )
    return Status.MINIMUM if minimum and fall <= rounding else Status.NO_PROGRESS, message


def step_off_saddle(
    objective: ObjectiveLike, state: State, certificate: Certificate, samples: Draws
) -> tuple[Step, State]:
    """Return a step along the direction that proves a point to be a saddle, and the state.

    A run that starts at a saddle has met no gradient by which to tell a small one from a large one. This step
    s makes one of about |dᵀHd|‖s‖, which the state returned takes into account.
    """
    f, d = partial(objective.value, sample=samples.loss(state.iteration)), certificate.direction
    step = negative_curvature_step(f, state.w, d, state.loss, state.g, certificate.eigenvalue)
    met = abs(certificate.eigenvalue) * step.alpha * norm(step.direction)
    return step, replace(state, steepest=max(state.steepest, met))


def gives_up(state: State, tol: float) -> bool:
    """Whether too many steps were rejected; a certificate says nothing where values are not finite."""
    return state.rejected >= REJECTIONS + (LEAVES if tol > 0 and not state.trouble else 0)


def why_no_progress(state: State) -> str:
    """Return the message of a run that gave up."""
    message = f"no step lowered the loss in {state.rejected} iterations"
    if state.trouble:
        return f"{message}: {state.trouble}"
    if state.rejected > REJECTIONS:
        return f"{message}, not even along the negative curvature of the saddle at which it stands"
    return message
