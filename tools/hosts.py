#!/usr/bin/env python3
"""Hosts in network namespaces of this machine: ``python3 tools/hosts.py -n 2 --rate 1gbit -- COMMAND``.

COMMAND runs on "head"; "host1", "host2", ... are reached from there, and from each other, by ssh, scp and
their names, over links of known bandwidth. Each host has an address, a name, an sshd and keys of its own;
they share the file system, as the nodes of a cluster do. Linux, as root, with iproute2 and OpenSSH.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

# What every program in a namespace starts through: only there are these mounts seen. sshd needs /run/sshd.
ENTER = """#!/bin/sh
mount -t tmpfs none /run && mkdir /run/sshd && mount --bind {folder}/hosts /etc/hosts && hostname "$1" || exit
shift
exec "$@"
"""
SSHD = """ListenAddress {address}
HostKey {folder}/{host}.key
AuthorizedKeysFile {folder}/user.key.pub
StrictModes no
MaxStartups 100
SetEnv PATH={folder}/bin:{path}
Subsystem sftp internal-sftp
"""
SSH = """IdentityFile {folder}/user.key
UserKnownHostsFile {folder}/known_hosts
BatchMode yes
ConnectTimeout 3
ServerAliveInterval 1
LogLevel ERROR
"""
# Waits until the program that made the hosts closes its end of a pipe, be it by dying.
SWEEP = """read _
for name in {names}; do
    ip netns pids "$name" | xargs -r kill -KILL
    ip netns delete "$name"
done
rm -rf {folder}
"""
PROBE = "ip link add v0 type veth && ip link add b0 type bridge && tc qdisc add dev v0 root tbf rate 1gbit"
PROBE += " burst 9kb limit 9kb"  # what root may not do everywhere; it ends with its shell
BURST = 64 * 1024  # bytes that may pass at once; no less than the largest packet


@cache
def missing() -> str | None:
    """Say what this machine lacks for hosts of its own, or None."""
    if sys.platform != "linux" or os.geteuid():
        return "root on Linux"
    needed = ("ip", "tc", "sshd", "ssh", "scp", "ssh-keygen", "unshare", "mount", "hostname", "xargs")
    if lacks := next((f"the program {name}" for name in needed if not shutil.which(name)), None):
        return lacks
    tried = subprocess.run(["unshare", "-n", "-m", "sh", "-c", PROBE], capture_output=True, text=True)
    return f"namespaces with links and tbf ({tried.stderr.strip()})" if tried.returncode else None


def sh(*command: str) -> None:
    """Run a program; RuntimeError with its words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Hosts:
    """A head and n hosts on one switch: ``with Hosts(2) as hosts: hosts.run("ssh", "host2", "hostname")``.

    ``n``: hosts besides the head. ``rate``: bandwidth of each link, either way, as ``tc`` writes it (as fast
    as it goes if None). RuntimeError where they cannot be had here.
    """

    def __init__(self, n: int = 2, rate: str | None = None):
        if lacks := missing():
            raise RuntimeError(f"hosts: {lacks} is needed")
        self.rate, self.names = rate, [f"host{i + 1}" for i in range(n)]
        self.addresses = {host: f"10.0.0.{i + 1}" for i, host in enumerate(["head", *self.names])}

    def __enter__(self) -> "Hosts":
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._namespaces = {host: f"{self.folder.name}-{host}" for host in ["switch", *self.addresses]}
        self._daemons: list[subprocess.Popen] = []
        sweep = SWEEP.format(names=" ".join(self._namespaces.values()), folder=self.folder)
        command = ["setsid", "sh", "-c", f"exec >/dev/null 2>&1; {sweep}"]
        self._sweeper = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            self._wire()
            self._write_keys()
            for host in self.names:
                self._start_sshd(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        """End every process on the hosts, and the hosts."""
        self._sweeper.communicate(timeout=30)
        for daemon in self._daemons:
            daemon.wait(timeout=30)

    def command(self, host: str, *command: str) -> list[str]:
        """Return the command line that runs a program on a host.

        Hosts have no memory segments in common, so that MPI goes over the network.
        """
        inside = ["ip", "netns", "exec", self._namespaces[host], "unshare", "--uts", "--ipc"]
        return [*inside, "sh", f"{self.folder}/enter", host, *command]

    def environment(self) -> dict[str, str]:
        """The variables of programs on the head: its ssh and scp know the hosts, HOSTS names them."""
        path = f"{self.folder}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, "HOSTS": " ".join(self.names)}

    def popen(self, *command: str, **options) -> subprocess.Popen:
        """Start a program on the head; the options are those of subprocess.Popen."""
        return subprocess.Popen(self.command("head", *command), env=self.environment(), **options)

    def run(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Run a program on the head to its end; the options are those of subprocess.run."""
        options.setdefault("timeout", 60)
        return subprocess.run(self.command("head", *command), env=self.environment(), **options)

    def cut(self, host: str) -> None:
        """Pull a host's plug out of the switch."""
        sh("ip", "-n", self._namespaces["switch"], "link", "set", host, "down")

    def mend(self, host: str) -> None:
        """Plug it in again."""
        sh("ip", "-n", self._namespaces["switch"], "link", "set", host, "up")

    def _wire(self) -> None:
        for name in self._namespaces.values():
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        switch = self._namespaces["switch"]
        sh("ip", "-n", switch, "link", "add", "bridge", "up", "type", "bridge")
        for host, address in self.addresses.items():
            space = self._namespaces[host]
            peer = ("type", "veth", "peer", "name", "eth0", "netns", space)
            sh("ip", "-n", switch, "link", "add", host, *peer)
            sh("ip", "-n", switch, "link", "set", host, "master", "bridge", "up")
            sh("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            sh("ip", "-n", space, "link", "set", "eth0", "up")
            if self.rate:
                bucket = ("root", "tbf", "rate", self.rate, "burst", str(BURST), "latency", "50ms")
                sh("tc", "-n", space, "qdisc", "add", "dev", "eth0", *bucket)
                sh("tc", "-n", switch, "qdisc", "add", "dev", host, *bucket)

    def _write_keys(self) -> None:
        for name in ["user", *self.names]:
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.folder}/{name}.key")
        names = [f"{address} {host}" for host, address in self.addresses.items()]
        known = [f"{host} {(self.folder / f'{host}.key.pub').read_text()}" for host in self.names]
        files = {
            "hosts": "\n".join(["127.0.0.1 localhost", *names, ""]),
            "known_hosts": "".join(known),
            "ssh_config": SSH.format(folder=self.folder),
            "enter": ENTER.format(folder=self.folder),
        }
        for name in ("ssh", "scp"):
            files[f"bin/{name}"] = f'#!/bin/sh\nexec {shutil.which(name)} -F {self.folder}/ssh_config "$@"\n'
        (self.folder / "bin").mkdir()
        for name, text in files.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    def _start_sshd(self, host: str) -> None:
        """Start sshd and wait until it answers."""
        config = self.folder / f"{host}.sshd"
        named = {"folder": self.folder, "host": host, "address": self.addresses[host], "path": os.defpath}
        config.write_text(SSHD.format(**named))
        sshd = [str(shutil.which("sshd")), "-D", "-E", f"{self.folder}/{host}.log", "-f", str(config)]
        process = subprocess.Popen(self.command(host, *sshd), start_new_session=True)
        self._daemons.append(process)
        end = time.monotonic() + 10
        while self.run("ssh", host, "true", capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"hosts: sshd on {host}: {(self.folder / f'{host}.log').read_text()}")
            time.sleep(0.1)


def main(kind: type[Hosts] = Hosts) -> int:
    parser = argparse.ArgumentParser(description=sys.modules[kind.__module__].__doc__)
    parser.add_argument("-n", type=int, default=2, help="hosts besides the head")
    parser.add_argument("--rate", help="bandwidth of each link, as tc writes it: 1gbit, 100mbit, ...")
    parser.add_argument("command", nargs="+", help="program to run on the head, and its arguments")
    chosen = parser.parse_args()
    with kind(chosen.n, chosen.rate) as hosts:
        return hosts.run(*chosen.command, timeout=None).returncode


if __name__ == "__main__":
    sys.exit(main())
