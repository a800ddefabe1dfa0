"""Folders that users name: what is in them, in any case of letters, without what systems leave there."""

import os
from collections.abc import Iterator
from pathlib import Path

# What archives and file managers leave in folders; names that begin with a dot are left out, too.
SYSTEM_NAMES = {"__macosx", "$recycle.bin", "@eadir", "desktop.ini", "lost+found", "thumbs.db"}
MOST_FOLDERS = 2000  # of a search, so that one below a home folder ends
SHOWN = 12  # names in a message


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, by name, without hidden entries and the systems' own.

    The order is the same on every file system: by the name in lower case, then by the name.
    """
    found = (
        path for path in folder.iterdir() if path.name[:1] != "." and path.name.lower() not in SYSTEM_NAMES
    )
    return sorted(found, key=lambda path: (path.name.lower(), path.name))


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield ``folder``, then the folders in it, then those below, down to ``depth``; each real folder once.

    Folders below that may not be read are passed over: `listing` marks them.
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
    """Say for a message what is in a folder: "found there: a, b/ (a folder ends with /) and 3 more"."""
    names = [_marked(path) for path in entries(folder)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "found there: " + (", ".join(names[:SHOWN]) + more if names else "nothing")


def _marked(path: Path) -> str:
    """Return a name, a slash behind a folder's, and what stops it from being read."""
    if not path.exists():
        return f"{path.name} (a link to nothing)"
    name = path.name + ("/" if path.is_dir() else "")
    return name if _readable(path) else f"{name} (not readable)"


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
