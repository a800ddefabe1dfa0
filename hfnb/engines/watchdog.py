"""A process that stops a cluster once the process that started it is gone, even by SIGKILL.

It is started before the cluster. Run by path, not imported: it needs nothing of the package, and stays small
while it waits. Usage: python reaper.py PID CLUSTER_FILE CLUSTER_ID PROFILE_FOLDER
"""

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

GRACE = 1.0  # seconds between SIGTERM and SIGKILL
QUIET = 3  # looks without a process of the cluster, after which none is expected to appear any more

SEGMENT = re.compile(r"(/dev/shm/mpich_shm_\S+)$", re.MULTILINE)  # of MPICH, where it still has this name


def wait_for_exit(pid: int, interval: float = 0.5) -> None:
    """Return once the process is gone, if only as a zombie whose parent has not noticed yet."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(interval)


def processes_of(cluster_id: str, profile_dir: str) -> list[psutil.Process]:
    """Return the processes of a cluster on this machine, and those that they started.

    ipyparallel puts the id and the profile into the environment of all that it starts, so that a process is
    found even if nobody has noted that it was started.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            variables = process.environ()
            wanted = variables.get("IPP_CLUSTER_ID") == cluster_id
            if wanted and variables.get("IPP_PROFILE_DIR") == profile_dir and process.pid != os.getpid():
                found.append(process)
    return found


def unlink_segments(pid: int) -> None:
    """Remove the names of the MPI segments that a process maps; the memory stays until the maps end."""
    try:
        found = set(SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text()))
    except OSError:  # no /proc here, or the process has ended
        return
    for path in found:
        with suppress(OSError):
            os.unlink(path)


def sweep(cluster_id: str, profile_dir: str, quiet: int = 1, seconds: float = 30) -> None:
    """End the processes of a cluster on this machine, until none is found ``quiet`` times in a row."""
    asked: dict[psutil.Process, float] = {}
    looks, end = 0, time.monotonic() + seconds
    while cluster_id and time.monotonic() < end:
        found = processes_of(cluster_id, profile_dir)
        looks = 0 if found else looks + 1
        if looks >= quiet:
            return
        for process in found:
            unlink_segments(process.pid)
            with suppress(psutil.NoSuchProcess):
                if process not in asked:
                    asked[process] = time.monotonic()
                    process.terminate()
                elif time.monotonic() > asked[process] + GRACE:
                    process.kill()
        time.sleep(0.2)


def remove_files(cluster_id: str, profile_dir: str) -> None:
    """Remove the logs and the connection files of a cluster."""
    for folder in ("log", "security") if cluster_id else ():
        for file in Path(profile_dir, folder).glob(f"*{cluster_id}*"):
            with suppress(OSError):
                file.unlink()


def stop(cluster) -> None:
    """Stop the engines and the controller of an ``ipyparallel.Cluster``, and remove the files they leave."""
    for process in processes_of(cluster.cluster_id, cluster.profile_dir) if cluster.cluster_id else ():
        unlink_segments(process.pid)  # of engines that were stopped before they did so themselves
    with suppress(Exception):  # a host that is gone: its engines end once they miss the controller
        cluster.stop_engines_sync()  # before the controller: they take leave of it
    with suppress(Exception):
        cluster.stop_controller_sync()
    # What a killed controller or mpiexec leaves, and what was started in the very moment of an interrupt.
    sweep(cluster.cluster_id, cluster.profile_dir)
    remove_files(cluster.cluster_id, cluster.profile_dir)


def reap(cluster_file: str, cluster_id: str, profile_dir: str) -> None:
    """Stop the cluster, whatever launcher started it and however far its start had come."""
    sweep(cluster_id, profile_dir, QUIET)
    with suppress(Exception):  # no file: stopped in time by the client itself; half a file: nothing else runs
        import ipyparallel

        stop(ipyparallel.Cluster.from_file(cluster_file))  # engines elsewhere
    remove_files(cluster_id, profile_dir)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_for_exit(int(sys.argv[1]))
    reap(*sys.argv[2:5])
