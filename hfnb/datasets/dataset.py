"""Inputs and targets, in memory or mapped from a file, and the fingerprint of their content.

Equal content has an equal fingerprint wherever it is stored; of very large arrays only blocks are read.
Arrays that are mapped from a file are passed between the processes of one machine by name, never copied
whole.
"""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfnb.validation import check_plain_array, shown


@dataclass(frozen=True)
class MappedArray:
    """The place of an array's numbers in a file: a few bytes to send instead of the array.

    Attributes
    ----------
    path : str
        The file.
    dtype : str
        As NumPy writes it, such as "<f4".
    shape : tuple of int
    offset : int
        Bytes of the file before the array.

    Examples
    --------
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
        """Return the array, mapped read-only; FileNotFoundError on a machine without the file."""
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
        """Return the place of an array of consecutive rows of a mapped file; None for any other array."""
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


WHOLE = 2**30  # bytes of an array up to which every one of them counts
BLOCK = 2**20  # bytes of the blocks of rows that are read at once
SAMPLED = 64  # blocks of a larger array that are read


def fingerprint(data: Any) -> str:
    """Return a text of 64 characters that names the content of ``data.X`` and ``data.Y``.

    Parameters
    ----------
    data : Dataset
        Anything with arrays X and Y of numbers, in memory or mapped from files.

    Returns
    -------
    str
        Equal for equal values, order of rows, shapes and dtypes, whatever the layout in memory. The name of
        the dataset does not count.

    Raises
    ------
    TypeError
        If ``data`` has no X and Y, or if they do not hold numbers.

    Notes
    -----
    Arrays up to 1 GiB are read whole, at some GB/s: one label or pixel that changes is noticed. Of a
    larger array (see `is_sampled`) 64 blocks of 1 MiB are read, spread evenly from the first row to the
    last: another scale, another order of the rows or another dataset is noticed, a change of a few rows
    probably not. The checksums (CRC-32 of each block) find mistakes, not forgeries.

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb import Dataset
    >>> X, Y = np.eye(3), np.array([0, 1, 2])
    >>> name = fingerprint(Dataset(X, Y))
    >>> name == fingerprint(Dataset(np.asfortranarray(X), Y.copy())), name == fingerprint(Dataset(X + 1, Y))
    (True, False)
    """
    digest = hashlib.sha256()
    for name in ("X", "Y"):
        array = getattr(data, name, None)
        if array is None:
            raise TypeError(f"data: expected a Dataset, hfnb.Dataset(X, Y), got {type(data).__name__}")
        digest.update(checksum(name, array))
    return digest.hexdigest()


def checksum(name: str, array: np.ndarray, most: int | None = None) -> bytes:
    """Return shape, dtype and the checksums of an array's blocks of rows.

    Parameters
    ----------
    name : str
        Of the array, for messages.
    array : array_like
    most : int, optional
        How many blocks are read, spread evenly; by default all, and 64 of an array that `is_sampled`.

    Returns
    -------
    bytes

    Raises
    ------
    TypeError
        If the array does not hold numbers.
    """
    array = np.atleast_1d(array)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    rows = max(1, BLOCK * len(array) // max(array.nbytes, 1))
    starts = np.arange(0, len(array), rows)
    if most is None and is_sampled(array):
        most = SAMPLED
    if most is not None and most < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
    sums = [zlib.crc32(_bytes(array[start : start + rows])) for start in starts]
    return repr((array.dtype.str, array.shape, sums)).encode()


def is_sampled(array: np.ndarray) -> bool:
    """Return whether an array is so large that only part of it is read for a fingerprint."""
    return is_large(array.nbytes)


def is_large(nbytes: int) -> bool:
    """Return whether data of so many bytes are only read in part for a fingerprint."""
    return nbytes > WHOLE


def _bytes(rows: np.ndarray) -> Any:
    """Return the bytes of an array in the order of its indices."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets. Arrays are kept as given, not copied.

    Parameters
    ----------
    X : ndarray of float32 or float64, shape (n, d)
        A row for each sample.
    Y : ndarray, shape (n,) or (n, k)
        Integer class labels 0, 1, 2, …, of shape (n,), or real targets, of shape (n, k).
    name : str
        For titles and messages.

    Raises
    ------
    TypeError
        For X or Y of another kind: sparse, masked, complex.
    ValueError
        For wrong shapes, unequal lengths, negative labels, NaN or infinity, naming the row.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.eye(3), np.array([0, 1, 2]), name="corners")
    >>> len(data), data.dim, data[1:].Y.tolist()
    (3, 3, [1, 2])
    """

    X: np.ndarray
    Y: np.ndarray
    name: str = "data"

    def __post_init__(self) -> None:
        for field in ("X", "Y"):
            check_plain_array(field, getattr(self, field))
            if not isinstance(getattr(self, field), np.ndarray):
                object.__setattr__(self, field, _array(field, getattr(self, field)))
        _check_inputs(self.X)
        _check_targets(self.Y)
        if len(self.X) != len(self.Y):
            raise ValueError(f"Y: expected {len(self.X)} rows, one for each row of X, got {len(self.Y)}")

    @classmethod
    def _unchecked(cls, X: np.ndarray, Y: np.ndarray, name: str) -> "Dataset":
        """Wrap arrays known to be good, without the pass over them (they may be larger than memory)."""
        data = object.__new__(cls)
        for field, value in (("X", X), ("Y", Y), ("name", name)):
            object.__setattr__(data, field, value)
        return data

    def __len__(self) -> int:
        return len(self.X)

    @property
    def dim(self) -> int:
        """Number of inputs d."""
        return self.X.shape[1]

    def __getitem__(self, rows: Any) -> "Dataset":
        """Return some of the rows.

        Parameters
        ----------
        rows : slice or array_like
            A slice gives a view; an array of row numbers, or of a boolean for each row, gives a copy.

        Returns
        -------
        Dataset

        Raises
        ------
        IndexError
            For rows that are not there.
        TypeError
            For rows of another kind.
        """
        if not isinstance(rows, slice):
            rows = _row_numbers(rows, len(self))
        return Dataset._unchecked(self.X[rows], self.Y[rows], self.name)


def _array(name: str, values: Any) -> np.ndarray:
    """Return values as an array; ValueError for rows of several lengths."""
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name}: expected rows of one length, got {shown(values)}") from error


def _row_numbers(rows: Any, n: int) -> np.ndarray:
    """Return an array that selects some of n rows: numbers, or a boolean for each."""
    check_plain_array("rows", rows)
    found = np.asarray(rows) if np.size(rows) else np.asarray(rows, dtype=int)
    if found.ndim != 1 or found.dtype.kind not in "iub":
        raise TypeError(
            f"rows: expected a slice or a one-dimensional array of integers or booleans, got {shown(rows)}"
        )
    if found.dtype.kind == "b" and len(found) != n:
        raise IndexError(f"rows: expected {n} booleans, one for each row, got {len(found)}")
    if found.dtype.kind != "b" and found.size and not -n <= found.min() <= found.max() < n:
        raise IndexError(f"rows: expected numbers of rows below {n}, got {found.min()} to {found.max()}")
    return found


def _check_inputs(X: np.ndarray) -> None:
    """Refuse inputs that are not a finite (n, d) matrix of floats."""
    if X.dtype not in (np.float32, np.float64):
        raise TypeError(f"X: expected float32 or float64, got {shown(X)}; convert with X.astype(np.float32)")
    if X.ndim != 2 or not X.size:
        raise ValueError(f"X: expected shape (n, d) with n and d at least 1, got {X.shape}")
    _check_finite("X", X)


def _check_targets(Y: np.ndarray) -> None:
    """Refuse targets that are neither labels (n,) nor finite reals (n, k)."""
    if Y.dtype.kind in "iu":
        if Y.ndim != 1:
            raise ValueError(f"Y: expected shape (n,) for integer class labels, got {Y.shape}")
        if np.any(Y < 0):
            row = int(np.argmax(Y < 0))
            raise ValueError(f"Y: expected labels 0, 1, 2, …, got {Y[row]} in row {row}")
    elif Y.dtype.kind == "f":
        if Y.ndim != 2:
            raise ValueError(
                f"Y: expected shape (n, k) for real targets, got {Y.shape} (labels must be integers)"
            )
        _check_finite("Y", Y)
    else:
        raise TypeError(f"Y: expected integer labels (n,) or real targets (n, k), got dtype {Y.dtype}")


def _check_finite(name: str, A: np.ndarray) -> None:
    """Name the first row that holds NaN or infinity; a block at a time, to need little memory."""
    for start in range(0, len(A), _ROWS_AT_ONCE):
        good = np.isfinite(A[start : start + _ROWS_AT_ONCE]).all(axis=1)
        if not good.all():
            raise ValueError(
                f"{name}: expected finite numbers, got NaN or infinity in row {start + np.argmin(good)}"
            )
