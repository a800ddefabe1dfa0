"""hfnb: distributed Hessian-free optimization with negative curvature, to learn, run and extend."""

from hfnb import datasets, krylov, models
from hfnb.datasets import Dataset
from hfnb.first_order import first_order
from hfnb.hessian_free import hessian_free
from hfnb.objective import Objective
from hfnb.sampling import Sample

__all__ = [
    "Dataset",
    "Objective",
    "Sample",
    "datasets",
    "first_order",
    "hessian_free",
    "krylov",
    "models",
]
