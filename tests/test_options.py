"""The arguments of the optimizers: what is out of range or of another kind is refused at once."""

from functools import partial

import numpy as np
import pytest

from hfnb import Dataset, Objective, first_order, hessian_free, krylov
from hfnb.models import mlp
from hfnb.optimizers.options import MARTENS, truncated

NET = mlp([4, 3, 2])
DATA = Dataset(np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 2)
W0 = NET.init(0, dtype=float)


class Untouched:
    """An objective that must not be evaluated."""

    n, net = 20, NET

    def value(self, *arguments, **options):
        raise AssertionError("evaluated")

    value_and_gradient = curvature = value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("batch_size", [0, -1, 21, 2.7, 2.0, np.nan, True, "3", "part", [3]]),
        ("curvature_batch_size", [0, -1, 21, 2.7, 2.0, np.nan, True, "3", "growing", [3]]),
        ("max_iter", [-3, 2.7, np.inf, None, True]),
        ("damping", [-1.0, np.nan, np.inf, "1", "curvature", [1.0], 1j]),
        ("tol", [-1.0, np.nan, None, "1"]),
        ("warm_start_decay", [2.0, -0.1, np.nan, None, True]),
        ("seed", [-1, 0.5, None, True]),
        ("step", ["best", None, 3, ["better"]]),
        ("solver", ["gmres", 3, "", ["cg"]]),
        ("curvature", ["fisher", 3, ["hessian"]]),
        ("callback", [3, "f"]),
        ("checkpoint", [3, dict]),
    ],
)
def test_an_option_out_of_range_is_named_before_anything_is_evaluated(name, values):
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
            hessian_free(Untouched(), W0, **{name: value})


@pytest.mark.parametrize("optimizer", [hessian_free, first_order])
def test_objectives_and_starts_of_another_kind_are_named(optimizer):
    for objective in (None, NET, NET.loss, lambda w: 0.0, DATA, Objective):
        with pytest.raises(TypeError, match=r"^objective: expected hfnb\.Objective"):
            optimizer(objective, W0)
    for w0 in (None, 3, "abc", W0[:-1], W0[:, None], W0.astype(int), W0 + 1j, np.ma.masked_array(W0), []):
        with pytest.raises((TypeError, ValueError), match=r"^w0: expected an array"):
            optimizer(Untouched(), w0)
    with pytest.raises(ValueError, match=r"^w0: expected a start with finite"):
        optimizer(Untouched(), np.where(np.arange(W0.size) == 3, np.inf, W0))


def test_lists_and_integers_of_numpy_will_do():
    options = {"max_iter": np.int32(3), "batch_size": np.int64(10), "seed": np.uint8(2)}
    found = hessian_free(Objective(NET, DATA), W0.tolist(), **options)
    again = hessian_free(Objective(NET, DATA), W0, max_iter=3, batch_size=10, seed=2)
    np.testing.assert_array_equal(found.x, again.x)


def test_options_that_a_solver_does_not_take_are_named():
    with pytest.raises(ValueError, match=r"solver_options: expected .*rtol.*, got 'tolerance'"):
        truncated("cg", MARTENS, {"tolerance": 1e-3})
    with pytest.raises(ValueError, match=r"solver_options: .* got 'damping'"):  # the optimizer gives it
        truncated("cg", MARTENS, {"damping": 1.0})
    with pytest.raises(ValueError, match=r"solver_options: .* got 'radius'"):
        truncated("bicgstab", MARTENS, {"radius": 1.0})
    with pytest.raises(
        ValueError, match=r"solver_options: expected .*\(M, check, rtol, .*\), got 'overhead'"
    ):
        truncated("saddle_free", MARTENS, {"overhead": 12.0})
    with pytest.raises(ValueError, match=r"solver_options: expected .*radius.*max_iter.*, got 'maxiter'"):
        truncated(partial(krylov.cg, radius=1.0), MARTENS, {"maxiter": 3})
    with pytest.raises(TypeError, match="solver_options: expected a dictionary or None"):
        truncated("cg", MARTENS, [("max_iter", 3)])
    assert truncated("cg", MARTENS, {"radius": 1.0}).keywords["radius"] == 1.0

    def own(A, b, x0=None, *, damping, depth=1):
        return krylov.cg(A, b, x0, damping=damping)

    def anything(A, b, x0=None, **options):
        return krylov.cg(A, b, x0, damping=options["damping"])

    assert truncated(own, MARTENS, {"depth": 2}).keywords == {"depth": 2}
    assert truncated(anything, MARTENS, {"depth": 2}).keywords == {"depth": 2}
    message = r"solver_options: expected options of the solver \(depth\), got 'max_iter'"
    with pytest.raises(ValueError, match=message):
        truncated(own, MARTENS, {"max_iter": 2})

    def with_ours(A, b, x0=None, *, damping, depth=1, **stopping):
        return krylov.cg(A, b, x0, damping=damping, **stopping)

    assert truncated(with_ours, MARTENS, {"depth": 2, "rtol": 0.1}).keywords == {"depth": 2, "rtol": 0.1}
    with pytest.raises(
        ValueError, match=r"options of the solver \(depth, rtol, .*, callback\), got 'tolerance'"
    ):
        truncated(with_ours, MARTENS, {"tolerance": 2})
