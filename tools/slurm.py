#!/usr/bin/env python3
"""Slurm on hosts of this machine: ``python3 tools/slurm.py -n 2 -- COMMAND`` runs COMMAND where sbatch works.

The hosts are those of hosts.py: the head runs slurmctld, each other one slurmd, with munge between them. All
that they write is in a temporary folder, and ends with the hosts. Needs Debian's slurm-wlm and munge, too.
"""

import os
import shutil
import subprocess
import sys
import time

import hosts

# One task fits on a host, whatever it has. Without cgroups, which a host in a namespace cannot own.
CONFIGURATION = """ClusterName=hosts
SlurmctldHost=head(10.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=2
NodeName={nodes} CPUs=1
PartitionName=cpu Nodes={nodes} Default=YES
"""


def missing() -> str | None:
    """Say what this machine lacks for Slurm on hosts of its own, or None."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo")
    return hosts.missing() or next((f"the program {name}" for name in needed if not shutil.which(name)), None)


class Slurm(hosts.Hosts):
    """Hosts with Slurm on them: the partition "cpu", with one CPU a host; a context manager."""

    def __enter__(self) -> "Slurm":
        if lacks := missing():
            raise RuntimeError(f"slurm: {lacks} is needed")
        super().__enter__()
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def environment(self) -> dict[str, str]:
        """The variables of programs on the head: Slurm's find it."""
        return super().environment() | {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def _start_daemons(self) -> None:
        """Start munged, slurmctld and slurmds, whose logs are in the folder, and wait until all answer."""
        text = CONFIGURATION.format(folder=self.folder, nodes=",".join(self.names))
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={self.folder}\n")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        files = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        munge = [f"--{option}={self.folder}/munge.{suffix}" for option, suffix in files.items()]
        self._start("head", "munged", "--foreground", "--force", *munge)
        configured = ("-D", "-f", f"{self.folder}/slurm.conf")
        self._start("head", "slurmctld", *configured)
        for host in self.names:
            self._start(host, "slurmd", *configured, "-N", host)
        end, idle = time.monotonic() + 30, ["idle"] * len(self.names)
        while (
            self.run("sinfo", "-h", "-N", "-o", "%T", capture_output=True, text=True).stdout.split() != idle
        ):
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-1000:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"slurm: not up in 30 s:\n{logs}")
            time.sleep(0.2)

    def _start(self, host: str, *command: str) -> None:
        nowhere = subprocess.DEVNULL
        self._daemons.append(
            subprocess.Popen(
                self.command(host, *command), env=self.environment(), stdin=nowhere, stderr=nowhere
            )
        )


if __name__ == "__main__":
    sys.exit(hosts.main(Slurm))
