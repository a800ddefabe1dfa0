"""Who computes? A cluster of engines: processes that hold partitions of a dataset and sum over them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hfnb.validation import check_extra

if TYPE_CHECKING:
    from hfnb.engines.cluster import Cluster
    from hfnb.engines.pool import EngineFailure, EngineLost

__all__ = ["Cluster", "EngineFailure", "EngineLost"]

# Names are imported when they are first used: `hfnb.engines.blas` and an engine itself need few of them.
_DEFINED_IN = {"Cluster": "cluster", "EngineFailure": "pool", "EngineLost": "pool"}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'hfnb.engines' has no attribute {name!r}")
    check_extra("hfnb.Cluster", "engines", "ipyparallel", "IPython", "cloudpickle", "psutil", "tqdm")
    return getattr(import_module(f"hfnb.engines.{_DEFINED_IN[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
