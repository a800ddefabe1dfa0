"""Costs to a target against gradient descent by hand, closed forms and an exhaustive search over settings."""

import json
from concurrent.futures import Future

import numpy as np
import pytest

from bench import batches as bench
from hfnb import Dataset, first_order, hessian_free
from hfnb.models import mlp
from hfnb.studies import larger_batches
from hfnb.studies.larger_batches import (
    METHODS,
    cost,
    costs_to,
    crossing,
    growth,
    hopeless,
    read,
    tuned,
)
from hfnb.studies.stored_runs import StoredRuns
from hfnb.studies.tasks import Task


def logistic_task(n=40, seed=0):
    """Classes that overlap a little: softmax regression, whose loss is convex in the parameters."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    data = Dataset(random.normal(size=(n, 3)) + labels[:, None], labels)
    return Task("two clouds", mlp([3, 2]), data, data, np.float64)


TASK = logistic_task()


def descend(task, rate, target):
    """Gradient descent on softmax regression written out: the losses of w₀, w₁, … until one is ≤ target."""
    w, X = task.start(0), task.train.X
    targets = np.eye(2)[task.train.Y]
    losses = []
    while not losses or losses[-1] > target:
        W, b = w[:6].reshape(3, 2), w[6:]
        scores = X @ W + b
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        losses.append(-np.mean(np.log((shares * targets).sum(axis=1))))
        slope = (shares - targets) / len(X)
        w = w - rate * np.concatenate([(X.T @ slope).ravel(), slope.sum(axis=0)])
    return losses


def test_full_batch_gradient_descent_costs_a_step_a_pass_and_a_reduction():
    losses = descend(TASK, 0.5, target=0.45)
    assert len(losses) > 5
    share = np.log(losses[-2] / 0.45) / np.log(losses[-2] / losses[-1])
    steps = len(losses) - 2 + share
    found = costs_to(TASK, first_order, 0.45, limit=1000, batch_size=40, learning_rate=0.5)
    np.testing.assert_allclose([found[cost] for cost in larger_batches.COSTS], 3 * [steps], rtol=1e-12)


def test_mini_batches_cost_a_reduction_a_step():
    found = costs_to(TASK, first_order, 0.45, limit=1000, batch_size=8, learning_rate=0.5)
    np.testing.assert_allclose(found["iterations"], 5 * found["passes"], rtol=1e-12)
    np.testing.assert_allclose(found["reductions"], 5 * found["passes"], rtol=1e-12)


def test_hessian_free_is_measured_over_all_samples_at_no_cost():
    target, seen = 0.45, []
    options = {"method": "auto", "batch_size": 20, "curvature_batch_size": 10}
    full = TASK.objective()

    def watch(record):
        seen.append((full.value(record.w), (record.iteration, record.passes, record.reductions)))

    hessian_free(TASK.objective(), TASK.start(0), callback=watch, max_iter=50, **options)
    found = costs_to(TASK, hessian_free, target, limit=1000, **options)
    after = next(costs for loss, costs in seen if loss <= target)
    before = [costs for loss, costs in seen if costs < after][-1]
    for name, low, high in zip(larger_batches.COSTS, before, after, strict=True):
        assert low < found[name] <= high


def test_what_does_not_arrive_costs_infinity():
    assert costs_to(TASK, first_order, 0.45, limit=3, batch_size=40, learning_rate=0.5)["passes"] == np.inf
    assert (
        costs_to(TASK, first_order, 0.45, limit=1000, batch_size=40, learning_rate=1e-5)["passes"] == np.inf
    )
    assert costs_to(TASK, hessian_free, 0.45, limit=0.1, batch_size=20)["passes"] == np.inf


def test_a_loss_of_zero_is_below_every_target():
    assert 0 < crossing([(1.0, [0.0]), (0.0, [1.0])], 0.5)[0] < 1


def test_a_run_that_diverges_costs_infinity():
    data = Dataset(TASK.train.X, np.eye(2)[TASK.train.Y])
    task = Task("squares", mlp([3, 2], loss="squared_error"), data, data, np.float64)
    assert costs_to(task, first_order, 0.1, limit=1000, batch_size=40, learning_rate=1e3)["passes"] == np.inf


def test_crossing_of_an_exponential_is_exact():
    """A loss e^(−ct) is at the target at t = ln(1/target)/c, whatever points of it are known."""
    points = [0.0, 1.0, 2.5, 7.0]
    path = [(np.exp(-0.7 * t), [t, 10 * t]) for t in points]
    np.testing.assert_allclose(crossing(path, 0.1), np.log(10) / 0.7 * np.array([1, 10]), rtol=1e-14)
    assert np.all(crossing(path, 1e-3) == np.inf)
    assert crossing(path, 2.0).tolist() == [0.0, 0.0]


def test_the_first_crossing_counts():
    path = [(1.0, [0.0]), (0.1, [1.0]), (1.0, [2.0]), (0.01, [3.0])]
    np.testing.assert_allclose(crossing(path, 0.1), [1.0])


def test_crossing_passes_over_a_loss_that_is_not_a_number():
    assert crossing([(1.0, [0.0]), (np.nan, [1.0])], 0.1).tolist() == [np.inf]


@pytest.mark.parametrize("decay", [0.01, 0.02, 0.03, 0.05, 0.2])
def test_hopeless_by_the_closed_form_of_an_exponential(decay):
    """From e^(−30c), falling at rate 2c for 70 passes more, the loss would end at e^(−170c)."""
    path = [(t, np.exp(-decay * t)) for t in np.arange(0.0, 31.0, 3.0)]
    assert hopeless(path, 0.05, 100) == (170 * decay < np.log(20))
    assert not hopeless(path[:1], 0.05, 100)  # one point tells nothing


def test_a_loss_that_jumps_for_once_is_not_hopeless():
    path = [(t, np.exp(-0.05 * t)) for t in np.arange(0.0, 31.0, 3.0)]
    assert not hopeless([*path, (33.0, 5.0)], 0.05, 100)
    assert hopeless([*path, (33.0, 5.0)], 1e-5, 100)


def test_hopeless_gives_a_path_that_flattens_out_no_hope():
    path = [(t, (1 + t) ** -0.5) for t in np.arange(0.0, 50.0)]
    assert hopeless(path, 0.03, 100)  # at 100 passes it would be 0.0995
    assert not hopeless(path, 0.0995, 100)


def test_a_target_met_after_the_limit_is_not_met():
    options = {"batch_size": 40, "learning_rate": 0.5}
    passes = costs_to(TASK, first_order, 0.45, limit=1000, **options)["passes"]
    assert np.isfinite(passes)
    assert costs_to(TASK, first_order, 0.45, limit=passes - 1e-3, **options)["passes"] == np.inf


@pytest.mark.parametrize("method", ["SGD", "auto"])
def test_tuned_finds_a_value_whose_neighbours_are_no_better(method):
    target, axis = 0.45, METHODS[method].axis
    values = [axis.value(k) for k in range(-5, 6)]
    every = {value: cost(TASK, method, 10, value, target, limit=200)["passes"] for value in values}
    found = tuned(TASK, method, 10, target, limit=200)
    place = values.index(found.value)
    assert 0 < place < len(values) - 1
    assert found.passes == min(list(every.values())[place - 1 : place + 2]) == every[found.value]
    if method == "SGD":  # of a convex loss: no other valley
        assert found.passes == min(every.values())
    assert found.inside
    assert found.batch == 10
    for value, passes in found.tried:
        assert passes in (every[value], np.inf)
    assert {value for value, passes in found.tried if np.isfinite(passes)} >= {found.value}


def test_tuned_says_where_no_value_gets_there():
    found = tuned(TASK, "SGD", 40, 0.45, limit=1)
    assert (found.passes, found.reductions) == (np.inf, np.inf)
    assert len(found.tried) > 1
    assert all(passes == np.inf for _, passes in found.tried)


def test_options_are_those_of_the_batch():
    for method in METHODS.values():
        some, whole = method.options(TASK, 20), method.options(TASK, 40)
        assert some["batch_size"] == 20
        if method.optimizer is hessian_free:
            assert (some["curvature_batch_size"], whole["curvature_batch_size"]) == (5, 10)
            assert "batch_size" not in whole  # all samples, not drawn
        else:
            assert whole["batch_size"] == 40
    by_hand = costs_to(TASK, hessian_free, 0.45, 500, method="auto", curvature_batch_size=10, damping=0.1)
    assert cost(TASK, "auto", 40, 0.1, 0.45, limit=500) == by_hand


def test_growth_is_a_quotient_for_each_seed():
    passes = {8: [1.0, 2.0, 3.0, np.inf, np.inf], 80: [2.0, 1.0, np.inf, 3.0, np.inf]}
    np.testing.assert_array_equal(growth(passes, 8, 80), [2.0, 0.5, np.inf, 0.0, np.nan])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="target: expected a positive number, got 0"):
        costs_to(TASK, first_order, 0, limit=10)
    with pytest.raises(ValueError, match="limit: expected a positive number, got -1"):
        costs_to(TASK, first_order, 0.1, limit=-1)
    with pytest.raises(ValueError, match=r"path: expected at least one \(loss, costs\)"):
        crossing([], 0.1)
    for call in (lambda: tuned(TASK, "sgd", 8, 0.1, 10), lambda: cost(TASK, "sgd", 8, 0.1, 0.1, 10)):
        with pytest.raises(ValueError, match=r"method: expected one of paper, .*, Adam, got 'sgd'"):
            call()
    with pytest.raises(ValueError, match=r"batch_size: expected .* at most 40, got 41"):
        costs_to(TASK, first_order, 0.1, limit=10, batch_size=41)


class AtOnce:
    """Stands for a pool of processes: makes a run when it is submitted, and counts the runs."""

    def __init__(self):
        self.calls = []

    def submit(self, work, *arguments):
        self.calls.append(arguments)
        found = Future()
        found.set_result(work(*arguments))
        return found


def test_the_benchmark_tunes_inside_the_grid_and_keeps_every_run(monkeypatch, tmp_path):
    def work(quick, method, batch, value, seed, limit):
        passes = 10 * (1 + np.log10(value / 0.01) ** 2) + (seed < 5) * seed  # the best rate is 0.01
        return dict.fromkeys(larger_batches.COSTS, passes if passes <= limit else np.inf)

    monkeypatch.setattr(bench, "work", work)
    pool, path = AtOnce(), tmp_path / "batches.json"
    told = bench.chain(StoredRuns(path), pool, True, "SGD", 64, range(5))
    assert told["inside"]
    assert told["value"] == pytest.approx(0.01, rel=0.02)
    np.testing.assert_allclose([run["passes"] for run in told["runs"]], 10 + np.arange(5), atol=0.01)
    made = len(pool.calls)
    assert bench.chain(StoredRuns(path), pool, True, "SGD", 64, range(5)) == told
    assert len(pool.calls) == made  # all are stored
    assert read(json.loads(path.read_text()))["reductions"]["SGD"][64] == [
        run["reductions"] for run in told["runs"]
    ]


def test_a_run_that_was_given_up_early_is_made_anew_where_more_is_allowed(monkeypatch, tmp_path):
    stored, pool = StoredRuns(tmp_path / "batches.json"), AtOnce()
    axis = METHODS["SGD"].axis
    for seed in range(5):  # as if each had been given up after 5 passes
        entry = json.dumps(["SGD", 64, axis.value(0), seed])
        stored.add("runs", {entry: dict.fromkeys(larger_batches.COSTS) | {"limit": 5.0}})

    def work(quick, method, batch, value, seed, limit):
        return dict.fromkeys(larger_batches.COSTS, 50.0 if value == axis.value(0) else np.inf)

    monkeypatch.setattr(bench, "work", work)
    told = bench.chain(stored, pool, True, "SGD", 64, range(5))
    assert [run["passes"] for run in told["runs"]] == [50.0] * 5
    failed = [run for run in stored.table("runs").values() if run["passes"] is None]
    assert len(failed) == 2
    assert {run["limit"] for run in failed} == {50.0}
