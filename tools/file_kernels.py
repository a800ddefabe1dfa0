"""Kernels reached through files instead of ports; as a conftest of pytest, those of the notebook check.

The ports of a kernel are chosen a second before it opens them. When another kernel or a cluster takes one in
between, the kernel ends and its whole notebook fails, or waits for messages that went elsewhere. Windows has
no such files; there kernels have ports.
"""

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import nbval.kernel
from jupyter_client.manager import AsyncKernelManager

usual = nbval.kernel.KernelManager


def by_files(folder: Path) -> dict[str, str]:
    """Return options of a manager, whose kernel then has its sockets in a folder."""
    if os.name != "posix":
        return {}
    file = folder / f"kernel-{uuid.uuid4().hex[:12]}.json"
    return {"transport": "ipc", "connection_file": str(file)}


def file_kernel_manager(**options: Any) -> Any:
    """Return the manager of a kernel whose sockets are files of the working folder."""
    return usual(**by_files(Path.cwd()), **options)


class FileKernelManager(AsyncKernelManager):
    """The manager of a kernel whose sockets are files of a temporary folder, for a `NotebookClient`."""

    def __init__(self, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hfnb-")  # paths of sockets have to be short
        super().__init__(**by_files(Path(self._folder.name)), **options)


nbval.kernel.KernelManager = file_kernel_manager
