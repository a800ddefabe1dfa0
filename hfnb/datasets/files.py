"""Files of datasets: the folders that users name, the cache, downloads, and their errors.

Files are written completely or not at all. Downloads give up soon, since behind a firewall a request may hang
instead of failing.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from hfnb.progress_bars import progress_bar
from hfnb.validation import check_extra


class CorruptFile(ValueError):
    """A data file does not hold the bytes it should; the message names it."""


class CorpusError(ValueError):
    """A speech corpus, or one utterance in it, cannot be used; the message names the file and the line.

    Parameters
    ----------
    path : Path or str
        The file or folder.
    problem : str
        What is wrong with it.
    line : int, optional
        Where in the file.
    """

    def __init__(self, path: Path | str, problem: str, line: int | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {problem}")


# What archives and file managers leave in folders; names that begin with a dot are left out, too.
SYSTEM_NAMES = {"__macosx", "$recycle.bin", "@eadir", "desktop.ini", "lost+found", "thumbs.db"}
MOST_FOLDERS = 2000  # of a search, so that a search below a home folder ends
SHOWN = 12  # names in a message


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, without hidden entries and those that systems leave.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Path
        In the same order on every file system: by the name in lower case, then by the name.
    """
    found = (
        path for path in folder.iterdir() if path.name[:1] != "." and path.name.lower() not in SYSTEM_NAMES
    )
    return sorted(found, key=lambda path: (path.name.lower(), path.name))


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and the folders below it, level by level, each real folder once.

    Parameters
    ----------
    folder : Path
    depth : int
        Number of levels below ``folder``.

    Yields
    ------
    Path
        Folders that may not be read are left out; `listing` marks them.
    """
    seen, level = {folder.resolve()}, [folder]
    for remaining in range(depth, -1, -1):
        deeper = []
        for place in level:
            yield place
            if remaining and len(seen) < MOST_FOLDERS:
                children = entries(place) if place == folder or _readable(place) else []
                for child in children:
                    if child.is_dir() and _readable(child) and child.resolve() not in seen:
                        seen.add(child.resolve())
                        deeper.append(child)
        level = deeper


def listing(folder: Path) -> str:
    """Return a text for messages about the content of a folder: "found there: a.txt, folder/ and 3 more"."""
    names = [_marked(path) for path in entries(folder)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "found there: " + (", ".join(names[:SHOWN]) + more if names else "nothing")


def _marked(path: Path) -> str:
    """Return a name, with a slash after a folder's and a note if it cannot be read."""
    if not path.exists():
        return f"{path.name} (a link to nothing)"
    name = path.name + ("/" if path.is_dir() else "")
    return name if _readable(path) else f"{name} (not readable)"


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)


def named_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names.

    Parameters
    ----------
    variable : str

    Returns
    -------
    Path or None
        None if the variable is not set.

    Raises
    ------
    FileNotFoundError, PermissionError
        If it names anything but a folder that can be read.
    """
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
    """Return a folder in the user's cache, which need not exist yet.

    Parameters
    ----------
    name : str

    Returns
    -------
    Path
        Absolute, since engines, which receive it, may work in another folder.

    Notes
    -----
    ``HFNB_CACHE`` names another cache than the system's.
    """
    cache = os.environ.get("HFNB_CACHE")
    if not cache:
        check_extra("hfnb.datasets", "datasets", "pooch")
        import pooch

        cache = str(pooch.os_cache("hfnb"))
    return Path(cache).expanduser().absolute() / name


def writable(folder: Path) -> Path:
    """Make a folder of the cache and return it.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path

    Raises
    ------
    PermissionError
        If it cannot be written, with what to do.
    """
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
    """Write a file or folder completely or not at all.

    Parameters
    ----------
    path : Path
        Where it is to be.

    Yields
    ------
    Path
        Where to write it. At the end it is moved to ``path``, or removed after an error. A file replaces the
        one at ``path``; a folder that another process has put there meanwhile stays.
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


ANSWER_WITHIN = 4.0  # seconds


def answering(urls: Iterable[str]) -> set[str]:
    """Return the addresses that answer in time.

    Parameters
    ----------
    urls : iterable of str
        All are asked at once, each in a thread, since a request may hang.

    Returns
    -------
    set of str
    """
    check_extra("hfnb.datasets", "datasets", "requests")
    import requests

    found: set[str] = set()

    def ask(url: str) -> None:
        try:
            if requests.head(url, timeout=ANSWER_WITHIN, allow_redirects=True).ok:
                found.add(url)
        except requests.RequestException:
            pass

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + ANSWER_WITHIN
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return set(found)


def download(url: str, path: Path) -> None:
    """Download a file with a progress bar.

    Parameters
    ----------
    url : str
    path : Path
        Where the file goes.

    Raises
    ------
    OSError
        If the connection fails; the errors of requests are of this kind.
    """
    check_extra("hfnb.datasets", "datasets", "pooch", "tqdm")
    import pooch

    name = url.rpartition("/")[2]
    with progress_bar(total=1, unit="B", unit_scale=True, desc=name) as bar:  # pooch sets the total
        pooch.HTTPDownloader(progressbar=bar, timeout=(ANSWER_WITHIN, 20))(url, str(path), None)
