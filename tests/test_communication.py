"""Costs in reductions against counts by hand, tuning against exhaustive search, and resumed races."""

import itertools
import json
import time

import numpy as np
import pytest

from hfnb import Dataset, Objective, optimizers
from hfnb.models import mlp
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.optimizers import Recorder, Status
from hfnb.studies import communication
from hfnb.studies.communication import Method, Price, Race, Watch, attempt, cost, known, nested, summary, tune
from hfnb.studies.scaling_model import Interconnect
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp
from hfnb.studies.tuning import Axis, tuned

SAMPLES, CELLS, TARGET = 48, 4, 0.45


def clouds(**options):
    """Classes that overlap a little: softmax regression, whose loss is convex in the parameters."""
    random = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % 2
    data = Dataset(random.normal(size=(SAMPLES, 3)) + labels[:, None], labels)
    given = {"dtype": np.float64, "target": TARGET, "cells": CELLS, **options}
    return Race("two clouds", mlp([3, 2]), data, data, **given)


RACE = clouds()
P = 8  # parameters


def descent(race, rate):
    """Gradient descent on softmax regression written out: the losses of w₀, w₁, … until the target."""
    w, X, targets = race.start(0), race.train.X, np.eye(2)[race.train.Y]
    losses = []
    while not losses or losses[-1] > race.target:
        scores = np.exp(X @ w[:6].reshape(3, 2) + w[6:])
        shares = scores / scores.sum(axis=1, keepdims=True)
        losses.append(-np.mean(np.log((shares * targets).sum(axis=1))))
        slope = (shares - targets) / len(X)
        w = w - rate * np.concatenate([(X.T @ slope).ravel(), slope.sum(axis=0)])
    return losses


def gradient_in(cell, w):
    """What every cell does in `averaged`: its gradient."""
    return cell.value_and_gradient(w)[1]


def averaged(objective, w0, *, rate, max_iter, seed, callback, options=None):
    """Gradient descent by the mean of the cells' gradients, the best of three step lengths in each round."""
    recorder, w = Recorder(objective, callback), w0.copy()
    recorder.add(w, iteration=0, loss=np.inf)
    for iteration in range(1, max_iter + 1):
        d = -rate * objective.average(gradient_in, w, size=w.size)
        losses = objective.values_along(w, d, [0.5, 1.0, 2.0])
        w = w + [0.5, 1.0, 2.0][int(np.argmin(losses))] * d
        if recorder.add(w, iteration=iteration, loss=min(losses)):
            break
    return recorder.result(w, Status.CALLBACK, "stopped")


# What a run spends


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_full_batch_descent_spends_a_reduction_a_step(rate):
    losses = descent(RACE, rate)
    sgd = Method("first_order", {"method": "sgd", "batch_size": SAMPLES, "learning_rate": rate})
    run = attempt(RACE, sgd, sgd.fixed)
    steps = len(losses) - 1
    assert (run["reached"], run["reductions"], run["rounds"]) == (True, steps, steps)
    assert steps - 1 < run["passes"] <= steps
    assert run["loss"] == pytest.approx(losses[-1], rel=1e-12)
    assert [loss for _, loss in run["curve"]] == [float(f"{loss:.4g}") for loss in losses]


@pytest.mark.parametrize(("dtype", "each"), [(np.float32, 4), (np.float64, 16)])
def test_mini_batches_spend_a_reduction_a_step_of_a_part_of_a_pass(dtype, each):
    """A step of 12 of 48 samples is a reduction and a quarter of a pass; it sums p + 1 numbers."""
    race = clouds(dtype=dtype, target=0.2, most_reductions=20)
    sgd = Method("first_order", {"method": "sgd", "batch_size": 12, "learning_rate": 0.1})
    run = attempt(race, sgd, sgd.fixed)
    assert (run["reductions"], run["passes"], run["rounds"]) == (20, 5, 20)
    assert run["bytes"] == 20 * each * (P + 1)
    assert (run["reached"], run["ended"]) == (False, "limit")


def test_local_rounds_spend_two_reductions_each(monkeypatch):
    """A round: a reduction of p + 2 numbers for the mean gradient, and one of three losses."""
    monkeypatch.setattr(optimizers, "averaged", averaged, raising=False)
    method = Method("averaged", {"rate": 0.5})
    run = attempt(RACE, method, method.fixed)
    assert run["reached"]
    assert run["reductions"] == 2 * run["rounds"]
    assert run["passes"] == 4 * run["rounds"]
    assert run["bytes"] == run["rounds"] * 16 * (P + 2 + 3)
    assert run["rounds"] < len(descent(RACE, 0.5)) - 1  # which never doubles its step


def test_a_search_over_cells_takes_the_steps_of_the_serial_one(monkeypatch):
    """The mean of the cells' gradients is the gradient: the path is that of one objective without cells."""
    monkeypatch.setattr(optimizers, "averaged", averaged, raising=False)
    method, w, losses = Method("averaged", {"rate": 0.5}), RACE.start(0), []
    whole = Objective(RACE.net, RACE.train)
    while not losses or losses[-1] > TARGET:
        g = whole.value_and_gradient(w)[1]
        w = min((w - 0.5 * a * g for a in (0.5, 1.0, 2.0)), key=whole.value)
        losses.append(whole.value(w))
    run = attempt(RACE, method, method.fixed)
    assert run["rounds"] == len(losses)
    assert run["loss"] == pytest.approx(losses[-1], rel=1e-12)


def test_measuring_costs_nothing():
    """What the run counts is what the optimizer counts without the race."""
    method = Method("hessian_free", {"method": "martens"})
    run = attempt(RACE, method, method.fixed)
    objective = RACE.objective()
    result = optimizers.hessian_free(
        objective,
        RACE.start(0),
        method="martens",
        callback=lambda record: record.loss <= TARGET,
    )
    last = result.history[-1]
    assert (run["reductions"], run["bytes"], run["rounds"]) == (last.reductions, last.bytes, last.iteration)
    assert run["passes"] == last.passes


def test_a_run_ends_when_it_costs_more_than_the_best():
    sgd = Method("first_order", {"method": "sgd", "batch_size": SAMPLES, "learning_rate": 0.5})
    whole = attempt(RACE, sgd, sgd.fixed)
    early = attempt(RACE, sgd, sgd.fixed, allowed=whole["reductions"] - 2)
    assert (early["reached"], early["reductions"]) == (False, whole["reductions"] - 1)
    assert early["ended"] == "costs more than the best"
    assert attempt(RACE, sgd, sgd.fixed, allowed=whole["reductions"])["reached"]
    half = attempt(RACE, sgd, sgd.fixed, price=Price(0.0, 1.0), allowed=3.5)
    assert half["passes"] == 4


def test_a_run_that_diverges_or_stands_still_does_not_reach_the_target():
    squares = Dataset(RACE.train.X, np.eye(2)[RACE.train.Y])
    race = Race("squares", mlp([3, 2], loss="squared_error"), squares, squares, np.float64, target=0.01)
    sgd = {"method": "sgd", "batch_size": SAMPLES}
    method = Method("first_order", sgd)
    assert attempt(race, method, sgd | {"learning_rate": 1e6})["ended"] == "diverged"
    slow = attempt(clouds(patience=9), method, sgd | {"learning_rate": 1e-5})
    assert (slow["ended"], slow["reductions"]) == ("hopeless", 10)
    assert cost(slow, Price()) == (np.inf, slow["loss"])


def test_cells_of_sorted_data_differ_only_if_asked_to():
    order = np.argsort(RACE.train.Y, kind="stable")
    data = RACE.train[order]

    def shares(seed):
        race = Race("sorted", RACE.net, data, data, np.float64, target=0.1, cells=CELLS, cell_seed=seed)
        objective = race.objective()
        return objective.average(
            lambda cell, w: cell.evaluator.shards.parts[0][1].mean(keepdims=True), race.start(), size=1
        )

    assert shares(0) == shares(None) == [0.5]


def test_a_target_met_beyond_the_limits_is_not_met():
    sgd = Method("first_order", {"method": "sgd", "batch_size": SAMPLES, "learning_rate": 0.5})
    steps = attempt(RACE, sgd, sgd.fixed)["reductions"]
    for limits in ({"most_reductions": steps - 0.5}, {"most_passes": steps - 0.5}):
        run = attempt(clouds(**limits), sgd, sgd.fixed)
        assert (run["reached"], run["ended"]) == (False, "limit")


def test_starts_near_the_saddle_are_scaled():
    np.testing.assert_allclose(clouds(scale=0.02).start(1), 0.02 * RACE.start(1), rtol=1e-15)
    assert clouds(scale=0.02).fingerprint() != RACE.fingerprint() == clouds().fingerprint()


# Prices and summaries


def test_price_in_seconds_by_hand():
    """16 nodes, 10 Gbit/s, 50 µs: 8 numbers of 8 bytes are short: 4 messages of 64 bytes."""
    price = Price.seconds(RACE, 16, Interconnect(50e-6, 10e9), speed=1e9)
    assert price.reductions == pytest.approx(4 * (50e-6 + 64 * 8 / 10e9))
    assert price.passes == pytest.approx(6 * P * SAMPLES / 1e9 / 16)
    assert price.of({"reductions": 2, "passes": 3}) == 2 * price.reductions + 3 * price.passes


def test_summary_of_three_starts():
    runs = [{"reached": True, "reductions": number} for number in (7, 3, 5)]
    assert summary(runs, "reductions") == (5, 3, 7)
    assert summary(runs[:2], "reductions") == (5, 3, 7)
    assert summary([*runs, {"reached": False}], "reductions") == (6, 3, np.inf)


def test_options_with_a_dot_are_nested():
    flat = {"outer": "mean", "options.learning_rate": 1.0, "options.batch_size": 4}
    assert nested(flat) == {"outer": "mean", "options": {"learning_rate": 1.0, "batch_size": 4}}


def test_methods_are_tuned_alike():
    """The axes of every first-order method are the same, and no grid begins beyond the samples of a cell."""
    methods = communication.methods(600, cells=6)
    for name in ("SGD", "momentum", "Adam"):
        assert methods[f"synchronous {name}"].axes.keys() == {"learning_rate", "batch_size"}
        assert methods[f"synchronous {name}"].axes["batch_size"].value(99) == 600
        assert methods[f"local {name}"].axes.keys() == {"iterations", "options.learning_rate"}
        assert methods[f"local {name}"].fixed["options.batch_size"] <= 100
    assert methods["local Hessian-free, tuned"].axes["options.curvature_batch_size"].value(99) == 100
    assert {method.optimizer for method in methods.values()} == {"first_order", "hessian_free", "local_steps"}


# Tuning


def bowl(options):
    """Least at a = 0.01, b = 64."""
    return (np.log10(options["a"] / 0.01)) ** 2 + np.log2(options["b"] / 64) ** 2


def test_tuned_finds_the_known_optimum():
    found = tuned({"c": 1}, {"a": Axis(1.0, 10.0), "b": Axis(16, 2)}, bowl)
    assert (found.settings, found.cost, found.inside) == ({"c": 1, "a": 0.01, "b": 64}, 0, True)
    assert found.tried < 20


def valley(options):
    """A narrow valley along a = b, least at 32: no single option helps from a = b = 1 on."""
    a, b = np.log2(options["a"]), np.log2(options["b"])
    return 10 * abs(a - b) + abs(a - 5)


def test_diagonals_follow_a_valley_that_runs_across_the_axes():
    axes = {"a": Axis(1, 2), "b": Axis(1, 2)}
    assert tuned({}, axes, valley).settings == {"a": 1, "b": 1}
    assert tuned({}, axes, valley, most=40, diagonals=True).settings == {"a": 32, "b": 32}


@pytest.mark.parametrize("seed", range(5))
def test_tuned_is_no_worse_than_any_neighbour_of_all(seed):
    random = np.random.default_rng(seed)
    shifts = random.uniform(-3, 3, 3)

    def quadratic(options):
        x = np.log2([options[name] for name in "abc"]) - shifts
        return float(x @ x)

    axes = {name: Axis(1.0, 2.0) for name in "abc"}
    found = tuned({}, axes, quadratic, most=200)
    grid = [Axis(1.0, 2.0).value(k) for k in range(-5, 6)]
    best = min(quadratic(dict(zip("abc", each, strict=True))) for each in itertools.product(grid, repeat=3))
    assert found.inside
    assert found.cost == pytest.approx(best, abs=1e-12)


def test_a_search_that_ends_too_early_says_so():
    found = tuned({}, {"a": Axis(1.0, 10.0)}, bowl_of_one, most=2)
    assert (found.inside, found.tried) == (False, 2)


def bowl_of_one(options):
    return abs(np.log10(options["a"]) + 3)


def test_the_grid_ends_at_the_largest_value():
    found = tuned({}, {"b": Axis(16, 2, largest=100)}, lambda options: -options["b"])
    assert (found.settings, found.inside) == ({"b": 100}, True)
    assert tuned({}, {"b": Axis(2, 2)}, lambda options: options["b"]).settings == {"b": 1}


def test_equal_reductions_are_decided_by_passes():
    """Every batch of 12 or more takes 10 reductions; the smallest of these has the fewest passes."""

    def run(settings, seed, allowed):
        reductions = 10 if settings["batch_size"] >= 12 else 20
        passes = reductions * settings["batch_size"] / SAMPLES
        return {"reached": True, "reductions": reductions, "passes": passes, "loss": 0.0}

    method = Method("first_order", {}, {"batch_size": Axis(48, 2, SAMPLES)})
    found = tune(method, run, [0, 1, 2])
    assert (found["settings"], found["inside"], len(found["runs"])) == ({"batch_size": 12}, True, 3)


def test_tuning_allows_no_more_than_the_best_so_far():
    asked = []

    def run(settings, seed, allowed):
        asked.append((settings["a"], seed, allowed))
        spent = 10 + 10 * bowl_of_one(settings)
        return {"reached": spent <= allowed, "reductions": spent, "passes": 1.0, "loss": spent}

    found = tune(Method("x", {}, {"a": Axis(1.0, 10.0)}), run, [5, 6])
    assert found["settings"] == {"a": 0.001}
    # the best from the first start, one place beyond it, and from both starts once more
    assert asked[0] == (1.0, 5, np.inf)
    assert {limit for a, _, limit in asked if a == 1e-4} == {10}
    assert asked[-2:] == [(0.001, 5, np.inf), (0.001, 6, np.inf)]


def test_settings_that_all_fail_alike_are_left_behind():
    """All rates above 0.01 diverge at once, with the loss of the start; 0.001 is the best of the others."""

    def costs(options):
        return (np.inf, 2.3) if options["a"] > 0.02 else (10 + bowl_of_one(options), 0.1)

    for first in (1.0, 100.0):
        found = tuned({}, {"b": Axis(8, 2), "a": Axis(first, 10.0)}, costs, most=40)
        assert (found.settings, found.inside) == ({"b": 8, "a": 0.001}, True)
    assert tuned({}, {"a": Axis(1e6, 10.0)}, costs).cost == (np.inf, 2.3)  # too far away


def test_where_nothing_arrives_the_least_loss_leads_on():
    """Only rates below 1e-3 reach the target; the search begins a thousand times higher."""

    def run(settings, seed, allowed):
        loss = max(bowl_of_one(settings), 0.5)
        return {"reached": settings["a"] < 2e-3, "reductions": 7, "passes": 1.0, "loss": loss}

    assert tune(Method("x", {}, {"a": Axis(1.0, 10.0)}), run, [0])["settings"] == {"a": 0.001}


# An interrupted race goes on


SGD = Method(
    "first_order", {"method": "sgd"}, {"learning_rate": Axis(0.1, 3.0), "batch_size": Axis(12, 2, SAMPLES)}
)


def raced(path, made, stop=np.inf):
    """Tune SGD with a file of runs; the number of runs that are made is limited."""
    stored = StoredRuns(path)

    def run(settings, seed, allowed):
        def make():
            if len(made) >= stop:
                raise KeyboardInterrupt
            made.append((json.dumps(settings), seed))
            found = attempt(RACE, SGD, settings, seed, allowed=allowed)
            return {name: each for name, each in found.items() if name != "seconds"}

        key = RACE.key(SGD, settings, seed)
        return stored.run(key, make, lambda run: known(run, Price(), allowed))

    return tune(SGD, run, range(2))


def test_an_interrupted_race_repeats_nothing_and_ends_alike(tmp_path):
    whole, made = [], []
    expected = raced(tmp_path / "whole.json", whole)
    assert len(whole) > 6
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            raced(tmp_path / "parts.json", made, stop)
        assert len(made) == stop
    assert raced(tmp_path / "parts.json", made) == expected
    assert made == whole
    assert raced(tmp_path / "parts.json", made, stop=0) == expected
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("whole.json", "parts.json")]
    assert texts[0] == texts[1]


def test_a_run_that_was_ended_early_is_repeated_only_where_it_might_arrive():
    early = {"ended": "costs more than the best", "reductions": 30, "passes": 10.0}
    assert known(early, Price(), 29)
    assert not known(early, Price(), 30)
    assert not known(early, Price(0.0, 1.0), 10)
    assert known(early, Price(0.0, 1.0), 9)
    assert known(early | {"ended": "hopeless"}, Price(), np.inf)
    assert known(early | {"ended": "target"}, Price(), 5)
    assert not known(None, Price(), 5)


def test_runs_of_another_task_are_not_taken(tmp_path):
    keys = {race.key(SGD, {"a": 1}, 0) for race in (RACE, clouds(target=0.4), clouds(cells=2), clouds())}
    assert len(keys) == 3
    assert RACE.key(SGD, {"a": 1}, 1) not in keys


def test_no_run_begins_when_the_minutes_are_over(tmp_path):
    stored = StoredRuns(tmp_path / "runs.json", minutes=0)
    stored.add("runs", {"a": {"loss": 1}})
    time.sleep(1e-3)
    assert stored.run("a", lambda: 1 / 0) == {"loss": 1}
    with pytest.raises(TimeIsUp, match="the same command goes on"):
        stored.run("b", lambda: 1 / 0)


def test_the_file_is_json_with_an_entry_a_line(tmp_path):
    stored = StoredRuns(tmp_path / "folder" / "runs.json", about=lambda: {"command": "test"})
    stored.add("runs", {"a": [1, 2], "b": {"c": 3}})
    stored.add("tuned", {"é": "ü"})
    text = (tmp_path / "folder" / "runs.json").read_text(encoding="utf-8")
    expected = {"about": {"command": "test"}, "runs": {"a": [1, 2], "b": {"c": 3}}, "tuned": {"é": "ü"}}
    assert json.loads(text) == expected
    assert '\n"b": {"c": 3}\n' in text
    assert StoredRuns(tmp_path / "folder" / "runs.json").table("runs") == expected["runs"]


# Seconds of one core


def test_timing_tells_evaluations_from_the_rest(monkeypatch):
    """Each gradient sleeps 2 ms; the first epoch is not timed, nor what is measured for the record."""
    gradient = LocalEvaluator.gradient

    def slow(evaluator, w, sample=None):
        time.sleep(2e-3 if sample is not None else 0.3)
        return gradient(evaluator, w, sample)

    monkeypatch.setattr(LocalEvaluator, "gradient", slow)
    settings = {"method": "sgd", "batch_size": 12, "learning_rate": 0.1}
    found = communication.timed(RACE, Method("first_order", settings), settings, iterations=2)
    assert (found["passes"], found["reductions"]) == (2, 8)
    assert found["bytes"] == 8 * 16 * (P + 1)
    assert 8 * 2e-3 <= found["computed"] < 0.25
    assert 0 <= found["serial"] < 0.25


def test_timing_knows_losses_products_and_averages(monkeypatch):
    monkeypatch.setattr(optimizers, "averaged", averaged, raising=False)
    for method in (Method("averaged", {"rate": 0.1}), Method("hessian_free", {"method": "martens"})):
        found = communication.timed(RACE, method, method.fixed, iterations=2)
        assert found["computed"] > 0
        assert found["serial"] > 0
        assert found["reductions"] >= 4


def test_costs_on_nodes_have_the_parts_of_the_method():
    timing = {"computed": 3.0, "serial": 0.5, "passes": 2.0, "reductions": 10.0}
    run = {"passes": 4.0, "reductions": 30, "bytes": 30 * 16 * P}
    for optimizer, settings, parts in (
        ("first_order", {"batch_size": 12}, 12),
        ("hessian_free", {}, None),
        ("hessian_free", {"solves": "local"}, CELLS),
        ("local_steps", {}, CELLS),
    ):
        found = communication.run_cost(RACE, Method(optimizer, {}), settings, run, timing)
        assert (found.computed, found.serial, found.parts) == (6.0, 1.5, parts)
        assert (found.size, found.pairs, found.bytes) == (16 * P, True, 30 * 16 * P)


def test_watch_interpolates_between_epochs_only():
    """An exponential is at the target in the middle of an epoch of 4 steps, in the third step of it."""
    watch = Watch(clouds(target=np.exp(-1.6)), "first_order", Price())
    for epoch in range(3):
        costs = {"reductions": 4 * epoch, "passes": epoch, "bytes": 40 * epoch, "seconds": 2.0 * epoch}
        record = optimizers.Record(iteration=epoch, loss=float(np.exp(-epoch)), **costs)
        assert watch(record) == (epoch == 2)
    spent = watch.spent()
    assert (spent["reductions"], spent["rounds"], spent["bytes"]) == (7, 7, 64)
    assert spent["passes"] == pytest.approx(1.6)
    assert spent["seconds"] == pytest.approx(3.2)
