"""A lock on a folder, which the operating system releases when the process with the lock ends."""

import errno
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = ".lock"
WAIT = 10.0  # seconds; engines whose client was killed keep the lock for about two seconds, until they end
# The errors of a file system without locks.
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class FolderInUse(RuntimeError):
    """Another run has the lock of a folder; the message names that run if it is known."""


@contextmanager
def locked(folder: Path, wait: float = WAIT) -> Iterator[None]:
    """Return a context with the lock of an existing folder.

    The lock is on the file `NAME` in the folder, which stays there. A run that is killed leaves no lock
    behind. On a file system without locks, a warning says that nothing protects the folder.

    Parameters
    ----------
    folder : Path
        The folder.
    wait : float
        For how many seconds to wait for another run to release the lock.

    Raises
    ------
    FolderInUse
        If another run has the lock for longer, or at once if it is a run of this process.
    """
    end = time.monotonic() + wait
    with open(folder / NAME, "a+", encoding="utf-8") as file:
        try:
            while not _lock(file.fileno()):
                holder = _holder(folder)
                if time.monotonic() > end or holder.startswith(f"{_self()},"):
                    raise FolderInUse(
                        f"checkpoint: the checkpoint folder {folder} is in use by another run ({holder}): "
                        f"give each run its own folder. If the machine of that run is lost, remove {NAME}"
                    )
                time.sleep(0.05)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}): use it in one run only", stacklevel=3
            )
        with suppress(OSError):  # such as a full disk; the name is only for the message
            file.truncate(0)
            file.write(f"{_self()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)
                _unlock(file.fileno())


def _self() -> str:
    """Return the name of this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _holder(folder: Path) -> str:
    """Return the name that the run with the lock has written."""
    try:
        return (folder / NAME).read_text(encoding="utf-8") or "it left no name"
    except (OSError, UnicodeDecodeError):
        return "it left no name"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        """Lock a byte far beyond the end of the file, so that others can read its content."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

    def _unlock(descriptor: int) -> None:
        """Free the lock."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock the file for this open file alone, so that a second run of this process cannot have it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        """Free the lock at once, even where a child process has inherited the open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
