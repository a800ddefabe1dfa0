"""How are loss, gradient and curvature evaluated?"""

from hfnb.objectives.curvature import gauss_newton, hessian
from hfnb.objectives.objective import Objective
from hfnb.objectives.sampling import Sample

__all__ = ["Objective", "Sample", "gauss_newton", "hessian"]
