"""Start a cluster quietly, or find one that the user started by hand."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ipyparallel as ipp
import psutil

from hfnb.engines import segments, ssh, watchdog
from hfnb.engines.options import launchers, path, traits

# An engine is admitted at the heartbeat after the next: one a second starts engines in 3 s, not in 7. And the
# controller shall not keep what passes through it, up to 1 GiB of vectors.
CONTROLLER = ["--HeartMonitor.period=1000", "--HeartMonitor.max_heartmonitor_misses=30", "--nodb"]

POLL = 0.1  # seconds between two looks at engines that are starting

log = logging.getLogger("hfnb.engines")
log.setLevel(logging.CRITICAL)  # ipyparallel logs whole engine outputs; what matters is raised instead


def mpi_missing() -> str | None:
    """Say what MPI lacks here, or None."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py"
    return None if shutil.which("mpiexec", path=path()) else "mpiexec"


def named(engines: str | None) -> str | None:
    """Return the launcher that ``engines`` names, or None where it must be a running cluster."""
    if engines is not None and not isinstance(engines, str):
        raise TypeError(f"engines: expected a name, got {engines!r}")
    name = "mpi" if engines is None else engines.lower()
    if name == "mpi" and mpi_missing():
        return "local"
    return name if name in launchers() else None


def choose(engines: str | None) -> str | None:
    """Return the launcher that ``engines`` names, and say it where MPI is missing."""
    launcher = named(engines)
    if launcher == "local" and (engines is None or engines.lower() == "mpi"):
        print(f"MPI is not available here ({mpi_missing()} not found): using local engines.")
    return launcher


def start(
    launcher: str, prepared: tuple[int, dict, dict], timeout: float, deliver: Callable[[], None]
) -> tuple[ipp.Client, Callable]:
    """Start a controller and engines; return a client, and how to stop them all.

    ``prepared``: what `options.prepare` returns. ``deliver`` is called where an interrupt may be raised, that
    is, where all that has been started is known. RuntimeError with the tail of their output if the processes
    end or are not up in time.
    """
    n, of_cluster, of_engines = prepared
    cluster = make(launcher, of_cluster, of_engines)
    end, client, guard = time.monotonic() + timeout, None, watch(cluster)
    try:
        cluster.start_controller_sync(connection_info_timeout=timeout)
        deliver()
        cluster.start_engines_sync(n, **of_engines)
        deliver()
        client = cluster.connect_client_sync(timeout=max(end - time.monotonic(), 5))
        wait_for_engines(client, cluster, n, end, deliver)
    except BaseException as error:
        output = what_they_wrote(cluster) if isinstance(error, Exception) else ""
        if client is not None:
            client.close(linger=0)
        stop(cluster, guard)
        if not isinstance(error, Exception):
            raise
        late = f" within {timeout:g} s" if isinstance(error, TimeoutError) else ""
        why = f"{error}{segments.shortage(n, output) if launcher == 'mpi' else ''}"
        raise RuntimeError(
            f"{n} engines ({launcher}) did not start{late}: {why}\n{output}".rstrip()
        ) from None
    return client, lambda: stop(cluster, guard)


def make(launcher: str, of_cluster: dict, of_engines: dict) -> ipp.Cluster:
    """Return the cluster to start; RuntimeError if its files cannot be written."""
    of_cluster["controller_args"] = CONTROLLER + of_cluster.get("controller_args", [])
    engines = ssh.Engines if launcher == "ssh" else launcher
    try:
        cluster = ipp.Cluster(engines=engines, shutdown_atexit=False, **of_cluster)
        cluster.log = log
        check_folder(cluster.profile_dir)
    except OSError as error:
        raise RuntimeError(f"IPYTHONDIR: expected a folder that can be written to, got {error}") from None
    except Exception as error:  # of traitlets: a value of the wrong kind
        raise ValueError(f"options of ipyparallel.Cluster: {error}") from None
    if "batch_file_name" in traits(launcher):  # not in the user's folder
        script = Path(cluster.profile_dir, "log", f"engines-{cluster.cluster_id}.sh")
        of_engines.setdefault("batch_file_name", str(script))
    return cluster


def check_folder(profile_dir: str) -> None:
    """Raise OSError if the files of a cluster cannot be written to its profile's folder."""
    for name in ("log", "security"):
        folder = Path(profile_dir, name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))


def wait_for_engines(client: ipp.Client, cluster: ipp.Cluster, n: int, end: float, deliver: Callable) -> None:
    """Wait for n engines; RuntimeError as soon as one of the processes has ended, TimeoutError at the end.

    Not `ipyparallel.Client.wait_for_engines`: it does not notice that processes end.
    """
    while len(client.ids) < n:
        deliver()
        if ended := has_ended(cluster):
            raise RuntimeError(ended)
        if time.monotonic() > end:
            raise TimeoutError(f"{len(client.ids)} of {n} have registered with the controller")
        time.sleep(POLL)


def has_ended(cluster: ipp.Cluster) -> str | None:
    """Say which process of a cluster that is starting has ended, as far as that is known here, or None."""
    processes = {"the controller": cluster.controller}
    for engines in cluster.engines.values():
        each = getattr(engines, "launchers", None)
        if each is None:
            processes[" ".join(getattr(engines, "mpi_cmd", ["the program that starts engines"]))] = engines
            continue
        processes |= {f"engine {name}": engine for name, engine in each.items()}
        if forgotten := engines.outputs.keys() - each.keys():  # ipyparallel has noticed it already
            return f"engine {min(forgotten)} ended"
    for name, launched in processes.items():
        process = getattr(launched, "process", None)
        try:
            code = process.wait(0) if process is not None else launched.ended
        except (psutil.TimeoutExpired, AttributeError):  # it runs; it is not a process of this machine
            continue
        if process is not None or code is not None:
            return f"{name} ended with exit code {code}"
    return None


def what_they_wrote(cluster: ipp.Cluster) -> str:
    """Return the tails of what engines and, if it has ended, the controller have written."""
    launched = [*cluster.engines.values()]
    if cluster.controller is not None and not _runs(getattr(cluster.controller, "process", None)):
        launched.append(cluster.controller)
    found = []
    for one in launched:
        with suppress(Exception):  # the output of a host that is not reached
            found.append(one.get_output()[-2000:])
    return "\n".join(filter(None, found))


def watch(cluster: ipp.Cluster) -> subprocess.Popen:
    """Start the process that stops the cluster should this one end without doing so."""
    described = [cluster.cluster_file, cluster.cluster_id, cluster.profile_dir]
    command = [sys.executable, watchdog.__file__, str(os.getpid()), *described]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def stop(cluster: ipp.Cluster, guard: subprocess.Popen) -> None:
    """Stop what `start` started."""
    try:
        watchdog.stop(cluster)
    finally:
        guard.kill()
        guard.wait()


def is_alive(client: ipp.Client) -> bool:
    """Whether the controller still runs, as far as this machine can tell."""
    process = getattr(client.cluster and client.cluster.controller, "process", None)
    return process is None or _runs(process)


def _runs(process: psutil.Process | None) -> bool:
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False
