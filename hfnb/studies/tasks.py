"""Named, seeded runs that the notebooks and the benchmarks share."""

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hfnb import datasets, models
from hfnb.datasets import Dataset
from hfnb.objectives import Objective
from hfnb.optimizers import first_order
from hfnb.optimizers.history import Progress, Record
from hfnb.studies.tuning import HALF_DECADE, Axis, tuned


def mode() -> str:
    """Return the size of runs that the variable ``HFNB_MODE`` asks for.

    Returns
    -------
    {"fast", "full"}
        Small in float64, which is the default, or a large network in float32.

    Raises
    ------
    ValueError
        If the variable has another value.
    """
    value = os.environ.get("HFNB_MODE", "fast")
    if value not in ("fast", "full"):
        raise ValueError(f"HFNB_MODE: expected fast or full, got {value!r}")
    return value


@dataclass(frozen=True)
class Task:
    """A network, the data on which it is trained and tested, and the precision of the run.

    Attributes
    ----------
    name : str
    net : Network
    train, test : Dataset
    dtype : type
        Of the parameters, float32 or float64.
    """

    name: str
    net: models.Network
    train: Dataset
    test: Dataset
    dtype: type = np.float32

    def objective(self) -> Objective:
        """Return the training objective in one process."""
        return Objective(self.net, self.train)

    def start(self, seed: int = 0) -> np.ndarray:
        """Return the initial parameters from which every method starts.

        Parameters
        ----------
        seed : int

        Returns
        -------
        ndarray, shape (p,)
        """
        return self.net.init(seed, dtype=self.dtype)


def mnist_task(size: str | None = None) -> Task:
    """Return the task of a 4-layer classifier of MNIST.

    Parameters
    ----------
    size : {"fast", "full"}, optional
        784-100-50-10 on 3,000 images in float64, or 784-400-150-10 on 60,000 in float32; by default as `mode`
        says.

    Returns
    -------
    Task
    """
    if (size or mode()) == "full":
        net = models.mlp([784, 400, 150, 10], weight_decay=2e-5)
        return Task("MNIST", net, *datasets.mnist())
    train, test = datasets.mnist(dtype=np.float64)
    net = models.mlp([784, 100, 50, 10], weight_decay=2e-5)
    return Task("3,000 images of MNIST", net, train[::20], test[::10], np.float64)


def pooled_mnist(images: int, side: int) -> Dataset:
    """Return training images of MNIST averaged to fewer pixels, so that dense matrices stay small.

    Parameters
    ----------
    images : int
        Number of images, the first ones.
    side : int
        Pixels on each side: a divisor of 28.

    Returns
    -------
    Dataset
        X (images, side²) in float64.

    Raises
    ------
    ValueError
        Unless 28 is a multiple of ``side``.

    Examples
    --------
    >>> pooled_mnist(100, side=7).X.shape
    (100, 49)
    """
    if side < 1 or 28 % side:
        raise ValueError(f"side: expected a divisor of 28, got {side}")
    train, _ = datasets.mnist()
    blocks = train.X[:images].astype(np.float64).reshape(-1, side, 28 // side, side, 28 // side)
    return Dataset(blocks.mean(axis=(2, 4)).reshape(-1, side**2), train.Y[:images], name="pooled MNIST")


def run(
    task: Task,
    optimizer: Callable,
    *,
    seed: int = 0,
    progress: bool = True,
    title: str | None = None,
    **options,
) -> list[Record]:
    """Run an optimizer on a task.

    Parameters
    ----------
    task : Task
    optimizer : callable
        Such as `hfnb.hessian_free`.
    seed : int
        Of the initial parameters and of the optimizer.
    progress : bool
        Show a progress bar, with the loss, until the run ends.
    title : str, optional
        What stands beside the bar.
    **options
        Of the optimizer; ``max_iter`` is needed.

    Returns
    -------
    list of Record
        The history. Each record has the test ``error`` in per cent and ``data_loss``, the training loss
        without weight decay.
    """

    def measure(record):
        record["error"] = 100 * task.net.error(record.w, task.test)
        record["data_loss"] = record.loss - 0.5 * float(record.w @ task.net.decay(record.w))

    bar = Progress(options["max_iter"], measure, leave=False, desc=title) if progress else measure
    result = optimizer(task.objective(), task.start(seed), seed=seed, callback=bar, **options)
    return result.history


def tune(task: Task, method: str, axis: Axis, **options) -> tuple[float, list[Record], dict[float, float]]:
    """Run a first-order method at several learning rates, until the best one lies inside the grid.

    Parameters
    ----------
    task : Task
    method : {"sgd", "momentum", "adam"}
    axis : Axis
        The grid of learning rates.
    **options
        Of `run` and of the optimizer.

    Returns
    -------
    rate : float
        The rate with the least final loss: both of its neighbours end higher.
    history : list of Record
        The history at that rate.
    losses : dict
        {rate: final loss}, infinite for a run that diverged.
    """
    runs: dict[float, list[Record]] = {}

    def final_loss(settings: dict[str, float]) -> float:
        rate = settings["learning_rate"]
        title = f"{method}, learning rate {rate:g}"
        runs[rate] = run(task, first_order, title=title, method=method, learning_rate=rate, **options)
        return float(np.nan_to_num(runs[rate][-1].loss, nan=np.inf))

    best = tuned({}, {"learning_rate": axis}, final_loss).settings["learning_rate"]
    losses = {rate: float(np.nan_to_num(runs[rate][-1].loss, nan=np.inf)) for rate in sorted(runs)}
    return best, runs[best], losses


# The two ways to solve the sub-problem that He et al. (2016) compare; all other options are the same.
SECOND_ORDER: dict[str, dict] = {
    "Hessian-free (Bi-CG-STAB, Hessian)": {"solver": "bicgstab", "curvature": "hessian"},
    "Hessian-free (CG, Gauss–Newton)": {"solver": "cg", "curvature": "gauss-newton"},
}
# What this project makes of them: `hessian_free`'s method="auto".
AUTO: dict[str, dict] = {"Hessian-free (auto)": {"method": "auto"}}
# How far each goes on `mnist_task`, by mode; and the learning rates from which the baselines are tuned.
HESSIAN_FREE = {
    "fast": {"max_iter": 15, "curvature_batch_size": 600},
    "full": {"max_iter": 40, "curvature_batch_size": 4096},
}
FIRST_ORDER = {"fast": {"batch_size": 64, "max_iter": 15}, "full": {"batch_size": 64, "max_iter": 30}}
AXES = {"sgd": Axis(0.32, HALF_DECADE), "adam": Axis(1e-3, HALF_DECADE)}


def to_target(history: list[Record], target: float, cost: str) -> float:
    """Return what a run had spent when its loss first was at most a target.

    Parameters
    ----------
    history : list of Record
    target : float
    cost : str
        An entry of the records, such as "passes" or "reductions".

    Returns
    -------
    float
        Infinity if the run did not get there.
    """
    return next((float(record[cost]) for record in history if record.loss <= target), np.inf)


def markdown_table(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as a table of Markdown.

    Parameters
    ----------
    rows : iterable of dict
        {column: what stands in it}; the first row names the columns.

    Returns
    -------
    str

    Examples
    --------
    >>> print(markdown_table([{"solver": "CG", "products": 7}]))
    | solver | products |
    | --- | --- |
    | CG | 7 |
    """
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(each) for each in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(name: str, histories: dict[str, list[Record]], **about) -> None:
    """Write histories to a file in the folder of figures (see `hfnb.plots.figures_folder`).

    Parameters
    ----------
    name : str
        Of the file.
    histories : dict
        {name: list of Record}.
    **about
        What else the file is to say about the runs; machine and versions are added.
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
    """Return the content of a JSON file of this checkout.

    Parameters
    ----------
    path : str
        From the checkout's root, such as "bench/results/rule.json".

    Returns
    -------
    object

    Raises
    ------
    FileNotFoundError
        If it is not there, with the command that makes it.
    """
    file = Path(__file__).resolve().parents[2] / path
    if not file.exists():
        maker = "make bench" if path.startswith("bench/") else "HFNB_MODE=full make run ARGS=--figures"
        raise FileNotFoundError(f"{path}: not in this checkout; {maker} writes it")
    return json.loads(file.read_text(encoding="utf-8"))


def load(name: str) -> tuple[dict[str, list[Record]], dict]:
    """Return the histories that `save` wrote to the folder ``figures`` of this checkout.

    Parameters
    ----------
    name : str
        Of the file.

    Returns
    -------
    histories : dict
        {name: list of Record}.
    about : dict
        What the file says about the runs.

    Raises
    ------
    FileNotFoundError
        If it is not there (see `published`).
    """
    document = published(f"figures/{name}")
    histories = {
        name: [Record(record) for record in records] for name, records in document["histories"].items()
    }
    return histories, document["about"]
