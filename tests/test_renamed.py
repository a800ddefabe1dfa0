"""What was called otherwise in earlier versions still works, and says its new name."""

import numpy as np
import pytest

import hfnb
from hfnb import Checkpoint, Dataset, Objective, first_order, hessian_free
from hfnb.models import mlp

RANDOM = np.random.default_rng(0)
NET = mlp([5, 4, 3])
DATA = Dataset(RANDOM.standard_normal((60, 5)), RANDOM.integers(0, 3, 60))
W0 = NET.init(0, dtype=float)
OLD_AND_NEW = [
    (hessian_free, "batch", "batch_size", 20),
    (hessian_free, "curvature_batch", "curvature_batch_size", 20),
    (hessian_free, "warm_start", "warm_start_decay", 0.5),
    (first_order, "batch", "batch_size", 20),
]


@pytest.mark.parametrize(("optimizer", "old", "new", "value"), OLD_AND_NEW)
def test_an_option_by_its_earlier_name(optimizer, old, new, value):
    said = f"{optimizer.__name__}: the option {old} is called {new} now"
    with pytest.warns(DeprecationWarning, match=said):
        found = optimizer(Objective(NET, DATA), W0, max_iter=3, **{old: value})
    expected = optimizer(Objective(NET, DATA), W0, max_iter=3, **{new: value})
    np.testing.assert_array_equal(found.x, expected.x)
    with pytest.raises(TypeError, match=f"{old}: is called {new} now"):
        optimizer(Objective(NET, DATA), W0, **{old: value, new: value})


@pytest.mark.parametrize("optimizer", [hessian_free, first_order])
def test_a_checkpoint_by_its_earlier_name(optimizer, tmp_path):
    with pytest.warns(DeprecationWarning, match="resume is called checkpoint now"):
        optimizer(Objective(NET, DATA), W0, max_iter=3, resume=Checkpoint(tmp_path))
    assert Checkpoint(tmp_path).load()["history"][-1].iteration == 3


def test_auto_was_a_curvature():
    with pytest.warns(DeprecationWarning, match='curvature="auto" is method="auto" now'):
        found = hessian_free(Objective(NET, DATA), W0, curvature="auto", max_iter=3)
    expected = hessian_free(Objective(NET, DATA), W0, method="auto", max_iter=3)
    np.testing.assert_array_equal(found.x, expected.x)


def test_what_has_moved():
    with pytest.warns(DeprecationWarning, match=r"timit is in hfnb\.studies\.speech_dataset now"):
        assert hfnb.datasets.timit.__name__ == "timit"
    assert not hasattr(hfnb.datasets, "cifar")
