"""Short runs on one and on several engines, whose times a model of scaling is fitted to and tested on."""

from collections.abc import Callable, Sequence

import numpy as np

from hfnb.engines import Cluster
from hfnb.optimizers import first_order, hessian_free
from hfnb.optimizers.history import Record
from hfnb.studies.scaling_model import Run, Workload, workloads
from hfnb.studies.tasks import Task

# Samples of a product, and of a step of SGD, on `mnist_task`. The third of the sizes and the second of the
# batches are for testing.
SIZES = {"fast": (150, 600, 1500, 3000), "full": (2048, 8192, 24_000, 60_000)}
BATCHES = {"fast": (64, 256, 1000), "full": (64, 512, 4096)}
NODES = 16  # some runs are on the part of the data that one of so many nodes would hold
TEST = "test: "
# Adam with batches larger than lesson 06's, and the learning rates tried at each.
BASELINES = {512: (1e-3, 3e-3), 4096: (3e-3, 1e-2)}

Plan = tuple[int, Callable, dict]  # a run on one sample in so many; the optimizer; its options


def plans(mode: str) -> dict[str, Plan]:
    """Return the runs to be timed.

    Parameters
    ----------
    mode : {"fast", "full"}

    Returns
    -------
    dict
        {name: plan}: Hessian-free with few products a run, on all data and on the part that one of `NODES`
        would hold, and SGD. The names of the runs to be tested on begin with `TEST`.

    Examples
    --------
    >>> [name for name in plans("fast") if name.startswith(TEST)]
    ['test: products over 1,500', 'test: a 16th of products over 1,500', 'test: SGD, batch 256']
    """
    found: dict[str, Plan] = {}
    newton = {"max_iter": 3 if mode == "full" else 2, "tol": 0.0, "solver_options": {"max_iter": 4}}
    for size in SIZES[mode]:
        test, name = TEST if size == SIZES[mode][2] else "", f"products over {size:,}"
        found[test + name] = 1, hessian_free, newton | {"curvature_batch_size": size}
        found[f"{test}a {NODES}th of {name}"] = (
            NODES,
            hessian_free,
            newton | {"curvature_batch_size": size // NODES},
        )
    for batch in BATCHES[mode]:
        test = TEST if batch == BATCHES[mode][1] else ""
        found[f"{test}SGD, batch {batch:,}"] = 1, first_order, {"max_iter": 2, "batch_size": batch}
    return found


def measure(task: Task, clusters: dict[int, Cluster], plans: dict[str, Plan]) -> tuple[dict, dict]:
    """Run the plans on each cluster, in turns, so that a busy machine disturbs all clusters alike.

    Parameters
    ----------
    task : Task
    clusters : dict
        {number of engines: cluster}.
    plans : dict
        {name: plan}. Plans on a part of the data run on one engine only.

    Returns
    -------
    histories : dict
        {name: history}.
    settings : dict
        {name: arguments of `Run.of`}, for `read`.
    """
    from tqdm.auto import tqdm

    histories, settings = {}, {}
    data = {share: task.train[: len(task.train) // share] for share in (1, NODES)}
    for name, (share, optimizer, options) in tqdm(plans.items(), unit="plan"):
        for n, cluster in clusters.items():
            if n == 1 or share == 1:
                partitions, size = 24 if share == 1 else 2, options.get("curvature_batch_size", 0)
                arguments = task.net, data[share], task.start(), optimizer
                run = cluster.minimize(*arguments, partitions=partitions, progress=False, **options)
                histories[f"{name} (N = {n})"] = run.history
                setting = {"curvature_batch_size": size, "engines": n, "partitions": partitions}
                settings[f"{name} (N = {n})"] = setting
    return histories, settings


def baselines(task: Task, cluster: Cluster, target: float) -> dict[str, list[Record]]:
    """Return the histories of Adam, for each batch of `BASELINES` at the rate with the fewest epochs.

    Parameters
    ----------
    task : Task
    cluster : Cluster
    target : float
        The loss at which a run ends. Otherwise it ends after 12 epochs, or once it cannot beat the best rate
        so far.

    Returns
    -------
    dict
        {name: history} of the batches that reach the target.
    """
    from tqdm.auto import tqdm

    found = {}
    for batch, rates in tqdm(BASELINES.items(), unit="batch"):
        best, limit = None, 12
        for rate in rates:
            options = {"method": "adam", "batch_size": batch, "learning_rate": rate, "max_iter": limit}
            arguments = task.net, task.train, task.start(), first_order
            run = cluster.minimize(
                *arguments, callback=lambda record: record.loss <= target, progress=False, **options
            )
            if run.fun <= target:
                best, limit = run.history, run.nit - 1
        if best:
            found[f"Adam (batch {batch:,})"] = best
    return found


def read(histories: dict, settings: dict, w0: np.ndarray) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return measured runs as `hfnb.studies.scaling_model` takes them.

    Parameters
    ----------
    histories, settings : dict
        As `measure` returns them.
    w0 : ndarray, shape (p,)
        Initial parameters, or any vector of their number and precision.

    Returns
    -------
    fitted, tested : dict
        {name: Run}: the runs to fit a model to, and those to test it on.
    """
    runs = {name: Run.of(histories[name], w0, **setting) for name, setting in settings.items()}
    tests = {name.removeprefix(TEST): run for name, run in runs.items() if name.startswith(TEST)}
    return {name: run for name, run in runs.items() if not name.startswith(TEST)}, tests


def works_to(
    history: Sequence[Record], target: float, w0: np.ndarray, curvature_batch_size: int = 0
) -> list[Workload]:
    """Return the workloads of a history up to the first loss that is at most a target.

    Parameters
    ----------
    history : sequence of Record
    target : float
        A loss.
    w0 : ndarray, shape (p,)
        Initial parameters, or any vector of their number and precision.
    curvature_batch_size : int
        Samples of a product.

    Returns
    -------
    list of Workload

    Raises
    ------
    ValueError
        If the run does not reach the target.
    """
    end = next((i for i, record in enumerate(history) if record.loss <= target), None)
    if end is None:
        raise ValueError(f"target: expected a loss that the run reaches, got {target}")
    return workloads(history[: end + 1], w0, curvature_batch_size)
