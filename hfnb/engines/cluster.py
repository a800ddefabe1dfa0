"""One context manager for the engines: start or attach, hold the data, run either way, always clean up."""

import atexit
import os
import pkgutil
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import ipyparallel as ipp
import numpy as np
import psutil
from scipy.optimize import OptimizeResult

from hfnb.datasets import fingerprint
from hfnb.engines import blas, launch, mpi_evaluator, segments, worker
from hfnb.engines.attach import attach
from hfnb.engines.client_evaluator import ClientEvaluator
from hfnb.engines.engine_driven import Watch, iterations, run_engine_driven, run_with_restarts
from hfnb.engines.interrupts import held
from hfnb.engines.options import check_options, check_partitions, prepare, slots, without_lost_hosts
from hfnb.engines.placement import Placements
from hfnb.engines.pool import Pool, greet
from hfnb.objectives.objective import Objective, check_objective
from hfnb.optimizers import checkpoint, hessian_free
from hfnb.validation import check_callable, check_nonnegative_int, check_positive, check_positive_int, renamed

PARTITIONS = 24  # of a dataset, by default: the samples that are drawn depend on it, not on the engines


class Cluster:
    """ipyparallel engines that hold a dataset in partitions and add up losses, gradients and products.

    ``n``: how many engines to start (as ``hosts`` says, else 2) or, of a running cluster, to use (all).
    ``engines``: a launcher of ipyparallel ("mpi", "local", "ssh", "slurm", …), or the profile or id of a
    cluster started by hand, which is left running; None is "mpi" where MPI is installed, else "local".
    ``threads``: threads of each engine's sums, as `hfnb.set_threads` describes them. ``timeout``: seconds to
    wait for the engines to start; ``deadline``: seconds that an engine may take for one call before it is
    given up. ``partitions``: parts into which datasets are cut, at least one for each engine; `objective` and
    `minimize` take another number.

    Past one machine (docs/cluster.md): ``hosts``, {host: engines there} or a list of hosts, for "ssh" and
    "mpi"; ``python``, the interpreter there (this one's path); ``environment``, variables of the engines;
    ``controller_ip``, where the controller listens (this machine's address on the way to ``hosts``); and what
    ipyparallel's launcher takes: ``ssh_args``, ``mpi_args``, ``queue``, ``timelimit``, ``batch_template``, …

    In float64 a run is the same to 1e-12 on any number of engines, with any ``threads`` there and here, and
    as in one process. This depends on two things. Client and engines must round alike: the same BLAS kernel,
    NumPy and kind of processor. Engines started on this machine are given this process's kernel; where others
    round differently, a warning says so. And every `Sample` must have 16 samples a partition or more, all
    samples being always enough: of fewer, an engine adds up its part as a whole.

    Use it in a ``with`` block, or call ``start`` and ``stop``; one that was stopped can be started again.
    ValueError for bad arguments, before anything is started, and for unknown engines (lists what exists);
    RuntimeError if they do not start, and why.

    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> net, data = models.mlp([4, 3, 2]), Dataset(np.eye(4), np.array([0, 1, 0, 1]))
    >>> with Cluster(n=1, engines="local") as cluster:
    ...     round(cluster.objective(net, data).value(np.zeros(net.size)), 4)
    0.6931
    """

    def __init__(
        self,
        n: int | None = None,
        engines: str | None = None,
        *,
        threads: int = 1,
        timeout: float = 60.0,
        deadline: float | None = None,
        partitions: int = PARTITIONS,
        **options,
    ):
        n = None if n is None else check_positive_int("n", n)
        threads, partitions = (
            check_positive_int("threads", threads),
            check_positive_int("partitions", partitions),
        )
        timeout = check_positive("timeout", timeout, at_most=threading.TIMEOUT_MAX)
        if deadline is not None:
            deadline = check_positive("deadline", deadline, at_most=threading.TIMEOUT_MAX)
        if (launcher := launch.named(engines)) is not None:  # all that can be known before a start
            check_options(launcher, n, options)
            started = n or sum(slots(launcher, options.get("hosts")).values()) or 2
            check_partitions(partitions, started)
        self._n, self._wanted, self._threads, self._partitions = n, engines, threads, partitions
        self._timeout, self._deadline, self._options = timeout, deadline, options
        self._client: ipp.Client | None = None
        self._stop_engines: Callable = lambda: None
        self._leave: Callable = lambda: None
        self._lock, self._process = threading.RLock(), os.getpid()

    def start(self) -> "Cluster":
        """Start the engines or attach to them; `stop` is called at the end of the program at the latest.

        RuntimeError if the cluster is running already: stop it first. Ctrl-C while it starts is raised once
        what has been started is stopped again.
        """
        self._check_process()
        with self._lock:
            if self._client is not None:
                raise RuntimeError("the cluster is running already: call stop() before another start()")
            launcher, self._process = launch.choose(self._wanted), os.getpid()
            self._own = launcher is not None
            try:
                if launcher is None and self._wanted is not None:
                    self._client = attach(self._wanted, self._n, self._timeout, self._options, launch.log)
                    atexit.register(self.stop)
                elif launcher is not None:
                    prepared = prepare(launcher, self._n, self._threads, self._options)
                    with held() as deliver:
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
        """Take the engines in the order of their MPI ranks, where MPI connects them."""
        client, ids = self.client, self.client.ids
        if self._n is not None and self._n > len(ids):
            raise ValueError(f"n: expected at most {len(ids)} of {self._wanted!r}, got {self._n}")
        # Engines find this package, and the user's own modules, where the client does.
        paths = [os.path.abspath(path) for path in sys.path]
        code = f"import sys; sys.path[:] = dict.fromkeys([*sys.path, *{paths}])"
        if silent := greet(client, ids, code, self._timeout):
            names = ", ".join(map(str, silent))
            raise RuntimeError(f"of {len(ids)} engines these did not answer in {self._timeout:g} s: {names}")
        pool = Pool(client, ids, lambda: self._is_alive(client), self._timeout)
        places = dict(zip(ids, pool.call_all(mpi_evaluator.place), strict=True))
        self._ranks = {engine: place[0] for engine, place in places.items() if place}
        if len(set(self._ranks.values())) < len(ids):  # not one MPI job
            self._ranks = {}
        if self._ranks:
            pool.call_all(segments.unlink)
        pool.engines = sorted(ids, key=lambda engine: self._ranks.get(engine, engine))[: self._n]
        found = pool.call_all(worker.limit_threads, self._threads)
        blas.warn_of_others(dict(zip(pool.engines, found, strict=True)))
        pool.deadline = self._deadline  # not before: an engine's first call imports this package
        self._pool, self._placements = pool, Placements(pool)
        if not self._own:  # engines that stay shall not keep the data
            process = psutil.Process()
            pool.call_all(
                worker.register, pool.name, socket.gethostname(), process.pid, process.create_time()
            )
            self._leave = pool.leave

    def _is_alive(self, client: ipp.Client) -> bool:
        """Whether the controller of this client runs; RuntimeError where the cluster has been stopped."""
        if self.client is not client:
            raise RuntimeError("the cluster has been started again: make the objective anew")
        return launch.is_alive(client)

    def stop(self) -> None:
        """Stop the engines (those started by hand stay); calling it again does nothing.

        Ctrl-C meanwhile is raised when they have stopped. In a process forked from the one that started the
        engines this does nothing: they are not its own.
        """
        if self._process != os.getpid():
            return
        with held(), self._lock:
            leave, self._leave = self._leave, lambda: None
            with suppress(Exception):  # engines that no longer answer keep nothing
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
        self.stop()
        self._n, self._options = without_lost_hosts(self._wanted or "mpi", self._n, self._options)
        self.start()

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *exception) -> None:
        self.stop()

    def _check_process(self) -> None:
        """Refuse to use engines that belong to the process from which this one was forked."""
        if self._client is not None and self._process != os.getpid():
            raise RuntimeError(
                f"the cluster was started by process {self._process}, of which this one is a fork: "
                "make another Cluster here"
            )

    @property
    def client(self) -> ipp.Client:
        """The ipyparallel client; RuntimeError if the cluster is not running, or not in this process."""
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

    def _evaluator(self, net, data, partitions: int | None, chunk: int | None) -> ClientEvaluator:
        """Return sums of the network over the data, which is sent unless engines hold the same content."""
        placements = self.client and self._placements
        partitions = self._partitions if partitions is None else partitions
        check_partitions(partitions, len(self._pool.engines))
        chunk = check_objective(net, data, chunk)
        return ClientEvaluator(net, placements.of(data, fingerprint(data), partitions), chunk)

    def objective(self, net, data, *, partitions: int | None = None, chunk: int | None = None) -> Objective:
        """Return the objective of ``net`` over ``data``, evaluated by the engines: runs are client-driven.

        The data is sent once and kept as long as the dataset or an objective on it; then w or v goes out and
        partial sums come back. Data that was edited in place is sent anew for a new objective (of an array
        beyond 1 GiB only samples are compared, see `hfnb.datasets.fingerprint`); an older objective keeps
        what it was made with, but engines that share a mapped file see what changes in it. Where an engine
        is lost its partitions move to the others and the run goes on.

        EngineFailure for an exception on an engine, with its traceback, when no engine is left, and where
        data that was edited since would have to move; ValueError for fewer ``partitions`` than engines.
        """
        return Objective.from_evaluator(net, self._evaluator(net, data, partitions, chunk))

    @renamed(resume="checkpoint")
    def minimize(
        self,
        net,
        data,
        w0: np.ndarray,
        optimizer: Callable | str = hessian_free,
        *,
        callback: Callable | None = None,
        progress: bool = True,
        partitions: int | None = None,
        chunk: int | None = None,
        max_failures: int = 3,
        **options,
    ) -> OptimizeResult:
        """Run ``optimizer(objective, w0, callback=..., **options)`` beside the data: engine-driven.

        Every engine runs the same loop, and sums travel by MPI Allreduce; without MPI the run is
        client-driven. After each iteration the client shows progress and calls ``callback(record)``, which
        stops the run by any true value; so does Ctrl-C. Returns the optimizer's result. With a checkpoint or
        the path of its folder, ``checkpoint``, the loss of an engine restarts them all and goes on from
        there, ``max_failures`` times. EngineFailure for an exception on an engine, with its traceback;
        EngineLost, with the causes, when engines are lost.
        """
        optimizer = _named(optimizer)
        check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        max_failures = check_nonnegative_int("max_failures", max_failures)
        if options.get("checkpoint") is not None:
            # Engines may have another working directory.
            options["checkpoint"] = checkpoint.opened(options["checkpoint"])
        with Watch(callback, iterations(optimizer, options) if progress else None).watching() as watch:

            def run() -> OptimizeResult:
                evaluator = self._evaluator(net, data, partitions, chunk)
                if self.has_mpi:
                    return run_engine_driven(evaluator, self._ranks, w0, optimizer, options, watch)
                return optimizer(Objective.from_evaluator(net, evaluator), w0, callback=watch, **options)

            if not self.has_mpi:
                print("These engines are not connected by MPI: the run is client-driven.")
            again = max_failures if self._own and options.get("checkpoint") is not None else 0
            return watch.finish(run_with_restarts(run, self._restart, watch, again))


def _named(optimizer: Callable | str) -> Callable:
    """Return an optimizer, given as it is or by its name, "module:function"."""
    found = optimizer
    if isinstance(optimizer, str):
        try:
            found = pkgutil.resolve_name(optimizer)
        except (ValueError, ImportError, AttributeError) as error:
            raise ValueError(
                f'optimizer: expected a function or its name, "module:function", got {optimizer!r} ({error})'
            ) from error
    return check_callable("optimizer", found, "(objective, w0, **options)")
