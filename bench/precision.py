"""Errors after equal seconds on one core, where answers must be precise: our methods and their rivals.

The problems are those of `hfnb.studies.precision_problems`, each with a budget. Every method gets these
seconds of one core, which include everything but the measuring of the error. It is tuned for the error at
the end of these seconds until its best setting lies inside the grid, then it runs with other seeds. One seed
is enough for tuning, except where a run either solves the problem or stays on a plateau: there the tuning is
for the geometric mean of three runs. Every run is written to results/precision.json when it ends, so that an
interrupted benchmark goes on where it was.
"""

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from functools import cache, partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import least_squares, minimize
from threadpoolctl import threadpool_limits

from bench.report import RESULTS, about, show
from bench.runs import at_once, chosen
from hfnb import hessian_free, levenberg_marquardt, plots
from hfnb.objectives import Objective, Sample
from hfnb.optimizers._first_order import METHODS as UPDATES
from hfnb.studies.precision_problems import PROBLEMS, PrecisionProblem
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp
from hfnb.studies.tuning import Axis, tuned

# The budget of each problem, in seconds of one core.
SECONDS = {
    "poisson": 10.0,
    "convection": 15.0,
    "burgers": 15.0,
    "unknown coefficient": 10.0,
    "oscillation": 10.0,
    "breast cancer": 10.0,
    "adding, 50 steps": 60.0,
    "memorization, 30 steps": 15.0,
    "MNIST autoencoder": 15.0,
    "curves autoencoder": 15.0,
    "adding, 100 steps": 60.0,
    "adding, 200 steps": 60.0,
    "memorization, 100 steps": 60.0,
    "MNIST autoencoder, large": 60.0,
}
USUAL = list(SECONDS)[:10]  # the problems by default
QUICK_SECONDS = 2.0
TUNING_SEEDS = 5, 105, 106  # the first only, except for the adding problem, where runs may stay on a plateau
SEEDS = 5
MOST = 9  # settings that are tried for a method
POINTS = 60  # of a stored curve
ADAM_PART = 0.2  # of the seconds, before L-BFGS


class Over(Exception):
    """The seconds are over."""


class Watch:
    """The clock of a run: seconds of this process's processor time, without those that measuring takes."""

    def __init__(self, problem: PrecisionProblem, seconds: float):
        self.problem, self.seconds, self.curve = problem, seconds, list[tuple[float, float]]()
        self._start = time.process_time()

    def elapsed(self) -> float:
        """Return the seconds so far."""
        return time.process_time() - self._start

    def see(self, w: np.ndarray) -> bool:
        """Note the error of parameters; return whether the seconds are over."""
        now = self.elapsed()
        due = not self.curve or now - self.curve[-1][0] > self.seconds / POINTS or now > self.seconds
        if due:
            self.curve.append((now, self.problem.error(w)))
            self._start += self.elapsed() - now
        return now > self.seconds

    def check(self, w: np.ndarray) -> None:
        """As `see`, and raise `Over` if the seconds are over."""
        if self.see(w):
            raise Over


# A method: (objective, start, watch, settings) -> None, which shows the watch its parameters again and again.


def jacobian(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Ours with the Jacobian."""
    levenberg_marquardt(
        objective, w, max_iter=10**6, tol=0.0, callback=lambda record: watch.see(record.w), **settings
    )


def products(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Ours with curvature products."""
    samples: dict[str, Any] = {}
    if watch.problem.curvature_batch_size is not None:
        samples |= {"curvature_batch_size": watch.problem.curvature_batch_size}
        samples |= {"line_search_sample": "curvature"}
    endless = {"max_iter": 10**6, "tol": 0.0, "callback": lambda record: watch.see(record.w)}
    hessian_free(objective, w, **samples, **endless, **settings)


def adam(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Adam on all samples, with a learning rate that falls to zero by a cosine over the seconds."""
    _adam(objective, w, watch, settings["rate"], watch.seconds)


def mini_batch_adam(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Adam as above, on mini-batches: only for problems that have samples."""
    _adam(objective, w, watch, settings["rate"], watch.seconds, watch.problem.batch_size)


def _adam(
    objective: Objective,
    w: np.ndarray,
    watch: Watch,
    rate: float,
    seconds: float,
    batch_size: int | None = None,
) -> np.ndarray:
    """Return the parameters after so many seconds of Adam."""
    w, update, memory, step = w.copy(), UPDATES["adam"](0.9), dict[str, np.ndarray](), 0
    while (now := watch.elapsed()) < seconds:
        sample = None if batch_size is None else Sample(batch_size, index=step)
        _, g = objective.value_and_gradient(w, sample)
        update(w, g, np.float64(0.5 * rate * (1 + np.cos(np.pi * now / seconds))), step, memory)
        step += 1
        watch.check(w)
    watch.see(w)
    return w


def lbfgs(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """L-BFGS-B of SciPy, which begins anew from where its line search gives up."""
    options = {"maxiter": 10**6, "maxfun": 10**7, "ftol": 0.0, "gtol": 0.0, **settings}
    before = None
    while before is None or not np.array_equal(w, before):
        before = w
        w = minimize(
            objective.value_and_gradient,
            w,
            jac=True,
            method="L-BFGS-B",
            callback=watch.check,
            options=options,
        ).x


def adam_then_lbfgs(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Adam for a part of the seconds, then L-BFGS: the usual way to train physics-informed networks."""
    w = _adam(objective, w, watch, settings["rate"], ADAM_PART * watch.seconds)
    lbfgs(objective, w, watch, {"maxcor": 50})


def newton(method: str, objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """Newton's methods of SciPy, with our products with the Hessian."""
    functions: dict[str, Any] = {"jac": True, "hessp": objective.hessp, "callback": watch.check}
    options = {"maxiter": 10**6, **({"xtol": 0.0} if method == "Newton-CG" else {"gtol": 0.0}), **settings}
    minimize(objective.value_and_gradient, w, method=method, **functions, options=options)


def trust_region(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """`least_squares` of SciPy with our Jacobian; each Jacobian is at a point that it has accepted."""

    def at(w: np.ndarray) -> np.ndarray:
        watch.check(w)
        return objective.jacobian(w)

    limits = {"max_nfev": 10**6, "ftol": None, "xtol": 1e-15, "gtol": None}
    least_squares(objective.residuals, w, jac=at, method="trf", **limits, **settings)


def torch_lbfgs(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """L-BFGS of PyTorch with a strong Wolfe line search, on our gradients."""
    import torch

    parameters = torch.from_numpy(w.copy()).requires_grad_()
    limits = {"max_iter": 20, "tolerance_grad": 0.0, "tolerance_change": 0.0}
    optimizer = torch.optim.LBFGS([parameters], line_search_fn="strong_wolfe", **limits, **settings)

    def closure() -> Any:
        loss, g = objective.value_and_gradient(parameters.detach().numpy())
        parameters.grad = torch.from_numpy(g)
        return torch.tensor(loss)

    while True:
        optimizer.step(closure)
        watch.check(parameters.detach().numpy())


def soap(objective: Objective, w: np.ndarray, watch: Watch, settings: dict) -> None:
    """SOAP of pytorch-optimizer on all samples: Adam in the eigenbasis of Shampoo's preconditioners.

    The learning rate falls as Adam's does.
    """
    import torch
    from pytorch_optimizer import SOAP

    ends = np.cumsum([int(np.prod(shape)) for shape in watch.problem.shapes])[:-1]

    def arrays(v: np.ndarray) -> list:
        parts = zip(np.split(v, ends), watch.problem.shapes, strict=True)
        return [torch.from_numpy(part.reshape(shape).copy()) for part, shape in parts]

    parameters = [torch.nn.Parameter(part) for part in arrays(w)]
    optimizer = SOAP(parameters, lr=settings["rate"], weight_decay=0.0)
    while (now := watch.elapsed()) < watch.seconds:
        w = np.concatenate([part.detach().numpy().ravel() for part in parameters])
        watch.check(w)
        for part, gradient in zip(parameters, arrays(objective.value_and_gradient(w)[1]), strict=True):
            part.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * settings["rate"] * (1 + np.cos(np.pi * now / watch.seconds))
        optimizer.step()
    watch.see(w)


RATE = Axis(1e-2, 3.0)
RECURRENT_RATE = Axis(1e-3, 3.0)  # at large rates all stay on the plateau, where noise leads the search
MINI_BATCHES = "Adam, mini-batches"
AUTO = "ours, auto"
OURS = "ours, Jacobian", "ours, products", AUTO  # the one with the least error in tuning stands for all three
ADAM = "Adam, cosine schedule"
DRAWN = *OURS[:2], ADAM, "SOAP, cosine schedule"
DRAWN += "SciPy L-BFGS-B", "Adam, then L-BFGS", "SciPy least_squares"  # no more lines can be told apart
# method: its function, options that stay as they are, and options to tune
RIVALS: dict[str, tuple[Any, dict, dict[str, Axis]]] = {
    "ours, Jacobian": (jacobian, {}, {"damping": Axis(1e-2, 100.0)}),
    AUTO: (products, {"method": "auto"}, {}),
    "ours, products": (products, {"method": "martens"}, {"damping": Axis(1.0, 10.0)}),
    ADAM: (adam, {}, {"rate": RATE}),
    MINI_BATCHES: (mini_batch_adam, {}, {"rate": RATE}),
    "SOAP, cosine schedule": (soap, {}, {"rate": RATE}),
    "SciPy L-BFGS-B": (lbfgs, {}, {"maxcor": Axis(30, 3)}),
    "Adam, then L-BFGS": (adam_then_lbfgs, {}, {"rate": RATE}),
    "torch L-BFGS": (torch_lbfgs, {}, {"history_size": Axis(30, 3)}),
    "SciPy Newton-CG": (partial(newton, "Newton-CG"), {}, {}),
    "SciPy trust-ncg": (partial(newton, "trust-ncg"), {}, {"initial_trust_radius": Axis(1.0, 10.0)}),
    "SciPy least_squares": (trust_region, {}, {"x_scale": Axis(1.0, 10.0)}),
}


@cache
def problem_of(name: str) -> PrecisionProblem:
    """Return a problem, which is made once in each process."""
    return PROBLEMS[name]()


def work(name: str, method: str, settings: dict, seed: int, seconds: float) -> dict:
    """Run a method in this process; return its curve of (seconds, error), and how it ended."""
    problem = problem_of(name)
    objective, w, minimizer = problem.objective(seed), problem.start(seed), RIVALS[method][0]
    with threadpool_limits(1), np.errstate(all="ignore"):
        for limit in (0.0, seconds):  # first for a moment, for what is made once: imports, memory
            watch, ended = Watch(problem, limit), "it stopped"
            try:
                minimizer(objective, w, watch, settings)
                ended = "the seconds are over" if watch.elapsed() >= limit else ended
            except Over:
                ended = "the seconds are over"
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                ended = f"{type(error).__name__}: {error}"[:200]
    curve = [(round(t, 3), float(f"{error:.3g}")) for t, error in watch.curve]
    final = curve[-1][1] if curve else np.inf
    return {"error": final if np.isfinite(final) else np.inf, "ended": ended, "curve": curve}


def seeds_of(count: int) -> list[int]:
    """Return the seeds of so many runs, which are other ones than those of tuning."""
    return [seed for seed in range(count + 1) if seed not in TUNING_SEEDS][:count]


def chain(stored: StoredRuns, pool: Executor, name: str, method: str, options: Any) -> dict:
    """Tune a method on a problem, and run it with all seeds; return the result, which is stored."""
    _, fixed, axes = RIVALS[method]
    seconds, seeds = options.seconds or SECONDS[name], seeds_of(options.seeds or SEEDS)
    tuning_seeds = TUNING_SEEDS[:1]
    if name.startswith("adding"):
        tuning_seeds = TUNING_SEEDS
        axes = {key: RECURRENT_RATE if axis is RATE else axis for key, axis in axes.items()}
    if options.quick:
        seconds, seeds, tuning_seeds = QUICK_SECONDS, seeds[:1], tuning_seeds[:1]

    def run(settings: dict, seed: int) -> dict:
        def make() -> dict:
            made = pool.submit(work, name, method, settings, seed, seconds).result()
            print(name, method, settings, seed, made["error"], made["ended"], file=sys.stderr, flush=True)
            return made

        return stored.run(json.dumps([name, method, settings, seed, seconds]), make)

    def cost(settings: dict) -> float:
        errors = [run(settings, seed)["error"] for seed in tuning_seeds]
        return float(np.exp(np.mean(np.log(errors))))

    most = 1 if options.quick else MOST
    found = tuned(fixed, axes, cost, most=most)
    runs = [run(found.settings, seed) for seed in seeds]
    errors = [each["error"] for each in runs]
    told = {"problem": name, "method": method, "seconds": seconds, "settings": found.settings}
    told |= {"inside": found.inside, "tried": found.tried, "error in tuning": cost(found.settings)}
    told |= {"errors": errors, "machine": about()["machine"]}
    stored.add("tuned", {json.dumps([name, method, seconds]): told})
    return told | {"curves": [each["curve"] for each in runs]}


def time_to(curve: list, error: float) -> float:
    """Return the seconds after which a curve is at an error or below, infinity if it never is."""
    return next((seconds for seconds, found in curve if found <= error), np.inf)


def verdict(found: list[dict]) -> dict[str, Any]:
    """Return ours against the best rival: errors at the end, seconds to the rival's error."""
    middle = {each["method"]: float(np.median(each["errors"])) for each in found}
    in_tuning = {each["method"]: each["error in tuning"] for each in found}
    mine = min((name for name in OURS if name in middle), key=lambda name: in_tuning[name], default=None)
    best = min((name for name in middle if name not in OURS), key=lambda name: middle[name], default=None)
    if mine is None or best is None:
        return {}
    curves = next(each["curves"] for each in found if each["method"] == mine)
    needed = float(np.median([time_to(curve, middle[best]) for curve in curves]))
    return {
        "problem": found[0]["problem"],
        "ours": mine,
        "error": middle[mine],
        "best rival": best,
        "its error": middle[best],
        "ratio": middle[mine] / middle[best],
        "seconds to its error ÷ seconds": needed / found[0]["seconds"],
    }


def row(found: dict) -> dict[str, Any]:
    """Return a row of the table: median and range over the seeds, and how many reached the problem's goal."""
    goal = problem_of(found["problem"]).goal
    return {
        "problem": found["problem"],
        "method": found["method"],
        "error": float(np.median(found["errors"])),
        "range": f"{min(found['errors']):.2g}–{max(found['errors']):.2g}",
        "solved": ""
        if goal is None
        else f"{sum(each <= goal for each in found['errors'])} of {len(found['errors'])}",
        "inside": "yes" if found["inside"] else "NO",
        "settings": json.dumps(found["settings"]),
    }


def medians(tuned_rows: Iterable[dict]) -> dict[str, dict[str, float]]:
    """Return {problem: {method: median error}} of the problems on which all methods of the figure were tried.

    Only the budgets of `SECONDS` count. Methods that need the Jacobian may be missing where it does not fit.
    """
    found: dict[str, dict[str, float]] = {}
    for each in tuned_rows:
        if each["seconds"] == SECONDS[each["problem"]]:
            found.setdefault(each["problem"], {})[each["method"]] = float(np.median(each["errors"]))
    tried = set(DRAWN) - {OURS[0], "SciPy least_squares"}
    return {problem: errors for problem, errors in found.items() if tried <= errors.keys()}


def draw(found: dict[str, dict[str, float]]) -> plt.Figure:
    """Return the performance profile of {problem: {method: median error}}.

    Adam is there once, on each problem with all samples or mini-batches, whichever gave the smaller error; so
    are our products, with the options of "martens" or "auto".
    """
    first = sum(min(errors, key=lambda name: errors[name]) in OURS for errors in found.values())
    costs = {method: [errors.get(method, np.inf) for errors in found.values()] for method in DRAWN}
    for method, other in ((ADAM, MINI_BATCHES), (OURS[1], AUTO)):
        others = [errors.get(other, np.inf) for errors in found.values()]
        costs[method] = [min(pair) for pair in zip(costs[method], others, strict=True)]
    figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    plots.performance_profile(costs, ax)
    ax.set_title(f"Ours has the smallest error on {first} of {len(found)} problems", fontsize=11)
    ax.set(xlabel="factor over the smallest error", ylabel="share of problems", xlim=(1, 1e6))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def run(options: Any) -> None:
    """Tune, race, show, and write results/precision.json."""
    problems = chosen(options.problems or USUAL, PROBLEMS, "--problems")
    methods = chosen(options.methods, RIVALS, "--methods")
    stored = StoredRuns(
        RESULTS / f"precision{'_quick' if options.quick else ''}.json", about, options.minutes
    )
    verdicts = []
    try:
        with at_once(options.processes) as (pool, threads):
            for name in problems:
                left_out = [] if problem_of(name).batch_size else [MINI_BATCHES]
                left_out += [] if "autoencoder" in name else [AUTO]
                racing = [method for method in methods if method not in left_out]
                asked = [threads.submit(chain, stored, pool, name, method, options) for method in racing]
                found = sorted((each.result() for each in asked), key=lambda each: np.median(each["errors"]))
                show(map(row, found))
                verdicts.append(verdict(found))
    except TimeIsUp as error:
        print(f"precision: {error}")
    show(filter(None, verdicts))
    if not options.quick and (complete := medians(stored.table("tuned").values())):
        draw(complete).savefig(RESULTS / "precision.png", dpi=120)
