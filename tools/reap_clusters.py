"""Stop the ipyparallel clusters that killed notebooks left behind in the folder that IPYTHONDIR names."""

import logging
import os
import sys

import ipyparallel as ipp


def main() -> None:
    if not os.environ.get("IPYTHONDIR"):
        sys.exit("reap_clusters: IPYTHONDIR: expected a folder made for this run alone")
    # Left to itself, stopping a cluster prints the engines' whole logs.
    for cluster in ipp.ClusterManager().load_clusters(init_default_clusters=False).values():
        cluster.log_level = logging.CRITICAL
        cluster.stop_cluster_sync()
        print(f"hfnb: stopped {cluster.cluster_id}, which a notebook left running")


if __name__ == "__main__":
    main()
