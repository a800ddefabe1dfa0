"""Datasets, one call each: checked, cached, with clear errors."""

from ._fingerprint import fingerprint
from .dataset import Dataset
from .errors import CorpusError, CorruptFile
from .mnist import mnist
from .speech import SpeechDataset
from .timit import timit

__all__ = ["CorpusError", "CorruptFile", "Dataset", "SpeechDataset", "fingerprint", "mnist", "timit"]
