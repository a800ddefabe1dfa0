"""Start a cluster quietly, or find one that the reader started by hand."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ipyparallel as ipp
import psutil

from hfnb.engines import reaper, ssh
from hfnb.engines.options import launchers, path, prepare, traits

# An engine is admitted at the heartbeat after the next: one a second starts engines in 3 s, not in 7. And the
# controller shall not keep what passes through it, up to 1 GiB of vectors.
CONTROLLER = ["--HeartMonitor.period=1000", "--HeartMonitor.max_heartmonitor_misses=30", "--nodb"]

log = logging.getLogger("hfnb.engines")
log.setLevel(logging.CRITICAL)  # ipyparallel logs whole engine outputs; what matters is raised instead


def mpi_missing() -> str | None:
    """Say what MPI lacks here, or None."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py"
    return None if shutil.which("mpiexec", path=path()) else "mpiexec"


def choose(engines: str | None) -> str | None:
    """Return the launcher that ``engines`` names, or None where it must be a running cluster."""
    if engines is not None and not isinstance(engines, str):
        raise TypeError(f"engines: expected a name, got {engines!r}")
    name = "mpi" if engines is None else engines.lower()
    if name == "mpi" and (missing := mpi_missing()):
        print(f"MPI is not available here ({missing} not found): using local engines.")
        return "local"
    return name if name in launchers() else None


def start(
    launcher, n: int | None, threads: int, timeout: float, options: dict
) -> tuple[ipp.Client, Callable]:
    """Start a controller and n engines; return a client, and how to stop them all.

    RuntimeError with the tail of their output if they are not up in time; ValueError for bad options.
    """
    n, of_cluster, of_engines = prepare(launcher, n, threads, options)
    of_cluster["controller_args"] = CONTROLLER + of_cluster.get("controller_args", [])
    engines = ssh.Engines if launcher == "ssh" else launcher
    cluster = ipp.Cluster(engines=engines, shutdown_atexit=False, **of_cluster)
    cluster.log = log
    if "batch_file_name" in traits(launcher):  # not in the reader's folder
        script = Path(cluster.profile_dir, "log", f"engines-{cluster.cluster_id}.sh")
        of_engines.setdefault("batch_file_name", str(script))
    guard = None
    try:
        cluster.start_controller_sync()
        guard = watch(cluster.cluster_file)
        cluster.start_engines_sync(n, **of_engines)
        client = cluster.connect_client_sync()
        client.wait_for_engines(n, timeout=timeout, interactive=False)
    except BaseException as error:
        output = "\n".join(engines.get_output() for engines in cluster.engines.values())
        stop(cluster, guard)
        if not isinstance(error, Exception):
            raise
        late = f" within {timeout:g} s" if isinstance(error, TimeoutError) else ""
        raise RuntimeError(
            f"{n} engines ({launcher}) did not start{late}: {error}\n{output[-2000:]}"
        ) from None
    return client, lambda: stop(cluster, guard)


def watch(cluster_file: str) -> subprocess.Popen:
    """Start the process that stops the cluster should this one be killed."""
    command = [sys.executable, reaper.__file__, str(os.getpid()), cluster_file]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def stop(cluster: ipp.Cluster, guard: subprocess.Popen | None) -> None:
    """Stop what `start` started."""
    reaper.stop(cluster)
    if guard is not None:
        guard.kill()
        guard.wait()


def is_alive(client: ipp.Client) -> bool:
    """Whether the controller still runs, as far as this machine can tell."""
    process = getattr(client.cluster and client.cluster.controller, "process", None)
    try:
        return process is None or (process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False
