"""A process that stops a cluster once the process that started it is gone, even by SIGKILL.

Run by path, not imported: it needs nothing of the package, and stays small while it waits.
Usage: python reaper.py PID CLUSTER_FILE
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil


def wait_for_exit(pid: int, interval: float = 0.5) -> None:
    """Return once the process is gone, if only as a zombie whose parent has not noticed yet."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(interval)


def stop(cluster) -> None:
    """Stop the engines and the controller of an ``ipyparallel.Cluster``, and remove the files they leave."""
    controller = getattr(cluster.controller, "pid", None)
    with suppress(Exception):  # a host that is gone: its engines end once they miss the controller
        cluster.stop_engines_sync()  # before the controller: they take leave of it
    cluster.stop_controller_sync()
    if controller and hasattr(os, "killpg"):
        # A controller that was killed leaves its schedulers; it was started as the leader of their group.
        with suppress(ProcessLookupError):
            os.killpg(controller, signal.SIGKILL)
    for folder in ("log", "security"):
        for file in Path(cluster.profile_dir, folder).glob(f"*{cluster.cluster_id}*"):
            file.unlink(missing_ok=True)


def reap(cluster_file: str) -> None:
    """Stop the cluster that the file describes, whatever launcher started it."""
    import ipyparallel

    with suppress(FileNotFoundError):  # stopped in time by the client itself
        stop(ipyparallel.Cluster.from_file(cluster_file))


if __name__ == "__main__":
    wait_for_exit(int(sys.argv[1]))
    reap(sys.argv[2])
