"""What runs on an engine: it holds partitions and networks by key, and answers the calls of the client.

The client sends these functions; they find on the engine what earlier calls left in the tables below.
"""

import pickle
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import threadpoolctl

from hfnb import threads
from hfnb.datasets.dataset import MappedArray, checksum
from hfnb.engines import blas
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.sampling import Shards
from hfnb.objectives.summation import merge

BLOCKS: dict[tuple, Shards] = {}  # (dataset, block): the partitions of that block
NETS: dict[str, tuple] = {}  # evaluator: (network, dataset, rows at a time)
EVALUATORS: dict[tuple, LocalEvaluator] = {}  # (evaluator, block)
PRODUCTS: dict[tuple, Callable] = {}  # (product, block)
CLIENTS: dict[str, tuple[str, int, float]] = {}  # client: its host, process, and when that began
RUNS: dict[str, Any] = {}  # evaluator: its run on this engine (see `engine_driven`), at most one


def limit_threads(number: int) -> tuple[str | None, str]:
    """Hold NumPy to this many threads, since engines started by hand take all the cores each.

    Returns what `hfnb.engines.blas.arithmetic` says of this engine.
    """
    threadpoolctl.threadpool_limits(number)
    threads.set_threads(number)
    return blas.arithmetic()


def hold(dataset: str, block: int, numbers: range, offsets: np.ndarray, X, Y) -> bool:
    """Hold the partitions ``numbers`` of a dataset, whose rows are X and Y, as a block.

    X and Y are arrays or, where a file has them, what `reference` makes of them: False if it is not here.
    """
    X, Y = _open(X), _open(Y)
    if X is None or Y is None:
        return False
    starts = offsets[numbers.start : numbers.stop + 1] - offsets[numbers.start]
    parts = {i: (X[a:b], Y[a:b]) for i, a, b in zip(numbers, starts[:-1], starts[1:], strict=True)}
    BLOCKS[dataset, block] = Shards(offsets, parts)
    return True


def reference(A: np.ndarray):
    """Return where the rows of a mapped array are and their checksum; of any other, the array."""
    where = MappedArray.of(A)
    return (where, checksum("rows", A)) if where else A


def _open(A) -> np.ndarray | None:
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
    """Return what the client has packed; TypeError naming it where, say, its module is not on this engine."""
    try:
        return pickle.loads(pickled)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise TypeError(f"{name}: expected something that can be unpickled on the engines: {why}") from error


def prepare(evaluator: str, net: bytes, dataset: str, chunk: int | None) -> None:
    """Learn a network and the dataset that its sums run over."""
    NETS[evaluator] = unpack("net", net), dataset, chunk


def forget(keys: list[str]) -> None:
    """Free what the client no longer refers to: networks, blocks of data, products, a run it has left."""
    for key in keys:
        NETS.pop(key, None)
        if key in RUNS:
            RUNS.pop(key).abandon()
    for table in (BLOCKS, EVALUATORS, PRODUCTS):
        for pair in [pair for pair in table if pair[0] in keys]:
            table.pop(pair)


def register(client: str, host: str, pid: int, began: float) -> None:
    """Note who a client is, and free what clients left here that were killed on this machine.

    Their keys begin with the client's name. A run that one of them left ends when the next begins, on all
    engines alike.
    """
    for other, process in list(CLIENTS.items()):
        if process[0] == socket.gethostname() and not _runs(*process[1:]):
            leave(other, RUNS)
    CLIENTS[client] = host, pid, began


def leave(client: str, keep=()) -> None:
    """Free all that a client has left here, but for the keys to ``keep``."""
    CLIENTS.pop(client, None)
    keys = {*NETS, *RUNS, *(pair[0] for table in (BLOCKS, EVALUATORS, PRODUCTS) for pair in table)}
    forget([key for key in keys.difference(keep) if key.startswith(client)])


def _runs(pid: int, began: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - began) < 60  # two processes may see a clock that was set otherwise
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def loss(evaluator: str, blocks: list[int], w, sample) -> np.ndarray:
    """Return the sum of losses over the blocks, a total of 1 number."""
    return add(_evaluator(evaluator, block).loss(w, sample) for block in blocks)


def gradient(evaluator: str, blocks: list[int], w, sample) -> np.ndarray:
    """Return the sum of gradients and losses over the blocks, a total of p + 1 numbers."""
    return add(_evaluator(evaluator, block).gradient(w, sample) for block in blocks)


def multiply(evaluator: str, blocks: list[int], product: str, v, at: tuple | None) -> np.ndarray:
    """Return the sum of curvature products over the blocks, a total of p numbers.

    ``at``: the parameters, sample and kind of the product, where a block has not been taped for it.
    """
    for block in blocks:
        if at and (product, block) not in PRODUCTS:
            w, sample, kind = at
            PRODUCTS[product, block] = _evaluator(evaluator, block).linearize(
                w, unpack("curvature", kind), sample
            )
    return add(PRODUCTS[product, block](v) for block in blocks)


def not_finite(evaluator: str, blocks: list[int], w, sample) -> list[int]:
    """Return the numbers of the partitions whose loss at w is not finite."""
    return [
        number
        for block in blocks
        for number in partitions_not_finite(_evaluator(evaluator, block), w, sample)
    ]


def partitions_not_finite(evaluator: LocalEvaluator, w, sample) -> list[int]:
    """Return the numbers of the partitions in these sums whose loss at w is not finite."""
    alone = {
        i: LocalEvaluator(evaluator.net, evaluator.shards.select([i]), evaluator.chunk)
        for i in evaluator.shards.held
    }
    return [number for number, one in alone.items() if not np.isfinite(one.loss(w, sample)).all()]


def _evaluator(evaluator: str, block: int) -> LocalEvaluator:
    """Return the sums of a network over a block, made when first asked for."""
    if (evaluator, block) not in EVALUATORS:
        net, dataset, chunk = NETS[evaluator]
        EVALUATORS[evaluator, block] = LocalEvaluator(net, BLOCKS[dataset, block], chunk)
    return EVALUATORS[evaluator, block]


def add(parts) -> np.ndarray:
    """Add up totals in the order given."""
    first, *others = parts
    total = np.array(first)
    for other in others:
        merge(total, other)
    return total
