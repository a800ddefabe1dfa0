"""Line searches in one reduction, and work in cells: against NumPy, SciPy and the sums over all samples."""

import itertools

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.stats import hypergeom

from hfnb import Dataset, Objective, Sample, hessian_free
from hfnb.models import mlp

RANDOM = np.random.default_rng(3)
NET = mlp([4, 5, 3], weight_decay=0.3)
DATA = Dataset(RANDOM.standard_normal((23, 4)), RANDOM.integers(0, 3, 23))
TARGETS = Dataset(DATA.X, RANDOM.standard_normal((23, 1)))
W, D = NET.init(2, dtype=float) + 0.1, NET.init(5, dtype=float)
ALPHAS = [0.0, 0.5, -1.0, 2.0]


def squares(w, X, Y):
    return anp.mean((anp.dot(X, w) - Y[:, 0]) ** 2)


def gradient(cell, w):
    return cell.value_and_gradient(w)[1]


def rows_of(cell):
    """The rows of a cell, whose first input is their number."""
    ((X, _),) = cell.evaluator.shards.parts.values()
    return X[:, 0].astype(int)


# A whole line search


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sample", [None, Sample(9, 1, 2)], ids=["all", "9"])
@pytest.mark.parametrize("shape", ["one direction", "a direction for each"])
def test_values_along_are_the_values_at_each_point(dtype, sample, shape):
    objective, w = Objective(NET, DATA), W.astype(dtype)
    d = (D if shape == "one direction" else np.stack([D, W, D - W, W + D])).astype(dtype)
    points = [
        w + dtype(alpha) * each for alpha, each in zip(ALPHAS, np.broadcast_to(d, (4, len(w))), strict=True)
    ]
    found = objective.values_along(w, d, ALPHAS, sample)
    expected = [objective.value(point, sample) for point in points]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-14 if dtype == np.float64 else 1e-6)


@pytest.mark.parametrize("sizes", [[4, 3], [4, 6, 3], [4, 6, 5, 3]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "softplus"])
@pytest.mark.parametrize("chunk", [4, None])
def test_line_searches_of_a_network_agree_with_its_loss_in_autograd(sizes, activation, chunk):
    """They share the matrix products of the first layer."""
    net = mlp(sizes, activation=activation)
    w, d = net.init(1, dtype=float), net.init(2, dtype=float)
    expected = [net.loss(w + alpha * d, DATA.X, DATA.Y) for alpha in ALPHAS]
    found = Objective(net, DATA, chunk=chunk, partitions=3).values_along(w, d, ALPHAS)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_values_along_are_those_of_least_squares():
    """(1/n) ‖X(w + αd) − y‖² + ½ c ‖w + αd‖²."""
    objective = Objective.from_loss(squares, TARGETS, weight_decay=0.4, cells=5)
    w, d = np.array([0.3, -0.2, 0.1, 0.5]), np.array([1.0, 0.5, -2.0, 0.25])
    points = [w + alpha * d for alpha in ALPHAS]
    expected = [np.mean((TARGETS.X @ x - TARGETS.Y[:, 0]) ** 2) + 0.2 * x @ x for x in points]
    np.testing.assert_allclose(objective.values_along(w, d, ALPHAS), expected, rtol=1e-14)


def test_a_line_search_is_one_reduction():
    objective = Objective(NET, DATA)
    objective.values_along(W, D, ALPHAS, Sample(9))
    counts = objective.counts
    assert (counts.losses, counts.samples) == (4, 4 * 9)
    assert (counts.reductions, counts.numbers, counts.bytes) == (1, 4, 4 * 16)


# Averages


@pytest.mark.parametrize("cells", [1, 4, 5, 16, 23])
def test_the_average_of_gradients_is_the_gradient_and_that_of_losses_the_loss(cells):
    """Cells of 23 samples are of unequal sizes, which weight them."""
    objective, whole = Objective(NET, DATA, cells=cells, cell_seed=7), Objective(NET, DATA)
    value, slope = whole.value_and_gradient(W)
    np.testing.assert_allclose(objective.average(gradient, W, size=len(W)), slope, atol=1e-14)
    found = objective.average(lambda cell, w: [cell.value(w)], W, size=1)
    np.testing.assert_allclose(found, [value], rtol=1e-14)


def test_cells_are_weighted_by_their_samples():
    """Of ten samples in three cells, the means of the inputs: NumPy's mean over all."""
    data = Dataset(np.arange(20.0).reshape(10, 2), np.zeros(10, int))
    objective, sizes = Objective(mlp([2, 2]), data, cells=3), []

    def mean(cell, w):
        sizes.append(cell.n)
        ((X, _),) = cell.evaluator.shards.parts.values()
        return X.mean(axis=0)

    np.testing.assert_allclose(objective.average(mean, np.zeros(6), size=2), data.X.mean(axis=0), rtol=1e-15)
    assert sorted(sizes) == [3, 3, 4]


def test_of_least_squares_the_mean_of_local_solutions():
    """Newton's step in every cell, from zero: the weighted mean of NumPy's solutions for the rows of each."""
    n = 200
    X, Y = RANDOM.standard_normal((n, 3)), RANDOM.standard_normal((n, 1))
    data, rows = Dataset(np.hstack([np.arange(n)[:, None], X]), Y), []
    objective = Objective.from_loss(lambda w, X, Y: squares(w, X[:, 1:], Y), data, cells=7)

    def newton(cell, w):
        rows.append(rows_of(cell))
        return np.linalg.solve(cell.curvature(w) @ np.eye(3), -cell.value_and_gradient(w)[1])

    found = objective.average(newton, np.zeros(3), size=3)
    solutions = [len(each) / n * np.linalg.lstsq(X[each], Y[each, 0])[0] for each in rows]
    np.testing.assert_allclose(found, np.sum(solutions, axis=0), rtol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, None])
@pytest.mark.parametrize(("n", "cells"), [(100, 16), (23, 5), (16, 16), (7, 1)])
def test_cells_hold_each_row_once(n, cells, seed):
    data = Dataset(np.arange(float(n))[:, None], np.zeros(n, int))
    objective, seen = Objective(mlp([1, 2]), data, cells=cells, cell_seed=seed), {}

    def note(cell, w):
        seen[cell.number] = rows_of(cell).tolist()
        return [1.0]

    assert objective.average(note, np.zeros(4), size=1) == pytest.approx([1.0], rel=1e-15)
    assert sorted(seen) == list(range(cells))
    assert sorted(itertools.chain(*seen.values())) == list(range(n))
    assert {len(rows) for rows in seen.values()} <= {n // cells, -(-n // cells)}
    in_order = [rows == list(range(rows[0], rows[0] + len(rows))) for rows in seen.values()]
    assert all(in_order) if seed is None or n == 16 else not all(in_order)


def test_cells_of_data_sorted_by_label_have_its_frequencies():
    """A cell of m samples, drawn without replacement, has a hypergeometric number of samples of each label.

    A number outside of the central 1 − 1e-6 / (cells × labels) of that distribution is found, in any cell and
    label, with a probability of at most 1e-6 for each seed. Cells in the order of the data have one label.
    """
    n, labels, cells = 6000, 10, 16
    data = Dataset(np.arange(float(n))[:, None], np.sort(RANDOM.integers(0, labels, n)))
    of_label = np.bincount(data.Y)
    tail = 1e-6 / (cells * labels) / 2

    def outside(seed):
        objective, found = Objective(mlp([1, labels]), data, cells=cells, cell_seed=seed), []

        def compare(cell, w):
            drawn = np.bincount(data.Y[rows_of(cell)], minlength=labels)
            low, high = (hypergeom.ppf(q, n, of_label, cell.n) for q in (tail, 1 - tail))
            found.append((drawn < low) | (drawn > high))
            return [0.0]

        objective.average(compare, np.zeros(20), size=1)
        return np.array(found)

    assert not any(outside(seed).any() for seed in range(10))
    assert outside(None).any(axis=1).all()


def test_a_cell_is_an_objective_of_its_own():
    """Mini-batches are drawn in it, an optimizer runs in it, and what it sees is counted as samples."""
    objective, runs = Objective(NET, DATA, cells=3), []

    def train(cell, w, steps):
        runs.append((cell.n, hessian_free(cell, w, max_iter=steps)))
        assert cell.cells is None
        return runs[-1][1].x - w

    objective.average(train, W, 2, size=len(W))
    counts = objective.counts
    assert (counts.averages, counts.losses, counts.gradients, counts.products) == (1, 0, 0, 0)
    assert counts.samples == sum(run.history[-1].samples for _, run in runs) > 0
    assert (counts.reductions, counts.numbers, counts.bytes) == (1, len(W) + 2, 16 * (len(W) + 2))
    cell = Objective(NET, Dataset(*objective.evaluator.shards.parts[0]), partitions=1)
    np.testing.assert_array_equal(runs[0][1].x, hessian_free(cell, W, max_iter=2).x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_cells_are_counted_exactly(dtype):
    """Also where float32 cannot hold their number."""
    objective, many = Objective(NET, DATA, cells=4), 2**24 + 1

    def work(cell, w):
        cell.counts.samples += many + cell.number
        return [np.nan]

    w = W.astype(dtype)
    assert np.isnan(objective.average(work, w, size=1)).all()
    assert objective.counts.samples == 4 * many + 0 + 1 + 2 + 3


def test_a_task_may_change_its_arguments():
    """Each cell has its own copies."""
    objective, v = Objective(NET, DATA, cells=4), np.ones(3)

    def change(cell, w, v):
        w += 1
        v *= 2
        return np.append(v, w[0])

    np.testing.assert_allclose(objective.average(change, W, v, size=4), [2, 2, 2, W[0] + 1], rtol=1e-15)
    assert v.tolist() == [1, 1, 1]


def test_sums_and_mini_batches_over_data_in_cells_are_those_of_its_rows():
    whole, objective = Objective(NET, DATA), Objective(NET, DATA, cells=6, cell_seed=4)
    assert objective.value(W) == pytest.approx(whole.value(W), rel=1e-14)
    X, Y = (np.concatenate(each) for each in zip(*objective.evaluator.shards.parts.values(), strict=True))
    assert sorted(X.tolist()) == sorted(DATA.X.tolist()) != X.tolist() != DATA.X.tolist()
    sample = Sample(9, 1, 2)
    rows = sample.rows(np.arange(25) * 23 // 24)
    mean = NET.loss(W, X[rows], Y[rows])
    weights = np.concatenate([layer.weights(W).ravel() for layer in NET.layers])
    assert objective.value(W, sample) == pytest.approx(mean + 0.15 * weights @ weights, rel=1e-14)


# Checkpoints and errors


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"cells": 12}, "cells: expected 12 with cell_seed 0, got 8 with cell_seed 0"),
        ({"cells": 8, "cell_seed": 1}, "cells: expected 8 with cell_seed 1, got 8 with cell_seed 0"),
        ({"cells": 8, "cell_seed": None}, "cells: expected 8 with cell_seed None"),
        ({}, "data.X: expected"),
    ],
    ids=str,
)
def test_a_checkpoint_of_a_run_with_other_cells_is_refused(other, message, tmp_path):
    hessian_free(Objective(NET, DATA, cells=8), W, max_iter=1, checkpoint=tmp_path)
    assert hessian_free(Objective(NET, DATA, cells=8), W, max_iter=2, checkpoint=tmp_path).nit == 2
    with pytest.raises(ValueError, match=rf"another run.*{message}"):
        hessian_free(Objective(NET, DATA, **other), W, max_iter=3, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cells": 24}, ValueError, "cells: expected a whole number of at least 1 and at most 23, got 24"),
        ({"cells": 0}, ValueError, "cells: expected a whole number of at least 1"),
        ({"cells": 2.0}, ValueError, "cells: expected a whole number"),
        ({"cells": "4"}, TypeError, "cells: expected a whole number"),
        ({"cells": 4, "cell_seed": -1}, ValueError, "cell_seed: expected a whole number of at least 0"),
        ({"cell_seed": 1.5}, ValueError, "cell_seed: expected a whole number of at least 0"),
        ({"cells": 4, "partitions": 8}, ValueError, "partitions: expected None with cells=4.*, got 8"),
    ],
)
def test_cells_that_cannot_be_made_are_named(options, error, message):
    for make in (
        lambda **given: Objective(NET, DATA, **given),
        lambda **given: Objective.from_loss(squares, TARGETS, **given),
    ):
        with pytest.raises(error, match=f"^{message}"):
            make(**options)


@pytest.mark.parametrize(
    ("task", "size", "error", "message"),
    [
        (gradient, 3, ValueError, r"task: expected gradient to return 3 real numbers, got shape \(43,\)"),
        (lambda cell, w: None, 1, ValueError, "task: expected <lambda> to return 1 real numbers, got None"),
        (lambda cell, w: w[:2] * 1j, 2, ValueError, "task: expected <lambda> to return 2 real numbers"),
        (lambda cell, w: 1.0, 1, ValueError, "task: expected <lambda> to return 1 real numbers, got 1.0"),
        (3, 1, TypeError, r"task: expected a function \(cell, w, \*arguments\) -> vector, got 3"),
        (gradient, 0, ValueError, "size: expected a whole number of at least 1, got 0"),
        (gradient, None, TypeError, "size: expected a whole number"),
    ],
)
def test_tasks_that_cannot_be_averaged_are_named(task, size, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Objective(NET, DATA, cells=4).average(task, W, size=size)


def test_an_average_needs_cells():
    with pytest.raises(ValueError, match=r"average: expected an objective with cells, .* give cells=16"):
        Objective(NET, DATA).average(gradient, W, size=len(W))


@pytest.mark.parametrize(
    ("d", "alphas", "error", "message"),
    [
        (D, [], ValueError, "alphas: expected a list of step lengths, at least one"),
        (D, 0.5, ValueError, "alphas: expected a list of step lengths"),
        (D, [[0.5]], ValueError, "alphas: expected a list of step lengths"),
        (D, [1j], TypeError, "alphas: expected real numbers"),
        (D, ["a"], TypeError, "alphas: expected real numbers"),
        (D, [[1], [1, 2]], ValueError, "alphas: expected rows of one length"),
        (D[:-1], [1.0], ValueError, r"d: expected shape \(43,\) or \(1, 43\) to match w and alphas"),
        (np.stack([D, D]), [1.0, 2.0, 3.0], ValueError, r"d: expected shape \(43,\) or \(3, 43\)"),
        (D * 1j, [1.0], TypeError, "d: expected real numbers"),
    ],
    ids=str,
)
def test_line_searches_that_cannot_be_made_are_named(d, alphas, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Objective(NET, DATA).values_along(W, d, alphas)
