"""Curvature products against dense matrices that autograd forms column by column, and against differences."""

import tracemalloc

import autograd.numpy as anp
import numpy as np
import psutil
import pytest
from autograd import hessian as dense_hessian
from autograd import jacobian
from autograd.differential_operators import make_vjp
from autograd.extend import primitive
from scipy.sparse.linalg import LinearOperator
from test_models import plain_loss

from hfnb import Dataset, Objective, Sample
from hfnb.checks import (
    adjoint_error,
    dense,
    gauss_newton_error,
    gradient_error,
    hessian_error,
    mean_error,
    symmetry_error,
)
from hfnb.models import mlp
from hfnb.models.backprop import Linearized
from hfnb.objectives.curvature import _with_memory, gauss_newton, hessian, hessian_product
from hfnb.objectives.evaluator import default_memory
from hfnb.problems import tensor_decomposition


@pytest.fixture(
    params=[("tanh", "cross_entropy"), ("sigmoid", "squared_error"), ("softplus", "cross_entropy")]
)
def case(request):
    random = np.random.default_rng(0)
    net = mlp([5, 4, 3], *request.param)
    Y = random.integers(0, 3, 11) if request.param[1] == "cross_entropy" else random.standard_normal((11, 3))
    return net, Dataset(random.standard_normal((11, 5)), Y), net.init(0, dtype=float)


def test_hessian_equals_the_dense_one(case):
    net, data, w = case
    expected = dense_hessian(lambda w: plain_loss(net, w, data.X, data.Y))(w)
    found = dense(hessian(lambda w: net.loss(w, data.X, data.Y), w))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_gauss_newton_equals_the_dense_product_of_its_factors(case):
    net, data, w = case
    J = jacobian(lambda w: net.outputs(w, data.X).ravel())(w)
    shape = (len(data), 3)
    L = dense_hessian(lambda z: net.output_loss(z.reshape(shape), data.Y))(net.outputs(w, data.X).ravel())
    found = gauss_newton(lambda w: net.outputs(w, data.X), lambda z: net.output_loss(z, data.Y), w)
    np.testing.assert_allclose(dense(found), J.T @ L @ J, rtol=0, atol=1e-13)


def test_objective_curvature_over_chunks_and_partitions_equals_the_whole(case):
    net, data, w = case
    objective = Objective(net, data, partitions=3, chunk=2)
    whole = dense(hessian(lambda w: net.loss(w, data.X, data.Y), w))
    np.testing.assert_allclose(dense(objective.curvature(w)), whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("memory", [0, 400, 1200])
def test_chunks_beyond_the_memory_give_the_same_products(case, memory):
    net, data, w = case
    kept = dense(Objective(net, data, chunk=3).curvature(w, "gauss-newton"))
    few = dense(Objective(net, data, chunk=3, memory=memory).curvature(w, "gauss-newton"))
    np.testing.assert_allclose(few, kept, rtol=0, atol=1e-14)


def test_as_many_linearizations_are_kept_as_the_memory_holds(case, monkeypatch):
    """Counted by the linearizations that a product makes: 4 chunks of 3, 3, 3 and 2 rows."""
    net, data, w = case
    made, at = [], Linearized.at
    monkeypatch.setattr(
        Linearized, "at", lambda self, w, X, *rest: made.append(len(X)) or at(self, w, X, *rest)
    )
    row = 8 * (4 * 4 + 3 * 2)  # bytes: a, φ', u ∂φ'/∂a and d of 4 units; a and d of 3 linear ones
    for count in range(5):
        memory = row * sum((3, 3, 3, 2)[:count])
        for each in {memory, memory + row}:  # a whole row more is still too little for a chunk
            product = Objective(net, data, partitions=1, chunk=3, memory=each).curvature(w)
            made.clear()
            product @ np.ones(w.size)
            assert made == [3, 3, 3, 2][count:]


def test_memory_of_a_record_is_measured():
    made, nbytes = _with_memory(lambda: np.ones(10**6))
    assert nbytes == pytest.approx(made.nbytes, rel=0.01)
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize(("limit", "expected"), [("8000000\n", 10**6), ("max\n", None), (None, None)])
def test_memory_by_default_is_an_eighth_of_the_container_or_machine(limit, expected, tmp_path, monkeypatch):
    if limit is not None:
        (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr("hfnb.objectives.evaluator.CONTAINER_LIMIT", tmp_path / "limit")
    expected = psutil.virtual_memory().total // 8 if expected is None else expected
    assert default_memory.__wrapped__() == pytest.approx(expected, rel=1e-9)


def test_the_checkers_agree_and_catch_a_wrong_product(case):
    net, data, w = case
    objective = Objective(net, data)
    assert gradient_error(objective, w) < 1e-8
    assert hessian_error(objective, w) < 1e-8
    assert symmetry_error(objective.curvature(w)) < 1e-14
    assert symmetry_error(np.array([[0.0, 1.0], [-1.0, 0.0]])) > 0.1
    assert gauss_newton_error(objective, w, data) < 1e-4

    class Scaled(Objective):
        def curvature(self, w, kind="hessian", sample=None):
            return 1.01 * super().curvature(w, kind, sample)

    assert gauss_newton_error(Scaled(net, data), w, data) > 5e-3

    class Wrong(Objective):
        def value_and_gradient(self, w, sample=None):
            value, gradient = super().value_and_gradient(w, sample)
            return value, 1.01 * gradient

    assert gradient_error(Wrong(net, data), w) > 1e-4
    assert hessian_error(Wrong(net, data), w) > 1e-4


def test_float32_products_are_those_of_float64_to_its_precision(case):
    net, data, w = case
    single = Dataset(data.X.astype(np.float32), data.Y)
    found = Objective(net, single).curvature(w.astype(np.float32))
    assert found.dtype == np.float32
    v = np.ones(w.size)
    product = found @ v.astype(np.float32)
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, Objective(net, data).curvature(w) @ v, atol=2e-6)


def test_a_readers_own_curvature_serves_as_a_kind(case):
    net, data, w = case
    twice = Objective(net, data).curvature(w, lambda net, w, X, Y: lambda v: 2 * len(X) * v, Sample(4))
    np.testing.assert_allclose(twice @ w, 2 * w)


def test_a_readers_own_curvature_of_another_form_is_refused(case):
    net, data, w = case
    objective = Objective(net, data)
    with pytest.raises(TypeError, match=r"curvature: expected a function .* got ndarray"):
        objective.curvature(w, lambda net, w, X, Y: np.eye(w.size))
    scalar = objective.curvature(w, lambda net, w, X, Y: lambda v: v @ v)
    with pytest.raises(ValueError, match=rf"curvature: expected products of shape \({w.size},\), got \(\)"):
        scalar @ w


def test_adjoints_and_means_are_told_from_others(case):
    net, data, w = case
    J = jacobian(lambda w: net.outputs(w, data.X).ravel())(w)
    transposed, _ = make_vjp(lambda w: net.outputs(w, data.X))(w)
    adjoint = LinearOperator(J.T.shape, matvec=lambda u: transposed(u.reshape(len(data), 3)), dtype=float)
    assert adjoint_error(J, adjoint) < 1e-14
    assert adjoint_error(J) < 1e-14
    assert adjoint_error(J, adjoint * 1.01) > 1e-4
    assert mean_error(net.loss, w, data) < 1e-14
    assert mean_error(lambda w, X, Y: len(X) * net.loss(w, X, Y), w, data) > 0.1


def test_an_unknown_kind_is_named():
    net = mlp([2, 2])
    data = Dataset(np.eye(2), np.array([0, 1]))
    with pytest.raises(ValueError, match="curvature: expected one of hessian, gauss-newton or a function"):
        Objective(net, data).curvature(net.init(), "fisher")


def own_loss(w, X, Y):
    return anp.mean(anp.tanh(anp.dot(X, w[:4])) ** 2) + anp.sum(w**4)


def own_curvature(net, w, X, Y):
    """The sum of loss Hessians of `own_loss`, by a tape that refers to its w."""
    return hessian_product(lambda u: net.loss(u, X, Y) * len(X), w)


X4 = np.random.default_rng(5).standard_normal((30, 4))
DEEP = Objective(mlp([3, 1, 3]), Dataset(X4[:, :3], np.arange(30) % 3))
OPERATORS = {
    "network": DEEP.curvature,
    "network, gauss-newton": lambda w: DEEP.curvature(w, "gauss-newton"),
    "loss of one's own": lambda w: Objective.from_loss(own_loss, Dataset(X4, X4)).curvature(w),
    "curvature of one's own": lambda w: Objective.from_loss(own_loss, Dataset(X4, X4)).curvature(
        w, own_curvature
    ),
    "hessian": lambda w: hessian(lambda w: anp.sum(w**4), w),
    "gauss_newton": lambda w: gauss_newton(lambda w: w**3, lambda z: anp.sum(z**4), w),
    "problem": lambda w: tensor_decomposition(10, 2).curvature(w),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_an_operator_keeps_the_point_it_was_made_at(operator):
    w, v = np.linspace(-1, 1, 10), np.linspace(0, 1, 10)
    B, at_start = operator(w), operator(w.copy()) @ v
    w *= 3.0
    np.testing.assert_array_equal(B @ v, at_start)
    assert not np.allclose(operator(w) @ v, at_start)  # the point matters


def test_checkers_say_nan_where_a_number_is_nan():
    nothing = np.full((3, 3), np.nan)
    assert np.isnan(symmetry_error(nothing))
    assert np.isnan(adjoint_error(np.eye(3), nothing))
    objective = Objective(mlp([4, 2]), Dataset(X4, np.arange(30) % 2))
    w = np.full(10, np.nan)
    assert np.isnan(gradient_error(objective, w))
    assert np.isnan(hessian_error(objective, w))
    assert np.isnan(mean_error(objective.net.loss, w, Dataset(X4, np.arange(30) % 2)))


class OncePoisoned:
    """An objective whose gradient is NaN at one of several points: the others must not hide it."""

    def __init__(self):
        self.inner, self.calls = Objective(mlp([4, 2]), Dataset(X4, np.arange(30) % 2)), 0

    def value(self, w):
        self.calls += 1
        return np.nan if self.calls == 3 else self.inner.value(w)

    def value_and_gradient(self, w):
        self.calls += 1
        value, g = self.inner.value_and_gradient(w)
        return value, g * (np.nan if self.calls == 3 else 1.0)

    def curvature(self, w, kind):
        return self.inner.curvature(w, kind)


@pytest.mark.parametrize("checker", [gradient_error, hessian_error])
def test_one_nan_among_several_trials_is_not_lost(checker):
    assert np.isnan(checker(OncePoisoned(), np.linspace(-1, 1, 10)))


def test_an_error_of_nothing_is_zero():
    """At the zero of an even function gradient and difference vanish: 0/0 is no error."""

    class Flat(OncePoisoned):
        def value(self, w):
            return 0.0

        def value_and_gradient(self, w):
            return 0.0, np.zeros_like(w)

    assert gradient_error(Flat(), np.ones(3)) == 0.0


def test_dense_matrix_of_an_operator_whose_type_is_not_known():
    """SciPy finds out the type by a product with a vector of int8, in which 200 does not fit."""
    assert dense(LinearOperator((2, 2), matvec=lambda v: v * 100 + v * 100)).tolist() == [[200, 0], [0, 200]]


# What is wrong with a loss

LINE = Dataset(np.ones((4, 2)), np.ones((4, 1)))


@primitive
def underived(x):
    """A function whose derivative autograd does not know."""
    return x**2


@pytest.mark.parametrize("evaluate", ["value_and_gradient", "curvature"])
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda w, X, Y: (X @ w - Y[:, 0]) ** 2, r"loss: expected a number, .* got shape \(4,\)"),
        (lambda w, X, Y: anp.mean(anp.fft.fft(X @ w)), "loss: expected a real number"),
        (lambda w, X, Y: float(w[0]) * 2.0, "loss: autograd cannot differentiate it"),
        (lambda w, X, Y: anp.mean(underived(X @ w)), "loss: autograd cannot differentiate it.*of underived"),
        (lambda w, X, Y: None, "loss: expected a real number"),
    ],
    ids=["a vector", "complex", "float()", "no derivative", "nothing"],
)
def test_a_wrong_loss_is_named(loss, words, evaluate):
    objective, w = Objective.from_loss(loss, LINE), np.array([0.3, 0.4])
    with pytest.raises((ValueError, TypeError), match=words):
        getattr(objective, evaluate)(w)


@pytest.mark.parametrize(
    "loss",
    [lambda w, X, Y: 3.0, lambda w, X, Y: anp.mean(X - Y), lambda w, X, Y: anp.mean(w[0] > X)],
    ids=["constant", "without w", "a comparison"],
)
def test_a_loss_without_w_is_refused(loss):
    with pytest.raises(ValueError, match="loss: expected a function of w"):
        Objective.from_loss(loss, LINE).value_and_gradient(np.array([0.3, 0.4]))
