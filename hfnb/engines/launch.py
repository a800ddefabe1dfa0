"""Start a cluster of engines, or connect to one that the user has started by hand.

`start` starts controller and engines by a launcher of ipyparallel and waits until they answer. `attach` finds
a cluster that runs or is starting.
"""

import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from pathlib import Path

import ipyparallel as ipp
import psutil
from ipyparallel.cluster.launcher import SSHEngineLauncher, SSHEngineSetLauncher
from ipyparallel.util import disambiguate_ip_address
from IPython.core.profiledir import ProfileDir, ProfileDirError
from IPython.paths import get_ipython_dir

from hfnb.engines import watchdog
from hfnb.engines.options import launchers, path, quiet_log, traits
from hfnb.engines.pool import GONE

# The controller registers an engine at its second heartbeat: with a period of 1 s engines start in 3 s
# instead of 7. With --nodb it does not store the messages that it passes on, which could take 1 GiB.
CONTROLLER = ["--HeartMonitor.period=1000", "--HeartMonitor.max_heartmonitor_misses=30", "--nodb"]
POLL = 0.1  # seconds between two checks of engines that are starting
PATIENCE = 2.0  # seconds that an engine may take for its first answer before it is called again
ATTEMPTS = 3  # starts of a cluster when other programs take ports that its controller has chosen
PORT_TAKEN = re.compile(r"Address( already)? in use")
SHARED_MEMORY = "/dev/shm"
# Bytes of shared memory for each MPI engine. Two engines started with 64 MB, Docker's default, not with 16
# MB.
NEEDED = 32 * 2**20

# Of a cluster that the user has started by hand:
SEARCH_POLL = 0.2  # seconds between two searches for it while it is starting
WRITING = 1.0  # seconds that a controller may take to write its connection file
STARTING = 60.0  # seconds in which a cluster that was started by hand has written its files
ANSWER = 10.0  # seconds that a controller may take to answer
# The entries that ipyparallel reads in a connection file.
ENTRIES = ["interface", "registration", "control", "task", "mux", "iopub", "notification", "broadcast"]
ENTRIES += ["key", "pack", "unpack", "signature_scheme", "task_scheme", "ssh"]

log = logging.getLogger(__name__)


class SSHEngine(SSHEngineLauncher):
    """ipyparallel's launcher of one engine by SSH, for a host that may go away.

    Attributes
    ----------
    ended : int or None
        The exit code of the engine once it has ended; that of ssh where its host is no longer reached.
    """

    ended: int | None = None

    def wait_one(self, timeout):
        """Return the exit code of the engine; TimeoutError if it still runs after so many seconds."""
        try:
            self.ended = super().wait_one(timeout)
        except subprocess.CalledProcessError as error:
            self.ended = error.returncode
        return self.ended


class SSHEngines(SSHEngineSetLauncher):
    """ipyparallel's launcher of engines by SSH, each an `SSHEngine`."""

    launcher_class = SSHEngine
    entrypoint_name = "ssh"  # another process that stops the engines uses ipyparallel's own class


def mpi_missing() -> str | None:
    """Return what MPI lacks on this machine, "mpi4py" or "mpiexec"; None if nothing."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py"
    return None if shutil.which("mpiexec", path=path()) else "mpiexec"


def named(engines: str | None) -> str | None:
    """Return the launcher that an option ``engines`` names.

    Parameters
    ----------
    engines : str or None
        As `hfnb.Cluster` takes it.

    Returns
    -------
    str or None
        The launcher, "local" in place of "mpi" where MPI is missing; None if the name must be that of a
        running cluster.

    Raises
    ------
    TypeError
        If ``engines`` is neither a string nor None.
    """
    if engines is not None and not isinstance(engines, str):
        raise TypeError(f"engines: expected a name, got {engines!r}")
    name = "mpi" if engines is None else engines.lower()
    if name == "mpi" and mpi_missing():
        return "local"
    return name if name in launchers() else None


def choose(engines: str | None) -> str | None:
    """Return what `named` returns, and log a warning where "local" takes the place of "mpi"."""
    launcher = named(engines)
    if launcher == "local" and (engines is None or engines.lower() == "mpi"):
        log.warning("MPI is not available here (%s not found): using local engines.", mpi_missing())
    return launcher


def start(
    launcher: str, prepared: tuple[int, dict, dict], timeout: float, deliver: Callable[[], None]
) -> tuple[ipp.Client, Callable]:
    """Start a controller and engines.

    Parameters
    ----------
    launcher : str
        The name of ipyparallel's launcher.
    prepared : tuple
        What `hfnb.engines.options.prepare` returns.
    timeout : float
        Seconds that the start may take.
    deliver : callable
        ``deliver()`` is called where an interrupt may be raised, because all that has been started is known.

    Returns
    -------
    client : ipyparallel.Client
    stop : callable
        ``stop()`` stops the engines and the controller.

    Raises
    ------
    RuntimeError
        With the end of their output, if the processes end or are not up in time.

    Notes
    -----
    A controller chooses about twenty free ports and opens them a second later. Where another program has
    taken one of them in between, the cluster is started again, at most `ATTEMPTS` times in all.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _start_once(launcher, prepared, timeout, deliver)
        except RuntimeError as error:
            if not PORT_TAKEN.search(str(error)):
                raise
            log.warning("A port of the controller is in use by another program: starting the cluster again.")
    return _start_once(launcher, prepared, timeout, deliver)


def _start_once(
    launcher: str, prepared: tuple[int, dict, dict], timeout: float, deliver: Callable[[], None]
) -> tuple[ipp.Client, Callable]:
    """Do what `start` does, with one attempt."""
    n, of_cluster, of_engines = prepared[0], dict(prepared[1]), dict(prepared[2])
    cluster = _make(launcher, of_cluster, of_engines)
    end, client, guard = time.monotonic() + timeout, None, _watch(cluster)
    try:
        cluster.start_controller_sync(connection_info_timeout=timeout)
        deliver()
        cluster.start_engines_sync(n, **of_engines)
        deliver()
        client = cluster.connect_client_sync(timeout=max(end - time.monotonic(), 5))
        _wait_for_engines(client, cluster, n, end, deliver)
    except BaseException as error:
        output = _outputs(cluster) if isinstance(error, Exception) else ""
        if client is not None:
            client.close(linger=0)
        _stop(cluster, guard)
        if not isinstance(error, Exception):
            raise
        late = f" within {timeout:g} s" if isinstance(error, TimeoutError) else ""
        why = f"{error}{_memory_shortage(n, output) if launcher == 'mpi' else ''}"
        raise RuntimeError(
            f"{n} engines ({launcher}) did not start{late}: {why}\n{output}".rstrip()
        ) from None
    return client, lambda: _stop(cluster, guard)


def _make(launcher: str, of_cluster: dict, of_engines: dict) -> ipp.Cluster:
    """Return the cluster to start; RuntimeError without a folder to write to, ValueError for bad options."""
    of_cluster["controller_args"] = CONTROLLER + of_cluster.get("controller_args", [])
    engines = SSHEngines if launcher == "ssh" else launcher
    try:
        cluster = ipp.Cluster(engines=engines, shutdown_atexit=False, **of_cluster)
        cluster.log = quiet_log
        _check_folder(cluster.profile_dir)
    except OSError as error:
        raise RuntimeError(f"IPYTHONDIR: expected a folder that can be written to, got {error}") from None
    except Exception as error:  # of traitlets: a value of the wrong kind
        raise ValueError(f"options of ipyparallel.Cluster: {error}") from None
    if "batch_file_name" in traits(launcher):  # not in the user's folder
        script = Path(cluster.profile_dir, "log", f"engines-{cluster.cluster_id}.sh")
        of_engines.setdefault("batch_file_name", str(script))
    return cluster


def _check_folder(profile_dir: str) -> None:
    """Raise OSError if the files of a cluster cannot be written to its profile's folder."""
    for name in ("log", "security"):
        folder = Path(profile_dir, name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))


def _wait_for_engines(
    client: ipp.Client, cluster: ipp.Cluster, n: int, end: float, deliver: Callable
) -> None:
    """Wait for n engines; RuntimeError as soon as one of the processes has ended, TimeoutError at the end.

    Not `ipyparallel.Client.wait_for_engines`: it does not notice that processes end.
    """
    while True:
        deliver()
        if ended := _ended(cluster):
            raise RuntimeError(ended)
        if len(client.ids) >= n:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"{len(client.ids)} of {n} have registered with the controller")
        time.sleep(POLL)


def _ended(cluster: ipp.Cluster) -> str | None:
    """Return which process of a starting cluster has ended, as far as that is known here; None if none."""
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
    return _lost_process(cluster.controller)


def _lost_process(controller) -> str | None:
    """Return that a process has ended which a controller on this machine had started, None if none has.

    A controller passes messages and heartbeats on by processes of its own, and does not notice their end. It
    removes some from the list of its children as it starts others; these are found by what they wrote.
    """
    try:
        children = controller.process.children()
        written = Path(controller.output_file).read_text(errors="replace")
    except (AttributeError, psutil.NoSuchProcess, OSError):  # it is on another machine, or has ended
        return None
    taken = next(filter(PORT_TAKEN.search, written.splitlines()), "")
    if all(_runs(child) for child in children) and not taken:
        return None
    return f"a process of the controller has ended {taken}".rstrip()


def _outputs(cluster: ipp.Cluster) -> str:
    """Return the ends of what engines and, if it or one of its processes has ended, the controller wrote."""
    launched, controller = [*cluster.engines.values()], cluster.controller
    if controller is not None and (
        not _runs(getattr(controller, "process", None)) or _lost_process(controller)
    ):
        launched.append(controller)
    found = []
    for one in launched:
        with suppress(Exception):  # the output of a host that is not reached
            found.append(one.get_output()[-2000:])
    return "\n".join(filter(None, found))


def _memory_shortage(n: int, output: str) -> str:
    """Return what to say if too little shared memory may have ended n MPI engines with this output."""
    if not re.search(r"Bus error|Segmentation fault|SIGBUS|SIGSEGV|No space left", output):
        return ""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return ""
    if usage.free >= n * NEEDED:
        return ""
    return (
        f"; {SHARED_MEMORY}, where MPI engines share memory, has {usage.free / 2**20:.1f} MB free of "
        f"{usage.total / 2**20:.1f} MB, and {n} engines need up to {n * NEEDED / 2**20:.0f} MB "
        "(in Docker: --shm-size=1g)"
    )


def _watch(cluster: ipp.Cluster) -> subprocess.Popen:
    """Start the program that stops the cluster should this process end without doing so."""
    described = [cluster.cluster_file, cluster.cluster_id, cluster.profile_dir]
    command = [sys.executable, watchdog.__file__, str(os.getpid()), *described]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def _stop(cluster: ipp.Cluster, guard: subprocess.Popen) -> None:
    """Stop what `start` started."""
    try:
        watchdog.stop(cluster)
    finally:
        guard.kill()
        guard.wait()


def attach(name: str, n: int | None, timeout: float, options: dict) -> ipp.Client:
    """Connect to a running cluster, or to one that is starting.

    Parameters
    ----------
    name : str
        Its profile, its cluster id, or "profile:id".
    n : int or None
        How many engines to wait for while it is starting; None for as many as it was told to start.
    timeout : float
        Seconds to wait.
    options : dict
        Options of a launcher: none is allowed, since nothing is launched here.

    Returns
    -------
    ipyparallel.Client

    Raises
    ------
    ValueError
        If there is no such cluster (the message lists those that exist), if it has ended or has no engines,
        or if there are options.
    """
    end, client = time.monotonic() + timeout, None
    while client is None:
        found: ValueError | None = None
        try:
            client = _find(name, timeout)
        except Unusable as error:  # it may belong to an earlier cluster than the one that is starting
            found = error
        if client is None and (time.monotonic() > end or not _is_one_starting()):
            raise found or ValueError(
                f"engines: expected a launcher ({', '.join(launchers())}) or the profile or id of a running "
                f"cluster ({_running()}), got {name!r}"
            )
        if client is None:
            time.sleep(SEARCH_POLL)
    if options:
        client.close()
        raise ValueError(
            f"{', '.join(options)}: only for engines that are started here; {name!r} runs already"
        )
    expected = _started(client.cluster) or n or 1
    # Numbers of engines ascend and are not used again: the highest one counts engines that died, too.
    while max(client.ids, default=-1) + 1 < min(expected, n or expected) and time.monotonic() < end:
        time.sleep(SEARCH_POLL)
    if not client.ids:
        client.close()
        raise ValueError(f"engines: the cluster {name!r} is running, but has no engines yet")
    return client


def _running() -> str:
    """Return the names of the clusters whose controller runs."""
    found = ipp.ClusterManager(log=quiet_log).load_clusters().items()
    return ", ".join(sorted(key for key, one in found if one.controller is not None)) or "none is running"


def _find(name: str, timeout: float) -> ipp.Client | None:
    """Return a client of the cluster of this name, None if there is none; Unusable if it has ended."""
    for cluster in ipp.ClusterManager(log=quiet_log).load_clusters().values():
        profile = Path(cluster.profile_dir).name.removeprefix("profile_")
        if name in (cluster.cluster_id, f"{profile}:{cluster.cluster_id}") or (
            name == profile and not cluster.cluster_id
        ):
            if cluster.controller is None:
                raise Unusable(cluster.cluster_file, "its controller has ended")
            file = Path(cluster.controller.connection_files["client"])
            return _connect(file, timeout, cluster) if file.exists() else None  # it is starting
    try:  # the file that an ipcontroller started by hand leaves in its profile
        folder = ProfileDir.find_profile_dir_by_name(get_ipython_dir(), name).security_dir
    except ProfileDirError:
        return None
    file = Path(folder, "ipcontroller-client.json")
    return _connect(file, timeout, None) if file.exists() else None


class Unusable(ValueError):
    """A file that belongs to no running cluster."""

    def __init__(self, file: Path | str, why: str):
        super().__init__(
            f"engines: expected a file of a running cluster, got {file}: {why}. "
            "Remove the file, or start the cluster again"
        )


def _connect(file: Path, timeout: float, cluster: ipp.Cluster | None) -> ipp.Client:
    """Connect to the controller that a connection file describes; Unusable if that is not possible."""
    info = _read_connection(file)
    seconds = min(timeout, ANSWER)
    try:
        host = info["interface"].partition("://")[2]
        host, port = disambiguate_ip_address(host, info.get("location")), int(info["registration"])
        if not info["ssh"] and not _listens(host.strip("[]"), port):
            raise Unusable(file, f"nothing listens at {host}:{port}: its controller has ended")
        name = {"cluster_id": cluster.cluster_id} if cluster else {}
        return ipp.Client(info, cluster=cluster, timeout=seconds, profile_dir=str(file.parents[1]), **name)
    except Unusable:
        raise
    except TimeoutError:
        raise Unusable(
            file, f"no controller that has its key answers at {host}:{port} within {seconds:g} s"
        ) from None
    except Exception as error:  # whatever ipyparallel raises for a file that another program has written
        raise Unusable(file, f"{type(error).__name__}: {error}") from None


def _read_connection(file: Path) -> dict:
    """Return the entries of a connection file, once all of it is written; Unusable if it is no such file."""
    end = time.monotonic() + WRITING
    while True:
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if time.monotonic() > end or isinstance(error, OSError):
                raise Unusable(file, str(error)) from None
            time.sleep(SEARCH_POLL)  # its controller may be about to write it
            continue
        missing = ENTRIES if not isinstance(info, dict) else [key for key in ENTRIES if key not in info]
        if missing:
            raise Unusable(file, f"not written by ipcontroller: it lacks {', '.join(missing)}")
        return info


def _listens(host: str, port: int) -> bool:
    """Whether a program listens at this address."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _started(cluster: ipp.Cluster | None) -> int:
    """Return how many engines a cluster was told to start, 0 if that is not known."""
    return 0 if cluster is None else cluster.n or sum(engines.n for engines in cluster.engines.values())


def _is_one_starting() -> bool:
    """Whether an ``ipcluster start`` began here in the last `STARTING` seconds."""
    processes = psutil.process_iter(["cmdline", "create_time"])
    recent = [process.info for process in processes if process.info["create_time"] > time.time() - STARTING]
    lines = (" ".join(info["cmdline"] or []) for info in recent)
    return any("start" in line and ("ipcluster" in line or "ipyparallel.cluster" in line) for line in lines)


def first_call(client: ipp.Client, engines: list[int], code: str, timeout: float) -> list[int]:
    """Run code on each engine, and return the engines that have not answered in time.

    Parameters
    ----------
    client : ipyparallel.Client
    engines : list of int
    code : str
        Python statements. They may run twice on an engine, and must do no harm if they do.
    timeout : float
        Seconds to wait for all answers.

    Returns
    -------
    list of int
        The engines without an answer, in ascending order.

    Raises
    ------
    ipyparallel.error.RemoteError
        If the code raises on an engine.

    Notes
    -----
    An engine is listed as soon as its heart beats. On a busy machine its other connections are made a moment
    later, and ZeroMQ drops messages until then. Engines that do not answer are therefore sent the code again,
    each time after twice as long.
    """
    end, patience, waiting = time.monotonic() + timeout, PATIENCE, set(engines)
    replies: dict[int, list] = {engine: [] for engine in engines}
    while waiting and (now := time.monotonic()) < end:
        for engine in waiting:
            with suppress(*GONE):  # an engine that died is one that does not answer
                replies[engine].append(client[engine].apply_async(exec, code))
        again, patience = min(now + patience, end), 2 * patience
        while waiting and (now := time.monotonic()) < again:
            sent = [reply for engine in waiting for reply in replies[engine]]
            if not sent:  # all that have not answered have died
                return sorted(waiting)
            wait(sent, timeout=again - now, return_when=FIRST_COMPLETED)
            answered = {engine for engine in waiting if any(reply.done() for reply in replies[engine])}
            for reply in (reply for engine in answered for reply in replies[engine] if reply.done()):
                reply.result()  # raises what the engine did
            waiting -= answered
    return sorted(waiting)


def is_alive(client: ipp.Client) -> bool:
    """Return whether the controller of a client still runs, as far as this machine can tell."""
    process = getattr(client.cluster and client.cluster.controller, "process", None)
    return process is None or _runs(process)


def _runs(process: psutil.Process | None) -> bool:
    """Whether a process is running and no zombie."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False
