"""``python -m bench [name ...] [--quick]``: see README.md."""

import argparse
from contextlib import nullcontext

from bench import (
    batches,
    busy,
    communication,
    factorial,
    fidelity,
    growth,
    iteration,
    memory,
    methods,
    precision,
    products,
    rule,
    saddles,
    scaling,
    solvers,
    target,
    timit,
    vectors,
)
from bench.report import published_if_idle

MODULES = (
    products,
    iteration,
    vectors,
    memory,
    target,
    rule,
    saddles,
    solvers,
    timit,
    scaling,
    growth,
    busy,
    communication,
    precision,
    factorial,
    fidelity,
    methods,
    batches,
)
BENCHMARKS = {each.__name__.split(".")[1]: each.run for each in MODULES}
# Benchmarks that store every run, so that they go on where they were.
MANY_RUNS = "communication, precision, factorial, fidelity, methods, batches, timit"
# Benchmarks whose results are times. Those of the others are counts, which are the same on a busy machine.
TIMED = {"busy", "products", "iteration", "vectors", "target", "scaling", "growth", "precision"}


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, rounds and seeds")
    parser.add_argument("--problems", nargs="+", help="rule, precision, factorial, fidelity, methods: which")
    parser.add_argument(
        "--methods", nargs="+", help="rule, target, communication, precision, methods, batches, timit: which"
    )
    parser.add_argument("--tasks", nargs="+", help="communication: which tasks")
    parser.add_argument("--metric", default="reductions", help="communication: tuned for reductions or time")
    parser.add_argument(
        "--processes",
        type=int,
        default=2,
        help=f"{MANY_RUNS}: how many runs at a time",
    )
    parser.add_argument(
        "--time", action="store_true", help="communication: predict seconds, on an idle machine"
    )
    parser.add_argument("--hosts", action="store_true", help="communication: seconds on emulated hosts")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help=f"{MANY_RUNS}: begin no run after so many",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="precision, factorial, fidelity, methods, batches, timit: how many runs (5, 10, 10, 10, 5, 5)",
    )
    parser.add_argument("--seconds", type=float, help="precision: for each run, instead of the budgets")
    parser.add_argument("--images", nargs="+", type=int, help="target: how many images")
    parser.add_argument("--activations", nargs="+", help="target: tanh, sigmoid, relu")
    parser.add_argument("--networks", nargs="+", help="products: which networks")
    parser.add_argument("--batches", nargs="+", type=int, help="products, batches: which batches")
    parser.add_argument("--what", nargs="+", help="products: gradient, hessian, gauss-newton")
    parser.add_argument("--ways", nargs="+", help="products: which peers")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=[1, 2], help="products, vectors: how many threads"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument(
        "--priority", type=int, default=0, help="products, vectors: real-time priority while timing"
    )
    return parser


def main() -> None:
    """Run the benchmarks that the command line names."""
    options = command_line().parse_args()
    for name in options.names or BENCHMARKS:
        if name not in BENCHMARKS:
            command_line().error(f"expected names of {', '.join(BENCHMARKS)}, got {name}")
        timed = name in TIMED or (name == "communication" and (options.time or options.hosts))
        with published_if_idle(name) if timed and not options.priority else nullcontext():
            BENCHMARKS[name](options)


if __name__ == "__main__":
    main()
