"""The optimizer against known minima, SciPy's, and its promises: resume, stop, refuse what is not finite."""

import copy
from dataclasses import replace
from itertools import pairwise

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess
from scipy.sparse.linalg import aslinearoperator

from hfnb import Dataset, Objective, first_order, hessian_free
from hfnb.models import autoencoder, mlp
from hfnb.optimizers import Status
from hfnb.problems import monkey_saddle, random_saddle, rosenbrock, strict_saddles
from hfnb.studies.precision_problems.regression import draw_curves

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((200, 6))
LABELS = (X @ RANDOM.standard_normal(6) + 0.5 * RANDOM.standard_normal(200) > 0).astype(int)
METHODS = {
    "paper": {"solver": "bicgstab", "curvature": "hessian"},
    "martens": {"solver": "cg", "curvature": "gauss-newton"},
    "auto": {"method": "auto"},
}
methods = pytest.mark.parametrize("options", METHODS.values(), ids=METHODS.keys())


BY_HAND = {
    "paper": {"solver": "bicgstab", "curvature": "hessian", "solver_options": {"stop_indefinite": True}},
    "martens": {"solver": "cg", "curvature": "gauss-newton", "stopping_rule": "martens"},
    "auto": {
        "solver": "cg",
        "curvature": "gauss-newton",
        "solver_options": {"progress": 0.0, "overhead": 12.0, "max_iter": 100},
        "probe": True,
        "line_search_sample": "curvature",
        "lengthen": False,
    },
}
# What "auto" stands for beside this, if no number of samples is given.
BY_ITSELF = {"batch_size": "growing", "curvature_batch_size": "part", "damping": "gradient"}


@pytest.mark.parametrize("method", BY_HAND)
def test_a_method_is_a_set_of_public_options(method):
    objective = small_network()
    w0, sizes = 0.1 * objective.net.init(0, dtype=float), {"curvature_batch_size": 60, "max_iter": 12}
    named = hessian_free(objective, w0, method=method, **sizes)
    by_hand = hessian_free(objective, w0, **BY_HAND[method], **sizes)
    np.testing.assert_array_equal(named.x, by_hand.x)
    assert [record.products for record in named.history][1:] == [
        record.products for record in by_hand.history
    ][1:]


def many_samples(net=None):
    """A classification of 4,000 samples, for which mini-batches of 500 are drawn at first."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((4000, 6))
    noise = random.standard_normal(4000)
    labels = (np.sin(2 * inputs @ random.standard_normal(6)) + 0.3 * noise > 0).astype(int)
    return Objective(net or mlp([6, 16, 2]), Dataset(inputs, labels))


def test_auto_without_options_is_a_set_of_public_options():
    objective = many_samples()
    w0 = objective.net.init(0, dtype=float)
    named = hessian_free(objective, w0, method="auto", max_iter=60)
    by_hand = hessian_free(objective, w0, max_iter=60, **BY_HAND["auto"], **BY_ITSELF)
    np.testing.assert_array_equal(named.x, by_hand.x)
    sizes = [record.batch_size for record in named.history]
    assert sizes == sorted(sizes)
    assert set(sizes) == {500, 1000, 4000}
    assert named.fun == pytest.approx(objective.value(named.x), rel=1e-12)  # all samples at the end


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auto_without_options_trains_a_deep_autoencoder(seed):
    # Where the output is the mean image, or worse, the units are saturated: early steps were too long.
    X = draw_curves(200).reshape(-1, 28, 28)[:, ::2, ::2].reshape(200, -1)
    singular_values = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    by_one_component = 0.5 * np.sum(singular_values[1:] ** 2) / len(X)  # what one principal component leaves
    net = autoencoder([196, 40, 20, 6])
    w0 = net.init(seed, "sparse", dtype=float)
    assert hessian_free(Objective(net, Dataset(X, X)), w0, method="auto", max_iter=30).fun < by_one_component


def test_a_run_on_growing_batches_costs_less_than_one_on_all_samples():
    objective, costs = many_samples(), {}
    for batch_size in ("growing", "all"):

        def close(record):
            return objective.value(record.w) <= 0.45

        w0 = objective.net.init(0, dtype=float)
        result = hessian_free(
            objective, w0, method="auto", batch_size=batch_size, callback=close, max_iter=100
        )
        assert result.status == Status.CALLBACK
        costs[batch_size] = result.history[-1].passes
    assert costs["growing"] < 0.7 * costs["all"]


@pytest.mark.parametrize("stop", [1, 3, 12])
def test_a_run_on_growing_batches_resumes_where_it_was(stop):
    objective, memory = many_samples(), Memory()
    w0 = objective.net.init(0, dtype=float)
    whole = hessian_free(objective, w0, method="auto", max_iter=25)
    hessian_free(objective, w0, method="auto", max_iter=stop, checkpoint=memory)
    assert memory.state["samples"]["batch_size"] == "growing"
    resumed = hessian_free(objective, w0, method="auto", max_iter=25, checkpoint=memory)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert [record.batch_size for record in resumed.history] == [
        record.batch_size for record in whole.history
    ]


def test_a_gradient_that_vanishes_on_a_batch_is_looked_at_on_all_samples():
    random = np.random.default_rng(2)
    inputs, w = random.standard_normal((4000, 3)), np.array([1.0, -2.0, 0.5, 0.25])
    data = Dataset(inputs, inputs @ w[:3, None] + w[3])
    objective = Objective(mlp([3, 1], loss="squared_error"), data)
    result = hessian_free(objective, w, method="auto", tol=1e-9)
    assert (result.status, result.nit) == (Status.MINIMUM, 0)
    assert objective.counts.samples >= 4000  # a certificate of a mini-batch would not do
    result = hessian_free(objective, np.zeros(4), method="auto", tol=1e-9)
    assert result.status == Status.MINIMUM
    np.testing.assert_allclose(result.x, w, atol=1e-7)
    assert result.history[-2].batch_size in (500, 1000, 4000)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_the_first_damping_is_a_third_of_the_curvature_along_the_gradient(scale):
    w0 = np.array([-1.2, 1.0])
    g, H = rosen_der(w0), rosen_hess(w0)
    found = hessian_free(rosenbrock().scaled(scale), w0, damping="gradient", max_iter=0).history[0].damping
    assert found == pytest.approx(scale * (g @ H @ g) / (g @ g) / 3, rel=1e-9)


class Memory:
    """A checkpoint that lives in memory."""

    def __init__(self):
        self.state = None

    def save(self, state):
        self.state = copy.deepcopy(state)

    def load(self):
        return copy.deepcopy(self.state)


def logistic():
    return Objective(mlp([6, 2], weight_decay=0.01), Dataset(X, LABELS))


def small_network():
    return Objective(mlp([6, 5, 4, 2]), Dataset(X, LABELS))


@methods
def test_a_convex_problem_is_solved_as_by_scipy(options):
    objective = logistic()
    w0 = objective.net.init(0, dtype=float)
    expected = minimize(objective.value_and_gradient, w0, jac=True, method="BFGS", options={"gtol": 1e-9})
    result = hessian_free(objective, w0, max_iter=60, tol=1e-8, **options)
    assert result.success
    assert "gradient norm" in result.message
    assert result.fun == pytest.approx(expected.fun, rel=1e-10)


@methods
def test_the_loss_never_rises_and_the_history_adds_up(options):
    objective = small_network()
    result = hessian_free(objective, objective.net.init(1, dtype=float), max_iter=15, **options)
    losses = [record.loss for record in result.history]
    assert losses == sorted(losses, reverse=True)
    assert result.fun == losses[-1] == pytest.approx(objective.value(result.x))
    last = result.history[-1]
    assert [record.iteration for record in result.history] == list(range(16))
    assert last.products == objective.counts.products
    assert last.passes == pytest.approx(
        (objective.counts.samples - 200) / 200
    )  # but for the value just taken
    assert last.reductions == objective.counts.reductions - 1


def test_the_paper_method_escapes_a_saddle_where_gauss_newton_sees_nothing():
    # f(w) = ½x² − ½y² + ¼y⁴ started a hair from its saddle.
    objective = Objective.from_loss(
        lambda w, X, Y: 0.5 * w[0] ** 2 - 0.5 * w[1] ** 2 + 0.25 * w[1] ** 4 + 0.0 * anp.sum(X),
        Dataset(np.ones((1, 1)), np.zeros((1, 1))),
    )
    result = hessian_free(objective, np.array([1.0, 1e-3]), max_iter=30, tol=1e-9)
    assert result.fun == pytest.approx(-0.25, abs=1e-12)
    assert any(record.direction == "negative curvature" for record in result.history)


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damping", [1.0, "gradient"])
def test_auto_leaves_every_saddle_on_the_way_of_a_deep_linear_network(distance, seed, damping):
    """W₂W₁x fits y best with the leading singular pairs alone (Eckart & Young); each is behind a saddle."""
    random = np.random.default_rng(seed)
    U, V = (np.linalg.qr(random.standard_normal((5, 5)))[0] for _ in range(2))
    singular, inputs = np.array([3.0, 2.0, 1.0, 0.3, 0.1]), np.sqrt(5) * np.eye(5)
    net = replace(mlp([5, 3, 5], loss="squared_error"), activations=("linear", "linear"))
    biases = np.concatenate([layer.biases(np.arange(net.size)) for layer in net.layers])
    targets = inputs @ (U * singular) @ V.T
    data = Dataset(
        np.concatenate([inputs, -inputs]), np.concatenate([targets, -targets])
    )  # biases do not help
    w0 = distance * random.standard_normal(net.size)
    w0[biases] = 0
    objective = Objective(net, data, partitions=2)
    result = hessian_free(objective, w0, method="auto", damping=damping, max_iter=100, tol=1e-7, seed=seed)
    assert result.fun == pytest.approx(0.5 * np.sum(singular[3:] ** 2), rel=1e-6)
    # From farther away, or with a small λ, the gradient can lead around the saddles.
    if distance < 1e-2 and damping == 1.0:
        assert any("negative curvature" in record.direction for record in result.history)


@methods
def test_resumed_runs_are_bitwise_those_that_were_never_stopped(options):
    w0, memory = small_network().net.init(2, dtype=float), Memory()
    common = {"curvature_batch_size": 50, "seed": 5, **options}
    whole = hessian_free(small_network(), w0, max_iter=8, **common)
    hessian_free(small_network(), w0, max_iter=3, checkpoint=memory, **common)
    resumed = hessian_free(small_network(), w0, max_iter=8, checkpoint=memory, **common)
    np.testing.assert_array_equal(resumed.x, whole.x)
    for mine, theirs in zip(resumed.history, whole.history, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def test_mini_batches_train_too():
    objective = small_network()
    w0 = objective.net.init(0, dtype=float)
    result = hessian_free(objective, w0, batch_size=100, max_iter=20, solver="cg", curvature="gauss-newton")
    assert objective.value(result.x) < 0.5 * objective.value(w0)


def test_a_callback_sees_the_parameters_and_stops_the_run():
    seen = []

    def callback(record):
        seen.append(record.w.copy())
        return record.iteration == 2

    objective = small_network()
    result = hessian_free(objective, objective.net.init(0, dtype=float), callback=callback)
    assert (result.nit, result.message) == (2, "stopped by the callback")
    np.testing.assert_array_equal(seen[-1], result.x)
    assert not any(hasattr(record, "w") for record in result.history)


class Faulty(Objective):
    """Returns NaN where ``fails`` says so, by the number of evaluations of the kind so far."""

    fails = staticmethod(lambda kind, number: False)

    def _spoil(self, kind, value):
        number = getattr(self.counts, kind)
        return value * np.nan if self.fails(kind, number) else value

    def value(self, w, sample=None):
        return self._spoil("losses", super().value(w, sample))

    def value_and_gradient(self, w, sample=None):
        value, gradient = super().value_and_gradient(w, sample)
        return value, self._spoil("gradients", gradient)


@methods
@pytest.mark.parametrize(("kind", "number"), [("losses", 1), ("gradients", 2)])
def test_a_loss_or_gradient_that_is_not_finite_costs_a_step_and_never_the_parameters(options, kind, number):
    objective = Faulty(mlp([6, 5, 2]), Dataset(X, LABELS))
    objective.fails = lambda k, n: k == kind and n == number
    steps = []
    result = hessian_free(
        objective,
        objective.net.init(0, dtype=float),
        max_iter=6,
        callback=lambda r: steps.append(r.w.copy()),
        **options,
    )
    assert np.all(np.isfinite(result.x))
    assert result.fun < result.history[0].loss
    if kind == "gradients":
        np.testing.assert_array_equal(steps[1], steps[0])
        assert (result.history[1].alpha, result.history[1].direction) == (0.0, "none")
        assert result.history[1].damping > result.history[0].damping


def test_products_that_are_not_finite_raise_the_damping_until_the_run_gives_up():
    objective = small_network()
    w0 = objective.net.init(0, dtype=float)
    result = hessian_free(objective, w0, curvature=lambda net, w, X, Y: lambda v: v * np.nan)
    assert not result.success
    assert "no step lowered the loss in 10 iterations" in result.message
    assert "the curvature products are not finite (A: product 1 is not finite)" in result.message
    assert "not finite" in result.history[1].krylov_status
    np.testing.assert_array_equal(result.x, w0)
    growth = [b.damping / a.damping for a, b in pairwise(result.history)]
    assert growth[0] == pytest.approx(1.5)
    assert all(later > earlier for earlier, later in pairwise(growth))


@methods
@pytest.mark.parametrize(("kind", "words"), [("losses", "loss"), ("gradients", "gradient")])
def test_losses_and_gradients_that_are_never_finite_are_named(options, kind, words):
    objective = Faulty(mlp([6, 5, 2]), Dataset(X, LABELS))
    objective.fails = lambda k, number: k == kind and number > (kind == "gradients")
    w0 = objective.net.init(0, dtype=float)
    result = hessian_free(objective, w0, **options)
    assert not result.success
    assert words in result.message
    assert "not finite" in result.message
    np.testing.assert_array_equal(result.x, w0)


def test_a_hessian_that_is_not_finite_leaves_the_end_undecided():
    """Rosenbrock's minimum, whose Hessian is NaN: nothing is claimed."""

    class Broken(type(rosenbrock())):
        def curvature(self, w, kind="hessian", sample=None):
            return aslinearoperator(np.full((2, 2), np.nan))

    problem = Broken(**{**vars(rosenbrock()), "start": np.ones(2)})
    result = hessian_free(problem, np.ones(2))
    assert not result.success
    assert "undecided: the products with the Hessian are not finite" in result.message


UNITS = [(10.0**k, 1.0) for k in range(-12, 13, 4)] + [
    (1.0, 1e6),
    (1.0, 1e-6),
    (1e-8, 1e6),
    (1e8, 1e-6),
    (1.0, np.array([1e3, 1.0])),
    (1.0, np.array([1.0, 1e3])),
]


@pytest.mark.parametrize(("loss", "stretch"), UNITS)
@pytest.mark.parametrize("solver", ["bicgstab", "cg", "minres"])
def test_rosenbrock_is_solved_in_any_units(loss, stretch, solver):
    """Its minimum is at (1, 1) in all units of the loss and of the parameters, and from other starts."""
    problem = rosenbrock().scaled(loss, stretch)
    starts = [(-1.2, 1.0), *np.random.default_rng(0).uniform(-2, 2, (2, 2))]
    for start in starts:
        w0 = stretch * np.array(start)
        result = hessian_free(problem, w0, solver=solver, max_iter=200, tol=1e-9)
        assert result.success, (start, result.message)
        assert "minimum" in result.message
        np.testing.assert_allclose(result.x / stretch, 1, atol=1e-4, err_msg=result.message)
        assert rosen(result.x / stretch) <= 1e-8


@pytest.mark.parametrize("power", [-40, -20, 20, 40])
def test_a_power_of_two_in_the_loss_changes_no_bit_of_a_convex_run(power):
    """Scaled by 2ᵏ, λ with it, all sums and quotients are the same numbers but for their exponents."""
    convex = random_saddle(10, 0)
    scaled, options = convex.scaled(2.0**power), {"solver": "cg", "max_iter": 8, "tol": 0.0}
    expected = hessian_free(convex, convex.start, damping=1.0, **options)
    found = hessian_free(scaled, convex.start, damping=2.0**power, **options)
    np.testing.assert_array_equal(found.x, expected.x)
    assert [r.loss for r in found.history] == [2.0**power * r.loss for r in expected.history]


@pytest.mark.parametrize("seed", range(3))
def test_steps_lost_in_rounding_end_at_a_minimum_with_success(seed):
    """A tolerance that no gradient reaches: the run says that it is the loss that cannot fall any more."""
    objective = logistic()
    w0 = objective.net.init(seed, dtype=float)
    expected = minimize(objective.value_and_gradient, w0, jac=True, method="BFGS", options={"gtol": 1e-9})
    result = hessian_free(objective, w0, max_iter=200, tol=1e-30)
    assert result.success, result.message
    assert "at most the rounding error" in result.message
    assert result.fun == pytest.approx(expected.fun, rel=1e-12)


def test_a_gradient_that_is_not_the_losses_is_no_minimum():
    """½‖w‖² with the gradient −w: no step falls, the Hessian is positive, and yet nothing may be claimed."""

    class Wrong(type(rosenbrock())):
        def value_and_gradient(self, w, sample=None):
            value, gradient = super().value_and_gradient(w)
            return value, -gradient

    problem = Wrong("wrong", lambda w: 0.5 * anp.sum(w**2), np.zeros(3), 0, 0.0, np.ones(3))
    result = hessian_free(problem, problem.start, solver="cg")
    assert not result.success
    assert "could fall by 1.5e+00, more than the rounding error" in result.message


def test_a_degenerate_point_is_undecided():
    problem = monkey_saddle()
    result = hessian_free(problem, problem.stationary)
    assert (result.success, result.nit) == (False, 0)
    assert "undecided" in result.message


@methods
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_leaves_the_saddle_at_zero(options, dtype, seed):
    """All weights zero: at best the biases learn how frequent the labels are, unless the saddle is left."""
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((300, 8))
    labels = np.argmax(inputs @ random.standard_normal((8, 3)), axis=1)
    net = mlp([8, 6, 3])
    shares = np.bincount(labels) / len(labels)
    level = -np.sum(shares * np.log(shares))
    objective = Objective(net, Dataset(inputs.astype(dtype), labels), partitions=2)
    result = hessian_free(objective, np.zeros(net.size, dtype), max_iter=60, seed=seed, **options)
    assert result.fun < 0.5 * level, result.message


def test_bad_arguments_are_named():
    objective = small_network()
    w0 = objective.net.init(0, dtype=float)
    with pytest.raises(ValueError, match=r"solver: expected one of .*bicgstab"):
        hessian_free(objective, w0, solver="gmres")
    with pytest.raises(ValueError, match="curvature: expected one of"):
        hessian_free(objective, w0, curvature="fisher")
    with pytest.raises(ValueError, match="w0: expected a start with finite loss"):
        hessian_free(objective, w0 * np.nan)


FEW_AND_ALL = [(0.0, 4), *(pytest.param(each, 20, marks=pytest.mark.slow) for each in (0.0, 1e-8, 1e-3))]


@pytest.mark.parametrize("solver", ["cg", "bicgstab", "minres"])
@pytest.mark.parametrize(("distance", "seeds"), FEW_AND_ALL)
def test_every_kind_of_strict_saddle_is_left(solver, distance, seeds):
    for family, seed, problem in strict_saddles(seeds):
        start = problem.near(distance, seed)
        level = problem.value(problem.stationary)
        result = hessian_free(problem, start, solver=solver, max_iter=100)
        assert result.fun < level - 1e-6, (family, seed, result.message)
        assert not result.success or np.linalg.eigvalsh(problem.hessian(result.x))[0] > -1e-2, (family, seed)


def test_a_status_says_why_a_run_ended():
    objective, w0 = logistic(), logistic().net.init(0, dtype=float)
    minimum = hessian_free(objective, w0, max_iter=60)
    assert minimum.status is Status.MINIMUM
    assert hessian_free(objective, w0, max_iter=2).status is Status.MAX_ITER
    assert (
        hessian_free(objective, w0, callback=lambda record: record.iteration == 2).status is Status.CALLBACK
    )
    broken = hessian_free(objective, w0, curvature=lambda *_: lambda v: np.nan * v, solver="cg")
    assert broken.status is Status.NO_PROGRESS
    flat = Objective.from_loss(lambda w, X, Y: anp.sum(w**4), Dataset(X, LABELS))
    degenerate = hessian_free(flat, np.zeros(2))
    assert (degenerate.status, degenerate.success) == (Status.UNDECIDED, False)
    assert first_order(objective, w0, tol=1e9).status is Status.SMALL_GRADIENT
    assert first_order(objective, w0, max_iter=1).status is Status.MAX_ITER
    with np.errstate(all="ignore"):
        assert first_order(objective, w0, learning_rate=1e300).status is Status.DIVERGED


def test_a_state_of_another_version_is_refused():
    memory, w0 = Memory(), small_network().net.init(0, dtype=float)
    hessian_free(small_network(), w0, max_iter=2, checkpoint=memory)
    memory.state["warm"] = memory.state.pop("solution")
    with pytest.raises(ValueError, match="checkpoint: expected one of this version of hfnb"):
        hessian_free(small_network(), w0, max_iter=3, checkpoint=memory)
