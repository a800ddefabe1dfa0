"""The factorial of negative curvature: combinations, saddles of its problems, ratios with intervals."""

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest, bootstrap, norm, t

from bench import factorial, fidelity
from bench.effects import answers
from hfnb import Dataset, Objective, hessian_free, models
from hfnb.studies import negative_curvature as study
from hfnb.studies.fidelity import AS_CHOSEN, CHOICES, Reading, readings
from hfnb.studies.negative_curvature import Combination, Ratio, halves, ratio, run, verdict

PAPER = Combination("bicgstab", "hessian", "martens", "better", "near the saddle")
BETTER, NEWTON = {"step": "better"}, {"step": "newton"}


def test_what_is_left_out_is_what_repeats_another_combination():
    every = [
        Combination(*values)
        for values in np.array(np.meshgrid(*study.FACTORS.values())).T.reshape(-1, len(study.FACTORS))
    ]
    kept = study.combinations()
    assert (len(every), len(kept)) == (72, 42)
    assert all(each.meaningful for each in kept)
    # A Gauss–Newton matrix has no negative curvature: with and without its steps, runs are the same.
    net, data = models.mlp([3, 4, 2]), Dataset(np.eye(3), np.array([0, 1, 0]))
    for solver in study.FACTORS["solver"]:
        options = {**replace(PAPER, solver=solver, curvature="gauss-newton").options, "max_iter": 5}
        one, other = (
            hessian_free(Objective(net, data), net.init(0, dtype=float), **{**options, "step": step})
            for step in study.FACTORS["step"]
        )
        np.testing.assert_array_equal(one.x, other.x)


@pytest.mark.parametrize("name", ["deep linear", "8 layers, sigmoid", "autoencoder"])
def test_zero_weights_are_a_saddle_and_starts_lie_at_their_distances(name):
    problem = study.PROBLEMS[name]()
    objective, near = problem.objective(), problem.start(3, "near the saddle")
    zero = np.zeros_like(near)
    assert objective.value(zero) == pytest.approx(problem.target(1.0)) == problem.saddle
    assert problem.least == problem.target(0.0) < problem.target(0.05) < objective.value(near)
    assert np.linalg.norm(near) < 0.51 * np.linalg.norm(problem.start(3, "ordinary"))


def test_the_least_loss_of_the_linear_network_is_what_scipy_finds():
    # All local minima of such a network are global ones (Kawaguchi 2016).
    problem = study.deep_linear_problem((5, 4, 2, 5))
    found = minimize(
        problem.objective().value_and_gradient,
        problem.start(0, "ordinary"),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000, "maxfun": 10000},
    )
    assert problem.least == pytest.approx(found.fun, rel=1e-8)


def test_costs_of_a_run_are_those_of_its_history():
    problem = study.deep_linear_problem()
    found = run(problem, PAPER, seed=1)
    again = hessian_free(
        problem.objective(), problem.start(1, PAPER.start), seed=1, **{**PAPER.options, "max_iter": 200}
    )
    losses = np.array([record.loss for record in again.history])
    for position, fraction in enumerate(study.FRACTIONS):
        first = int(np.argmax(losses <= problem.target(fraction)))
        for cost in study.COSTS:
            assert found["costs"][cost][position] == again.history[first][cost]
    assert found["spent"]["products"] == found["costs"]["products"][-1]
    assert found["negative"] == sum(
        "negative" in record.direction for record in again.history[: found["iterations"] + 1]
    )


def test_a_run_ends_when_its_passes_are_over():
    found = run(study.deep_linear_problem(), PAPER, seed=0, passes=20.0)
    assert found["costs"]["passes"][-1] is None
    assert 20 <= found["spent"]["passes"] < 200


def made(costs, spent=None):
    """Runs {key: run} of one problem: the passes of each seed for each step, None where it did not arrive."""
    runs = {}
    for step, values in costs.items():
        for seed, value in enumerate(values):
            entry = {"costs": {"passes": [value]}, "spent": {"passes": value or spent}}
            runs["toy", replace(PAPER, step=step), seed] = entry
    return runs


def test_the_ratio_and_its_interval_are_scipys():
    random = np.random.default_rng(0)
    one, other = np.exp(random.normal(3.0, 0.5, 12)), np.exp(random.normal(3.3, 0.5, 12))
    found = ratio(made({"better": one, "newton": other}), BETTER, NEWTON, "passes", 0, resamples=20000)
    logs = np.log(one / other)
    assert found.ratio == pytest.approx(np.exp(logs.mean()))
    level = 1 - 2 * norm.cdf(np.sqrt(12 / 11) * t.ppf(0.025, 11))  # of Hesterberg's expanded percentiles
    options = {"confidence_level": level, "n_resamples": 20000, "method": "percentile"}
    theirs = bootstrap((logs,), np.mean, random_state=1, **options).confidence_interval
    np.testing.assert_allclose(np.log([found.low, found.high]), theirs, atol=0.01)
    assert (found.pairs, found.first, found.second, found.runs) == (12, 12, 12, 12)


def test_an_interval_may_be_infinite_but_is_a_number():
    middle, low, high = study.interval({seed: [np.inf if seed == 0 else 0.0] for seed in range(10)})
    assert (middle, low, high) == (np.inf, 1.0, np.inf)
    assert study.interval({seed: [np.inf] for seed in range(5)}) == (np.inf,) * 3


def test_a_run_that_did_not_arrive_counts_what_it_spent_and_pairs_that_did_not_are_left_out():
    runs = made({"better": [10.0, 20.0, None], "newton": [20.0, None, None]}, spent=80.0)
    found = ratio(runs, BETTER, NEWTON, "passes", 0)
    assert found.ratio == pytest.approx(np.sqrt((10 / 20) * (20 / 80)))
    assert (found.pairs, found.first, found.second, found.runs) == (2, 2, 1, 3)
    nothing = ratio(made({"better": [None], "newton": [None]}, spent=80.0), BETTER, NEWTON, "passes", 0)
    assert np.isnan(nothing.ratio)
    assert verdict(nothing) == "undecided"


def test_only_runs_that_differ_in_the_factors_asked_for_are_paired():
    runs = made({"better": [10.0], "newton": [40.0]})
    runs["toy", replace(PAPER, step="newton", solver="cg"), 0] = {"costs": {"passes": [1.0]}, "spent": {}}
    runs["other", replace(PAPER, step="newton"), 0] = {"costs": {"passes": [1.0]}, "spent": {}}
    assert ratio(runs, BETTER, NEWTON, "passes", 0).runs == 1
    both = ratio(runs, {"solver": "bicgstab", **BETTER}, {"solver": "cg", **NEWTON}, "passes", 0)
    assert (both.ratio, both.runs) == (pytest.approx(10.0), 1)
    assert ratio(runs, BETTER, NEWTON, "passes", 0, problems=["other"]).runs == 0


def test_verdicts_are_wrong_as_seldom_as_their_interval_says():
    # Ratios without any effect: 5 % of intervals exclude 1. Wrong verdicts of 400 are binomial.
    random, wrong = np.random.default_rng(2), 0
    for _ in range(400):
        logs = random.standard_normal((2, 10))
        runs = made({"better": np.exp(logs[0]), "newton": np.exp(logs[1])})
        wrong += verdict(ratio(runs, BETTER, NEWTON, "passes", 0, resamples=400)) != "undecided"
    assert binomtest(wrong, 400, 0.05).pvalue > 0.001


def test_fewer_than_five_seeds_decide_nothing():
    for seeds, expected in ((4, "undecided"), (5, "cheaper")):
        runs = made({"better": [1.0] * seeds, "newton": [2.0] * seeds})
        assert verdict(ratio(runs, BETTER, NEWTON, "passes", 0)) == expected


def test_stored_runs_are_read_as_they_were_made():
    runs = toy(lambda each, seed: 1.0 + seed)
    stored = {json.dumps([name, *astuple(each), seed]): found for (name, each, seed), found in runs.items()}
    assert study.read({"runs": stored}) == runs


def test_halves_have_no_seed_in_common():
    runs = made({"better": [1.0] * 10, "newton": [2.0] * 10})
    one, other = halves(runs)
    assert {seed for *_, seed in one} | {seed for *_, seed in other} == set(range(10))
    assert len(one) == len(other) == 10
    assert ratio(one, BETTER, NEWTON, "passes", 0) == Ratio(0.5, 0.5, 0.5, 5, 5, 5, 5, 5)


def toy(cost):
    """Runs of all combinations on one problem, with ten seeds and the passes ``cost(combination, seed)``."""
    return {
        ("toy", each, seed): {
            "costs": {name: [None, cost(each, seed), None] for name in study.COSTS},
            "spent": dict.fromkeys(study.COSTS, 1000.0),
        }
        for each in study.combinations()
        for seed in range(10)
    }


def test_every_question_of_the_benchmark_compares_runs_and_finds_the_effect_that_is_there():
    factors = {"better": 1.0, "newton": 2.0, "cg": 3.0, "bicgstab": 12.0, "minres": 3.0}
    rows = answers(toy(lambda each, seed: factors[each.step] * factors[each.solver]), factorial.questions())
    found = {row["question"]: row for row in rows if (row["problem"], row["cost"]) == ("toy", "products")}
    assert found.keys() == factorial.questions().keys()
    for question, row in found.items():
        alone = {"step": 0.5, "Bi-CG-STAB ÷ CG": 4.0, "paper's method": 2.0, "Hessian explored": 0.5}
        expected = next((ratio for words, ratio in alone.items() if question.startswith(words)), 1.0)
        assert row["ratio"] == pytest.approx(expected), question
        assert not row["reached"].endswith("of 0")


def test_the_benchmark_tells_where_the_halves_of_the_seeds_contradict_each_other():
    # In the first half the step makes all cheaper, in the second half dearer.
    runs = toy(lambda each, seed: 2.0 if (each.step == "better") == (seed < 5) else 1.0)
    rows = answers(runs, factorial.questions())
    halves_of = {row["question"]: row["halves"] for row in rows if row["problem"] == "all"}
    assert halves_of["step explored ÷ ignored, CG, ordinary"] == "CONTRADICT"
    assert halves_of["rule tolerance ÷ Martens', CG"] == "agree"


@pytest.mark.parametrize("choice", CHOICES)
def test_each_alternative_differs_from_what_was_chosen_in_its_options_alone(choice):
    own, other = (Reading(each, "ordinary").options for each in (AS_CHOSEN, choice))
    assert other == {**own, **CHOICES[choice].options} != own
    problem = study.deep_linear_problem()
    one, two = (run(problem, Reading(each, "near the saddle"), seed=0) for each in (AS_CHOSEN, choice))
    assert one["spent"] != two["spent"]


def test_every_choice_is_asked_for_from_each_start():
    cost = {AS_CHOSEN: 10.0, "lengthen": 20.0}
    runs = {
        ("toy", each, seed): {
            "costs": {key: [None, cost.get(each.choice, 5.0), None] for key in study.COSTS},
            "spent": {},
        }
        for each in readings()
        for seed in range(4)
    }
    rows = answers(runs, fidelity.questions())
    assert len(rows) == 2 * len(CHOICES) * len(study.COSTS) * 2  # starts, ..., all problems and the only one
    for row in rows:
        expected = 2.0 if row["question"].startswith("lengthen") else 0.5
        assert (row["ratio"], row["reached"]) == (pytest.approx(expected), "4 and 4 of 4")
