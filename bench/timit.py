"""The acoustic model of TIMIT's real sample: ours beside scikit-learn's, on speakers that nobody trained on.

``python -m bench timit`` prints the table and writes results/timit.json; README.md says how to read it.
"""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from bench.report import about, save, show
from hfnb.optimizers import first_order, hessian_free
from hfnb.studies import speech_recognition, tasks

STRENGTHS = (1e-3, 1e-2, 1e-1)  # C of the logistic regression
SETTINGS = {**speech_recognition.FIRST_ORDER["full"], "progress": False}
SAME = f"test in {SETTINGS['max_iter']} passes"
LOGISTIC, MLP = "scikit-learn LogisticRegression", "scikit-learn MLPClassifier"


def error(model, data) -> float:
    """Return the frame error in per cent of a fitted classifier."""
    return 100 * float(np.mean(model.predict(data.X) != data.Y))


def adapted(model, classes: int):
    """Return a fitted classifier in the place of a network: its log posteriors, w not being used."""

    def outputs(w, X):
        logs = np.full((len(X), classes), -30.0)
        logs[:, model.classes_] = np.log(np.maximum(model.predict_proba(X), 1e-13))
        return logs

    return SimpleNamespace(outputs=outputs)


def row(task, name, seed, chosen, passes, seconds, w, predict) -> dict:
    """Return a line of the table; ``task.net`` and w recognize phones, ``predict`` frames."""
    weight = speech_recognition.tune_weight(task, w)
    found = {}
    for part in ("development", "test"):
        data = getattr(task, part)
        found[part] = 100 * float(np.mean(predict(data.X) != data.Y))
    return {
        "model": name,
        "seed": seed,
        "chosen": chosen,
        "passes": passes,
        "seconds": seconds,
        **found,
        "phone error": speech_recognition.phone_error(task, w, task.test, weight),
        "by speaker": by_speaker(task.test, predict),
    }


def by_speaker(data, predict) -> dict[str, float]:
    """Return the frame error in per cent of each speaker."""
    errors = {}
    for speaker in data.speakers:
        mine = [data.utterance(i) for i, name in enumerate(data.names) if name.startswith(speaker)]
        wrong = sum(int(np.sum(predict(each.X) != each.Y)) for each in mine)
        errors[speaker] = 100 * wrong / sum(map(len, mine))
    return errors


def logistic(task) -> dict:
    """Fit multinomial logistic regressions; the development speakers choose one."""
    start, models = time.perf_counter(), {}
    for strength in STRENGTHS:
        models[strength] = LogisticRegression(C=strength, max_iter=200).fit(task.train.X, task.train.Y)
    chosen = min(models, key=lambda strength: error(models[strength], task.development))
    model, seconds = models[chosen], time.perf_counter() - start
    theirs = replace(task, net=adapted(model, task.test.classes))
    passes = int(model.n_iter_[0])
    return row(theirs, LOGISTIC, 0, chosen, passes, seconds / len(models), np.zeros(1), model.predict)


def perceptron(task, rate: float, seed: int) -> tuple[float, dict]:
    """Train scikit-learn's network of the same size by epochs; keep what the development speakers prefer."""
    batch, epochs = SETTINGS["batch_size"], SETTINGS["max_iter"]
    model = MLPClassifier(
        task.net.sizes[1:-1],
        activation="tanh",
        batch_size=batch,
        learning_rate_init=rate,
        alpha=task.net.weight_decay * batch,  # it divides by the batch
        random_state=seed,
    )
    start, best = time.perf_counter(), (np.inf, 0, None)
    for epoch in range(1, epochs + 1):
        model.partial_fit(task.train.X, task.train.Y, classes=np.arange(task.test.classes))
        found = error(model, task.development)
        if found < best[0]:
            best = (
                found,
                epoch,
                ([each.copy() for each in model.coefs_], [b.copy() for b in model.intercepts_]),
            )
    model.coefs_, model.intercepts_ = best[2]
    theirs, seconds = replace(task, net=adapted(model, task.test.classes)), time.perf_counter() - start
    return best[0], row(theirs, MLP, seed, rate, best[1], seconds, np.zeros(1), model.predict)


def ours(task, name: str, run: speech_recognition.Trained, seed: int, chosen=None) -> dict:
    """Return the line of one of our runs."""
    found = row(task, name, seed, chosen, 0, 0.0, run.w, lambda X: task.net.predict(run.w, X))
    within = [record for record in run.history if record.passes <= SETTINGS["max_iter"]]
    first = min(within, key=lambda record: record.development)
    return found | {"passes": round(run.best.passes), "seconds": run.best.seconds, SAME: first.error}


def rows(task, seeds: int):
    """Yield the lines of the table, rates being chosen with the first seed."""
    yield logistic(task)
    tried = {rate: perceptron(task, rate, 0) for rate in speech_recognition.RATES["full"]["adam"]}
    theirs = min(tried, key=lambda rate: tried[rate][0])
    yield tried[theirs][1]
    yield from (perceptron(task, theirs, seed)[1] for seed in range(1, seeds))
    for method, rates in speech_recognition.RATES["full"].items():
        rate, run, _ = speech_recognition.tune(task, method, rates, **SETTINGS)
        yield ours(task, method, run, 0, rate)
        for seed in range(1, seeds):
            again = {"method": method, "learning_rate": rate, "seed": seed, **SETTINGS}
            yield ours(task, method, speech_recognition.train(task, first_order, **again), seed, rate)
    for name, choice in reversed(tasks.SECOND_ORDER.items()):
        for seed in range(seeds):
            options = {**speech_recognition.HESSIAN_FREE["full"], **choice, "seed": seed, "progress": False}
            yield ours(task, name, speech_recognition.train(task, hessian_free, **options), seed)


def verdicts(lines: list[dict]) -> list[dict]:
    """Say of each model whether it beats the logistic regression and is no worse than the MLPClassifier."""
    found, means = [], {}
    for name in dict.fromkeys(line["model"] for line in lines):
        errors = [line["test"] for line in lines if line["model"] == name]
        same = [line.get(SAME, line["test"]) for line in lines if line["model"] == name]
        means[name] = float(np.mean(errors))
        line = {"model": name, "test": means[name], "least": min(errors), "most": max(errors)}
        found.append(line | {SAME: float(np.mean(same))})
    for line in found:
        line["beats logistic"] = bool(line["test"] < means[LOGISTIC])
        line["no worse than MLP"] = bool(line["test"] <= means[MLP])
        line["in the same passes"] = bool(line[SAME] <= means[MLP])
    return found


def run(options):
    """Print the tables and save them after every line, so that what was measured is not lost."""
    try:
        task = speech_recognition.timit_task("full", "sample")
    except FileNotFoundError as error:
        print(f"timit: not measured: {error}")
        return
    seeds, lines, document = 1 if options.quick else 3, [], {}
    for line in rows(task, seeds):
        lines.append(line)
        show([{key: value for key, value in line.items() if key != "by speaker"}])
        document = {"about": about(seeds=seeds, corpus=task.test.name), "rows": lines}
        save("timit", document)
    print()
    save("timit", document | {"verdicts": show(verdicts(lines))})
