"""Find a cluster that the user has started by hand, and connect to it, even while it is starting."""

import json
import socket
import time
from pathlib import Path

import ipyparallel as ipp
import psutil
from ipyparallel.util import disambiguate_ip_address
from IPython.core.profiledir import ProfileDir, ProfileDirError
from IPython.paths import get_ipython_dir

from hfnb.engines.options import launchers, quiet_log

POLL = 0.2  # seconds between two checks of a cluster that is starting
WRITING = 1.0  # seconds that a controller may take to write its connection file
STARTING = 60.0  # seconds in which a cluster that was started by hand has written its files
ANSWER = 10.0  # seconds that a controller may take to answer
# The entries that ipyparallel reads in a connection file.
KEYS = ["interface", "registration", "control", "task", "mux", "iopub", "notification", "broadcast"]
KEYS += ["key", "pack", "unpack", "signature_scheme", "task_scheme", "ssh"]


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
            time.sleep(POLL)
    if options:
        client.close()
        raise ValueError(
            f"{', '.join(options)}: only for engines that are started here; {name!r} runs already"
        )
    expected = _started(client.cluster) or n or 1
    # Numbers of engines ascend and are not used again: the highest one counts engines that died, too.
    while max(client.ids, default=-1) + 1 < min(expected, n or expected) and time.monotonic() < end:
        time.sleep(POLL)
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
    info = _read(file)
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


def _read(file: Path) -> dict:
    """Return the entries of a connection file, once all of it is written; Unusable if it is no such file."""
    end = time.monotonic() + WRITING
    while True:
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if time.monotonic() > end or isinstance(error, OSError):
                raise Unusable(file, str(error)) from None
            time.sleep(POLL)  # its controller may be about to write it
            continue
        missing = KEYS if not isinstance(info, dict) else [key for key in KEYS if key not in info]
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
