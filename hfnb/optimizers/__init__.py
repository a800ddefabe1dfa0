"""How are parameters updated?"""

from hfnb.optimizers._first_order import first_order
from hfnb.optimizers._fit import fit
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.optimizers._levenberg_marquardt import levenberg_marquardt
from hfnb.optimizers._local_steps import local_steps
from hfnb.optimizers.certificate import Certificate, certify
from hfnb.optimizers.checkpoint import Checkpoint, CorruptCheckpoint, FolderInUse
from hfnb.optimizers.history import Progress, Record, Recorder, Status
from hfnb.optimizers.preconditioning import SharedSamples
from hfnb.optimizers.scipy_adapter import scipy_method

__all__ = [
    "Certificate",
    "Checkpoint",
    "CorruptCheckpoint",
    "FolderInUse",
    "Progress",
    "Record",
    "Recorder",
    "SharedSamples",
    "Status",
    "certify",
    "first_order",
    "fit",
    "hessian_free",
    "levenberg_marquardt",
    "local_steps",
    "scipy_method",
]
