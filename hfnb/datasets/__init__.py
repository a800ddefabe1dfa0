"""On what are models trained? Datasets, one call each: checked, cached, with clear errors."""

from hfnb.datasets._mnist import mnist
from hfnb.datasets.dataset import Dataset, fingerprint
from hfnb.datasets.files import CorpusError, CorruptFile

__all__ = ["CorpusError", "CorruptFile", "Dataset", "fingerprint", "mnist"]
