"""Threads: how many are requested, what runs on them, what becomes of errors, and the limits of BLAS."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator
from threadpoolctl import threadpool_info, threadpool_limits

import hfnb
from hfnb import Dataset, Objective, Sample, models, threads
from hfnb.krylov import SOLVERS
from hfnb.krylov.vectors import axpy, coefficients, combine, dot, norm

NET = models.mlp([400, 500, 90, 10])
RANDOM = np.random.default_rng(0)
DATA = Dataset(RANDOM.random((2300, 400), np.float32), RANDOM.integers(10, size=2300))
W, V = NET.init(1), RANDOM.standard_normal(NET.size).astype(np.float32)
# With another BLAS, samples are not spread over threads (see set_threads).
OPENBLAS = pytest.mark.skipif(
    {
        (each["internal_api"], each["threading_layer"])
        for each in threadpool_info()
        if "threading_layer" in each
    }
    != {("openblas", "pthreads")},
    reason="numpy has another BLAS than OpenBLAS with its own threads",
)


@pytest.fixture(autouse=True)
def request_ends():
    yield
    hfnb.set_threads(None)


def blas_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def sums(dtype=np.float32, **options):
    objective = Objective(NET, DATA, **options)
    w, v, sample = W.astype(dtype), V.astype(dtype), Sample(1400, 3, 1)
    value, gradient = objective.value_and_gradient(w)
    return [
        np.array([objective.value(w), value]),
        gradient,
        objective.curvature(w, "hessian") @ v,
        objective.curvature(w, "gauss-newton", sample) @ v,
    ]


@pytest.fixture
def parts_run(monkeypatch):
    """The number of parts of each call of parallel_map."""
    found, parallel_map = [], threads.parallel_map
    monkeypatch.setattr(
        threads, "parallel_map", lambda task, parts: found.append(len(parts)) or parallel_map(task, parts)
    )
    return found


@OPENBLAS
@pytest.mark.parametrize("memory", [0, None])
def test_sums_use_as_many_threads_as_requested(memory, parts_run):
    hfnb.set_threads(1)
    alone = sums(memory=memory)
    assert set(parts_run) <= {1}  # a single share need not be parts_run
    for requested in (2, 3):
        hfnb.set_threads(requested)
        parts_run.clear()
        for one, several in zip(alone, sums(memory=memory), strict=True):
            np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5 * np.max(np.abs(one)))
        assert set(parts_run) == {requested}


@OPENBLAS
def test_in_float64_sums_are_the_same_on_any_number_of_threads(parts_run):
    hfnb.set_threads(1)
    alone = sums(float)
    for requested in (2, 3):
        hfnb.set_threads(requested)
        parts_run.clear()
        with threadpool_limits(requested, user_api="blas"):
            found = sums(float)
        assert set(parts_run) == {requested}
        for one, several in zip(alone, found, strict=True):
            np.testing.assert_array_equal(several, one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("requested", [1, 2])
@pytest.mark.parametrize("rows", [200, 2300])
def test_blas_has_one_thread_in_float64_and_the_requested_ones_in_float32(dtype, requested, rows):
    """A curvature of the user's own, which always runs in one thread, sees how many threads BLAS has."""
    seen = []

    def looking(net, w, X, Y):
        seen.extend(blas_threads())
        return lambda v: seen.extend(blas_threads()) or v

    hfnb.set_threads(requested)
    data = Dataset(DATA.X[:rows], DATA.Y[:rows])
    with threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        Objective(NET, data).curvature(W.astype(dtype), looking) @ V.astype(dtype)
        assert blas_threads() == before
    assert set(seen) == ({1 if dtype == np.float64 else requested} if before else set())


def test_the_number_is_that_of_the_call_or_of_the_environment_or_one(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name in threads.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert threads.count() == 1
    for value, expected in [("2", min(2, cores)), ("10000", cores), ("1,4", 1), ("0", 1), ("many", 1)]:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert threads.count() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "10000")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # of OpenBLAS alone: before the one for all
    assert threads.count() == 1
    hfnb.set_threads(np.int64(7))
    assert threads.count() == 7
    hfnb.set_threads(None)
    assert threads.count() == 1


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", float("nan")])
def test_a_number_of_threads_that_is_none(n):
    with pytest.raises((ValueError, TypeError), match="n: expected a whole number of at least 1, got"):
        hfnb.set_threads(n)


def test_of_limits_within_each_other_the_innermost_holds_and_all_end():
    with threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        with threads.limited(1):
            with threads.limited(2):
                assert set(blas_threads()) <= {2}
            assert set(blas_threads()) <= {1}
        assert blas_threads() == before
        with pytest.raises(KeyError), threads.limited(1):
            raise KeyError
        assert blas_threads() == before


def test_of_limits_in_several_threads_the_lowest_holds_until_its_end():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with threads.limited(1):
            inside.set()
            assert leave.wait(10)

    with threadpool_limits(3, user_api="blas"), ThreadPoolExecutor(1) as pool:
        before, held = blas_threads(), pool.submit(hold)
        assert inside.wait(10)
        with threads.limited(2):
            assert set(blas_threads()) <= {1}
            leave.set()
            held.result()
            assert set(blas_threads()) <= {2}
        assert blas_threads() == before


def test_a_limit_holds_in_a_thread_that_is_not_the_first_to_set_one():
    """An engine runs optimizers in a thread of its own; threadpoolctl obeys only the first that asks."""

    def inside():
        with threads.limited(1):
            return blas_threads()

    with threadpool_limits(3, user_api="blas"), ThreadPoolExecutor(1) as pool:
        before = blas_threads()
        assert set(pool.submit(inside).result()) <= {1}
        assert blas_threads() == before


def test_each_part_runs_with_one_blas_thread_and_the_number_comes_back():
    with threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        inside = threads.parallel_map(lambda number, part: (number, part, blas_threads()), ["a", "b", "c"])
        assert inside == [(i, part, [1] * len(before)) for i, part in enumerate("abc")]
        assert blas_threads() == before


def test_an_error_in_any_part_is_raised_once_all_have_ended():
    ended = []

    def task(number, part):
        if number == part:
            raise KeyError(f"part {number}")
        ended.append(number)

    before = blas_threads()
    for failing in (0, 1):
        ended.clear()
        with pytest.raises(KeyError, match=f"part {failing}"):
            threads.parallel_map(task, [failing, failing])
        assert ended == [1 - failing]
    assert blas_threads() == before


def test_a_map_within_a_map_runs_in_the_thread_that_calls_it():
    def task(number, part):
        return threads.parallel_map(lambda inner, _: (inner, threading.current_thread().name), [0, 1])

    (a, b), (c, d) = threads.parallel_map(task, [0, 1])
    assert a[1] == b[1] == threading.current_thread().name != c[1] == d[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_vectors_do_not_depend_on_threads(dtype):
    x, y = np.random.default_rng(1).standard_normal((2, 400_001)).astype(dtype)
    rows, c = np.stack([x, y, x - y]), np.array([0.3, 0.7, -0.2], dtype)
    found = []
    for number in (1, 2, 3):
        with threadpool_limits(number, user_api="blas"):
            added = y.copy()
            axpy(added, 0.3, x)
            sums = (dot(x, y), norm(x), *coefficients(rows, x))
            found.append((*sums, combine(c, rows).tobytes(), added.tobytes()))
    assert found[0] == found[1] == found[2]
    exact = np.float64(x) @ np.float64(y)
    assert found[0][0] == pytest.approx(exact, abs=1e-5 * float(np.abs(x) @ np.abs(y)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["cg", "bicgstab", "minres", "capped_cg"])
def test_a_solve_does_not_depend_on_threads(name, dtype):
    n = 50_001
    diagonal, b = np.geomspace(1e-2, 1e2, n).astype(dtype), np.random.default_rng(1).standard_normal(n)
    A, found = LinearOperator((n, n), matvec=lambda v: diagonal * v, dtype=dtype), []
    for number in (1, 2, 3):
        with threadpool_limits(number, user_api="blas"):
            result = SOLVERS[name](A, b.astype(dtype), damping=0.1, progress=0.0, max_iter=12)
            found.append((result.x.tobytes(), result.models, result.residual_norms))
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_forked_process_is_free_of_what_other_threads_held():
    """It has none of these threads: their limits would never end, and their locks would stay locked."""
    inside, leave, (end, answer) = threading.Event(), threading.Event(), os.pipe()

    def hold():
        with threads.limited(1), threads._LOCK:
            inside.set()
            leave.wait()

    with threadpool_limits(2):
        other = threading.Thread(target=hold)
        other.start()
        inside.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends this process if a lock is not free
            with threads.limited(2):
                os.write(answer, bytes(blas_threads()))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        leave.set()
        other.join()
    assert status == 0
    assert set(os.read(end, 100)) == {2}
