"""A file of runs that are made once: an interrupted study goes on where it was."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class TimeIsUp(Exception):
    """The time of a study is over, before it is complete."""


class StoredRuns:
    """Tables of JSON in a file, to which several threads may add.

    The file has one entry a line, and it is replaced as a whole after every addition, so that an interrupt
    leaves no half of it.

    Parameters
    ----------
    path : Path
        The file; it need not exist.
    about : callable
        () -> a dictionary that says how entries are made. Those of earlier occasions stay in the file, in the
        list ``earlier`` of that dictionary, if anything but the command and the load differs.
    minutes : float
        After so many minutes no run is begun.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         stored = StoredRuns(Path(folder, "runs.json"))
    ...         print(stored.run("key", lambda: print("made now") or 7))
    made now
    7
    7
    """

    def __init__(self, path: Path, about: Callable[[], dict] = dict, minutes: float = np.inf):
        self._path, self._about, self._lock = path, about, threading.Lock()
        self._end = time.monotonic() + 60 * minutes
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._before: dict[str, Any] = found.pop("about", {})
        self._tables: dict[str, dict[str, Any]] = found

    def table(self, name: str) -> dict[str, Any]:
        """Return a copy of a table.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict
            {key: entry}; empty if nothing was added.
        """
        with self._lock:
            return dict(self._tables.get(name, {}))

    def run(
        self, key: str, call: Callable[[], Any], valid: Callable[[Any], bool] = bool, name: str = "runs"
    ) -> Any:
        """Return a stored run, or make it and store it.

        Parameters
        ----------
        key : str
            What the run depends on.
        call : callable
            () -> the run, as JSON has it.
        valid : callable
            (stored run) -> whether it need not be made again.
        name : str
            Of the table.

        Returns
        -------
        object

        Raises
        ------
        TimeIsUp
            If the run is to be made and the minutes are over.
        """
        found = self.table(name).get(key)
        if found is None or not valid(found):
            if time.monotonic() > self._end:
                raise TimeIsUp("the minutes are over; the same command goes on from here")
            found = call()
            self.add(name, {key: found})
        return found

    def add(self, name: str, entries: dict[str, Any]) -> None:
        """Add entries to a table, and write the file.

        Parameters
        ----------
        name : str
            Of the table.
        entries : dict
            {key: entry}.
        """
        with self._lock:
            self._tables.setdefault(name, {}).update(entries)
            whole = {"about": _with_earlier(self._about(), self._before), **self._tables}
            text = ",\n".join(f"{_json(each)}: {_lines(table)}" for each, table in whole.items())
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
            os.replace(fresh, self._path)


def _with_earlier(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of the newest entries, with what was said of earlier ones where it differs."""
    earlier, last = list(before.get("earlier", [])), {k: v for k, v in before.items() if k != "earlier"}
    lasting = (last.keys() | now.keys()) - {"command", "load"}
    if last and any(last.get(key) != now.get(key) for key in lasting):
        earlier.append(last)
    return {**now, "earlier": earlier} if earlier else now


def _json(value: Any) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def _lines(table: dict[str, Any]) -> str:
    """Return a table as JSON with an entry on each line."""
    return "{\n" + ",\n".join(f"{_json(key)}: {_json(entry)}" for key, entry in table.items()) + "\n}"
