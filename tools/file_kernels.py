"""A conftest of pytest for the notebook check: kernels that are reached through files instead of ports.

The ports of a kernel are chosen a second before it opens them. When another kernel or a cluster takes one in
between, the kernel ends and its whole notebook fails.
"""

import os
import uuid
from pathlib import Path
from typing import Any

import nbval.kernel

usual = nbval.kernel.KernelManager


def file_kernel_manager(**options: Any) -> Any:
    """Return the manager of a kernel whose sockets are files of the working folder."""
    file = Path.cwd() / f"kernel-{uuid.uuid4().hex[:12]}.json"
    return usual(transport="ipc", connection_file=str(file), **options)


if os.name == "posix":
    nbval.kernel.KernelManager = file_kernel_manager
