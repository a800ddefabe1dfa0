"""The objective against plain means, and what it counts against the formulas."""

import math

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from scipy.optimize import check_grad

from hfnb import Dataset, Objective, Sample
from hfnb.checks import dense, hessian_error
from hfnb.models import mlp
from hfnb.objectives import compensated_sums
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.sampling import Shards

RANDOM = np.random.default_rng(1)
DATA = Dataset(RANDOM.standard_normal((23, 4)), RANDOM.integers(0, 3, 23))
NET = mlp([4, 5, 3], weight_decay=0.3)
W = NET.init(2, dtype=float) + 0.1


@pytest.mark.parametrize("partitions", [1, 7, 24, 60])
@pytest.mark.parametrize("chunk", [1, 4, None])
def test_value_and_gradient_are_the_mean_and_the_decay_of_weights(partitions, chunk):
    objective = Objective(NET, DATA, partitions=partitions, chunk=chunk)
    weights = np.concatenate([layer.weights(W).ravel() for layer in NET.layers])
    expected = NET.loss(W, DATA.X, DATA.Y) + 0.15 * weights @ weights
    assert objective.value_and_gradient(W)[0] == pytest.approx(expected, rel=1e-14)
    assert objective.value(W) == pytest.approx(expected, rel=1e-14)
    assert check_grad(objective.value, lambda w: objective.value_and_gradient(w)[1], W) < 1e-6
    assert hessian_error(objective, W) < 1e-8


def test_a_sample_is_the_mean_over_its_rows():
    objective = Objective(mlp([4, 5, 3]), DATA, partitions=5)
    sample = Sample(9, seed=4, index=1)
    rows = sample.rows(objective.evaluator.shards.strata)
    loss = objective.net.loss
    value, gradient = objective.value_and_gradient(W, sample)
    assert value == pytest.approx(loss(W, DATA.X[rows], DATA.Y[rows]), rel=1e-14)
    np.testing.assert_allclose(gradient, grad(loss)(W, DATA.X[rows], DATA.Y[rows]), atol=1e-15)


@pytest.mark.parametrize("sample", [None, Sample(400, 1, 2)], ids=["all", "sample"])
def test_in_float64_it_does_not_matter_who_holds_which_partition(sample):
    data = Dataset(RANDOM.standard_normal((900, 4)), RANDOM.integers(0, 3, 900))
    shards, v = Shards.of(data, 24), np.ones(NET.size)

    def totals(*groups):
        found = []
        for group in groups:
            sums = LocalEvaluator(NET, shards.select(group), chunk=20)
            found.append(
                [sums.loss(W, sample), sums.gradient(W, sample), sums.linearize(W, "hessian", sample)(v)]
            )
        for other in found[1:]:
            for total, part in zip(found[0], other, strict=True):
                compensated_sums.merge(total, part)
        return np.concatenate([compensated_sums.value(total) for total in found[0]])

    together = totals(range(24))
    np.testing.assert_array_equal(totals(range(9), range(9, 24)), together)
    np.testing.assert_array_equal(totals(range(20, 24), range(5), range(5, 20)), together)


def test_costs_are_those_of_the_formulas():
    objective, p = Objective(NET, DATA), NET.size
    objective.value(W)
    objective.value_and_gradient(W, Sample(10))
    H = objective.curvature(W, "gauss-newton", Sample(5))
    for _ in range(3):
        H @ W
    counts = objective.counts
    assert (counts.losses, counts.gradients, counts.products) == (1, 1, 3)
    assert counts.samples == 23 + 10 + 3 * 5
    assert counts.reductions == 1 + 1 + 3
    assert counts.numbers == 1 + (p + 1) + 3 * p


def test_any_autograd_loss_will_do():
    def outputs(w, X):
        return anp.dot(X, w)

    def loss(z, Y):
        return anp.mean(anp.log1p(anp.exp(-Y[:, 0] * z)))

    data = Dataset(DATA.X, np.where(DATA.Y > 0, 1.0, -1.0)[:, None])
    objective = Objective.from_loss(
        lambda w, X, Y: loss(outputs(w, X), Y), data, outputs=outputs, output_loss=loss
    )
    w = np.array([0.3, -0.2, 0.1, 0.5])
    assert check_grad(objective.value, lambda w: objective.value_and_gradient(w)[1], w) < 1e-6
    margin = data.Y[:, 0] * (data.X @ w)
    sigma = 1 / (1 + np.exp(margin))
    expected = (data.X.T * (sigma * (1 - sigma))) @ data.X / len(data)
    for kind in ("hessian", "gauss-newton"):  # equal for a model linear in w
        np.testing.assert_allclose(dense(objective.curvature(w, kind)), expected, atol=1e-14)


def test_a_loss_of_ones_own_takes_weight_decay_partitions_and_chunk():
    def loss(w, X, Y):
        return anp.mean((anp.dot(X, w) - Y) ** 2)

    w = np.array([0.3, -0.2, 0.1, 0.5])
    objective = Objective.from_loss(loss, DATA, weight_decay=0.4, partitions=3, chunk=2)
    assert objective.value(w) == pytest.approx(loss(w, DATA.X, DATA.Y) + 0.2 * w @ w, rel=1e-14)
    assert check_grad(objective.value, lambda w: objective.value_and_gradient(w)[1], w) < 1e-6
    expected = 2 * DATA.X.T @ DATA.X / len(DATA) + 0.4 * np.eye(4)
    np.testing.assert_allclose(dense(objective.curvature(w)), expected, atol=1e-14)
    assert objective.evaluator.shards.partitions == 3


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda w, X, Y: anp.mean(np.logaddexp(0, np.dot(X, w))), TypeError, r"autograd\.numpy, not numpy"),
        (lambda w, X, Y: math.exp(w[0]), TypeError, r"autograd\.numpy, not numpy"),
        (lambda w, X, Y: anp.dot(X, w) ** 2, ValueError, r"loss: expected a number, .* got shape \(23,\)"),
        (lambda w: anp.sum(w**2), TypeError, "takes 1 positional argument"),
    ],
    ids=["plain numpy", "math", "vector", "arguments"],
)
def test_a_loss_that_cannot_serve_says_why(loss, error, message):
    with pytest.raises(error, match=message):
        Objective.from_loss(loss, DATA, partitions=1).value_and_gradient(np.ones(4))


def test_gauss_newton_asks_for_the_loss_in_two_parts():
    def loss(w, X, Y):
        return anp.mean(anp.dot(X, w) ** 2)

    with pytest.raises(ValueError, match="'gauss-newton' needs the loss in two parts"):
        Objective.from_loss(loss, DATA).curvature(np.ones(4), "gauss-newton")
    with pytest.raises(ValueError, match="outputs, output_loss: expected both or none, got outputs alone"):
        Objective.from_loss(loss, DATA, outputs=anp.dot)
    with pytest.raises(ValueError, match="weight_decay: expected a finite number >= 0"):
        Objective.from_loss(loss, DATA, weight_decay=-1)


@pytest.mark.parametrize(
    "w",
    [np.zeros(NET.size, int), np.zeros((NET.size, 1)), np.zeros(3), [0.0]],
    ids=["whole numbers", "matrix", "too few", "list"],
)
def test_parameters_of_another_kind_are_refused(w):
    with pytest.raises(ValueError, match=rf"w: expected an array \({NET.size},\) of float32 or float64"):
        Objective(NET, DATA).value_and_gradient(w)


def test_data_that_does_not_fit_is_named():
    with pytest.raises(TypeError, match=r"data: expected a Dataset, .* got tuple"):
        Objective(NET, (DATA.X, DATA.Y))
    with pytest.raises(ValueError, match=r"data\.X: expected 4 columns"):
        Objective(NET, Dataset(np.ones((2, 3)), np.array([0, 1])))
    with pytest.raises(ValueError, match="partitions: expected a whole number of at least 1"):
        Objective(NET, DATA, partitions=0)
    with pytest.raises(ValueError, match="memory: expected a whole number of at least 0, got -1"):
        Objective(NET, DATA, memory=-1)
    with pytest.raises(ValueError, match="size: expected 1 to 23 samples"):
        Objective(NET, DATA).value(W, Sample(24))


def test_products_at_one_point_are_in_its_precision():
    """w in float32 and float64 can be equal as numbers: the operator kept for `hessp` is not that of both."""
    objective, w = Objective(mlp([4, 5, 3]), DATA), np.zeros(43)
    assert objective.hessp(w, np.ones(43)).dtype == np.float64
    single = w.astype(np.float32)
    assert objective.hessp(single, np.ones(43, np.float32)).dtype == np.float32


def test_results_are_not_changed_by_the_next_evaluation():
    objective = Objective(NET, DATA)
    B = objective.curvature(W)
    first, gradient = B @ W, objective.value_and_gradient(W)[1]
    kept = first.copy(), gradient.copy()
    B @ (2 * W)
    objective.value_and_gradient(2 * W)
    np.testing.assert_array_equal(first, kept[0])
    np.testing.assert_array_equal(gradient, kept[1])


def test_vectors_and_samples_of_another_kind_are_named():
    objective, v = Objective(NET, DATA), np.ones(NET.size)
    with pytest.raises(TypeError, match="v: expected real numbers"):
        objective.curvature(W) @ (v + 1j)
    with pytest.raises(ValueError, match=rf"v: expected shape \({NET.size},\)"):
        objective.hessp(W, v[1:])
    with pytest.raises(TypeError, match=r"sample: expected a hfnb\.Sample or None, got 5"):
        objective.value(W, 5)
    with pytest.raises(ValueError, match="data: expected X and Y with the same number of rows, at least one"):
        Objective(NET, DATA[:0])
    with pytest.raises(TypeError, match="net: expected a network"):
        Objective(lambda w, X, Y: 0.0, DATA)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_that_is_no_mean_over_rows_is_refused(dtype):
    data = Dataset(DATA.X, DATA.X[:, :1])

    def total(w, X, Y):
        return anp.sum((anp.dot(X, w)[:, None] - Y) ** 2)

    def ranking(w, X, Y):  # over all pairs of rows
        z = anp.dot(X, w)
        return anp.mean(anp.log1p(anp.exp(z[:, None] - z[None, :])))

    for loss in (total, ranking):
        for call in ("value", "value_and_gradient"):
            with pytest.raises(
                ValueError, match=r"^loss: expected a mean over the rows of X, got .* for two rows"
            ):
                getattr(Objective.from_loss(loss, data, partitions=2), call)(np.ones(4, dtype))
    mean = Objective.from_loss(lambda w, X, Y: total(w, X, Y) / len(X), data, partitions=2)
    assert mean.value(np.ones(4, dtype)) == pytest.approx(
        total(np.ones(4), data.X, data.Y) / len(data.X), rel=1e-5
    )


def test_a_loss_that_is_not_the_one_in_two_parts_is_refused():
    data = Dataset(DATA.X, DATA.X[:, :1])

    def outputs(w, X):
        return anp.dot(X, w)[:, None]

    def half(z, Y):
        return anp.mean((z - Y) ** 2) / 2

    def whole(w, X, Y):
        return anp.mean((outputs(w, X) - Y) ** 2)

    with pytest.raises(
        ValueError, match=r"^outputs, output_loss: expected output_loss\(outputs\(w, X\), Y\)"
    ):
        Objective.from_loss(whole, data, outputs=outputs, output_loss=half, partitions=2).value(np.ones(4))
