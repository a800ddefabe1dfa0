"""The acoustic model: who is held out, what stops training, what is recognized; scikit-learn counts along."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, zero_one_loss

from hfnb import Objective, first_order, models
from hfnb.datasets.timit_corpus import MANNERS, fold, phone_set
from hfnb.engines import Cluster
from hfnb.optimizers.history import Record
from hfnb.studies import speech_recognition
from hfnb.studies.synthetic_speech import synthesize
from hfnb.studies.tuning import Axis


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Small: three speakers to train, one of whom to develop on, and one to test."""
    pytest.importorskip("espeakng_loader", reason="the optional extra 'speech' is not installed")
    folder = tmp_path_factory.mktemp("spoken") / "corpus"
    synthesize(folder, speakers=(3, 1), sentences=4)
    return folder


@pytest.fixture
def task(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HFNB_CACHE", str(tmp_path))
    return speech_recognition.timit_task("fast", corpus)


@pytest.fixture
def full(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HFNB_CACHE", str(tmp_path))
    return speech_recognition.timit_task("full", corpus)


def test_speakers_are_on_one_side_only(task, full):
    parts = [task.spoken.speakers, task.development.speakers, task.test.speakers]
    assert [len(part) for part in parts] == [2, 1, 1]
    assert len(set().union(*parts)) == 4
    assert task.net.sizes == (360, 64, 64, 144)
    assert np.array_equal(task.train.Y, task.spoken.Y[::10])
    assert (task.train.X.dtype, full.train.X.dtype) == (np.float64, np.float32)
    assert full.net.sizes == (360, 512, 512, 144)
    assert np.shares_memory(full.train.X, full.spoken.X)
    assert np.array_equal(full.train.X, full.spoken.X)


def test_split_speakers_are_views_with_their_own_rows(task):
    whole = speech_recognition.timit(Path(task.spoken.sounds[0]).parents[3], phones=48)[0]
    rest, held = whole.split_speakers(1)
    assert rest.names + held.names == whole.names
    assert {name.split("_")[0] for name in held.names} == set(held.speakers)
    for part, first in ((rest, 0), (held, len(rest.names))):
        assert len(part) == part.rows[-1]
        for i in range(len(part.names)):
            assert np.shares_memory(part.X, whole.X)
            assert np.array_equal(part.utterance(i).X, whole.utterance(first + i).X)
            assert np.array_equal(part.utterance(i).Y, whole.utterance(first + i).Y)
            assert part.sequence(i) == whole.sequence(first + i)
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"held_out: expected 1 to 2 speakers, got {number}"):
            whole.split_speakers(number)


def test_the_best_parameters_on_development_speakers_are_kept(task):
    points = [task.start(seed) for seed in range(20)]
    errors = [
        zero_one_loss(task.development.Y, task.net.outputs(w, task.development.X).argmax(axis=1))
        for w in points
    ]
    points = [points[i] for i in np.argsort(errors, kind="stable")[::-1]]
    points = points[:4] + points[-1:] + points[4:-1]  # the best one comes fifth
    stopping, seen = speech_recognition.EarlyStopping(task, patience=3), []
    for i, w in enumerate(points):
        record = Record(iteration=i, loss=1.0)
        record.w = w
        seen.append(record)
        if stopping(record):
            break
    assert len(seen) == 4 + 1 + 3
    assert stopping.best.iteration == 4
    assert np.array_equal(stopping.w, points[4])
    assert stopping.best.development == pytest.approx(100 * min(errors))
    heard = task.net.outputs(points[4], task.test.X).argmax(axis=1)
    assert stopping.best.error == pytest.approx(100 * zero_one_loss(task.test.Y, heard))


def test_training_and_tuning_are_judged_by_development_speakers(task):
    options = {"batch_size": 32, "max_iter": 3, "progress": False}
    rate, best, errors = speech_recognition.tune(task, "adam", Axis(1e-4, 10.0), **options)
    assert min(errors) < rate < max(errors)  # inside the grid
    assert errors[rate] == min(errors.values()) == min(record.development for record in best.history)
    assert task.net.error(best.w, task.development) == pytest.approx(best.best.development / 100)
    again = speech_recognition.train(task, first_order, method="adam", learning_rate=rate, **options)
    assert np.array_equal(again.w, best.w)


def certain(*parts):
    """A network that is sure of the right state of every frame of some speech."""
    states = {x.tobytes(): y for part in parts for x, y in zip(part.X, part.Y, strict=True)}
    rows = np.eye(speech_recognition.PHONES * speech_recognition.STATES) * 50

    def outputs(w, X):
        return rows[[states[x.tobytes()] for x in X.astype(np.float32)]]

    return SimpleNamespace(outputs=outputs, predict=lambda w, X: outputs(w, X).argmax(axis=1))


def test_what_is_certain_is_recognized(task):
    sure = speech_recognition.AcousticTask(**{**vars(task), "net": certain(task.development)})
    data, w = task.development, np.zeros(1)
    short = sum(int(np.sum(labels.ends - labels.starts < 4 * 160)) for labels in data.labels)
    said = [data.sequence(i) for i in range(len(data.names))]
    repeated = sum(a == b for sequence in said for a, b in pairwise(sequence))
    # A phone of three states takes three frames; a class is not heard twice where it follows itself.
    limit = 100 * (short + repeated) / sum(map(len, said))
    assert speech_recognition.phone_error(sure, w, data) <= limit < 60
    # Without silence, what is left is the edit distance of what is left.
    heard = speech_recognition.recognize(sure, w, data)
    spoken, found = ([[p for p in each if p != "sil"] for each in part] for part in (said, heard))
    expected = 100 * speech_recognition.phone_error_rate(spoken, found)
    assert speech_recognition.phone_error(sure, w, data, silence=False) == expected
    assert sum(map(len, spoken)) < sum(map(len, said))
    weights = (1e3, 0.5)  # a bigram that outweighs all that is heard
    assert speech_recognition.tune_weight(sure, w, weights) == 0.5
    assert speech_recognition.phone_error(sure, w, data, 1e3) > 50
    assert all(set(each) <= set(phone_set(39)) for each in heard)


def test_confusion_is_scikit_learns(task):
    w, data = task.start(), task.test
    by_state = [fold([phone_set(48)[state // 3]], 39)[0] for state in range(144)]
    said, heard = ([by_state[state] for state in states] for states in (data.Y, task.net.predict(w, data.X)))
    expected = confusion_matrix(said, heard, labels=phone_set(39))
    assert np.array_equal(speech_recognition.confusion(task, w, data), expected)


def test_manners_are_a_partition_of_the_39():
    assert sorted(phone for manner in MANNERS.values() for phone in manner) == sorted(phone_set(39))


def maps_of(cluster, path):
    """How many of each engine's maps are of a file."""
    count = f"open('/proc/self/maps').read().count({str(path)!r})"
    return cluster.client[cluster.engines].apply_sync(eval, count)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_engines_map_the_features_instead_of_receiving_them(full, tmp_path):
    net = models.mlp([360, 8, 144])
    w, alone = net.init(0, dtype=np.float64), Objective(net, full.train)
    with Cluster(n=2, engines="local") as cluster:
        shared = cluster.objective(net, full.train)
        assert shared.value(w) == pytest.approx(alone.value(w), rel=1e-12)
        assert all(maps_of(cluster, next(tmp_path.glob("timit/*/train.X"))))
