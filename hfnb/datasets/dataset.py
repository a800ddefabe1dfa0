"""A dataset: inputs, targets, and a name."""

from dataclasses import dataclass

import numpy as np

from hfnb.validation import check_plain_array, shown

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs X (n, d) with targets Y: integer class labels (n,) or real targets (n, k).

    X is float32 or float64 and is kept as given, never copied. Raises TypeError for X or Y of another kind
    (sparse, masked, complex), and ValueError for wrong shapes, unequal lengths, negative labels, NaN or
    infinity (naming the row).

    >>> import numpy as np
    >>> data = Dataset(np.eye(3), np.array([0, 1, 2]), name="corners")
    >>> len(data), data.dim, data[1:].Y.tolist()
    (3, 3, [1, 2])
    """

    X: np.ndarray
    Y: np.ndarray
    name: str = "data"

    def __post_init__(self):
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

    def __getitem__(self, rows) -> "Dataset":
        """Return some rows, given by a slice (a view) or an array of numbers or booleans (a copy).

        TypeError for rows of another kind, IndexError for numbers and booleans of rows that are not there.
        """
        if not isinstance(rows, slice):
            rows = _row_numbers(rows, len(self))
        return Dataset._unchecked(self.X[rows], self.Y[rows], self.name)


def _array(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name}: expected rows of one length, got {shown(values)}") from error


def _row_numbers(rows, n: int) -> np.ndarray:
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
