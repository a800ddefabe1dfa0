"""How the time of an iteration's parts and the memory of a product grow with samples, parameters, layers.

Each case is a process of its own, ``python -m bench.growth CASE``, so that none finds the memory of another.
The samples are in a file that is mapped into memory, as large data are. Linux only, for the memory.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import LinearOperator

from bench.memory import memory
from bench.report import RESULTS, about, load, save, show
from hfnb import Dataset, Objective, krylov, models, plots
from hfnb.engines import blas
from hfnb.threads import THREAD_VARIABLES

INPUTS, OUTPUTS, SAMPLES = 100, 10, 2048
BUDGET = 2**26  # bytes that may be kept between products, 64 MiB: 10⁵ samples exceed it
STEPS = 20  # iterations of CG by which the time of its vectors is measured
PARTS = ("loss", "gradient", "linearization", "product", "vectors of CG")
LIMIT = 900  # seconds for a case
AXES = ("samples", "parameters")  # whose exponents the title of the figure names
BAR = 1.1  # the memory of a product, beyond data and budget, with 10⁶ samples over that with 10⁴


def cases(quick: bool) -> dict[str, list[dict]]:
    """Return the cases of each axis: its value, the layers' sizes and the number of samples."""
    samples = (10**3, 10**4, 10**5) if quick else (10**3, 10**4, 10**5, 10**6)
    widths = (8, 60, 260, 950) if quick else (8, 60, 260, 950, 3100)  # 10³ to 10⁶ or 10⁷ parameters
    nets = [[INPUTS, width, width, OUTPUTS] for width in widths]
    depths = {depth: [INPUTS, *[128] * (depth - 1), OUTPUTS] for depth in (2, 4, 8, 16)}
    return {
        "samples": [{"value": n, "sizes": [INPUTS, 100, 50, OUTPUTS], "n": n} for n in samples],
        "parameters": [{"value": models.mlp(net).size, "sizes": net, "n": SAMPLES} for net in nets],
        "layers": [{"value": depth, "sizes": net, "n": SAMPLES} for depth, net in depths.items()],
    }


def mapped(n: int, folder: str) -> Dataset:
    """Return n random samples whose inputs are mapped from a file, which is written a part at a time."""
    random, path = np.random.default_rng(0), Path(folder, "X.npy")
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n, INPUTS))
    for start in range(0, n, 10_000):
        X[start : start + 10_000] = random.random((min(10_000, n - start), INPUTS), np.float32)
    X.flush()
    return Dataset(np.load(path, mmap_mode="r"), random.integers(OUTPUTS, size=n))


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call over a second, at least 3 calls, after one that is not timed."""
    times: list[float] = []
    call()
    while len(times) < 3 or (sum(times) < 1 and len(times) < 50):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def peak_during(call: Callable[[], object]) -> float:
    """Return the most memory, in MB, that a call added to what this process has besides mapped files."""
    before, found, ended = memory("RssAnon"), [0.0], threading.Event()

    def watch():
        while not ended.wait(0.002):
            found.append(memory("RssAnon") - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        ended.set()
        watcher.join()
    return max(found)


def vectors_of_cg(b: np.ndarray) -> float:
    """Return the seconds that an iteration of CG takes beside its product."""
    diagonal = np.linspace(1, 1000, b.size).astype(b.dtype)
    A = LinearOperator((b.size, b.size), matvec=lambda v: diagonal * v, dtype=b.dtype)
    solve = median_seconds(lambda: krylov.cg(A, b, max_iter=STEPS, progress=0.0, rtol=0.0))
    return max(solve / STEPS - median_seconds(lambda: diagonal * b), 0.0)


def measure(case: dict) -> dict:
    """Return the seconds of each part of an iteration, and the MB of a product beyond data and budget."""
    with tempfile.TemporaryDirectory() as folder:
        net, data = models.mlp(case["sizes"]), mapped(case["n"], folder)
        objective, w, v = Objective(net, data, memory=BUDGET), net.init(0), net.init(1)
        small = Objective(net, data[:64])
        small.curvature(w) @ v  # loads what a product needs at all
        *hidden, outputs = case["sizes"][1:]
        row = 4 * (4 * sum(hidden) + 2 * outputs)  # bytes that are kept of a sample, see `Linearized`
        used = min(row * case["n"], BUDGET) / 2**20
        peak = peak_during(lambda: objective.curvature(w) @ v)
        B, b = objective.curvature(w), -objective.value_and_gradient(w)[1]
        seconds = {
            "loss": median_seconds(lambda: objective.value(w)),
            "gradient": median_seconds(lambda: objective.value_and_gradient(w)),
            "linearization": median_seconds(lambda: objective.curvature(w)),
            "product": median_seconds(lambda: B @ v),
            "vectors of CG": vectors_of_cg(b),
        }
    return {"p": net.size, "seconds": seconds, "MB": peak - used}


def measured(case: dict, threads: int) -> dict:
    """Return what a process of its own measures."""
    variables = {**blas.environment(), **os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "bench.growth", json.dumps(case)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=LIMIT, check=True)
    return {**case, "threads": threads, **json.loads(done.stdout.splitlines()[-1])}


def slope(rows: list[dict], part: str) -> float:
    """Return the slope of log time against log value over the upper half of the axis."""
    upper = rows[len(rows) // 2 - 1 :]
    x, y = ([np.log(each) for each in values] for values in zip(*points(upper, part), strict=True))
    return float(np.polyfit(x, y, 1)[0])


def points(rows: list[dict], part: str) -> list[tuple[float, float]]:
    """Return (value, milliseconds) of each row."""
    return [(row["value"], 1e3 * max(row["seconds"][part], 1e-7)) for row in rows]


def draw(rows: list[dict]):
    """Return the figure: a panel for each axis and number of threads, a line for each part."""
    axes_of, threads = (
        list(dict.fromkeys(row["axis"] for row in rows)),
        sorted({row["threads"] for row in rows}),
    )
    size = {"figsize": (3.4 * len(axes_of), 2.9 * len(threads)), "layout": "constrained"}
    figure, axes = plt.subplots(len(threads), len(axes_of), sharey=True, squeeze=False, **size)
    for line, count in zip(axes, threads, strict=True):
        for ax, axis in zip(line, axes_of, strict=True):
            mine = [row for row in rows if (row["axis"], row["threads"]) == (axis, count)]
            for index, part in enumerate(PARTS):
                label = f"{part}: {slope(mine, part):.2f}"
                ax.plot(*zip(*points(mine, part), strict=True), label=label, **plots.look(index))
            ax.set(xscale="log", yscale="log", xlabel=axis, ylabel="milliseconds")
            if axis == "layers":  # less than a decade, whose own ticks would overlap
                ax.set_xticks([row["value"] for row in mine], [str(row["value"]) for row in mine])
                ax.set_xticks([], minor=True)
            ax.set_title(f"{count} thread{'s' if count > 1 else ''}; slopes of the upper half", fontsize=9)
            ax.legend(fontsize=7, frameon=False)
            ax.grid(alpha=0.3)
            ax.label_outer(remove_inner_ticks=False)
    figure.suptitle(title(rows), fontsize=10)
    return figure


def title(rows: list[dict]) -> str:
    """Return what the figure shows."""
    least = min(row["threads"] for row in rows)
    one = {axis: [row for row in rows if (row["axis"], row["threads"]) == (axis, least)] for axis in AXES}
    grows = [f"{axis}^{slope(mine, 'product'):.2f}" for axis, mine in one.items() if mine]
    share = max(row["seconds"]["vectors of CG"] / row["seconds"]["product"] for row in rows)
    vectors = f"the vectors of CG take {share:.0%} of it at most"
    return f"The time of a product grows as {' and '.join(grows)}; {vectors}"


def memory_verdict(rows: list[dict]) -> list[dict]:
    """Return a row for each number of threads: a product's most memory ÷ that with 10⁴ samples."""
    verdicts = []
    for threads in sorted({row["threads"] for row in rows}):
        mine = [row for row in rows if (row["axis"], row["threads"]) == ("samples", threads)]
        found = {row["value"]: row["MB"] for row in mine}
        ratio = max(found.values()) / max(found[10**4], 1.0)
        cells = {f"MB, {n:,} samples": round(mb, 1) for n, mb in found.items()}
        holds = "holds" if ratio <= BAR else "DOES NOT HOLD"
        verdicts.append({"threads": threads, **cells, "ratio": ratio, f"at most {BAR}": holds})
    return verdicts


def run(options) -> None:
    """Measure, show, draw, and write results/growth.json and growth.png."""
    rows = []
    for axis, chosen in cases(options.quick).items():
        for threads in options.threads:
            for case in chosen:
                rows.append({"axis": axis, **measured(case, threads)})
                print(
                    axis,
                    case["value"],
                    threads,
                    rows[-1]["seconds"],
                    rows[-1]["MB"],
                    file=sys.stderr,
                    flush=True,
                )
                save("growth", {"about": about(budget=BUDGET, unit="seconds"), "rows": rows})
    table = []
    for axis in cases(options.quick):
        for threads in options.threads:
            mine = [row for row in rows if (row["axis"], row["threads"]) == (axis, threads)]
            table.append({"axis": axis, "threads": threads} | {part: slope(mine, part) for part in PARTS})
    show(table)
    show(memory_verdict(rows))
    figure()


def figure() -> None:
    """Draw results/growth.png from results/growth.json."""
    document = load("growth")
    draw(document["rows"]).savefig(RESULTS / "growth.png", dpi=120)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
