"""First-order methods against autograd's own and against the update rules written out."""

import numpy as np
import pytest
from autograd.misc import optimizers
from test_hessian_free import LABELS, Memory, X

from hfnb import Dataset, Objective, first_order, hessian_free
from hfnb.models import mlp
from hfnb.objectives.sampling import Sample

NET = mlp([6, 4, 2])
DATA = Dataset(X, LABELS)
W0 = NET.init(0, dtype=float)


def gradients():
    """The gradient of step t on mini-batches of 20, as autograd's optimizers ask for it."""
    objective = Objective(NET, DATA)
    return lambda w, t: objective.value_and_gradient(w, Sample(20, 0, t))[1]


def test_sgd_momentum_and_adam_are_those_of_autograd():
    # autograd's sgd keeps v ← μv − (1 − μ)g, w ← w + ηv.
    common = {"batch_size": 20, "max_iter": 3}
    for method, theirs in {
        "sgd": optimizers.sgd(gradients(), W0, num_iters=30, step_size=0.3, mass=0.0),
        "momentum": optimizers.sgd(gradients(), W0, num_iters=30, step_size=3.0, mass=0.9),
        "adam": optimizers.adam(gradients(), W0, num_iters=30, step_size=0.3),
    }.items():
        ours = first_order(Objective(NET, DATA), W0, method=method, learning_rate=0.3, **common)
        np.testing.assert_allclose(ours.x, theirs, rtol=1e-10, atol=1e-12, err_msg=method)


def test_nesterov_looks_ahead():
    # Sutskever et al. (2013): v' = μv − ηg(θ + μv), θ' = θ + v'; ours follows the point w = θ + μv.
    g, theta, v = gradients(), W0.copy(), np.zeros_like(W0)
    for t in range(30):
        v = 0.9 * v - 0.1 * g(theta + 0.9 * v, t)
        theta = theta + v
    ours = first_order(
        Objective(NET, DATA), W0, method="nesterov", learning_rate=0.1, batch_size=20, max_iter=3
    )
    np.testing.assert_allclose(ours.x, theta + 0.9 * v, rtol=1e-11)


def test_a_schedule_sees_the_number_of_each_step():
    steps = []

    def rate(t):
        steps.append(t)
        return 0.1 / (1 + t)

    first_order(Objective(NET, DATA), W0, learning_rate=rate, batch_size=50, max_iter=3)
    assert steps == list(range(12))


def test_only_the_methods_own_gradients_are_counted():
    result = first_order(Objective(NET, DATA), W0, batch_size=30, max_iter=4, callback=lambda record: None)
    last = result.history[-1]
    assert (last.reductions, last.passes) == (4 * 6, 4 * 6 * 30 / 200)
    assert last.numbers == 4 * 6 * (NET.size + 1)


def test_resumed_runs_are_bitwise_those_that_were_never_stopped():
    memory, options = Memory(), {"method": "adam", "learning_rate": 0.01, "batch_size": 20}
    whole = first_order(Objective(NET, DATA), W0, max_iter=5, **options)
    first_order(Objective(NET, DATA), W0, max_iter=2, checkpoint=memory, **options)
    resumed = first_order(Objective(NET, DATA), W0, max_iter=5, checkpoint=memory, **options)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert [{**r, "seconds": 0} for r in resumed.history] == [{**r, "seconds": 0} for r in whole.history]


def test_divergence_is_said():
    objective = Objective(mlp([6, 2], loss="squared_error"), Dataset(X, np.eye(2)[LABELS]))
    with np.errstate(all="ignore"):
        result = first_order(objective, objective.net.init(0, dtype=float), learning_rate=1e3, max_iter=200)
    assert not result.success
    assert "diverged" in result.message


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="method: expected one of sgd, momentum, nesterov, adam"):
        first_order(Objective(NET, DATA), W0, method="rmsprop")
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1 and at most 200"):
        first_order(Objective(NET, DATA), W0, batch_size=201)
    with pytest.raises(ValueError, match="w0: expected a start"):
        first_order(Objective(NET, DATA), W0 * np.nan)


@pytest.mark.parametrize("rate", [-0.1, np.nan, np.inf, lambda t: np.nan, lambda t: -1.0])
def test_a_learning_rate_out_of_range_is_named(rate):
    with pytest.raises(ValueError, match=r"learning_rate.*: expected a finite number >= 0"):
        first_order(Objective(NET, DATA), W0, learning_rate=rate)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, np.nan])
def test_a_momentum_out_of_range_is_named(momentum):
    with pytest.raises(ValueError, match="momentum: expected a number >= 0 and < 1"):
        first_order(Objective(NET, DATA), W0, momentum=momentum)


@pytest.mark.parametrize("optimizer", [first_order, hessian_free])
def test_what_a_callback_keeps_or_writes_to_is_its_own(optimizer):
    path = []

    def spoil(record):
        record.w[:] = 0.0

    quiet = optimizer(Objective(NET, DATA), W0, max_iter=3)
    watched = optimizer(Objective(NET, DATA), W0, max_iter=3, callback=lambda record: path.append(record.w))
    assert len({w.tobytes() for w in path}) == 4  # a point each, the start included
    np.testing.assert_array_equal(path[-1], watched.x)
    spoiled = optimizer(Objective(NET, DATA), W0, max_iter=3, callback=spoil)
    np.testing.assert_array_equal(spoiled.x, quiet.x)
