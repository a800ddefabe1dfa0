"""`Cluster`: start or attach to engines, keep data on them, run optimizers with them, and clean up."""

import atexit
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ipyparallel as ipp
import numpy as np
import psutil
from scipy.optimize import OptimizeResult

from hfnb.datasets import Dataset, fingerprint
from hfnb.engines import blas, launch, watchdog, worker
from hfnb.engines.distributed_evaluators import ClientEvaluator, mpi_rank
from hfnb.engines.engine_driven import Watch, iterations, run_engine_driven, run_with_restarts
from hfnb.engines.options import (
    check_options,
    check_partitions,
    find_optimizer,
    needs_cells,
    prepare,
    slots,
    without_lost_hosts,
)
from hfnb.engines.placement import Placements
from hfnb.engines.pool import Pool, hold_interrupts
from hfnb.objectives.cells import CELLS, Cells
from hfnb.objectives.objective import Objective, check_objective
from hfnb.objectives.protocols import Model
from hfnb.objectives.sampling import CUTS, default_partitions
from hfnb.optimizers import checkpoint, hessian_free
from hfnb.optimizers.history import check_result
from hfnb.validation import check_callable, check_nonnegative_int, check_positive, check_positive_int, renamed

log = logging.getLogger(__name__)


class Cluster:
    """Processes that hold a dataset between them and evaluate its loss, gradient and curvature together.

    A process is an *engine* of ipyparallel. Engines are started on this machine, on others by SSH, MPI or a
    batch system, or have been started by hand. Use the cluster in a ``with`` block, or call `start` and
    `stop`; a stopped cluster can be started again.

    Parameters
    ----------
    n : int, optional
        How many engines to start; by default as many as ``hosts`` says, else 2. For a running cluster: how
        many of its engines to use; by default all.
    engines : str, optional
        A launcher of ipyparallel ("mpi", "local", "ssh", "slurm", ...), or the profile or cluster id of a
        cluster that was started by hand, which is left running. By default "mpi" where MPI is installed, else
        "local".
    threads : int, optional
        Threads with which each engine computes, as `hfnb.set_threads` describes them.
    timeout : float, optional
        Seconds to wait for the engines to start.
    deadline : float, optional
        Seconds that an engine may take for one call before it is given up; by default without limit.
    partitions : int, optional
        Parts into which a dataset is cut, at least one for each engine; `objective` and `minimize` can
        override it. By default they are at least as many as the engines, and 4 to 24 otherwise, depending on
        the number of samples.
    **options
        Past one machine (docs/cluster.md): ``hosts``, {host: engines there} or a list of hosts, for "ssh" and
        "mpi"; ``python``, the interpreter there (by default this one's path); ``environment``, variables of
        the engines; ``controller_ip``, the address at which the controller listens (by default this
        machine's on the network of the ``hosts``); and what ipyparallel's launcher takes: ``ssh_args``,
        ``mpi_args``, ``queue``, ``timelimit``, ``batch_template``, ...

    Raises
    ------
    ValueError, TypeError
        For bad arguments, before anything is started.

    Notes
    -----
    Runs are *client-driven* or *engine-driven*. `objective` returns an objective for any optimizer here: the
    parameters go out to the engines, and partial sums come back. `minimize` runs the optimizer on every
    engine, beside the data, and MPI adds up the partial sums.

    In float64, runs agree to 1e-12 on any number of engines and threads, and with a run in one process, under
    two conditions. Client and engines must have the same BLAS kernel, NumPy and kind of processor: engines
    that are started on this machine are given this process's kernel, and a warning names others that round
    differently. Every `hfnb.Sample` must have at least 16 samples per partition on average; with fewer, each
    engine sums its samples as one group, so that rounding depends on the number of engines.

    Examples
    --------
    >>> import numpy as np
    >>> import hfnb
    >>> net = hfnb.models.mlp([4, 3, 2])
    >>> data = hfnb.Dataset(np.eye(4), np.array([0, 1, 0, 1]))
    >>> with hfnb.Cluster(n=1, engines="local") as cluster:
    ...     objective = cluster.objective(net, data)
    ...     result = hfnb.hessian_free(objective, net.init(0), max_iter=2)
    >>> result.nit
    2
    """

    def __init__(
        self,
        n: int | None = None,
        engines: str | None = None,
        *,
        threads: int = 1,
        timeout: float = 120.0,
        deadline: float | None = None,
        partitions: int | None = None,
        **options: Any,
    ) -> None:
        n = None if n is None else check_positive_int("n", n)
        threads = check_positive_int("threads", threads)
        partitions = None if partitions is None else check_positive_int("partitions", partitions)
        timeout = check_positive("timeout", timeout, at_most=threading.TIMEOUT_MAX)
        if deadline is not None:
            deadline = check_positive("deadline", deadline, at_most=threading.TIMEOUT_MAX)
        if (launcher := launch.named(engines)) is not None:  # all that can be known before a start
            check_options(launcher, n, options)
            started = n or sum(slots(launcher, options.get("hosts")).values()) or 2
            if partitions is not None:
                check_partitions(partitions, started)
        self._n, self._wanted, self._threads, self._partitions = n, engines, threads, partitions
        self._timeout, self._deadline, self._options = timeout, deadline, options
        self._most = 0  # engines that this cluster has had at a time
        self._client: ipp.Client | None = None
        self._stop_engines: Callable = lambda: None
        self._leave: Callable = lambda: None
        self._lock, self._process = threading.RLock(), os.getpid()

    def start(self) -> "Cluster":
        """Start the engines or attach to them; `stop` is called at the end of the program at the latest.

        Returns
        -------
        Cluster
            This cluster.

        Raises
        ------
        RuntimeError
            If the engines do not start, with the reason, or if the cluster is running already.
        ValueError
            If ``engines`` names neither a launcher nor a running cluster; the message lists both.
        KeyboardInterrupt
            After Ctrl-C, once what has been started is stopped again.
        """
        self._check_process()
        with self._lock:
            if self._client is not None:
                raise RuntimeError("the cluster is running already: call stop() before another start()")
            launcher, self._process = launch.choose(self._wanted), os.getpid()
            self._own = launcher is not None
            try:
                if launcher is None and self._wanted is not None:
                    self._client = launch.attach(self._wanted, self._n, self._timeout, self._options)
                    atexit.register(self.stop)
                elif launcher is not None:
                    prepared = prepare(launcher, self._n, self._threads, self._options)
                    with hold_interrupts() as deliver:
                        self._client, self._stop_engines = launch.start(
                            launcher, prepared, self._timeout, deliver
                        )
                        atexit.register(self.stop)
                self._connect()
            except BaseException:
                self.stop()
                raise
        return self

    def _connect(self):
        """Prepare the engines that have registered: import paths, order by MPI rank, threads, calls."""
        client, ids = self.client, self.client.ids
        if self._n is not None and self._n > len(ids):
            raise ValueError(f"n: expected at most {len(ids)} of {self._wanted!r}, got {self._n}")
        # Engines find this package, and the user's own modules, where the client does.
        paths = [os.path.abspath(path) for path in sys.path]
        code = f"import sys; sys.path[:] = dict.fromkeys([*sys.path, *{paths}])"
        if silent := launch.first_call(client, ids, code, self._timeout):
            names = ", ".join(map(str, silent))
            raise RuntimeError(f"of {len(ids)} engines these did not answer in {self._timeout:g} s: {names}")
        pool = Pool(client, ids, lambda: self._is_alive(client), self._timeout)
        ranks = dict(zip(ids, pool.call_all(mpi_rank), strict=True))
        self._ranks = {engine: rank for engine, rank in ranks.items() if rank is not None}
        if len(set(self._ranks.values())) < len(ids):  # not one MPI job
            self._ranks = {}
        if self._ranks:
            pool.call_all(watchdog.unlink_segments)
        pool.engines = sorted(ids, key=lambda engine: self._ranks.get(engine, engine))[: self._n]
        found = pool.call_all(worker.limit_threads, self._threads)
        blas.warn_of_others(dict(zip(pool.engines, found, strict=True)))
        pool.deadline = self._deadline  # not before: an engine's first call imports this package
        self._pool, self._placements = pool, Placements(pool)
        if not self._own:  # engines that keep running must not keep the data
            process = psutil.Process()
            pool.call_all(
                worker.register, pool.name, socket.gethostname(), process.pid, process.create_time()
            )
            self._leave = pool.leave

    def _is_alive(self, client: ipp.Client) -> bool:
        """Whether the controller of this client runs; RuntimeError if it was stopped or started again."""
        if self.client is not client:
            raise RuntimeError("the cluster has been started again: make the objective anew")
        return launch.is_alive(client)

    def stop(self) -> None:
        """Stop the engines; those that were started by hand keep running, and free this client's data.

        Notes
        -----
        Calling it again does nothing, nor does calling it in a process that was forked from the one that
        started the engines. Ctrl-C meanwhile is raised when they have stopped.
        """
        if self._process != os.getpid():
            return
        with hold_interrupts(), self._lock:
            leave, self._leave = self._leave, lambda: None
            with suppress(Exception):  # an engine that does not answer cannot be told to free its data
                leave()
            client, self._client = self._client, None
            stop_engines, self._stop_engines = self._stop_engines, lambda: None
            try:
                if client is not None:
                    client.close(linger=0)
            finally:
                stop_engines()
                atexit.unregister(self.stop)

    def _restart(self) -> None:
        """Start new engines on the hosts that still answer."""
        self.stop()
        self._n, self._options = without_lost_hosts(self._wanted or "mpi", self._n, self._options)
        self.start()

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *exception) -> None:
        self.stop()

    def _check_process(self) -> None:
        """Raise RuntimeError if the engines belong to the process from which this one was forked."""
        if self._client is not None and self._process != os.getpid():
            raise RuntimeError(
                f"the cluster was started by process {self._process}, of which this one is a fork: "
                "make another Cluster here"
            )

    @property
    def client(self) -> ipp.Client:
        """The ipyparallel client, whose ``client[engine]`` runs any function on an engine.

        Raises
        ------
        RuntimeError
            If the cluster is not running, or was started by another process.
        """
        self._check_process()
        if self._client is None:
            raise RuntimeError("the cluster is not running: use it in a `with` block, or call start()")
        return self._client

    @property
    def engines(self) -> list[int]:
        """Numbers of the engines in use, in the order in which their sums are added."""
        return list(self.client and self._pool.engines)

    @property
    def has_mpi(self) -> bool:
        """Whether the engines are connected by MPI."""
        return bool(self.client and self._ranks)

    def _evaluator(
        self,
        net,
        data,
        partitions: int | None,
        chunk: int | None,
        memory: int | None,
        cells: int | None,
        cell_seed: int | None,
    ) -> ClientEvaluator:
        """Return the evaluator of the network over the data, which is sent unless engines hold it already."""
        placements = self.client and self._placements
        chunk, memory = check_objective(net, data, chunk, memory)
        # With the most engines so far, a run that goes on after one was lost has the same partitions.
        self._most = max(self._most, len(self._pool.engines))
        drawn = Cells.of(len(data), partitions, cells, cell_seed)
        if drawn is not None:
            partitions = drawn.number
        elif partitions is None:
            partitions = self._partitions or default_partitions(len(data), max(self._most, CUTS[0]))
        check_partitions(partitions, len(self._pool.engines), "partitions" if drawn is None else "cells")
        seed = None if drawn is None else drawn.seed
        placement = placements.of(data, fingerprint(data), partitions, seed)
        return ClientEvaluator(net, placement, chunk, memory, drawn)

    def objective(
        self,
        net: Model,
        data: Dataset,
        *,
        partitions: int | None = None,
        chunk: int | None = None,
        memory: int | None = None,
        cells: int | None = None,
        cell_seed: int | None = 0,
    ) -> Objective:
        """Return an objective that the engines evaluate, for client-driven runs of any optimizer.

        Parameters
        ----------
        net : Model
            A network of `hfnb.models`, or another `hfnb.objectives.Model`.
        data : Dataset
            It is sent once, and kept on the engines as long as the dataset or an objective on it exists.
        partitions : int, optional
            Parts into which the data is cut, by default those of the cluster.
        chunk : int, optional
            The most rows that an engine works through at a time.
        memory : int, optional
            Bytes that an engine may keep between curvature products, as for `hfnb.Objective`; by default an
            eighth of its machine's memory divided by the number of engines.
        cells : int, optional
            Number of random parts of the data that can work alone, as for `hfnb.Objective`; at least one for
            each engine. They are then the partitions.
        cell_seed : int, optional
            Seed of the order in which the data is cut into cells; None keeps the order of the data.

        Returns
        -------
        Objective
            Its methods raise EngineFailure for an exception on an engine, with the traceback from there, and
            EngineLost when no engine is left.

        Raises
        ------
        ValueError, TypeError
            If the data does not fit the network, or there are fewer partitions or cells than engines.
        EngineFailure
            If an engine cannot use the network or the data.

        Notes
        -----
        If an engine is lost, its partitions move to the others and the run goes on. An engine holds whole
        cells, because two engines with parts of one cell could not run its task without further sums; hence
        there must be at least as many cells as engines. The result does not depend on which engine holds
        which cells. Data that was edited in
        place is sent anew for a new objective (of an array beyond 1 GiB only samples are compared, see
        `hfnb.datasets.fingerprint`). An older objective keeps the data that it was made with, except that
        engines which share a mapped file see what changes in it.
        """
        evaluator = self._evaluator(net, data, partitions, chunk, memory, cells, cell_seed)
        return Objective.from_evaluator(net, evaluator)

    @renamed(resume="checkpoint")
    def minimize(
        self,
        net: Model,
        data: Dataset,
        w0: np.ndarray,
        optimizer: Callable | str = hessian_free,
        *,
        callback: Callable | None = None,
        progress: bool = True,
        partitions: int | None = None,
        chunk: int | None = None,
        memory: int | None = None,
        cells: int | None = None,
        cell_seed: int | None = 0,
        max_failures: int = 3,
        **options: Any,
    ) -> OptimizeResult:
        """Run an optimizer on every engine, beside the data, and return its result.

        Parameters
        ----------
        net, data : Model, Dataset
            As `objective` takes them.
        w0 : ndarray, shape (p,)
            Start.
        optimizer : callable or str, optional
            ``optimizer(objective, w0, callback=..., **options)``, or its name, "module:function". Options
            with the name of an argument here can be given by a `functools.partial`.
        callback : callable, optional
            ``callback(record)`` is called here after each iteration; any true value stops the run.
        progress : bool, optional
            Whether to show a progress bar.
        partitions, chunk, memory, cells, cell_seed : int, optional
            As `objective` takes them. By default there are 16 cells if the optimizer needs cells: if it has
            an attribute ``needs_cells`` that is true, or is given ``solves="local"``, perhaps as a
            `functools.partial`.
        max_failures : int, optional
            The most restarts after the loss of an engine. Restarts need a checkpoint, and engines that this
            cluster started.
        **options
            Options of the optimizer, such as ``checkpoint``: a `hfnb.Checkpoint` or the path of its folder.

        Returns
        -------
        scipy.optimize.OptimizeResult
            As the optimizer returns it. After Ctrl-C, which ends the run with the iteration under way,
            ``success`` is False and ``message`` says so.

        Raises
        ------
        EngineFailure
            For an exception on an engine, with the traceback from there.
        EngineLost
            If engines are lost and the run has no checkpoint, or more often than ``max_failures``.

        Notes
        -----
        All engines run the same loop, and MPI's Allreduce adds up their sums, so that all see the same
        numbers. Without MPI the run is client-driven, and a warning is logged.
        """
        minimize = find_optimizer(optimizer)
        check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        max_failures = check_nonnegative_int("max_failures", max_failures)
        if options.get("checkpoint") is not None:
            # Engines may have another working directory.
            options["checkpoint"] = checkpoint.opened(options["checkpoint"])
        cells = CELLS if cells is None and needs_cells(minimize, options) else cells
        with Watch(callback, iterations(minimize, options) if progress else None).watching() as watch:

            def run() -> OptimizeResult:
                evaluator = self._evaluator(net, data, partitions, chunk, memory, cells, cell_seed)
                if self.has_mpi:
                    return run_engine_driven(evaluator, self._ranks, w0, minimize, options, watch)
                objective = Objective.from_evaluator(net, evaluator)
                return check_result(minimize(objective, w0, callback=watch, **options))

            if not self.has_mpi:
                log.warning("These engines are not connected by MPI: the run is client-driven.")
            again = max_failures if self._own and options.get("checkpoint") is not None else 0
            return watch.finish(run_with_restarts(run, self._restart, watch, again))
