"""On what are models trained? Inputs with targets (`Dataset`), MNIST (`mnist`), and the corpus TIMIT.

TIMIT is read and split here; `hfnb.studies.speech_dataset` makes a dataset of it.
"""

import warnings
from importlib import import_module
from typing import Any

from hfnb.datasets._mnist import mnist
from hfnb.datasets.dataset import Dataset, fingerprint
from hfnb.datasets.files import CorpusError, CorruptFile

__all__ = ["CorpusError", "CorruptFile", "Dataset", "fingerprint", "mnist"]

# The new modules of names that were moved, as text: this folder does not import hfnb.studies.
_MOVED = {"timit": "hfnb.studies.speech_dataset", "SpeechDataset": "hfnb.studies.speech_dataset"}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module 'hfnb.datasets' has no attribute {name!r}")
    warnings.warn(f"{name} is in {_MOVED[name]} now", DeprecationWarning, stacklevel=2)
    return getattr(import_module(_MOVED[name]), name)
