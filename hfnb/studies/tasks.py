"""Named, seeded runs that the notebooks and the benchmarks share."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hfnb import datasets, models
from hfnb.datasets import Dataset
from hfnb.objectives import Objective
from hfnb.optimizers import first_order
from hfnb.optimizers.history import Record
from hfnb.optimizers.progress import Progress


def mode() -> str:
    """Return "fast" (the default: small, float64) or "full" (paper-size, float32), as ``HFNB_MODE`` says."""
    value = os.environ.get("HFNB_MODE", "fast")
    if value not in ("fast", "full"):
        raise ValueError(f"HFNB_MODE: expected fast or full, got {value!r}")
    return value


@dataclass(frozen=True)
class Task:
    """A network, the data it is trained and tested on, and the precision of the run."""

    name: str
    net: models.Network
    train: Dataset
    test: Dataset
    dtype: type = np.float32

    def objective(self) -> Objective:
        """Return the training objective in one process."""
        return Objective(self.net, self.train)

    def start(self, seed: int = 0) -> np.ndarray:
        """Return the start that every method shares."""
        return self.net.init(seed, dtype=self.dtype)


def mnist_task(size: str | None = None) -> Task:
    """Return a 4-layer classifier of MNIST: 784-400-150-10 on 60,000 images; fast: 784-100-50-10 on 3,000."""
    if (size or mode()) == "full":
        net = models.mlp([784, 400, 150, 10], weight_decay=2e-5)
        return Task("MNIST", net, *datasets.mnist())
    train, test = datasets.mnist(dtype=np.float64)
    net = models.mlp([784, 100, 50, 10], weight_decay=2e-5)
    return Task("3,000 images of MNIST", net, train[::20], test[::10], np.float64)


def pooled_mnist(images: int, side: int) -> Dataset:
    """Return the first training images of MNIST averaged to side × side pixels, in float64: for dense checks.

    ValueError unless 28 is a multiple of ``side``.

    >>> pooled_mnist(100, side=7).X.shape
    (100, 49)
    """
    if side < 1 or 28 % side:
        raise ValueError(f"side: expected a divisor of 28, got {side}")
    train, _ = datasets.mnist()
    blocks = train.X[:images].astype(np.float64).reshape(-1, side, 28 // side, side, 28 // side)
    return Dataset(blocks.mean(axis=(2, 4)).reshape(-1, side**2), train.Y[:images], name="pooled MNIST")


def run(task: Task, optimizer: Callable, *, seed: int = 0, progress: bool = True, **options) -> list[Record]:
    """Return the history of an optimizer on a task.

    Each record has the test ``error`` in per cent and ``data_loss``, the training loss without weight decay.
    """

    def measure(record):
        record["error"] = 100 * task.net.error(record.w, task.test)
        record["data_loss"] = record.loss - 0.5 * float(record.w @ task.net.decay(record.w))

    callback = Progress(options["max_iter"], measure, leave=False) if progress else measure
    result = optimizer(task.objective(), task.start(seed), seed=seed, callback=callback, **options)
    return result.history


def tune(
    task: Task, method: str, rates: Iterable[float], **options
) -> tuple[float, list[Record], dict[float, float]]:
    """Run a first-order method at each rate; return the best rate, its history, and all final losses."""
    runs = {rate: run(task, first_order, method=method, learning_rate=rate, **options) for rate in rates}
    losses = {rate: history[-1].loss for rate, history in runs.items()}
    best = min(losses, key=lambda rate: np.nan_to_num(losses[rate], nan=np.inf))
    return best, runs[best], losses


# The two ways to solve the sub-problem that the paper compares; every other option is common.
SECOND_ORDER: dict[str, dict] = {
    "Hessian-free (Bi-CG-STAB, Hessian)": {"solver": "bicgstab", "curvature": "hessian"},
    "Hessian-free (CG, Gauss–Newton)": {"solver": "cg", "curvature": "gauss-newton"},
}
# What this project makes of them: `hessian_free`'s method="auto".
AUTO: dict[str, dict] = {"Hessian-free (auto)": {"method": "auto"}}
# How far each goes on `mnist_task`, by mode; and the learning rates over which the baselines are tuned.
HESSIAN_FREE = {
    "fast": {"max_iter": 15, "curvature_batch_size": 600},
    "full": {"max_iter": 40, "curvature_batch_size": 4096},
}
FIRST_ORDER = {"fast": {"batch_size": 64, "max_iter": 15}, "full": {"batch_size": 64, "max_iter": 30}}
RATES = {"sgd": (0.03, 0.1, 0.3, 1.0), "adam": (3e-4, 1e-3, 3e-3)}


def to_target(history: list[Record], target: float, cost: str) -> float:
    """Return the ``cost`` ("passes", "reductions", …) at which the loss was first ≤ target, or infinity."""
    return next((float(record[cost]) for record in history if record.loss <= target), np.inf)


def save(name: str, histories: dict[str, list[Record]], **about) -> None:
    """Write histories as ``name`` in the folder of figures, with the machine, the versions and what is said
    ``about`` them; `load` reads what is in ``figures`` of the checkout.
    """
    from hfnb.plots import figures_folder  # needs matplotlib, which is an extra

    about["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    about["versions"] = {name: version(name) for name in ("hfnb", "numpy", "scipy", "autograd")}
    document = {"about": about, "histories": histories}
    path = figures_folder() / name
    path.write_text(
        json.dumps(document, indent=None, separators=(",", ":"), default=float) + "\n", encoding="utf-8"
    )


def published(path: str) -> Any:
    """Return the JSON at ``path`` in this checkout, such as "bench/results/rule.json".

    FileNotFoundError, which says what makes it, where it is not there.
    """
    file = Path(__file__).resolve().parents[2] / path
    if not file.exists():
        maker = "make bench" if path.startswith("bench/") else "HFNB_MODE=full make run ARGS=--figures"
        raise FileNotFoundError(f"{path}: not in this checkout; {maker} writes it")
    return json.loads(file.read_text(encoding="utf-8"))


def load(name: str) -> tuple[dict[str, list[Record]], dict]:
    """Return the histories that `save` wrote as figures/``name`` of this checkout, and what is said of them.

    FileNotFoundError where they are not there: see `published`.
    """
    document = published(f"figures/{name}")
    histories = {
        name: [Record(record) for record in records] for name, records in document["histories"].items()
    }
    return histories, document["about"]
