"""ipyparallel's launcher for SSH, for hosts that may go away."""

import subprocess

from ipyparallel.cluster.launcher import SSHEngineLauncher, SSHEngineSetLauncher


class Engine(SSHEngineLauncher):
    """One engine; where ssh no longer reaches its host, it counts as ended.

    ``ended``: its exit code once it has ended.
    """

    ended: int | None = None

    def wait_one(self, timeout):
        """Wait for the engine's exit code; TimeoutError if it still runs."""
        try:
            self.ended = super().wait_one(timeout)
        except subprocess.CalledProcessError as error:
            self.ended = error.returncode
        return self.ended


class Engines(SSHEngineSetLauncher):
    """A set of such engines; to another process that stops them they are ipyparallel's own."""

    launcher_class = Engine
    entrypoint_name = "ssh"
