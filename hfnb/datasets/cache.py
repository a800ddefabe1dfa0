"""Where data files live: folders the environment names, the user's cache, files written all or nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pooch


def named_folder(variable: str) -> Path | None:
    """Return the folder an environment variable names, or None; raises FileNotFoundError if it is none."""
    value = os.environ.get(variable)
    if not value:
        return None
    folder = Path(value).expanduser().absolute()
    if not folder.is_dir():
        got = "which is a file" if folder.exists() else "which does not exist"
        raise FileNotFoundError(f"{variable}: expected a folder, got {folder}, {got}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{variable}: expected a folder that can be read, got {folder}, which cannot")
    return folder


def cache_folder(name: str) -> Path:
    """Return the folder ``name`` in the user's cache (``HFNB_CACHE`` names another cache).

    The path is absolute: engines, which are told it, may work in another folder.
    """
    cache = Path(os.environ.get("HFNB_CACHE") or pooch.os_cache("hfnb")).expanduser()
    return cache.absolute() / name


def writable(folder: Path) -> Path:
    """Make ``folder`` and return it; raises PermissionError, saying what to do, if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise PermissionError(
            f"cannot write to the cache {folder} ({error.strerror}): "
            "set HFNB_CACHE to a folder that you may write to"
        ) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path for a file or folder that is moved to ``path`` at the end, or vanishes on failure.

    A reader never meets it half written. A file replaces what was there; a folder that another process has
    put there meanwhile stays.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError:
            if not (temporary.is_dir() and path.is_dir()):
                raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
