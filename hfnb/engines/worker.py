"""What an engine does: it holds partitions and networks by key, and answers the calls of clients."""

import pickle
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import psutil
import threadpoolctl

from hfnb import threads
from hfnb.datasets.dataset import MappedArray, checksum
from hfnb.engines import blas
from hfnb.objectives.cells import Cells
from hfnb.objectives.compensated_sums import merge
from hfnb.objectives.evaluator import LocalEvaluator, default_memory
from hfnb.objectives.sampling import Shards

# Clients send the functions below; each finds here what earlier calls have left.
BLOCKS: dict[tuple, Shards] = {}  # (dataset, block): the partitions of that block
NETS: dict[str, tuple] = {}  # evaluator: (network, dataset, rows at a time, memory, cells)
TASKS: dict[str, Callable] = {}  # evaluator: the task of its last average
EVALUATORS: dict[tuple, LocalEvaluator] = {}  # (evaluator, block)
PRODUCTS: dict[tuple, Callable] = {}  # (product, block)
CLIENTS: dict[str, tuple[str, int, float]] = {}  # client: its host, its process, and when that began
RUNS: dict[str, Any] = {}  # evaluator: its run on this engine (see `engine_driven`), at most one


def answer(function: Callable, *arguments) -> list:
    """Return ``[function(*arguments)]``, from which the client takes the value.

    ipyparallel keeps replies until Python's garbage collection. The client takes the value out of the list,
    so that what is kept is an empty list and not a large vector.
    """
    return [function(*arguments)]


def limit_threads(n: int) -> tuple[str | None, str]:
    """Let this engine compute with some threads, since one that was started by hand takes all cores.

    Parameters
    ----------
    n : int
        Number of threads of BLAS, and of hfnb's own sums over samples.

    Returns
    -------
    tuple
        What `hfnb.engines.blas.arithmetic` returns here.
    """
    threadpoolctl.threadpool_limits(n)
    threads.set_threads(n)
    return blas.arithmetic()


def hold(dataset: str, block: int, numbers: range, n: int, partitions: int, X, Y) -> bool:
    """Hold consecutive partitions of a dataset as a block.

    Parameters
    ----------
    dataset : str
        The key of the dataset.
    block : int
        The number of the block.
    numbers : range
        The partitions in the block.
    n, partitions : int
        Numbers of samples and of partitions of the dataset.
    X, Y : ndarray or tuple
        The rows of these partitions, or what `reference` returns of them.

    Returns
    -------
    bool
        False if the rows are in a file that this engine does not have.
    """
    X, Y = _open(X), _open(Y)
    if X is None or Y is None:
        return False
    BLOCKS[dataset, block] = Shards(n, partitions, {numbers: (X, Y)})
    return True


def reference(A: np.ndarray):
    """Return (location, checksum) for rows of a memory-mapped file; return any other array unchanged."""
    where = MappedArray.of(A)
    return (where, checksum("rows", A)) if where else A


def _open(A) -> np.ndarray | None:
    """Return the array, or the rows of the file that it refers to; None if they are not here."""
    if isinstance(A, np.ndarray):
        return np.require(A, requirements="A")  # a message need not be aligned
    where, expected = A
    try:
        array = where.open()
    except (OSError, ValueError):  # not here, or too short
        return None
    # Another machine may have another file of this name.
    return array if checksum("rows", array) == expected else None


def unpack(name: str, pickled: bytes):
    """Return what a client has packed with `hfnb.engines.pool.pack`.

    Parameters
    ----------
    name : str
        The argument that the error names.
    pickled : bytes

    Returns
    -------
    object

    Raises
    ------
    TypeError
        If it cannot be unpickled, for example because its module is not on this engine.
    """
    try:
        return pickle.loads(pickled)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise TypeError(f"{name}: expected something that can be unpickled on the engines: {why}") from error


def prepare(
    evaluator: str,
    net: bytes,
    dataset: str,
    chunk: int | None,
    memory: int | None,
    cells: Cells | None,
    engines: int,
) -> None:
    """Keep a network for the evaluation of a dataset.

    Parameters
    ----------
    evaluator : str
        The key under which later calls find both.
    net : bytes
        The network, packed.
    dataset : str
        The key of the dataset.
    chunk : int or None
        The most rows worked through at a time.
    memory : int or None
        Bytes that a linearization may keep between products; by default this engine's part of
        `hfnb.objectives.evaluator.default_memory`, as if all engines were on one machine.
    cells : Cells or None
        The cells, if the partitions of the dataset are cells.
    engines : int
        Number of engines.
    """
    memory = default_memory() // engines if memory is None else memory
    NETS[evaluator] = unpack("net", net), dataset, chunk, memory, cells


def forget(keys: Collection[str]) -> None:
    """Free what is kept under the keys: networks, data, products, tasks, and a run left by its client."""
    for key in keys:
        NETS.pop(key, None)
        TASKS.pop(key, None)
        if key in RUNS:
            RUNS.pop(key).abandon()
    for table in (BLOCKS, EVALUATORS, PRODUCTS):
        for pair in [pair for pair in table if pair[0] in keys]:
            table.pop(pair)


def register(client: str, host: str, pid: int, began: float) -> None:
    """Record a new client, and free the data of clients on this machine whose process no longer exists.

    Parameters
    ----------
    client : str
        The name with which all keys of this client begin.
    host : str
        The name of its machine.
    pid : int
        The number of its process.
    began : float
        When that process began, in seconds since 1970.

    Notes
    -----
    A run of a killed client is not ended here but by the next `hfnb.engines.engine_driven.begin`, which
    reaches all engines of the run.
    """
    for other, process in list(CLIENTS.items()):
        if process[0] == socket.gethostname() and not _runs(*process[1:]):
            leave(other, RUNS)
    CLIENTS[client] = host, pid, began


def leave(client: str, keep: Collection[str] = ()) -> None:
    """Free all that a client has left here, except what is under the keys to ``keep``."""
    CLIENTS.pop(client, None)
    keys = {*NETS, *RUNS, *(pair[0] for table in (BLOCKS, EVALUATORS, PRODUCTS) for pair in table)}
    forget([key for key in keys.difference(keep) if key.startswith(client)])


def _runs(pid: int, began: float) -> bool:
    """Whether the process that began at this time still runs."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - began) < 60  # two processes may see a clock that was set otherwise
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def loss(evaluator: str, blocks: Sequence[int], w: np.ndarray, sample) -> np.ndarray:
    """Return the sum of losses over some blocks.

    Parameters
    ----------
    evaluator : str
        The key of the evaluator.
    blocks : sequence of int
        Numbers of the blocks.
    w : ndarray, shape (p,)
    sample : Sample or None
        The samples to sum over; None for all.

    Returns
    -------
    ndarray
        A total of 1 number (see `hfnb.objectives.compensated_sums`).
    """
    return merged([_evaluator(evaluator, block).loss(w, sample) for block in blocks])


def gradient(evaluator: str, blocks: Sequence[int], w: np.ndarray, sample) -> np.ndarray:
    """Return the sum of gradients and, in the last place, of losses over some blocks.

    Parameters
    ----------
    evaluator, blocks, w, sample
        As `loss` takes them.

    Returns
    -------
    ndarray
        A total of p + 1 numbers.
    """
    return merged([_evaluator(evaluator, block).gradient(w, sample) for block in blocks])


def losses_along(
    evaluator: str, blocks: Sequence[int], w: np.ndarray, d: np.ndarray, alphas: np.ndarray, sample
) -> np.ndarray:
    """Return the sums of losses at the points w + αd over some blocks.

    Parameters
    ----------
    evaluator : str
        The key of the evaluator.
    blocks : sequence of int
        Numbers of the blocks.
    w, d, alphas, sample
        As `hfnb.objectives.Evaluator.losses_along` takes them.

    Returns
    -------
    ndarray
        A total of as many numbers as there are α.
    """
    return merged([_evaluator(evaluator, block).losses_along(w, d, alphas, sample) for block in blocks])


def average(
    evaluator: str, blocks: Sequence[int], task: bytes | None, size: int, w: np.ndarray, *arguments
) -> np.ndarray:
    """Return the sum of what a task returns for the cells in some blocks.

    Parameters
    ----------
    evaluator : str
        The key of the evaluator.
    blocks : sequence of int
        Numbers of the blocks.
    task : bytes or None
        The task, packed; None for that of the evaluator's last average.
    size : int
        Length of what the task returns.
    w : ndarray, shape (p,)
        Parameters.
    *arguments
        Further arguments of the task: arrays, and anything else packed.

    Returns
    -------
    ndarray
        A total of ``size`` numbers.
    """
    if task is not None:
        TASKS[evaluator] = unpack("task", task)
    given = tuple(unpack("arguments", each) if isinstance(each, bytes) else each for each in arguments)
    return merged(
        [_evaluator(evaluator, block).average(TASKS[evaluator], w, given, size) for block in blocks]
    )


def multiply(
    evaluator: str, blocks: Sequence[int], product: str, v: np.ndarray, point: tuple | None
) -> np.ndarray:
    """Return the total of curvature products over some blocks.

    Parameters
    ----------
    evaluator : str
        The key of the evaluator.
    blocks : sequence of int
        Numbers of the blocks.
    product : str
        The key under which the linearization of each block is kept.
    v : ndarray, shape (p,)
    point : tuple or None
        (w, sample, packed kind) of the product; None if every block has been linearized already.

    Returns
    -------
    ndarray
        A total of p numbers.
    """
    totals = []
    for block in blocks:
        if (product, block) not in PRODUCTS and point is not None:
            w, sample, kind = point
            linearize = _evaluator(evaluator, block).linearize
            PRODUCTS[product, block] = linearize(w, unpack("curvature", kind), sample)
        totals.append(PRODUCTS[product, block](v))
    return merged(totals)


def not_finite(evaluator: str, blocks: Sequence[int], w: np.ndarray, sample) -> list[int]:
    """Return the partitions in some blocks, by number, whose loss at w is not finite."""
    found = (partitions_not_finite(_evaluator(evaluator, block), w, sample) for block in blocks)
    return [number for numbers in found for number in numbers]


def partitions_not_finite(evaluator: LocalEvaluator, w: np.ndarray, sample) -> list[int]:
    """Return the partitions of an evaluator, by number, whose loss at w is not finite."""
    shards = evaluator.shards
    alone = {i: LocalEvaluator(evaluator.net, shards.select([i]), evaluator.chunk) for i in shards.held}
    return [number for number, one in alone.items() if not np.isfinite(one.loss(w, sample)).all()]


def evaluator_of(evaluator: str, blocks: Sequence[int]) -> LocalEvaluator:
    """Return a new evaluator over all partitions in some blocks.

    Parameters
    ----------
    evaluator : str
        The key under which `prepare` has kept the network.
    blocks : sequence of int
        Numbers of blocks that are held here, at least one.

    Returns
    -------
    LocalEvaluator
    """
    net, dataset, chunk, memory, cells = NETS[evaluator]
    shards = Shards.joined([BLOCKS[dataset, block] for block in blocks])
    return LocalEvaluator(net, shards, chunk, memory, cells)


def _evaluator(evaluator: str, block: int) -> LocalEvaluator:
    """Return the evaluator over one block, which is made when it is first needed."""
    if (evaluator, block) not in EVALUATORS:
        EVALUATORS[evaluator, block] = evaluator_of(evaluator, [block])
    return EVALUATORS[evaluator, block]


def merged(totals: Sequence[np.ndarray]) -> np.ndarray:
    """Return the total of some totals, at least one, merged in the order given."""
    total = np.array(totals[0])
    for other in totals[1:]:
        merge(total, other)
    return total
