"""Where data files live: folders the environment names, the user's cache, files written all or nothing."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pooch


class CorruptFile(ValueError):
    """A data file does not hold the bytes it should; the message names it."""


def data_folder() -> Path | None:
    """Return the folder that ``HFNB_DATA`` names, or None; raises FileNotFoundError if it does not exist."""
    return _named_folder("HFNB_DATA")


def _named_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names."""
    value = os.environ.get(variable)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{variable}: expected a folder, {folder} is not one")
    return folder


def cache_folder(name: str) -> Path:
    """Return the folder ``name`` in the user's cache (``HFNB_CACHE`` names another cache)."""
    return Path(os.environ.get("HFNB_CACHE") or pooch.os_cache("hfnb")).expanduser() / name


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
    """Yield a temporary path beside ``path`` that takes its place at the end, or vanishes after an exception.

    A reader never meets a half-written file, and processes that write the same file at once do no harm.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
