"""The runs that the model of scaling is fitted to: which are made, where, and how they are read."""

import numpy as np
import pytest
from on_engines import NET, OPTIONS

from hfnb import Objective, first_order, hessian_free
from hfnb.studies import scaling_model
from hfnb.studies.tasks import Task


@pytest.fixture
def task(data):
    return Task("random numbers", NET, data, data, np.float64)


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_plans_have_tests_of_every_form(mode):
    found = scaling_model.plans(mode)
    tested = [plan for name, plan in found.items() if name.startswith(scaling_model.TEST)]
    assert {(share, optimizer) for share, optimizer, _ in tested} == {
        (share, optimizer) for share, optimizer, _ in found.values()
    }
    assert len(tested) < len(found) / 2


def test_measured_where_asked_and_read_apart(task, pair):
    plans = {
        "all": (1, hessian_free, OPTIONS | {"max_iter": 2}),
        "a part": (scaling_model.NODES, hessian_free, {"max_iter": 1, "curvature_batch_size": 30}),
        "test: sgd": (1, first_order, {"max_iter": 2, "batch_size": 60}),
    }
    both, settings = scaling_model.measure(task, {2: pair}, plans)
    assert list(both) == list(settings) == ["all (N = 2)", "test: sgd (N = 2)"]
    one, others = scaling_model.measure(task, {1: pair}, plans)
    fitted, tests = scaling_model.read(both | one, settings | others, task.start())
    assert list(tests) == ["sgd (N = 2)", "sgd (N = 1)"]
    assert list(fitted) == ["all (N = 2)", "all (N = 1)", "a part (N = 1)"]
    assert fitted["a part (N = 1)"].workloads[0].batch == len(task.train) // scaling_model.NODES
    assert [work.batch for work in tests["sgd (N = 2)"].workloads] == [60, 60]
    assert fitted["all (N = 2)"].setting.engines == 2


def test_baselines_are_the_quickest_of_their_rates(task, pair, monkeypatch):
    rates, target = (1e-3, 1e-2, 1e-4), 1.5
    monkeypatch.setattr(scaling_model, "BASELINES", {60: rates, 603: (1e-6,)})
    found = scaling_model.baselines(task, pair, target)
    epochs = []
    for rate in rates:
        objective = Objective(NET, task.train)
        options = {"method": "adam", "batch_size": 60, "learning_rate": rate, "max_iter": 12}
        history = first_order(objective, task.start(), **options).history
        epochs.append(next((record.iteration for record in history if record.loss <= target), np.inf))
    assert min(epochs) < 12
    assert list(found) == ["Adam (batch 60)"]
    assert found["Adam (batch 60)"][-1].iteration == min(epochs)


def test_works_end_at_the_target(alone, w0):
    target = alone.history[4].loss
    found = scaling_model.works_to(alone.history, target, w0, OPTIONS["curvature_batch_size"])
    assert sum(work.products for work in found) == alone.history[4].products
    sums = sum(work.products + work.gradients + work.losses for work in found)
    assert sums == alone.history[4].reductions
    with pytest.raises(ValueError, match=r"target: .* got -1"):
        scaling_model.works_to(alone.history, -1, w0, OPTIONS["curvature_batch_size"])
