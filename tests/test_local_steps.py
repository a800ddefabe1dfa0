"""Local steps against NumPy's least squares, update rules written out, and the optimizers themselves."""

import pickle
from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from test_hessian_free import LABELS, Memory, X

from hfnb import Dataset, Objective, Status, first_order, hessian_free, local_steps
from hfnb.krylov import NonFiniteProduct
from hfnb.models import mlp
from hfnb.objectives.sampling import Sample

NET = mlp([6, 4, 2])
DATA = Dataset(X, LABELS)
W0 = NET.init(0, dtype=float)
NEWTON = {
    "method": "martens",
    "damping": 0.0,
    "solver": "cg",
    "curvature": "hessian",
    "curvature_batch_size": "same",
}
NEWTON |= {"solver_options": {"progress": 0.0, "rtol": 1e-14}}


def objective(cells=4, **options):
    return Objective(NET, DATA, cells=cells, **options)


def squared_error(w, X, Y):
    return anp.mean((anp.dot(X, w)[:, None] - Y) ** 2)


def least_squares(cells, n=120):
    """A least-squares problem, and the exact solution in each cell by NumPy."""
    random = np.random.default_rng(3)
    A, b = random.standard_normal((n, 5)), random.standard_normal((n, 1))
    problem = Objective.from_loss(squared_error, Dataset(A, b), cells=cells)
    parts = problem.evaluator.shards.parts.values()
    return problem, [(len(A), np.linalg.lstsq(A, b, rcond=None)[0].ravel()) for A, b in parts]


def to(target, cell, w, iterations, seed):
    """An optimizer that ends, in every cell, at a point that depends on the number of the cell."""
    return target(cell.number, w)


# One cell, or a problem whose solution in each cell is known


def test_a_round_in_one_cell_is_hessian_free():
    options = {"method": "martens", "curvature_batch_size": 50, "damping": 0.3}
    ours = local_steps(objective(1), W0, iterations=3, outer="mean", options=options, max_iter=1, seed=5)
    seed = int(np.random.SeedSequence([5, 0, 1]).generate_state(1)[0])
    theirs = hessian_free(objective(1), W0, max_iter=3, tol=0.0, seed=seed, **options)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-12, atol=1e-14)
    assert ours.history[-1].damping == pytest.approx(theirs.history[-1].damping, rel=1e-12)


def test_rounds_in_one_cell_are_newton_steps_of_one_run():
    # Without damping and random draws, nothing but w passes from one iteration to the next.
    ours = local_steps(objective(1), W0, iterations=1, outer="mean", options=NEWTON, max_iter=3)
    theirs = hessian_free(objective(1), W0, max_iter=3, tol=0.0, warm_start_decay=0.0, **NEWTON)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-9)


def gradient(cell, number, index, w, batch_size=20):
    """The gradient of a mini-batch of one cell by autograd's model, drawn as local steps draw it."""
    seed = int(np.random.SeedSequence([0, number, 0]).generate_state(1)[0])
    return cell.value_and_gradient(w, Sample(batch_size, seed, index))[1]


def adam(cell, number, w, m, v, first, steps, since):
    """Adam as Kingma and Ba (2015) write it."""
    for index in range(first, first + steps):
        t, g = index - since + 1, gradient(cell, number, index, w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.02 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, m, v


@pytest.mark.parametrize("moments", ["reset", "average"])
@pytest.mark.parametrize("cells", [1, 3])
def test_local_adam_is_a_plain_loop(moments, cells):
    shared, w = objective(cells), W0
    parts = shared.evaluator.shards.parts.values()
    parts = [Objective(NET, Dataset(*part), cells=1, cell_seed=None) for part in parts]
    m = v = np.zeros_like(w)
    for number in range(3):
        if moments == "reset":
            m = v = np.zeros_like(w)
        since = 5 * number if moments == "reset" else 0
        ends = [adam(cell, k, w, m, v, 5 * number, 5, since) for k, cell in enumerate(parts)]
        shares = [cell.n / shared.n for cell in parts]
        w, m, v = (sum(share * end[i] for share, end in zip(shares, ends, strict=True)) for i in range(3))
    options = {"learning_rate": 0.02, "batch_size": 20, "batches_per_iteration": 5, "moments": moments}
    ours = local_steps(shared, W0, inner="adam", iterations=1, outer="mean", options=options, max_iter=3)
    np.testing.assert_allclose(ours.x, w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["sgd", "momentum", "nesterov"])
def test_averaged_moments_in_one_cell_are_one_long_run(method):
    # A round is an epoch over the cell, so that first_order takes the same steps but for its seed.
    options = {"learning_rate": 0.1, "batch_size": 20}
    seed = int(np.random.SeedSequence([0, 0, 0]).generate_state(1)[0])
    theirs = first_order(objective(1), W0, method=method, max_iter=3, seed=seed, **options)
    options["moments"] = "average"
    ours = local_steps(
        objective(1), W0, inner=method, iterations=1, outer="mean", options=options, max_iter=3
    )
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-11)


def test_an_epoch_evaluates_nothing_but_its_mini_batches():
    ours = local_steps(objective(4), W0, inner="sgd", iterations=2, outer="mean", max_iter=1)
    assert ours.history[-1].samples == 4 * 2 * 50  # cells, epochs, samples of a cell, of which a batch has 50


@pytest.mark.parametrize("cells", [1, 4, 7])
def test_one_newton_iteration_in_each_cell_ends_at_the_mean_of_the_solutions(cells):
    problem, solutions = least_squares(cells)
    ours = local_steps(problem, np.zeros(5), iterations=1, outer="mean", options=NEWTON, max_iter=1)
    expected = sum(n * solution for n, solution in solutions) / problem.n
    np.testing.assert_allclose(ours.x, expected, rtol=1e-9)
    assert len({n for n, _ in solutions}) == (2 if cells == 7 else 1)  # the mean is weighted by samples


# What is done with the mean step


def solved(problem):
    """All data of a least-squares problem, and the solution by NumPy."""
    A, b = (np.concatenate(each) for each in zip(*problem.evaluator.shards.parts.values(), strict=True))
    return A, b, np.linalg.lstsq(A, b, rcond=None)[0].ravel()


def to_fraction(best, factor):
    """An optimizer that goes this multiple of the way to the best point."""
    return partial(to, lambda number, w: w + factor * (best - w))


@pytest.mark.parametrize(
    ("factor", "alpha", "reductions"),
    [
        (1 / 2, 2.0, 2),
        (2 / 3, 1.5, 2),
        (0.9, 1.0, 2),
        (1 / 3.4, 3.0, 2),
        (8.0, 0.125, 3),
        (1 / 9, 9.0, 3),
        (1e-3, 81.0, 5),
    ],
)
def test_a_search_takes_the_best_of_its_lengths(factor, alpha, reductions):
    problem, _ = least_squares(4)
    A, b, best = solved(problem)
    ours = local_steps(problem, np.zeros(5), inner=to_fraction(best, factor), max_iter=1)
    last = ours.history[-1]
    assert (last.alpha, last.reductions) == (alpha, reductions)
    assert last.loss == pytest.approx(np.mean((A @ ours.x[:, None] - b) ** 2), rel=1e-12)
    assert last.step_norm == pytest.approx(np.linalg.norm(alpha * factor * best), rel=1e-12)


def test_each_round_is_two_reductions_of_few_numbers_besides_the_step():
    problem, _ = least_squares(4)
    ours = local_steps(problem, np.zeros(5), inner=to_fraction(solved(problem)[2], 0.9), max_iter=2)
    numbers = 5 + 3  # the step, a flag, and two numbers that count samples
    assert [record.reductions for record in ours.history] == [0, 2, 4]
    assert [record.numbers for record in ours.history] == [0, numbers + 6, 2 * numbers + 6 + 5]
    ours = local_steps(objective(), W0, iterations=1, max_iter=2, outer="mean")
    assert [record.reductions for record in ours.history] == [0, 1, 2]
    assert ours.history[-1].numbers == 2 * (W0.size + 3 + 1)  # log λ as well


def test_outer_momentum_follows_its_recurrence():
    pull = partial(to, lambda number, w: w + 0.1 * (number + 1) * (1 - w))  # the mean step: 0.25 (1 − w)
    common = {"inner": pull, "max_iter": 6, "outer_learning_rate": 0.5, "outer_momentum": 0.8}
    w = theta = W0
    v = u = np.zeros_like(W0)
    for _ in range(6):
        v = 0.8 * v + 0.5 * 0.25 * (1 - w)
        w = w + v
        # Sutskever et al. (2013), followed at the point θ + μu that looks ahead, where the cells start.
        u = 0.8 * u + 0.5 * 0.25 * (1 - (theta + 0.8 * u))
        theta = theta + u
    heavy = local_steps(objective(), W0, outer="momentum", **common)
    ahead = local_steps(objective(), W0, outer="nesterov", **common)
    np.testing.assert_allclose(heavy.x, w, rtol=1e-12)
    np.testing.assert_allclose(ahead.x, theta + 0.8 * u, rtol=1e-12)
    assert ahead.history[-1].reductions == 6


def test_the_outer_rate_of_a_mean_scales_the_step():
    step = partial(to, lambda number, w: w + 1.0)
    ours = local_steps(objective(), W0, inner=step, outer="mean", outer_learning_rate=0.25, max_iter=2)
    np.testing.assert_allclose(ours.x, W0 + 0.5, rtol=1e-14)


# Cells that fail, and steps that are rejected


def fails(kind, cell, w, iterations, seed):
    """An optimizer that fails in cell 1 and takes a step of 1 elsewhere."""
    if cell.number == 1 and kind != "nan":
        raise kind("in this cell alone")
    return w + (np.nan if cell.number == 1 else 1.0)


@pytest.mark.parametrize("kind", ["nan", NonFiniteProduct, ZeroDivisionError, np.linalg.LinAlgError])
def test_a_cell_that_fails_is_absent(kind):
    problem, _ = least_squares(7)
    sizes = [len(A) for A, _ in problem.evaluator.shards.parts.values()]
    ours = local_steps(problem, np.zeros(5), inner=partial(fails, kind), outer="mean", max_iter=1)
    np.testing.assert_allclose(ours.x, 1.0, rtol=1e-14)
    assert ours.history[-1].present == pytest.approx(1 - sizes[1] / sum(sizes), rel=1e-14)


def test_other_errors_are_raised():
    with pytest.raises(KeyError, match="in this cell alone"):
        local_steps(objective(), W0, inner=partial(fails, KeyError), max_iter=1)


def rooted(w, X, Y):
    """A loss whose gradient is not finite at w[0] = 0 for a sample with X[:, 0] = 0; the loss is finite."""
    return anp.mean(anp.sqrt(w[0] ** 2 + X[:, 0] ** 2) + (anp.dot(X, w) - 1) ** 2)


def test_a_cell_whose_gradient_is_not_finite_is_absent():
    A = np.random.default_rng(0).standard_normal((60, 3))
    A[0, 0] = 0.0
    problem = Objective.from_loss(rooted, Dataset(A, np.zeros((60, 1))), cells=3)
    with np.errstate(all="ignore"):
        ours = local_steps(problem, np.zeros(3), options=NEWTON, max_iter=1)
    assert ours.history[-1].present == pytest.approx(2 / 3)
    assert ours.fun < ours.history[0].loss


@pytest.mark.parametrize("outer", ["search", "mean", "nesterov"])
def test_without_any_cell_the_step_is_rejected_until_the_run_gives_up(outer):
    nowhere = partial(to, lambda number, w: w * np.nan)
    ours = local_steps(objective(), W0, inner=nowhere, outer=outer, max_iter=30)
    assert (ours.status, ours.nit) == (Status.NO_PROGRESS, 10)
    assert "no cell gave a finite step" in ours.message
    np.testing.assert_array_equal(ours.x, W0)


def test_after_rejected_steps_cells_go_less_far():
    seen, problem = [], least_squares(1)[0]
    best = solved(problem)[2]

    def astray(cell, w, iterations, seed):
        seen.append(iterations)
        return w + (best - w) * (-1 if iterations > 2 else 0.1)

    ours = local_steps(problem, np.zeros(5), inner=astray, iterations=8, max_iter=4)
    assert seen == [8, 4, 2, 4]
    third = ours.history[3]  # a tenth of the way is longer than the radius after two rejected steps
    assert third.step_norm / third.alpha == pytest.approx(np.linalg.norm(best) / 16, rel=1e-12)
    assert [record.alpha > 0 for record in ours.history[1:]] == [False, False, True, False]
    assert ours.history[2].loss == ours.history[0].loss


def test_a_mean_brings_back_the_iterations_that_absent_cells_have_lost():
    """The cells fail in the first round; then they run 4 ≫ 1 iterations, and then all 4 again."""
    runs = []

    def function(cell, w, iterations, seed):
        runs.append(iterations)
        return w * (np.nan if len(runs) <= 3 else 0.9)

    local_steps(objective(3), W0, inner=function, iterations=4, outer="mean", max_iter=4)
    assert runs[::3] == [4, 2, 4, 4]


def test_a_rejected_step_halves_the_learning_rate():
    # The mini-batch is the cell, and the cells are equal, so that the mean step is that of gradient descent.
    problem, _ = least_squares(4)
    A, b, _ = solved(problem)
    options = {"learning_rate": 200.0, "batch_size": 30}
    ours = local_steps(problem, np.zeros(5), inner="sgd", iterations=1, options=options, max_iter=9)
    rejected = next(index for index, record in enumerate(ours.history[1:]) if record.alpha)
    assert rejected > 1
    first, g = ours.history[rejected + 1], 2 * A.T @ -b / len(A)
    assert first.step_norm / first.alpha == pytest.approx(200 * 0.5**rejected * np.linalg.norm(g), rel=1e-12)


class Stubborn(Objective):
    """An objective that is not finite away from w, so that no length of a step lowers it."""

    def values_along(self, w, d, alphas, sample=None):
        return np.where(np.asarray(alphas) > 0, np.inf, super().values_along(w, d, alphas, sample))


def test_a_rejected_step_raises_the_damping_and_halves_the_iterations():
    problem = Stubborn(NET, DATA, cells=4)
    options = {"method": "martens", "curvature_batch_size": 10, "damping": 1e-3}
    records = local_steps(problem, W0, iterations=4, options=options, max_iter=3).history[1:]
    for number, iterations, record in zip((1, 2, 3), (4, 2, 1), records, strict=True):
        dampings = []
        for k, part in problem.evaluator.shards.parts.items():
            seed = int(np.random.SeedSequence([0, k, number]).generate_state(1)[0])
            cell = Objective(NET, Dataset(*part), cells=1, cell_seed=None)
            run = hessian_free(cell, W0, max_iter=iterations, tol=0.0, seed=seed, **options)
            dampings.append(run.history[-1].damping)
        options["damping"] = 4 * np.exp(np.mean(np.log(dampings)))
        assert len(set(dampings)) > (number == 1)  # at first, cells end with different λ
        assert record.alpha == 0
        assert record.damping == pytest.approx(options["damping"], rel=1e-12)


def test_divergence_is_said():
    problem, _ = least_squares(2)
    options = {"learning_rate": 1e150, "batch_size": 60}
    with np.errstate(all="ignore"):
        ours = local_steps(
            problem, np.zeros(5), inner="sgd", outer="mean", iterations=1, options=options, max_iter=9
        )
    assert ours.status is Status.DIVERGED


# The run


@pytest.mark.parametrize(
    "options",
    [
        {"options": {"curvature_batch_size": 20}},
        {"inner": "adam", "options": {"moments": "average", "learning_rate": lambda t: 0.1 / (1 + t)}},
        {"inner": "sgd", "options": {"learning_rate": 1e4}},  # with rejected steps
        {"inner": "sgd", "outer": "nesterov", "iterations": 1},
        {"inner": partial(to, lambda number, w: 0.9 * w), "outer": "momentum"},
    ],
    ids=["hessian_free", "adam", "rejected", "nesterov", "function"],
)
def test_resumed_runs_are_bitwise_those_that_were_never_stopped(options):
    memory = Memory()
    whole = local_steps(objective(), W0, max_iter=5, **options)
    local_steps(objective(), W0, max_iter=2, checkpoint=memory, **options)
    resumed = local_steps(objective(), W0, max_iter=5, checkpoint=memory, **options)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert [{**r, "seconds": 0} for r in resumed.history] == [{**r, "seconds": 0} for r in whole.history]
    if options.get("options") == {"learning_rate": 1e4}:
        assert any(record.alpha == 0 for record in whole.history[1:])


class Sent(Objective):
    """An objective whose cells get all tasks as another process would."""

    def average(self, task, w, *arguments, size):
        task, arguments = pickle.loads(pickle.dumps((task, arguments)))
        fresh = Objective(NET, DATA, cells=self.cells)
        self.counts.add("averages", 0)
        return fresh.average(task, w, *arguments, size=size)


@pytest.mark.parametrize("moments", ["reset", "average"])
@pytest.mark.parametrize("optimizer", ["hessian_free", "sgd", "momentum", "nesterov", "adam"])
def test_cells_keep_nothing_between_rounds_and_get_all_by_their_arguments(optimizer, moments):
    options = {} if optimizer == "hessian_free" else {"moments": moments, "learning_rate": lambda t: 0.05}
    common = {"inner": optimizer, "iterations": 2, "max_iter": 3, "options": options}
    sent = local_steps(Sent(NET, DATA, cells=4), W0, **common)
    np.testing.assert_array_equal(sent.x, local_steps(objective(), W0, **common).x)
    assert sent.fun < sent.history[0].loss


def test_a_run_depends_on_its_seed_alone():
    one, same, other = (
        local_steps(objective(), W0, seed=seed, max_iter=2, options={"curvature_batch_size": 20}).x
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_two_cells_or_rounds_draw_by_one_seed():
    seeds = []

    def note(cell, w, iterations, seed):
        seeds.append((cell.number, seed))
        return w - cell.value_and_gradient(w)[1]

    local_steps(objective(), W0, inner=note, max_iter=3)
    assert [number for number, _ in seeds] == [0, 1, 2, 3] * 3
    assert len({seed for _, seed in seeds}) == 12


def test_a_tolerance_ends_the_run_with_success_and_is_not_counted():
    problem, _ = least_squares(2)
    free = local_steps(problem, np.ones(5), options=NEWTON, iterations=1, max_iter=2)
    ours = local_steps(problem, np.ones(5), options=NEWTON, iterations=1, max_iter=9, tol=0.5)
    assert ours.success
    assert ours.status is Status.SMALL_GRADIENT
    assert ours.history[-1].gradient_norm == pytest.approx(
        np.linalg.norm(problem.value_and_gradient(ours.x)[1])
    )
    assert ours.history[1].reductions == free.history[1].reductions
    assert "gradient_norm" not in free.history[1]


def test_a_callback_stops_the_run_and_an_option_of_no_iterations_evaluates_nothing():
    ours = local_steps(objective(), W0, max_iter=9, callback=lambda record: record.iteration == 2)
    assert (ours.status, ours.nit) == (Status.CALLBACK, 2)
    ours = local_steps(objective(), W0, max_iter=0)
    assert (ours.status, ours.nit, ours.history[-1].reductions) == (Status.MAX_ITER, 0, 0)
    np.testing.assert_array_equal(ours.x, W0)


def test_single_precision_stays_single():
    w0 = NET.init(0, dtype=np.float32)
    for options in ({}, {"inner": "adam", "options": {"moments": "average"}, "outer": "nesterov"}):
        ours = local_steps(objective(), w0, max_iter=2, **options)
        assert ours.x.dtype == np.float32
        assert ours.fun < ours.history[0].loss


def test_weight_decay_is_part_of_what_cells_and_searches_see():
    net = mlp([6, 4, 2], weight_decay=0.1)
    ours = local_steps(Objective(net, DATA, cells=4), W0, max_iter=2)
    assert ours.fun == pytest.approx(Objective(net, DATA).value(ours.x), rel=1e-12)


# Arguments


def shortened(cell, w, iterations, seed):
    """An optimizer that returns too few parameters."""
    return w[1:]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inner": "rmsprop"}, ValueError, "inner: expected one of hessian_free, sgd, momentum"),
        ({"inner": 3}, TypeError, "inner: expected one of .* or a function"),
        ({"iterations": 0}, ValueError, "iterations: expected a whole number of at least 1"),
        ({"options": [1]}, TypeError, "options: expected a dictionary"),
        ({"options": {"method": "newton"}}, ValueError, "options: method: expected one of paper"),
        ({"options": {"curvature_batch_size": 51}}, ValueError, "curvature_batch_size: .* at most 50"),
        ({"options": {"seed": 1}}, ValueError, "options: expected options of hessian_free .*'seed'"),
        (
            {"inner": "sgd", "options": {"seed": 1}},
            ValueError,
            "options: expected options of sgd .*'seed'",
        ),
        ({"options": {"speed": 1}}, TypeError, "options: .*speed"),
        ({"options": {"solver_options": {"max_iter": 0}}}, ValueError, "options: max_iter"),
        ({"inner": "sgd", "options": {"batch_size": 51}}, ValueError, "batch_size: .* at most 50"),
        ({"inner": "sgd", "options": {"batch_size": 0}}, ValueError, "options: batch_size"),
        ({"inner": "sgd", "options": {"learning_rate": -1}}, ValueError, "options: learning_rate"),
        (
            {"inner": "sgd", "options": {"learning_rate": lambda t: -1.0}},
            ValueError,
            r"options: learning_rate\(0\)",
        ),
        ({"inner": "adam", "options": {"momentum": 1.0}}, ValueError, "options: momentum"),
        ({"inner": "adam", "options": {"moments": "keep"}}, ValueError, "moments: expected one of reset"),
        ({"inner": "adam", "options": {"batches_per_iteration": 0}}, ValueError, "batches_per_iteration"),
        (
            {"options": {"solves": "local"}},
            ValueError,
            "options: expected .* that a cell takes, got 'solves'",
        ),
        ({"outer": "median"}, ValueError, "outer: expected one of search, mean, momentum, nesterov"),
        ({"outer_learning_rate": 1.0}, ValueError, "outer_learning_rate: expected None with outer="),
        ({"outer": "mean", "outer_learning_rate": 0.0}, ValueError, "outer_learning_rate: expected a finite"),
        ({"outer_momentum": 1.0}, ValueError, "outer_momentum: expected a number >= 0 and < 1"),
        ({"max_iter": -1}, ValueError, "max_iter"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"seed": -1}, ValueError, "seed"),
        (
            {"inner": shortened},
            ValueError,
            "inner: expected shortened to",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        local_steps(objective(), W0, **arguments)


def test_an_objective_without_cells_and_a_start_that_is_not_finite_are_named():
    with pytest.raises(ValueError, match="objective: expected one with cells, got one without"):
        local_steps(Objective(NET, DATA), W0)
    with pytest.raises(TypeError, match="objective: expected hfnb"):
        local_steps(len, W0)
    with pytest.raises(ValueError, match="w0: expected a start"):
        local_steps(objective(), W0 * np.nan)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="w0: expected a start with finite loss"):
        local_steps(least_squares(2)[0], np.full(5, 1e200))
    assert local_steps.needs_cells
