"""Work dealt to threads: what comes back, what becomes of errors, and BLAS as it was."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hfnb import Dataset, Objective, Sample, models, threads

NET = models.mlp([400, 500, 90, 10])
RANDOM = np.random.default_rng(0)
DATA = Dataset(RANDOM.random((2300, 400), np.float32), RANDOM.integers(10, size=2300))
W, V = NET.init(1), RANDOM.standard_normal(NET.size).astype(np.float32)


def blas_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def sums(**options):
    objective = Objective(NET, DATA, **options)
    sample = Sample(1400, 3, 1)
    return [
        objective.value(W),
        *objective.value_and_gradient(W),
        objective.curvature(W, "hessian") @ V,
        objective.curvature(W, "gauss-newton", sample) @ V,
    ]


@pytest.mark.parametrize("kept", [1, 16384])
def test_sums_dealt_to_threads_are_those_of_one(kept, monkeypatch):
    monkeypatch.setattr("hfnb.sums.KEPT", kept)
    dealt = []
    deal = threads.deal
    monkeypatch.setattr(threads, "deal", lambda task, shares: dealt.append(len(shares)) or deal(task, shares))
    alone = sums()
    assert set(dealt) == {1} or threads.count() > 1
    monkeypatch.setattr(threads, "count", lambda: 2)
    dealt.clear()
    for one, two in zip(alone, sums(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5 * np.max(np.abs(one)))
    assert set(dealt) == {2}


def test_in_float64_nothing_is_dealt_so_that_sums_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: pytest.fail("asked for the number of threads"))
    Objective(NET, DATA).value(W.astype(float))


def test_each_share_runs_with_one_blas_thread_and_the_number_comes_back():
    with threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        inside = threads.deal(lambda number, share: (number, share, blas_threads()), ["a", "b", "c"])
        assert inside == [(i, share, [1] * len(before)) for i, share in enumerate("abc")]
        assert blas_threads() == before


def test_an_error_in_any_share_is_raised_once_all_have_ended():
    ended = []

    def task(number, share):
        if number == share:
            raise KeyError(f"share {number}")
        ended.append(number)

    before = blas_threads()
    for failing in (0, 1):
        ended.clear()
        with pytest.raises(KeyError, match=f"share {failing}"):
            threads.deal(task, [failing, failing])
        assert ended == [1 - failing]
    assert blas_threads() == before


def test_what_is_dealt_while_others_work_runs_where_it_is():
    def task(number, share):
        return threads.deal(lambda inner, _: (inner, threading.current_thread().name), [0, 1])

    (a, b), (c, d) = threads.deal(task, [0, 1])
    assert a[1] == b[1] == threading.current_thread().name != c[1] == d[1]
