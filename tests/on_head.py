"""What tests run on the head of a cluster: it reads a pickled job, trains, and writes a pickled report.

After the iteration that the job names it says "halt" and waits for a line: the moment to break something.
"""

import pickle
import socket
import sys
import time

from hfnb.engines import Cluster


def train(cluster: Cluster, arguments: tuple, options: dict, halt: int | None) -> dict:
    """Return the result, the seconds that it took and the engines in use at the end."""

    def callback(record):
        if record.iteration == halt:
            print("halt", flush=True)
            sys.stdin.buffer.readline()

    start = time.monotonic()
    result = cluster.minimize(*arguments, callback=callback, progress=False, **options)
    return {"result": result, "seconds": time.monotonic() - start, "engines": cluster.engines}


def main(report: str) -> None:
    job = pickle.load(sys.stdin.buffer)
    start, runs = time.monotonic(), []
    with Cluster(**job["cluster"]) as cluster:
        hosts = cluster.client[cluster.engines].apply_sync(socket.gethostname)
        up, has_mpi = time.monotonic() - start, cluster.has_mpi
        for options, halt in job["runs"]:
            runs.append(train(cluster, job["arguments"], options, halt))
        stopping = time.monotonic()
    found = {"hosts": hosts, "has_mpi": has_mpi, "up": up, "down": time.monotonic() - stopping, "runs": runs}
    with open(report, "wb") as file:
        pickle.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
