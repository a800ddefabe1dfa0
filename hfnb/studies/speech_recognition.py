"""Recognition of TIMIT's phones: the acoustic model, its training, Viterbi decoding, and errors.

Development speakers stop the training. A hybrid recognizer turns a network's posteriors into scaled
likelihoods by dividing by the priors, log p(x | s) = log p(s | x) − log p(s) + constant, and looks for the
most likely sequence of phones. Each phone is a chain of states, passed from first to last; a bigram says how
likely a phone is after another.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnb import models
from hfnb.datasets import Dataset
from hfnb.datasets.timit_corpus import fold, phone_set
from hfnb.optimizers import first_order
from hfnb.optimizers.history import Progress, Record
from hfnb.studies.speech_dataset import SpeechDataset, timit
from hfnb.studies.tasks import Task, mode
from hfnb.studies.tuning import HALF_DECADE, Axis, tuned
from hfnb.validation import check_extra

PHONES, STATES, SCORED = 48, 3, 39
# How far each method goes at most on `timit_task`, by mode.
HESSIAN_FREE: dict[str, dict] = {
    "fast": {"max_iter": 20, "curvature_batch_size": 600},
    "full": {"max_iter": 24, "curvature_batch_size": 2048, "solver_options": {"max_iter": 30}},
}
FIRST_ORDER = {"fast": {"batch_size": 64, "max_iter": 12}, "full": {"batch_size": 256, "max_iter": 12}}
# What the development speakers choose: learning rates, from these on, and one of the weights of the bigram.
AXES = {
    "fast": {"sgd": Axis(1.0, HALF_DECADE), "adam": Axis(3.2e-3, HALF_DECADE)},
    "full": {"sgd": Axis(0.1, HALF_DECADE), "adam": Axis(3.2e-4, HALF_DECADE)},
}
WEIGHTS = (0.25, 0.5, 1.0, 2.0)
SILENCE = "sil"
TUNING_SEED = 1000  # of the benchmark
ERRORS = ("development", "test", "phones", "phones without silence")  # of a run of the benchmark
STAYED, ADVANCED = -1, -2  # how a path came to a state, if not from the last state of a phone


@dataclass(frozen=True, kw_only=True)
class AcousticTask(Task):
    """A `Task` with three groups of speakers: to train on, to choose by, and to report.

    Attributes
    ----------
    train : Dataset
        The frames of ``spoken`` that are trained on: all or, in fast mode, every tenth.
    spoken : SpeechDataset
        All frames of the training speakers.
    development : SpeechDataset
        Held-out speakers, on whom training is stopped early, and learning rates and weights are chosen.
    test : SpeechDataset
        Speakers on whom errors are reported, and nothing is chosen.
    """

    spoken: SpeechDataset
    development: SpeechDataset
    test: SpeechDataset


def timit_task(size: str | None = None, corpus: str | None = None) -> AcousticTask:
    """Return the task of an acoustic model whose targets are 48 phones of three states.

    Parameters
    ----------
    size : {"fast", "full"}, optional
        A network 360-64-64-144 in float64 or 360-512-512-144 in float32; by default as `mode` says.
    corpus : str, optional
        As for `hfnb.studies.speech_dataset.timit`. By default the corpus that is there and, in fast mode,
        synthetic speech, which is equal on every machine.

    Returns
    -------
    AcousticTask
        The last sixth of the training speakers are its development speakers.

    Raises
    ------
    CorpusError, FileNotFoundError, ImportError
        As `hfnb.studies.speech_dataset.timit` does.
    """
    full = (size or mode()) == "full"
    spoken, test = timit(corpus or (None if full else "synthetic"), phones=PHONES, states=STATES)
    spoken, development = spoken.split_speakers(-(-len(spoken.speakers) // 6))
    hidden, step, dtype = ([512, 512], 1, np.float32) if full else ([64, 64], 10, np.float64)
    return AcousticTask(
        name=f"TIMIT ({test.kind})",
        net=models.mlp([test.dim, *hidden, test.classes], weight_decay=1e-3),
        train=Dataset(spoken.X[::step].astype(dtype, copy=False), spoken.Y[::step], name=spoken.name),
        spoken=spoken,
        development=development,
        test=test,
        dtype=dtype,
    )


class EarlyStopping:
    """A callback that keeps the parameters with the least frame error on the development speakers.

    Each record gets ``development`` and ``error``, the per cent of frames of the development and of the test
    speakers with a wrong state, and ``data_loss``, the training loss without weight decay.

    Parameters
    ----------
    task : AcousticTask
    patience : int
        The run is stopped so many iterations after the best one.

    Attributes
    ----------
    best : Record or None
        The record with the least ``development``.
    w : ndarray, shape (p,)
        The parameters at that iteration.
    """

    def __init__(self, task: AcousticTask, patience: int = 5):
        self.task, self.patience = task, patience
        self.best: Record | None = None

    def __call__(self, record: Record) -> bool:
        net, w = self.task.net, record.w
        quick = w.astype(np.float32, copy=False)  # as the features are
        record["development"] = 100 * net.error(quick, self.task.development)
        record["error"] = 100 * net.error(quick, self.task.test)
        record["data_loss"] = record.loss - 0.5 * float(w @ net.decay(w))
        if self.best is None or record.development < self.best.development:
            self.best, self.w = Record(record), w.copy()
        return record.iteration >= self.best.iteration + self.patience


@dataclass(frozen=True)
class Trained:
    """A run with early stopping on the development speakers.

    Attributes
    ----------
    history : list of Record
    best : Record
        The record with the least error on the development speakers.
    w : ndarray, shape (p,)
        The parameters at that iteration.
    """

    history: list[Record]
    best: Record
    w: np.ndarray


def train(
    task: AcousticTask,
    optimizer: Callable,
    *,
    seed: int = 0,
    progress: bool = True,
    title: str | None = None,
    **options,
) -> Trained:
    """Train with an optimizer until the development speakers stop it (see `EarlyStopping`).

    Parameters
    ----------
    task : AcousticTask
    optimizer : callable
        Such as `hfnb.hessian_free`.
    seed : int
        Of the initial parameters and of the optimizer.
    progress : bool
        Show a progress bar, with the loss, until the run ends.
    title : str, optional
        What stands beside the bar.
    **options
        Of the optimizer; ``max_iter`` is needed.

    Returns
    -------
    Trained
    """
    stopping = EarlyStopping(task)
    bar = Progress(options["max_iter"], stopping, leave=False, desc=title) if progress else stopping
    result = optimizer(task.objective(), task.start(seed), seed=seed, callback=bar, **options)
    assert stopping.best is not None, "a run has at least one record"
    return Trained(result.history, stopping.best, stopping.w)


def tune(task: AcousticTask, method: str, axis: Axis, **options) -> tuple[float, Trained, dict[float, float]]:
    """Train by a first-order method at several learning rates, until the best one lies inside the grid.

    Parameters
    ----------
    task : AcousticTask
    method : {"sgd", "momentum", "adam"}
    axis : Axis
        The grid of learning rates.
    **options
        Of `train` and of the optimizer.

    Returns
    -------
    rate : float
        The rate with the least error on the development speakers.
    run : Trained
        The run at that rate.
    errors : dict
        {rate: least error on the development speakers, per cent}.
    """
    runs: dict[float, Trained] = {}

    def development_error(settings: dict[str, float]) -> float:
        rate = settings["learning_rate"]
        title = f"{method}, learning rate {rate:g}"
        runs[rate] = train(task, first_order, title=title, method=method, learning_rate=rate, **options)
        return float(runs[rate].best.development)

    best = tuned({}, {"learning_rate": axis}, development_error).settings["learning_rate"]
    return best, runs[best], {rate: float(runs[rate].best.development) for rate in sorted(runs)}


def log_likelihoods(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return scaled log likelihoods from a network's outputs.

    Parameters
    ----------
    outputs : ndarray, shape (T, S)
        Outputs before softmax for T frames and S states.
    targets : ndarray of int, shape (n,)
        The training labels. Priors are their counts plus one.

    Returns
    -------
    ndarray, shape (T, S)
        log p(s | x) − log p(s).

    Raises
    ------
    ValueError
        For targets that the outputs do not have.

    Examples
    --------
    >>> log_likelihoods(np.log([[0.5, 0.5]]), np.array([0, 0, 1])).round(3)
    array([[-0.182,  0.223]])
    """
    states = outputs.shape[1]
    if np.min(targets) < 0 or np.max(targets) >= states:
        raise ValueError(f"targets: expected 0 to {states - 1} (the outputs have {states} columns)")
    counts = np.bincount(targets, minlength=states) + 1.0
    top = outputs.max(axis=1, keepdims=True)
    posteriors = outputs - top - np.log(np.exp(outputs - top).sum(axis=1, keepdims=True))
    return posteriors - np.log(counts / counts.sum())


@dataclass(frozen=True)
class Bigram:
    """Log probabilities of phones, given the one before.

    Attributes
    ----------
    transitions : ndarray, shape (P, P)
        From a phone (row) to the next (column).
    first, last : ndarray, shape (P,)
        That a sequence begins with a phone, and that it ends after one.
    """

    transitions: np.ndarray
    first: np.ndarray
    last: np.ndarray


def count_bigram(sequences: Iterable[Sequence[int]], phones: int, smoothing: float = 0.1) -> Bigram:
    """Estimate a bigram from sequences of phone numbers.

    Parameters
    ----------
    sequences : iterable of sequences of int
    phones : int
        Number of phones, P.
    smoothing : float
        Added to every count.

    Returns
    -------
    Bigram

    Raises
    ------
    ValueError
        For numbers other than 0 to P − 1, and unless smoothing is positive.

    Notes
    -----
    p(b | a) = (c(a, b) + s) / (c(a) + s (P + 1)) with counts c and smoothing s. The end of a sequence counts
    as one more phone that may follow.

    Examples
    --------
    >>> np.exp(count_bigram([[0, 1], [0, 1, 1]], 2, smoothing=1.0).transitions).round(3)
    array([[0.2  , 0.6  ],
           [0.167, 0.333]])
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing: expected a positive number, got {smoothing}")
    counts = np.full((phones + 1, phones + 1), float(smoothing))
    for sequence in sequences:
        numbers = np.asarray(sequence, dtype=np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < phones:
            raise ValueError(f"sequences: expected phone numbers 0 to {phones - 1}, got {sequence}")
        path = np.concatenate([[phones], numbers, [phones]])
        np.add.at(counts, (path[:-1], path[1:]), 1.0)
    logs = np.log(counts / counts.sum(axis=1, keepdims=True))
    return Bigram(logs[:-1, :-1], logs[-1, :-1], logs[:-1, -1])


def viterbi(scores: np.ndarray, bigram: Bigram, *, weight: float = 1.0, penalty: float = 0.0) -> list[int]:
    """Return the phones on the path with the highest score.

    Parameters
    ----------
    scores : ndarray, shape (T, P × states)
        Log likelihoods: column phone × states + state belongs to a state.
    bigram : Bigram
        Of P phones.
    weight : float
        Factor of the bigram's log probabilities.
    penalty : float
        Added for each phone; a negative one makes sequences shorter.

    Returns
    -------
    list of int
        Phone numbers.

    Raises
    ------
    ValueError
        For a number of columns that P does not divide, NaN, or fewer frames than states.

    Notes
    -----
    From frame to frame a path stays in its state or goes on to the next one, from the last state of a phone
    to the first of any phone. Its score is Σ scores + weight × log p(phones) + penalty × (number of phones).

    References
    ----------
    A. J. Viterbi, IEEE Transactions on Information Theory 13 (1967).

    Examples
    --------
    >>> flat = count_bigram([], 2, smoothing=1.0)
    >>> viterbi(np.log([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), flat)
    [0, 1]
    """
    frames, columns = scores.shape
    phones = len(bigram.first)
    states = columns // phones
    if columns != phones * states or frames < states or np.isnan(scores).any():
        expected = f"expected at least {states} frames of {phones} × states numbers"
        raise ValueError(f"scores: {expected}, got shape {scores.shape} or NaN")
    score, came_from = _forward(scores.reshape(frames, phones, states), bigram, weight, penalty)
    phone = int(np.argmax(score[:, -1] + weight * bigram.last))
    path, state = [phone], states - 1
    for t in range(frames - 1, 0, -1):
        before = came_from[t, phone, state]
        if before == STAYED:
            continue
        if before == ADVANCED:
            state -= 1
        else:
            phone, state = int(before), states - 1
            path.append(phone)
    return path[::-1]


def _forward(emission: np.ndarray, bigram: Bigram, weight: float, penalty: float) -> tuple:
    """Return the best score of a path into each state, and where it came from at each time."""
    frames, phones, states = emission.shape
    score = np.full((phones, states), -np.inf)
    score[:, 0] = weight * bigram.first + penalty + emission[0, :, 0]
    came_from = np.full((frames, phones, states), STAYED, dtype=np.int16)
    transitions = weight * bigram.transitions + penalty
    for t in range(1, frames):
        arriving = score[:, -1:] + transitions
        entry = arriving.argmax(axis=0)
        moved = np.concatenate([arriving.max(axis=0)[:, None], score[:, :-1]], axis=1)
        source = np.full((phones, states), ADVANCED, dtype=np.int16)
        source[:, 0] = entry
        better = moved > score
        score = np.where(better, moved, score) + emission[t]
        came_from[t] = np.where(better, source, STAYED)
    return score, came_from


def phone_error_rate(references: Iterable[Sequence], hypotheses: Iterable[Sequence]) -> float:
    """Return the number of substitutions, deletions and insertions for each phone of the references.

    Parameters
    ----------
    references, hypotheses : iterable of sequences
        Phones of each utterance, by custom folded to 39 classes.

    Returns
    -------
    float
        Σ edit distance / Σ length of the references, which may exceed 1.

    Raises
    ------
    ValueError
        If there are not as many hypotheses as references, or the references are empty.

    Examples
    --------
    >>> phone_error_rate([["sil", "aa", "sil"]], [["sil", "ih", "aa", "sil"]])
    0.3333333333333333
    """
    check_extra("hfnb.studies.speech_recognition", "speech", "rapidfuzz")
    from rapidfuzz.distance import Levenshtein

    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ValueError(
            f"hypotheses: expected {len(references)}, one for each reference, got {len(hypotheses)}"
        )
    total = sum(map(len, references))
    if not total:
        raise ValueError("references: expected at least one phone")
    return sum(map(Levenshtein.distance, references, hypotheses)) / total


def bigram(task: AcousticTask) -> Bigram:
    """Estimate the bigram of the training speakers' transcriptions.

    Parameters
    ----------
    task : AcousticTask

    Returns
    -------
    Bigram
        Of 48 classes.
    """
    numbers = {phone: i for i, phone in enumerate(phone_set(PHONES))}
    data = task.spoken
    return count_bigram(
        ([numbers[phone] for phone in data.sequence(i, PHONES)] for i in range(len(data.names))), PHONES
    )


def recognize(task: AcousticTask, w: np.ndarray, data: SpeechDataset, weight: float = 1.0) -> list[list[str]]:
    """Return what is recognized in each utterance, by `viterbi`.

    Parameters
    ----------
    task : AcousticTask
    w : ndarray, shape (p,)
        Parameters of the network.
    data : SpeechDataset
    weight : float
        Factor of the bigram's log probabilities.

    Returns
    -------
    list of list of str
        A sequence of phones for each utterance, of the 39 classes on which errors are counted.
    """
    grammar, names, hypotheses = bigram(task), phone_set(PHONES), []
    for i in range(len(data.names)):
        outputs = task.net.outputs(w, data.utterance(i).X.astype(w.dtype, copy=False))
        path = viterbi(log_likelihoods(outputs, task.spoken.Y), grammar, weight=weight)
        hypotheses.append(fold((names[phone] for phone in path), SCORED))
    return hypotheses


def phone_error(
    task: AcousticTask, w: np.ndarray, data: SpeechDataset, weight: float = 1.0, *, silence: bool = True
) -> float:
    """Return the phone error rate of what `recognize` finds.

    Parameters
    ----------
    task, w, data, weight
        As for `recognize`.
    silence : bool
        Whether silence counts as a phone, as it does in the 39 classes of Lee and Hon [1]_, on which most of
        the literature reports errors. Without it, it is left out of both sequences.

    Returns
    -------
    float
        Per cent: substitutions, deletions and insertions for each phone of the transcriptions.

    References
    ----------
    .. [1] K.-F. Lee, H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models", IEEE
       Transactions on Acoustics, Speech, and Signal Processing 37, 1989.
    """
    references = [data.sequence(i, SCORED) for i in range(len(data.names))]
    hypotheses = recognize(task, w, data, weight)
    if not silence:
        references, hypotheses = (
            [[phone for phone in each if phone != SILENCE] for each in sequences]
            for sequences in (references, hypotheses)
        )
    return 100 * phone_error_rate(references, hypotheses)


def tune_weight(task: AcousticTask, w: np.ndarray, weights: Iterable[float] = WEIGHTS) -> float:
    """Choose the weight of the bigram.

    Parameters
    ----------
    task : AcousticTask
    w : ndarray, shape (p,)
        Parameters of the network.
    weights : iterable of float

    Returns
    -------
    float
        The weight with the least phone error on the development speakers.
    """
    return min(weights, key=lambda weight: phone_error(task, w, task.development, weight))


def confusion(task: AcousticTask, w: np.ndarray, data: SpeechDataset) -> np.ndarray:
    """Count the frames of each phone that the network takes for each phone.

    Parameters
    ----------
    task : AcousticTask
    w : ndarray, shape (p,)
        Parameters of the network.
    data : SpeechDataset

    Returns
    -------
    ndarray of int, shape (39, 39)
        A row for each phone of the labels, a column for each phone that the network predicts.
    """
    number = {phone: i for i, phone in enumerate(phone_set(SCORED))}
    table = np.array([number[fold([phone], SCORED)[0]] for phone in phone_set(PHONES)])
    predicted = task.net.predict(w, data.X.astype(w.dtype, copy=False))
    counts = np.zeros((SCORED, SCORED), dtype=np.int64)
    np.add.at(counts, (table[data.Y // STATES], table[predicted // STATES]), 1)
    return counts


def read(document: Mapping[str, Any]) -> dict[str, dict[int, Any]]:
    """Return the runs at the tuned settings, from the results of ``python -m bench timit``.

    Parameters
    ----------
    document : mapping
        Such as ``tasks.published("bench/results/timit.json")``.

    Returns
    -------
    dict
        {method: {seed: run}}, seeds in order. A run has errors in per cent ("development" and "test" of
        frames, "phones", "phones without silence", and "speakers", frames of each) and a "curve", whose
        points are passes, reductions, and the frame errors of development and test speakers.

    Examples
    --------
    >>> document = {"tuned": {"Adam": {"settings": {"learning_rate": 0.1}}}, "runs": {}}
    >>> document["runs"]['["Adam", {"learning_rate": 0.1}, 1]'] = "a run"
    >>> document["runs"]['["Adam", {"learning_rate": 0.3}, 1]'] = "a run at another rate"
    >>> read(document)
    {'Adam': {1: 'a run'}}
    """
    settings = {method: told["settings"] for method, told in document["tuned"].items()}
    runs: dict[str, dict[int, Any]] = {method: {} for method in settings}
    for key, run in document["runs"].items():
        method, options, seed = json.loads(key)
        if options == settings.get(method) and seed != TUNING_SEED:
            runs[method][seed] = run
    return {method: dict(sorted(each.items())) for method, each in runs.items()}


def summary(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the errors of runs from several starts, each as median and range.

    Parameters
    ----------
    runs : iterable of mapping
        Runs as `read` returns them.

    Returns
    -------
    dict
        {error: "median (smallest–largest)"}, in per cent.

    Examples
    --------
    >>> errors = dict.fromkeys(ERRORS, 40.0)
    >>> summary([errors, errors | {"phones": 42.0}])["phones"]
    '41.0 (40.0–42.0)'
    """
    runs = list(runs)
    found = {}
    for name in ERRORS:
        each = [run[name] for run in runs]
        found[name] = f"{np.median(each):.1f} ({min(each):.1f}–{max(each):.1f})"
    return found
