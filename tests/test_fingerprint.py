"""A fingerprint changes with the content of a dataset and with nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from hfnb import Dataset, datasets
from hfnb.datasets import fingerprint

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((500, 600))  # 2.4 MB: several blocks
Y = RANDOM.integers(0, 9, 500)
NAME = fingerprint(Dataset(X, Y))


def changed(array, place, value):
    other = array.copy()
    other[place] = value
    return other


@pytest.mark.parametrize(
    "other",
    [
        (X + 1, Y),
        (-X, Y),
        (changed(X, (0, 0), np.nextafter(X[0, 0], 9)), Y),
        (changed(X, (-1, -1), X[-1, -1] + 1e-9), Y),
        (changed(X, (250, 300), 0.0), Y),
        (changed(X, slice(None), np.roll(X, 1, axis=0)), Y),
        (changed(X, [0, 499], X[[499, 0]]), Y),
        (X[:, ::-1], Y),
        (X, changed(Y, 137, Y[137] + 1)),
        (X, Y[::-1]),
        (X, Y.astype(np.int32)),
        (X.astype(np.float32), Y),
        (X[:-1], Y[:-1]),
        (X.reshape(250, 1200), Y[:250]),
        (X, Y[:, None] * 1.0),
    ],
    ids=[
        "shifted",
        "negated",
        "first_pixel",
        "last_pixel",
        "middle",
        "rolled",
        "swapped",
        "mirrored",
        "label",
        "reversed",
        "int32",
        "float32",
        "shorter",
        "reshaped",
        "targets",
    ],
)
def test_other_content_has_another_fingerprint(other):
    assert fingerprint(Dataset(*other)) != NAME


def test_a_single_pixel_of_mnist_size_counts():
    """Every byte is read: as large as the training images of MNIST, one value at a time."""
    large = np.zeros((60_000, 784), np.float32)
    labels = np.zeros(60_000, int)
    names = {fingerprint(Dataset._unchecked(large, labels, ""))}
    for row in (0, 31_415, 59_999):
        large[row, row % 784] = 1e-30
        names.add(fingerprint(Dataset._unchecked(large, labels, "")))
    assert len(names) == 4


def test_layout_place_and_name_do_not_count(tmp_path):
    path = tmp_path / "X"
    path.write_bytes(bytes(24) + X.tobytes())
    padded = np.zeros((500, 700))
    padded[:, 50:650] = X
    copies = (
        X.copy(),
        np.asfortranarray(X),
        padded[:, 50:650],
        np.repeat(X, 2, axis=0)[::2],
        np.memmap(path, X.dtype, "r", 24, X.shape),
    )
    for copy in copies:
        assert fingerprint(Dataset(copy, Y, name="a copy")) == NAME


def test_a_large_array_is_sampled(tmp_path):
    """A sparse file of 4 GiB: what is read takes no time, and the ends and the whole still count."""
    path = tmp_path / "X"
    with open(path, "wb") as file:
        file.truncate(2**32)
    large = np.memmap(path, np.float32, "r+", shape=(2**20, 2**10))
    labels = np.zeros(2**20, int)
    names = {fingerprint(Dataset._unchecked(large, labels, ""))}
    for change in ((large, (0, 0)), (large, (-1, -1)), (labels, 777_777)):
        change[0][change[1]] = 1
        names.add(fingerprint(Dataset._unchecked(large, labels, "")))
    names.add(fingerprint(Dataset._unchecked(large[::-1], labels, "")))
    assert len(names) == 5
    assert path.stat().st_blocks * 512 < 2**24  # the test itself stays small


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "data: expected a Dataset, .*, got NoneType"),
        (np.eye(3), "data: expected a Dataset, .*, got ndarray"),
        (SimpleNamespace(X=np.array([object()]), Y=Y), "X: expected an array of numbers, got dtype object"),
        (SimpleNamespace(X=X, Y=np.array(["a"])), "Y: expected an array of numbers, got dtype <U1"),
    ],
    ids=["none", "array", "objects", "texts"],
)
def test_what_has_no_fingerprint(bad, message):
    with pytest.raises(TypeError, match=message):
        datasets.fingerprint(bad)
