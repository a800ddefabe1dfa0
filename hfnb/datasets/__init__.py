"""On what are models trained? Datasets, one call each: checked, cached, with clear errors."""

from hfnb.datasets._fingerprint import fingerprint
from hfnb.datasets._mnist import mnist
from hfnb.datasets.dataset import Dataset
from hfnb.datasets.errors import CorpusError, CorruptFile

__all__ = ["CorpusError", "CorruptFile", "Dataset", "fingerprint", "mnist"]
