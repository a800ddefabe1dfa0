"""From frame scores to phones: Viterbi search over a bigram, and the phone error rate.

A hybrid recognizer turns a network's posteriors into scaled likelihoods by dividing by the priors,
log p(x | s) = log p(s | x) − log p(s) + constant, and looks for the most likely sequence of phones. Each
phone is a chain of states, passed from first to last; a bigram says how likely a phone is after another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hfnb.validation import check_extra


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


STAYED, ADVANCED = -1, -2


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
    check_extra("hfnb.studies.decoding", "speech", "rapidfuzz")
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
