"""A short name for the content of a dataset: other content has another name, wherever it is stored."""

import hashlib
import zlib

import numpy as np

WHOLE = 2**30  # bytes of an array up to which every one of them counts
BLOCK = 2**20  # bytes of the blocks of rows that are read at once
SAMPLED = 64  # blocks of a larger array that are read


def fingerprint(data) -> str:
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


def checksum(name: str, array, most: int | None = None) -> bytes:
    """Return shape, dtype and checksums of the blocks of an array, of ``most`` blocks spread evenly if given.

    TypeError if it holds no numbers.
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
    """Whether an array is so large that only part of it is read for a fingerprint."""
    return is_large(array.nbytes)


def is_large(nbytes: int) -> bool:
    """Whether of data of so many bytes only part is read for a fingerprint."""
    return nbytes > WHOLE


def _bytes(rows: np.ndarray):
    """The bytes of an array in the order of its indices."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
