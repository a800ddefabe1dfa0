"""hfnb: distributed Hessian-free optimization with negative curvature, to learn, run and extend."""

from hfnb import checks, datasets, krylov, models, problems
from hfnb.datasets import Dataset
from hfnb.engines import Cluster, EngineFailure
from hfnb.objectives.objective import Objective
from hfnb.objectives.sampling import Sample
from hfnb.optimizers._first_order import first_order
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.optimizers.certificate import Certificate, certify
from hfnb.optimizers.checkpoint import Checkpoint
from hfnb.optimizers.progress import Progress
from hfnb.optimizers.scipy_adapter import scipy_method
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
