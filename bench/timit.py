"""The acoustic model of TIMIT's real sample: every method from five starts, on speakers not trained on.

All methods minimize the same loss of the same network, and the development speakers stop each run. The
learning rate of a first-order method and the first damping of a Hessian-free one are tuned by one rule: the
development speakers choose, from a start of its own, until the best value lies inside the grid. Beside them
stand scikit-learn's logistic regression and its network of the same size. Every run is written to
results/timit.json when it ends, so that an interrupted benchmark goes on where it was.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from bench.effects import store_of
from bench.report import show
from bench.runs import at_once, chosen
from hfnb.optimizers import first_order, hessian_free
from hfnb.studies import speech_recognition as study
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp
from hfnb.studies.tuning import HALF_DECADE, Axis, tuned

SEEDS, QUICK_SEEDS = 5, 1
LOGISTIC, PERCEPTRON = "scikit-learn LogisticRegression", "scikit-learn MLPClassifier"
DAMPING = {"damping": Axis(1.0, 10.0)}


def settings(quick: bool) -> tuple[dict, dict]:
    """Return the options of Hessian-free methods and those of first-order ones."""
    size = "fast" if quick else "full"
    return study.HESSIAN_FREE[size], study.FIRST_ORDER[size]


@cache
def task_of(quick: bool) -> study.AcousticTask:
    """Return the task, which is made once in each process."""
    return study.timit_task(*(("fast", "synthetic") if quick else ("full", "sample")))


def by_hessian_free(quick: bool, seed: int, **options: Any) -> tuple[study.AcousticTask, Any, list]:
    """Train by a Hessian-free method; return the task, the best parameters and the curve."""
    return _trained(quick, hessian_free, seed, settings(quick)[0] | options)


def by_first_order(quick: bool, seed: int, **options: Any) -> tuple[study.AcousticTask, Any, list]:
    """Train by a first-order method; return what `by_hessian_free` returns."""
    return _trained(quick, first_order, seed, settings(quick)[1] | options)


def _trained(quick: bool, optimizer: Callable, seed: int, options: dict) -> tuple:
    task = task_of(quick)
    run = study.train(task, optimizer, seed=seed, progress=False, **options)
    curve = [
        [round(r.passes, 2), int(r.reductions), round(r.development, 3), round(r.error, 3)]
        for r in run.history
    ]
    return task, run.w, curve


def fitted(task: study.AcousticTask, model: Any) -> study.AcousticTask:
    """Return the task with a fitted classifier in the place of its network; parameters are not used."""
    classes = task.test.classes

    def outputs(w: np.ndarray, X: np.ndarray) -> np.ndarray:
        logs = np.full((len(X), classes), -30.0)
        logs[:, model.classes_] = np.log(np.maximum(model.predict_proba(X), 1e-13))
        return logs

    def error(w: np.ndarray, data: Any) -> float:
        return float(np.mean(model.predict(data.X) != data.Y))

    net = SimpleNamespace(outputs=outputs, error=error, predict=lambda w, X: model.predict(X))
    return replace(task, net=net)


def logistic(quick: bool, seed: int, C: float) -> tuple[study.AcousticTask, Any, list]:
    """Fit a multinomial logistic regression, which is the same for all seeds; the curve is empty."""
    task = task_of(quick)
    model = LogisticRegression(C=C, max_iter=200).fit(task.train.X, task.train.Y)
    return fitted(task, model), np.zeros(1), []


def perceptron(quick: bool, seed: int, learning_rate: float) -> tuple[study.AcousticTask, Any, list]:
    """Train scikit-learn's network by Adam, to the epoch that is best for the development speakers."""
    task, (_, options) = task_of(quick), settings(quick)
    batch = options["batch_size"]
    model = MLPClassifier(
        task.net.sizes[1:-1],
        activation="tanh",
        batch_size=batch,
        learning_rate_init=learning_rate,
        alpha=task.net.weight_decay * batch,  # it divides by the batch
        random_state=seed,
    )
    least, best = np.inf, ([], [])
    for _ in range(options["max_iter"]):
        model.partial_fit(task.train.X, task.train.Y, classes=np.arange(task.test.classes))
        found = float(np.mean(model.predict(task.development.X) != task.development.Y))
        if found < least:
            least = found
            best = [each.copy() for each in model.coefs_], [each.copy() for each in model.intercepts_]
    model.coefs_, model.intercepts_ = best
    return fitted(task, model), np.zeros(1), []


# method: how it is run, options that stay as they are, and options to tune
METHODS: dict[str, tuple[Callable, dict[str, Any], dict[str, Axis]]] = {
    "paper": (by_hessian_free, {"method": "paper"}, DAMPING),
    "Martens": (by_hessian_free, {"method": "martens"}, DAMPING),
    "auto": (by_hessian_free, {"method": "auto"}, DAMPING),
    "SGD": (by_first_order, {"method": "sgd"}, {"learning_rate": study.AXES["full"]["sgd"]}),
    "Adam": (by_first_order, {"method": "adam"}, {"learning_rate": study.AXES["full"]["adam"]}),
    PERCEPTRON: (perceptron, {}, {"learning_rate": study.AXES["full"]["adam"]}),
    LOGISTIC: (logistic, {}, {"C": Axis(1e-2, HALF_DECADE)}),
}


def by_speaker(task: study.AcousticTask, w: np.ndarray) -> dict[str, float]:
    """Return the frame error in per cent of each test speaker."""
    data, errors = task.test, {}
    for speaker in data.speakers:
        mine = [data.utterance(i) for i, name in enumerate(data.names) if name.startswith(speaker)]
        wrong = sum(int(np.sum(task.net.predict(w, each.X.astype(np.float32)) != each.Y)) for each in mine)
        errors[speaker] = 100 * wrong / sum(map(len, mine))
    return errors


def work(quick: bool, method: str, options: dict, seed: int) -> dict:
    """Run a method in this process; return its errors in per cent, and its curve.

    A point of the curve has passes, reductions, and the frame errors of development and test speakers.
    """
    with np.errstate(all="ignore"):
        task, w, curve = METHODS[method][0](quick, seed, **options)
    weight = study.tune_weight(task, w)
    found = {part: 100 * float(task.net.error(w, getattr(task, part))) for part in ("development", "test")}
    found |= {
        name: study.phone_error(task, w, task.test, weight, silence=silence)
        for name, silence in (("phones", True), ("phones without silence", False))
    }
    return {**found, "weight": weight, "speakers": by_speaker(task, w), "curve": curve}


def chain(stored: StoredRuns, pool: Executor, quick: bool, method: str, seeds: range) -> dict:
    """Tune a method, run it from all starts, and return the result, which is stored."""

    def run(options: dict, seed: int) -> dict:
        entry = [method, options, seed]

        def make() -> dict:
            made = pool.submit(work, quick, *entry).result()
            print(*entry, made["development"], made["test"], file=sys.stderr, flush=True)
            return made

        return stored.run(json.dumps(entry), make)

    _, fixed, axes = METHODS[method]
    found = tuned(fixed, axes, lambda options: run(options, study.TUNING_SEED)["development"])
    runs = [run(found.settings, seed) for seed in seeds]
    told = {"method": method, "settings": found.settings, "inside": found.inside, "tried": found.tried}
    stored.add("tuned", {method: told})
    return told | {"runs": runs}


def row(told: dict) -> dict:
    """Return a row of the table: medians and ranges over the starts."""
    cells = {"method": told["method"], "inside": "yes" if told["inside"] else "NO"}
    cells |= study.summary(told["runs"])
    return cells | {"settings": json.dumps(told["settings"])}


def run(options: Any) -> None:
    """Make the runs that are missing, show them, and write results/timit.json."""
    methods = chosen(options.methods, METHODS, "--methods")
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    try:
        task_of(options.quick)
    except FileNotFoundError as error:
        print(f"timit: not measured: {error}")
        return
    stored = store_of("timit", options)
    with at_once(options.processes) as (pool, threads):
        asked = [threads.submit(chain, stored, pool, options.quick, method, seeds) for method in methods]
        try:
            show(row(each.result()) for each in asked)
        except TimeIsUp as error:
            print(f"timit: {error}")
