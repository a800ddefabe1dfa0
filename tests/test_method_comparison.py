"""Whole methods on the problems of the factorial: what they spend, beside loops written here and SciPy's."""

import json
from concurrent.futures import Future

import numpy as np
import pytest
from scipy.optimize import minimize

from bench import methods as bench
from hfnb.studies import method_comparison as study
from hfnb.studies.method_comparison import BASELINES, METHODS, Entrant, attempt, cost
from hfnb.studies.negative_curvature import COSTS, FACTORS, FRACTIONS, Spending, deep_linear_problem
from hfnb.studies.stored_runs import StoredRuns
from hfnb.studies.tuning import tuned

TARGETS = range(len(FRACTIONS))


def first_settings(method, n):
    """The settings at which tuning begins."""
    return tuned(METHODS[method].fixed, METHODS[method].axes(n), lambda options: 0.0, most=1).settings


def descent(problem, w, rates):
    """Losses of gradient descent on all samples, before the first step and after each."""
    objective, losses = problem.objective(), []
    for rate in (*rates, 0.0):
        loss, g = objective.value_and_gradient(w)
        losses.append(loss)
        w = w - rate * g
    return losses


@pytest.mark.parametrize("epochs", [None, 40])
def test_gradient_descent_spends_its_steps(epochs):
    problem = deep_linear_problem()
    n = problem.objective().n
    settings = {
        "method": "sgd",
        "learning_rate": 0.05,
        "batch_size": n,
        **({"epochs": epochs} if epochs else {}),
    }
    found = attempt(
        problem, "SGD, cosine schedule" if epochs else "SGD", settings, "ordinary", seed=2, passes=60
    )
    t = np.arange(epochs or 60)
    rates = 0.05 * (0.5 * (1 + np.cos(np.pi * t / epochs)) if epochs else np.ones_like(t))
    losses = descent(problem, problem.start(2, "ordinary"), rates)
    end = next((k for k, loss in enumerate(losses) if loss <= problem.target(FRACTIONS[-1])), len(t))
    assert found["spent"]["reductions"] == found["spent"]["passes"] == end
    for position in TARGETS:
        target = problem.target(FRACTIONS[position])
        after = next((k for k, loss in enumerate(losses) if loss <= target), None)
        spent = found["costs"]["reductions"][position]
        if after is None:
            assert spent is None
        else:  # interpolated between the last step before the target and the first one after it
            logs = np.log([losses[after], losses[after - 1]])
            assert spent == pytest.approx(np.interp(np.log(target), logs, [after, after - 1]), rel=1e-9)
    assert found["loss"] == pytest.approx(min(losses[: end + 1]))


def test_lbfgs_spends_its_evaluations():
    problem = deep_linear_problem()
    start, losses = problem.start(1, "near the saddle"), []

    def function(w):
        loss, g = problem.objective().value_and_gradient(w)
        losses.append(loss)
        return loss, g

    options = {"maxcor": 5, "maxfun": 300, "ftol": 0.0, "gtol": 0.0}
    minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    found = attempt(problem, "L-BFGS", {"maxcor": 5}, "near the saddle", seed=1)
    for position in TARGETS:
        first = next(k for k, loss in enumerate(losses) if loss <= problem.target(FRACTIONS[position]))
        assert found["costs"]["passes"][position] == found["costs"]["reductions"][position] == first + 1


@pytest.mark.parametrize("method", METHODS)
def test_a_method_ends_at_the_last_target_or_when_its_passes_are_over(method):
    problem = deep_linear_problem()
    settings = first_settings(method, problem.objective().n)
    found = attempt(problem, method, settings, "ordinary", seed=0, passes=30)
    reached = found["costs"]["passes"][-1] is not None
    assert reached == (found["loss"] <= problem.target(FRACTIONS[-1]))
    assert reached or found["spent"]["passes"] >= 30
    assert (found["spent"]["products"] == 0) == (method in BASELINES)


def test_a_run_that_diverges_ends_and_keeps_its_least_loss():
    problem = deep_linear_problem()
    settings = {"method": "sgd", "learning_rate": 1e6, "batch_size": 8}
    found = attempt(problem, "SGD", settings, "ordinary", seed=0)
    assert found["costs"]["passes"] == [None] * len(FRACTIONS)
    assert found["spent"]["passes"] < 20
    assert found["loss"] == pytest.approx(problem.objective().value(problem.start(0, "ordinary")))


def test_costs_are_noted_at_the_first_loss_that_is_at_a_target():
    problem = deep_linear_problem()
    spending = Spending(problem, passes=100.0)
    level = [problem.target(fraction) for fraction in FRACTIONS]
    ended = [
        spending.note(loss, dict.fromkeys(COSTS, 10.0 * step))
        for step, loss in enumerate((problem.target(1.0), level[0], level[1], 2 * level[1]), start=1)
    ]
    assert not any(ended)
    assert spending.told()["costs"]["reductions"] == [20.0, 30.0, None]
    assert spending.note(np.nan, dict.fromkeys(COSTS, 50.0))
    assert spending.told()["spent"] == dict.fromkeys(COSTS, 50.0)


def test_a_run_is_cut_where_it_has_spent_what_is_allowed():
    problem, settings = deep_linear_problem(), {"maxcor": 5}
    whole = attempt(problem, "L-BFGS", settings, "ordinary", seed=3)
    assert not whole["cut"]
    needed = whole["costs"]["reductions"]
    half = attempt(problem, "L-BFGS", settings, "ordinary", seed=3, allowed={"reductions": needed[0]})
    assert (half["cut"], half["spent"]["reductions"]) == (True, needed[0])
    first = attempt(problem, "L-BFGS", settings, "ordinary", seed=3, until=0)
    assert (first["cut"], first["spent"]["reductions"]) == (False, needed[0])
    assert first["costs"]["reductions"] == [needed[0], None, None]


def test_tuning_prefers_what_arrives_then_the_least_loss():
    runs = [
        {"costs": {"passes": [9.0], "reductions": [3.0]}, "loss": 0.3},
        {"costs": {"passes": [None], "reductions": [None]}, "loss": 0.1},
        {"costs": {"passes": [None], "reductions": [None]}, "loss": 0.2},
    ]
    assert sorted(runs, key=lambda run: cost(run, "passes", 0)) == runs
    assert cost(runs[0], "reductions", 0)[0] == 3.0


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"method: expected one of paper, .* got 'rmsprop'"):
        attempt(deep_linear_problem(), "rmsprop", {}, "ordinary", seed=0)


def test_questions_compare_methods_at_equal_starts_and_metrics():
    for metric in study.METRICS:
        for above, below in bench.questions(metric).values():
            one = Entrant(above["method"], metric, above["start"])
            other = Entrant(**{**vars(one), **below})
            assert one != other
            assert {one.method, other.method} <= set(METHODS)
            assert {one.start, other.start} <= set(FACTORS["start"])
            assert one.metric == other.metric == metric


def test_the_benchmark_tunes_inside_the_grid_and_its_runs_are_read_again(monkeypatch, tmp_path):
    class AtOnce:
        """Stands for a pool of processes: makes a run when it is submitted."""

        def submit(self, work, *arguments):
            found = Future()
            found.set_result(work(*arguments))
            return found

    def work(problem, method, settings, start, seed, limits):
        passes = (
            5 + np.log10(settings["learning_rate"] / 0.01) ** 2 + np.log(settings["batch_size"] / 16) ** 2
        )
        reductions = passes * 64 / settings["batch_size"]
        spent = {"products": 0.0, "passes": passes + seed, "reductions": reductions + seed}
        cut = any(spent[cost] > most for cost, most in limits.get("allowed", {}).items())
        arrived = {cost: [None] * 3 if cut else [value] * 3 for cost, value in spent.items()}
        return {"costs": arrived, "spent": spent, "loss": 1.0, "cut": cut}

    monkeypatch.setattr(bench, "work", work)
    stored = StoredRuns(tmp_path / "methods.json")
    for metric in study.METRICS:
        bench.chain(stored, AtOnce(), "deep linear", Entrant("SGD", metric, "ordinary"), range(3))
    tables = {name: stored.table(name) for name in ("runs", "tuned")}
    assert all(told["inside"] for told in tables["tuned"].values())
    found = study.read(tables)
    settings = {json.loads(key)[2]: told["settings"] for key, told in tables["tuned"].items()}
    assert 0.005 < settings["passes"]["learning_rate"] < 0.02
    assert settings["passes"]["batch_size"] == 16
    assert settings["reductions"]["batch_size"] == 64  # all samples
    assert {(entrant.metric, seed) for _, entrant, seed in found} == {
        (metric, seed) for metric in study.METRICS for seed in range(3)
    }
    for (_, entrant, seed), run in found.items():
        expected = work("", "", settings[entrant.metric], "", seed, {})
        assert run == expected
