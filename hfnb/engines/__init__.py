"""Engines: ipyparallel clusters that hold a dataset in partitions and add up what an optimizer asks for."""

from hfnb.validation import check_extra

check_extra("hfnb.Cluster", "engines", "ipyparallel", "IPython", "cloudpickle", "psutil", "tqdm")

from hfnb.engines.cluster import Cluster
from hfnb.engines.pool import EngineFailure, EngineLost

__all__ = ["Cluster", "EngineFailure", "EngineLost"]
