"""Networks against the same networks written out plainly in autograd, and against published counts."""

from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_ggnvp, make_hvp, make_jvp
from autograd import hessian as dense_hessian
from autograd.test_util import check_grads
from scipy.special import expit, log_softmax

from hfnb import Dataset, Objective
from hfnb.models import Network, autoencoder, mlp
from hfnb.models.network import ACTIVATIONS

PLAIN = {
    "tanh": anp.tanh,
    "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
    "relu": lambda z: anp.maximum(z, 0),
    "softplus": lambda z: anp.log1p(anp.exp(z)),
}


def plain_loss(net, w, X, Y):
    """The network's mean loss from slices of w and elementary functions: no primitive of ours."""
    a, start = X, 0
    for (m, n), name in zip(zip(net.sizes, net.sizes[1:], strict=False), net.activations, strict=True):
        W, b = w[start : start + m * n].reshape(m, n), w[start + m * n : start + m * n + n]
        start += m * n + n
        a = a @ W + b
        a = a if name == "linear" else PLAIN[name](a)
    if net.loss_name == "squared_error":
        return 0.5 * anp.sum((a - Y) ** 2) / len(X)
    return anp.mean(anp.log(anp.sum(anp.exp(a), axis=1)) - a[np.arange(len(X)), Y])


@pytest.fixture(
    params=[(a, loss) for a in ACTIVATIONS for loss in ("cross_entropy", "squared_error")], ids="-".join
)
def case(request):
    random = np.random.default_rng(3)
    net = mlp([5, 4, 3, 3], *request.param)
    X = random.standard_normal((7, 5))
    Y = random.integers(0, 3, 7) if request.param[1] == "cross_entropy" else random.standard_normal((7, 3))
    return net, net.init(1, dtype=float) + 0.1 * random.standard_normal(net.size), X, Y


def test_loss_gradient_and_hessian_equal_the_plain_network(case):
    net, w, X, Y = case

    def plain(w):
        return plain_loss(net, w, X, Y)

    assert net.loss(w, X, Y) == pytest.approx(plain(w), rel=1e-13)
    np.testing.assert_allclose(grad(net.loss)(w, X, Y), grad(plain)(w), rtol=0, atol=1e-13)
    ours = dense_hessian(lambda w: net.loss(w, X, Y))(w)
    np.testing.assert_allclose(ours, dense_hessian(plain)(w), rtol=0, atol=1e-12)


def test_derivatives_are_exact_in_both_modes_to_second_order(case):
    net, w, X, Y = case
    check_grads(lambda w: net.loss(w, X, Y), modes=["rev", "fwd"], order=2)(w)
    check_grads(lambda w: net.outputs(w, X), modes=["rev", "fwd"], order=2)(w)


def test_autoencoder_is_mirrored_has_a_linear_code_and_squashed_output():
    net = autoencoder([6, 4, 2])
    assert net.sizes == (6, 4, 2, 4, 6)
    assert net.activations == ("sigmoid", "linear", "sigmoid", "sigmoid")
    X = np.random.default_rng(0).random((3, 6))
    w = net.init(0, dtype=float)
    assert net.loss(w, X, X) == pytest.approx(plain_loss(net, w, X, X), rel=1e-13)


def test_parameter_count_of_the_published_autoencoder():
    # Hinton & Salakhutdinov (2006): 784-1000-500-250-30 has 2,837,314 weights and biases with its decoder.
    assert autoencoder([784, 1000, 500, 250, 30]).size == 2_837_314


def test_cross_entropy_and_activations_survive_large_inputs():
    net = mlp([1, 2])
    w = np.array([1000.0, -1000.0, 0, 0])
    X, Y = np.array([[1.0], [-1.0]]), np.array([1, 1])
    expected = -log_softmax(np.array([[1000.0, -1000.0], [-1000.0, 1000.0]]), axis=1)[[0, 1], Y].mean()
    assert net.loss(w, X, Y) == expected == 1000.0
    z = np.array([-1e4, -30.0, 0, 30.0, 1e4])
    np.testing.assert_allclose(ACTIVATIONS["sigmoid"].value(z), expit(z), atol=1e-16)
    np.testing.assert_allclose(ACTIVATIONS["softplus"].value(z), np.logaddexp(0, z), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_the_start_is_kept_throughout(dtype):
    net = mlp([4, 3, 2], weight_decay=0.1)
    w, X = net.init(0, dtype=dtype), np.ones((5, 4), dtype)
    assert w.dtype == net.outputs(w, X).dtype == net.decay(w).dtype == dtype
    assert grad(net.loss)(w, X, np.zeros(5, int)).dtype == dtype


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_autograd_keeps_float32_in_derivatives_of_any_order(activation, loss):
    """A factor in float64 anywhere would make all later passes twice as slow."""
    random = np.random.default_rng(0)
    net = mlp([5, 4, 3], activation, loss)
    w, X = net.init(1), random.standard_normal((7, 5), np.float32)
    Y = random.integers(0, 3, 7) if loss == "cross_entropy" else random.standard_normal((7, 3), np.float32)

    def f(w):
        return net.loss(w, X, Y)

    v = random.standard_normal(net.size, np.float32)
    seen = {
        "outputs": net.outputs(w, X),
        "gradient by outputs": grad(net.output_loss)(net.outputs(w, X), Y),
        "gradient": grad(f)(w),
        "Hessian": make_hvp(f)(w)[0](v),
        "Gauss-Newton": make_ggnvp(lambda w: net.outputs(w, X), lambda z: net.output_loss(z, Y))(w)(v),
        "third order": grad(lambda w: anp.dot(v, make_hvp(f)(w)[0](v)))(w),
        "forward mode": make_jvp(net.outputs)(w, X)(v)[1],
    }
    assert {name: array.dtype for name, array in seen.items()} == dict.fromkeys(seen, np.float32)
    assert np.asarray(net.loss(w, X, Y)).dtype == np.float64  # the sum over samples


def test_third_derivatives_are_exact(case):
    """The gradient of vᵀ∇²F v against central differences of it, and against the plain network's."""
    net, w, X, Y = case
    v = np.linspace(-1, 1, net.size)

    def bend(loss):
        return lambda w: anp.dot(v, make_hvp(lambda w: loss(w, X, Y))(w)[0](v))

    found = grad(bend(net.loss))(w)
    np.testing.assert_allclose(found, grad(bend(partial(plain_loss, net)))(w), rtol=0, atol=1e-11)
    step = 1e-5 * np.eye(net.size)[::7]
    difference = [(bend(net.loss)(w + h) - bend(net.loss)(w - h)) / 2e-5 for h in step]
    np.testing.assert_allclose(found[::7], difference, rtol=1e-6, atol=1e-6)


def test_relu_has_derivative_zero_at_zero():
    net = Network((2, 2), ("relu",), "squared_error")
    w, X, Y = np.zeros(net.size), np.ones((3, 2)), np.ones((3, 2))
    np.testing.assert_array_equal(grad(net.loss)(w, X, Y), np.zeros(net.size))
    np.testing.assert_array_equal(Objective(net, Dataset(X, Y)).value_and_gradient(w)[1], np.zeros(net.size))
    np.testing.assert_array_equal(make_jvp(net.outputs)(w, X)(np.ones(net.size))[1], np.zeros((3, 2)))


def test_predictions_of_mixed_precision_are_those_of_the_outputs():
    net, X = mlp([4, 6, 3], "softplus", "squared_error"), np.arange(20).reshape(5, 4)
    for w in (net.init(2), net.init(2, dtype=float)):
        for inputs in (X, X.astype(np.float32), X.astype(float)):
            found, expected = net.predict(w, inputs), net.outputs(w, inputs)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_initializations_follow_their_papers():
    net = mlp([100, 60, 10])
    w = net.init(5, dtype=float)
    first = net.layers[0].weights(w)
    limit = np.sqrt(6 / 160)
    assert np.abs(first).max() <= limit
    assert first.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    sparse = net.layers[0].weights(net.init(5, method="sparse", dtype=float))
    assert ((sparse != 0).sum(axis=0) == 15).all()
    assert sparse[sparse != 0].std() == pytest.approx(1, rel=0.1)
    np.testing.assert_array_equal(w, net.init(5, dtype=float))


def test_error_counts_misclassified_samples():
    net = mlp([2, 2])
    w = np.array([1.0, 0, 0, 1, 0, 0])
    data = Dataset(np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]), np.array([0, 1, 1, 1]))
    assert net.error(w, data) == 0.25
    assert net.error(w, data, chunk=3) == 0.25


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp([3]), "sizes: expected at least two"),
        (lambda: mlp([3, 0, 2]), "sizes: expected a whole number of at least 1, got 0"),
        (
            lambda: mlp([3, 2, 2], activation="gelu"),
            "activation: expected one of tanh, sigmoid, relu, softplus",
        ),
        (lambda: mlp([3, 2], loss="hinge"), "loss: expected one of cross_entropy, squared_error"),
        (lambda: mlp([3, 2], weight_decay=-1), "weight_decay"),
        (lambda: mlp([3, 2], weight_decay=float("nan")), "weight_decay"),
        (lambda: mlp([3, 2]).init(method="orthogonal"), "method: expected one of glorot, sparse"),
        (lambda: mlp([3, 2]).check(Dataset(np.ones((1, 4)), np.zeros(1, int))), "data.X: expected 3 columns"),
        (
            lambda: mlp([3, 2]).check(Dataset(np.ones((1, 3)), np.array([2]))),
            "data.Y: expected labels from 0 and below 2",
        ),
        (lambda: mlp([3, 2]).check(Dataset(np.ones((1, 3)), np.ones((1, 2)))), "integer class labels"),
        (
            lambda: autoencoder([3, 2]).check(Dataset(np.ones((1, 3)), np.array([1]))),
            r"data.Y: expected shape \(1, 3\)",
        ),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("net", [mlp([2, 3]), mlp([2, 3], loss="squared_error")], ids=["labels", "targets"])
def test_parameters_that_are_nan_have_no_error_and_no_class(net):
    X = np.ones((4, 2))
    data = Dataset(X, np.zeros(4, int) if net.loss_name == "cross_entropy" else np.zeros((4, 3)))
    w = np.full(net.size, np.nan)
    assert np.isnan(net.error(w, data))
    assert np.isnan(net.error(w, data, chunk=1))
    if net.loss_name == "cross_entropy":
        with pytest.raises(ValueError, match="w, X: expected outputs that are numbers, got NaN in row 0"):
            net.predict(w, X)


def test_arguments_that_do_not_fit_are_named():
    net, X = mlp([4, 5, 3]), np.ones((6, 4))
    w, Y = net.init(0, dtype=float), np.arange(6) % 3
    for size in (-1, 0, 2.5, True):
        with pytest.raises((TypeError, ValueError), match="chunk: expected a whole number"):
            net.error(w, Dataset(X, Y), chunk=size)
    for other in (w[:-2], np.append(w, w), w[:, None], w.astype(int), w.tolist(), np.ma.masked_array(w)):
        for call in (net.predict, net.outputs):
            with pytest.raises(ValueError, match="w: expected an array"):
                call(other, X)
        with pytest.raises(ValueError, match="w: expected an array"):
            net.error(other, Dataset(X, Y))
    for labels in (Y - 1, Y + 1, Y[:-1], Y.astype(float), Y[:1]):  # -1 would be read from the end
        with pytest.raises(ValueError, match="Y: expected"):
            net.loss(w, X, labels)
    with pytest.raises(ValueError, match="Y: expected shape"):  # (1, 3) would be broadcast
        mlp([4, 5, 3], loss="squared_error").loss(w, X, np.ones((1, 3)))
    for sizes in ([4, 2.7, 3], [4, True, 3], "453"):
        with pytest.raises((TypeError, ValueError), match="sizes: expected"):
            mlp(sizes)
    with pytest.raises(ValueError, match="dtype: expected float32 or float64"):  # would be all zeros
        net.init(0, dtype=int)
    with pytest.raises(ValueError, match="seed: expected a whole number of at least 0, got -1"):
        net.init(-1)
