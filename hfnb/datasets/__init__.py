"""Datasets, one call each: checked by hash, cached, with clear errors."""

from .dataset import Dataset
from .mnist import mnist

__all__ = ["Dataset", "mnist"]
