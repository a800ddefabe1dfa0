"""Whole Hessian-free iterations: what share of their time is not spent in products, gradients and losses."""

import time

from bench.report import about, save, show
from bench.rule import METHODS, images
from hfnb import Objective, hessian_free, models, set_threads
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.sampling import Shards

BAR = 0.05


class Timed:
    """Sums, and the seconds that they took."""

    def __init__(self, evaluator):
        self.evaluator, self.n, self.seconds = evaluator, evaluator.n, 0.0

    def timed(self, function, *arguments):
        """Call a function and add up the time."""
        start = time.perf_counter()
        found = function(*arguments)
        self.seconds += time.perf_counter() - start
        return found

    def loss(self, w, sample=None):
        return self.timed(self.evaluator.loss, w, sample)

    def gradient(self, w, sample=None):
        return self.timed(self.evaluator.gradient, w, sample)

    def linearize(self, w, kind, sample=None):
        product = self.timed(self.evaluator.linearize, w, kind, sample)
        return lambda v: self.timed(product, v)


def share(method: str, n: int, curvature_batch_size: int, iterations: int) -> dict:
    """Run a method and return where its seconds went."""
    net, data = models.mlp([784, 400, 150, 10]), images(n)
    evaluator = Timed(LocalEvaluator(net, Shards.of(data)))
    objective, w0 = Objective.from_evaluator(net, evaluator), net.init(0)
    objective.value_and_gradient(w0)  # makes what is made once
    evaluator.seconds, start = 0.0, time.perf_counter()
    options = {"curvature_batch_size": curvature_batch_size, "max_iter": iterations, "tol": 0.0}
    result = hessian_free(objective, w0, **options, **METHODS[method])
    seconds = time.perf_counter() - start
    outside = 1 - evaluator.seconds / seconds
    return {
        "method": method,
        "images": n,
        "curvature_batch_size": curvature_batch_size,
        "products": result.history[-1].products,
        "seconds": seconds,
        "outside": outside,
        f"at most {BAR}": "holds" if outside <= BAR else "DOES NOT HOLD",
    }


def run(options) -> None:
    """Measure, show, and write results/iteration.json."""
    set_threads(max(options.threads))
    n, batches, iterations = (6000, (1200,), 3) if options.quick else (60000, (2048, 8192), 5)
    methods = ("auto", "GN-CG", "Bi-CG-STAB")
    rows = [share(method, n, batch, iterations) for batch in batches for method in methods]
    save(
        "iteration",
        {"about": about(network="784-400-150-10, float32", threads=max(options.threads)), "rows": show(rows)},
    )
