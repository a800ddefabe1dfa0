"""Arrays on disk that processes of one machine share: passed on by name, never copied whole."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class MappedArray:
    """Where in which file the numbers of an array are: a few bytes to send instead of the array.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "x")
    ...     _ = path.write_bytes(np.arange(6.0).tobytes())
    ...     X = MappedArray(str(path), "<f8", (3, 2), 0).open()
    ...     X[1:].tolist(), MappedArray.of(X[1:]).offset
    ([[2.0, 3.0], [4.0, 5.0]], 16)
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def open(self) -> np.ndarray:
        """Map the file, to be read only; raises FileNotFoundError on a machine that does not have it."""
        if not Path(self.path).is_file():
            raise FileNotFoundError(
                f"{self.path}: no such file here: engines on other machines need the cache on a file system "
                "that they share (HFNB_CACHE), or a copy of the data"
            )
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        # A plain array over the map: np.memmap itself passes its type on to what is computed from it.
        return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))

    @classmethod
    def of(cls, array: np.ndarray) -> "MappedArray | None":
        """Return where in a mapped file the rows are that ``array`` views; None for any other array."""
        owner: np.ndarray | None = array
        while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
            owner = owner.base
        if not isinstance(owner, np.memmap) or not owner.filename or owner.mode == "c":
            return None  # what is changed in a copy-on-write map is not in the file
        if not array.flags.c_contiguous:
            return None
        while isinstance(owner.base, np.memmap):
            owner = owner.base
        distance = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return cls(
            str(Path(str(owner.filename)).resolve()), array.dtype.str, array.shape, owner.offset + distance
        )
