"""How are loss, gradient and curvature evaluated?"""

from hfnb.objectives.curvature import gauss_newton, hessian
from hfnb.objectives.objective import Objective
from hfnb.objectives.protocols import Evaluator, Model, ObjectiveLike
from hfnb.objectives.sampling import Sample

__all__ = ["Evaluator", "Model", "Objective", "ObjectiveLike", "Sample", "gauss_newton", "hessian"]
