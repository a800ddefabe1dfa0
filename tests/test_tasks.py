"""What the notebooks share."""

import numpy as np
import pytest

from hfnb import datasets
from hfnb.studies import tasks


def test_pooled_pixels_are_means_of_blocks():
    train, _ = datasets.mnist(dtype=np.float64)
    pooled = tasks.pooled_mnist(5, side=7)
    images = train.X[:5].reshape(5, 28, 28)
    for row, column in ((0, 0), (3, 2), (6, 6)):
        block = images[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        np.testing.assert_allclose(pooled.X[:, 7 * row + column], block.mean(axis=(1, 2)), atol=1e-7)
    assert pooled.X.dtype == np.float64
    np.testing.assert_array_equal(pooled.Y, train.Y[:5])


@pytest.mark.parametrize("side", [0, 5, 56])
def test_sides_that_do_not_divide_28_are_named(side):
    with pytest.raises(ValueError, match=f"divisor of 28, got {side}"):
        tasks.pooled_mnist(5, side)


def test_what_is_published_is_read_and_what_is_not_is_named():
    document = tasks.published("figures/07_train_mnist_full.json")
    histories, about = tasks.load("07_train_mnist_full.json")
    assert document["about"] == about
    assert set(document["histories"]) == set(histories)
    for path, maker in (("bench/results/none.json", "make bench"), ("figures/none.json", "make run")):
        with pytest.raises(FileNotFoundError, match=rf"{path}: not in this checkout; .*{maker}"):
            tasks.published(path)
