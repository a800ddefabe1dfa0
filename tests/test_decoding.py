"""Decoding against brute force over all paths, and edit distance against its definition."""

from functools import cache
from itertools import groupby, pairwise, product

import numpy as np
import pytest

from hfnb.studies.speech_recognition import count_bigram, log_likelihoods, phone_error_rate, viterbi


def best_by_enumeration(scores, bigram, states, weight, penalty):
    """Try every sequence of states; return the phones and the score of the best one that the model allows."""
    phones = len(bigram.first)
    best = (-np.inf, [])
    for path in product(range(phones * states), repeat=len(scores)):
        if path[0] % states or path[-1] % states != states - 1:
            continue
        for entered in product((False, True), repeat=len(scores) - 1):
            visited, total = [path[0] // states], scores[0, path[0]]
            for t, (before, after, enter) in enumerate(
                zip(path[:-1], path[1:], entered, strict=True), start=1
            ):
                if enter and before % states == states - 1 and after % states == 0:
                    visited.append(after // states)
                elif enter or not (after == before or (after == before + 1 and after % states)):
                    break
                total += scores[t, after]
            else:
                pairs = pairwise(visited)
                grammar = bigram.first[visited[0]] + sum(bigram.transitions[pair] for pair in pairs)
                total += weight * (grammar + bigram.last[visited[-1]]) + penalty * len(visited)
                best = max(best, (total, visited))
    return best


@pytest.mark.parametrize(("phones", "states", "frames"), [(2, 2, 5), (3, 1, 4), (1, 3, 4), (2, 3, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_viterbi_finds_the_best_of_all_paths(phones, states, frames, seed):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(frames, phones * states))
    bigram = count_bigram([random.integers(phones, size=6) for _ in range(2)], phones)
    weight, penalty = random.random(), random.normal()
    score, path = best_by_enumeration(scores, bigram, states, weight, penalty)
    assert np.isfinite(score)
    assert viterbi(scores, bigram, weight=weight, penalty=penalty) == path


def test_certain_frames_decode_to_what_they_say():
    random = np.random.default_rng(0)
    truth = [3, 0, 4, 1, 2, 0]
    frames = np.repeat(
        [phone * 3 + state for phone in truth for state in range(3)], random.integers(1, 5, size=18)
    )
    scores = np.where(np.arange(15) == frames[:, None], 0.0, -1e3)
    assert viterbi(scores, count_bigram([], 5)) == truth == [phone for phone, _ in groupby(frames // 3)]


def test_bigram_sums_to_one_and_decides_a_tie():
    bigram = count_bigram([[0, 1, 0, 1], [0, 1]], 3)
    total = np.exp(bigram.transitions).sum(axis=1) + np.exp(bigram.last)
    assert np.allclose(total, 1)
    assert np.isclose(np.exp(bigram.first).sum(), 1 - 0.1 / 2.4)  # the rest: that a sequence is empty
    undecided = np.array([[0.0, -9, -9], [-9, 0, 0], [-9, 0, 0]])
    assert viterbi(undecided, bigram) == [0, 1]


def test_likelihoods_are_posteriors_over_priors():
    random = np.random.default_rng(0)
    outputs, targets = random.normal(size=(4, 3)) * 50, np.array([0, 0, 0, 1, 2])
    ratio = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True) / (np.array([4, 2, 2]) / 8)
    assert np.allclose(np.exp(log_likelihoods(outputs, targets)), ratio)
    assert np.isfinite(log_likelihoods(outputs * 1e3, targets)).all()


def test_error_rate_counts_edits_by_their_definition():
    random = np.random.default_rng(0)

    @cache
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    for _ in range(50):
        a, b = ("".join(random.choice(list("abc"), size=random.integers(0, 7))) for _ in range(2))
        assert phone_error_rate(["abc", a], ["abc", b]) == distance(a, b) / (3 + len(a))


def test_error_rate_may_exceed_one():
    assert phone_error_rate([["a"], ["b", "c"]], [["a", "x", "y", "z"], ["b"]]) == 4 / 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: viterbi(np.zeros((4, 5)), count_bigram([], 2)), "scores: expected"),
        (lambda: viterbi(np.zeros((2, 6)), count_bigram([], 2)), "scores: expected at least 3 frames"),
        (lambda: viterbi(np.full((4, 4), np.nan), count_bigram([], 2)), "NaN"),
        (lambda: count_bigram([[0, 2]], 2), "sequences: expected phone numbers 0 to 1"),
        (lambda: count_bigram([[0]], 2, smoothing=0), "smoothing: expected a positive"),
        (lambda: log_likelihoods(np.zeros((1, 2)), np.array([2])), "targets: expected 0 to 1"),
        (lambda: phone_error_rate([], []), "references: expected"),
        (lambda: phone_error_rate([["a"]], []), "hypotheses: expected 1"),
    ],
)
def test_bad_input_gets_one_clear_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
