"""Find a cluster that the reader started by hand, if need be while it is still starting."""

import json
import time
from pathlib import Path

import ipyparallel as ipp
import psutil
from IPython.core.profiledir import ProfileDir, ProfileDirError
from IPython.paths import get_ipython_dir

from hfnb.engines.options import launchers

POLL = 0.2  # seconds between two looks at a cluster that is starting


def attach(name: str, n: int | None, timeout: float, options: dict, log) -> ipp.Client:
    """Connect to the running cluster that has this profile or cluster id; ValueError listing what exists.

    While it starts, waits up to ``timeout`` seconds for n engines (None: as many as it was told to start).
    ValueError, too, if there are ``options``: they are a launcher's, and nothing is launched here.
    """
    end = time.monotonic() + timeout
    while (client := _find(name, timeout, log)) is None:
        if time.monotonic() > end or not _is_one_starting():
            running = ", ".join(sorted(ipp.ClusterManager(log=log).load_clusters())) or "none is running"
            raise ValueError(
                f"engines: expected a launcher ({', '.join(launchers())}) or the profile or id of a running "
                f"cluster ({running}), got {name!r}"
            )
        time.sleep(POLL)
    if options:
        client.close()
        raise ValueError(
            f"{', '.join(options)}: only for engines that are started here; {name!r} runs already"
        )
    expected = _started(client.cluster) or n or 1
    # Engines are numbered as they come: one that died is not waited for.
    while max(client.ids, default=-1) + 1 < min(expected, n or expected) and time.monotonic() < end:
        time.sleep(POLL)
    if not client.ids:
        client.close()
        raise ValueError(f"engines: the cluster {name!r} is running, but has no engines yet")
    return client


def _find(name: str, timeout: float, log) -> ipp.Client | None:
    for cluster in ipp.ClusterManager(log=log).load_clusters().values():
        profile = Path(cluster.profile_dir).name.removeprefix("profile_")
        if name in (cluster.cluster_id, f"{profile}:{cluster.cluster_id}") or (
            name == profile and not cluster.cluster_id
        ):
            return cluster.connect_client_sync(timeout=timeout)
    try:  # the file that an ipcontroller started by hand leaves in its profile
        folder = ProfileDir.find_profile_dir_by_name(get_ipython_dir(), name).security_dir
        info = json.loads(Path(folder, "ipcontroller-client.json").read_text())
    except (ProfileDirError, FileNotFoundError):
        return None
    return ipp.Client(info, profile=name, timeout=timeout)


def _started(cluster: ipp.Cluster | None) -> int:
    """How many engines a cluster was told to start, 0 if that is not known."""
    return 0 if cluster is None else cluster.n or sum(engines.n for engines in cluster.engines.values())


def _is_one_starting() -> bool:
    """Whether an ``ipcluster start`` runs on this machine, perhaps with nothing written down so far."""
    lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return any("start" in line and ("ipcluster" in line or "ipyparallel.cluster" in line) for line in lines)
