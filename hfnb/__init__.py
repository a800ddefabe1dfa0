"""hfnb: distributed Hessian-free optimization with negative curvature, to learn, run and extend.

Where to start, with `help` of each:

==========================  ===================================================================
`hfnb.fit`                  fit a network or a function of your own to data, precisely
`hfnb.hessian_free`         train a network: ``hessian_free(Objective(net, data), net.init(0))``
`hfnb.levenberg_marquardt`  least squares to many digits, such as differential equations
`hfnb.Objective`            a loss of your own (``from_loss``) or residuals (``from_residuals``)
`hfnb.models`               networks; derivatives of their outputs with respect to inputs
`hfnb.datasets`             MNIST, speech, and arrays of your own
`hfnb.Cluster`              the same on many engines
`hfnb.krylov`               solvers alone
==========================  ===================================================================

Names are imported when they are first used, so that ``import hfnb`` is quick and a program that starts no
engines does not import what engines need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfnb import checks, datasets, krylov, models, problems
    from hfnb.datasets import Dataset
    from hfnb.engines import Cluster, EngineFailure, EngineLost
    from hfnb.krylov import NonFiniteProduct
    from hfnb.objectives import Objective, Sample
    from hfnb.optimizers import (
        Certificate,
        Checkpoint,
        CorruptCheckpoint,
        FolderInUse,
        Progress,
        Record,
        Status,
        certify,
        first_order,
        fit,
        hessian_free,
        levenberg_marquardt,
        local_steps,
        scipy_method,
    )
    from hfnb.threads import set_threads

__all__ = [
    "Certificate",
    "Checkpoint",
    "Cluster",
    "CorruptCheckpoint",
    "Dataset",
    "EngineFailure",
    "EngineLost",
    "FolderInUse",
    "NonFiniteProduct",
    "Objective",
    "Progress",
    "Record",
    "Sample",
    "Status",
    "certify",
    "checks",
    "datasets",
    "first_order",
    "fit",
    "hessian_free",
    "krylov",
    "levenberg_marquardt",
    "local_steps",
    "models",
    "problems",
    "scipy_method",
    "set_threads",
]

__version__ = "0.1.0"

# Where each name is defined; a name that is not here is a module of this package.
_DEFINED_IN = {
    "Dataset": "datasets",
    "Cluster": "engines",
    "EngineFailure": "engines",
    "EngineLost": "engines",
    "NonFiniteProduct": "krylov",
    "Objective": "objectives",
    "Sample": "objectives",
    "set_threads": "threads",
} | dict.fromkeys(
    [
        "Certificate",
        "Checkpoint",
        "CorruptCheckpoint",
        "FolderInUse",
        "Progress",
        "Record",
        "Status",
        "certify",
        "first_order",
        "fit",
        "hessian_free",
        "levenberg_marquardt",
        "local_steps",
        "scipy_method",
    ],
    "optimizers",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hfnb' has no attribute {name!r}")
    found = import_module(f"hfnb.{_DEFINED_IN.get(name, name)}")
    return found if name not in _DEFINED_IN else getattr(found, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
