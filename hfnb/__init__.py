"""hfnb: distributed Hessian-free optimization with negative curvature, to learn, run and extend."""

from hfnb import checks, datasets, krylov, models, problems
from hfnb.certificate import Certificate, certify
from hfnb.checkpoint import Checkpoint
from hfnb.datasets import Dataset
from hfnb.engines import Cluster, EngineFailure
from hfnb.first_order import first_order
from hfnb.hessian_free import hessian_free
from hfnb.objective import Objective
from hfnb.progress import Progress
from hfnb.sampling import Sample
from hfnb.scipy_method import scipy_method
from hfnb.threads import set_threads

__all__ = [
    "Certificate",
    "Checkpoint",
    "Cluster",
    "Dataset",
    "EngineFailure",
    "Objective",
    "Progress",
    "Sample",
    "certify",
    "checks",
    "datasets",
    "first_order",
    "hessian_free",
    "krylov",
    "models",
    "problems",
    "scipy_method",
    "set_threads",
]
