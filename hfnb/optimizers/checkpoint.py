"""Save the state of a run so that it survives whatever ends it, and resume it bit by bit."""

import functools
import hashlib
import inspect
import io
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hfnb.datasets.files import written_whole
from hfnb.objectives import run_identity
from hfnb.optimizers import checkpoint_lock
from hfnb.validation import check_positive_int

_MAGIC = b"hfnb checkpoint "
_HEADER = re.compile(rb"hfnb checkpoint [12], ([0-9a-f]{64})\n")  # 1 did not say whose state it holds
_NAME = re.compile(r"checkpoint-([0-9]{8,})")
_PART = re.compile(r"checkpoint-[0-9]{8,}\.[0-9a-f]{32}\.part")
_ARRAYS = {"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"}  # what NumPy's pickles are made of
# What may differ when a run is resumed: when it ends and who looks on, but not what it computes.
_OF_THE_CALL = {"max_iter", "tol", "callback", "checkpoint"}

Optimizer = TypeVar("Optimizer", bound=Callable)


class CorruptCheckpoint(ValueError):
    """All checkpoints in a folder are damaged; the message says what is wrong with each."""


class Checkpoint:
    """The last states of one run, in the files of a folder; give it to an optimizer as ``checkpoint``.

    Parameters
    ----------
    folder : str or path
        The folder. It is made if it does not exist; other files in it are left alone.
    keep : int
        How many states are kept.

    Attributes
    ----------
    folder : Path
        The absolute path of the folder.
    keep : int
        How many states are kept.

    Raises
    ------
    ValueError, TypeError
        For a wrong ``folder`` or ``keep``.

    Notes
    -----
    A state is a dictionary of arrays, numbers, text and records of a history. It is written to a file of
    another name, with its SHA-256, which is renamed once it is complete: a run that is killed leaves the last
    complete file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(folder)
    ...     print(checkpoint.load())
    ...     checkpoint.save({"iteration": 3})
    ...     print(Checkpoint(folder).load())
    None
    {'iteration': 3}
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"folder: expected the path of a folder, got {folder!r}")
        if not os.fspath(folder):
            raise ValueError("folder: expected the path of a folder, got an empty one")
        # Absolute: engines may have another working directory.
        self.folder = Path(folder).expanduser().absolute()
        self.keep = check_positive_int("keep", keep)
        self._in_use = False

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.folder)!r}, keep={self.keep})"

    def __reduce__(self) -> tuple:
        return type(self), (str(self.folder), self.keep)  # the lock stays with this process

    @property
    def files(self) -> list[Path]:
        """The files of the saved states, from old to new."""
        return [path for _, path in sorted(self._numbered()) if path.is_file()]

    def _numbered(self) -> list[tuple[int, Path]]:
        """Return the numbers and paths of everything in the folder that has the name of a checkpoint."""
        return [(int(name[1]), path) for name, path in self._named(_NAME)]

    def _named(self, pattern: re.Pattern) -> Iterable[tuple[re.Match, Path]]:
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise NotADirectoryError(error.errno, "folder: expected a folder", str(self.folder)) from None
        return [(name, path) for path in paths if (name := pattern.fullmatch(path.name))]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other runs out of the folder while the context lasts.

        Raises
        ------
        hfnb.optimizers.checkpoint_lock.FolderInUse
            If another run uses the folder.
        OSError
            If the folder cannot be made or written to.
        """
        with ExitStack() as stack:
            with self._saving():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(checkpoint_lock.locked(self.folder))
            self._in_use = True
            stack.callback(setattr, self, "_in_use", False)
            yield

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Add to an OSError what could not be saved and which state is the last one."""
        try:
            yield
        except OSError as error:
            try:
                files = self.files
            except OSError:
                files = []
            last = f"the last one is {files[-1]}" if files else "there is none yet"
            what = f"cannot save a checkpoint in {self.folder} ({error.strerror}); {last}"
            raise OSError(error.errno, what) from error

    def save(self, state: dict) -> None:
        """Save a state, and remove those beyond ``keep``.

        Parameters
        ----------
        state : dict
            Arrays, numbers, text and lists of these.

        Raises
        ------
        OSError
            If it cannot be written; the message names the last state that was.
        TypeError
            For a state that could not be read again.
        """
        if not self._in_use:
            with self.in_use():
                return self.save(state)
        payload = _pickled(state)
        header = b"hfnb checkpoint 2, %s\n" % hashlib.sha256(payload).hexdigest().encode()
        with self._saving():
            self.folder.mkdir(parents=True, exist_ok=True)
            number = max((number for number, _ in self._numbered()), default=-1) + 1
            with written_whole(self.folder / f"checkpoint-{number:08d}") as path, path.open("wb") as file:
                file.write(header)
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            for old in [*filter(_ours, self.files[: -self.keep]), *(path for _, path in self._named(_PART))]:
                old.unlink(missing_ok=True)

    def load(self) -> dict | None:
        """Return the newest complete state, with a warning about each damaged file that is newer.

        Returns
        -------
        dict or None
            The state; None if none was saved.

        Raises
        ------
        CorruptCheckpoint
            If all files are damaged.
        """
        problems = []
        for path in reversed(self.files):
            try:
                state = _read(path)
            except MemoryError:
                raise
            except Exception as error:  # a damaged pickle may raise anything
                if not path.exists():  # a run that goes on has put a newer one in its place
                    return self.load()
                problems.append(f"{path}: {error}")
                continue
            if problems:
                warnings.warn(
                    f"damaged checkpoint ({'; '.join(problems)}): going back to {path}", stacklevel=2
                )
            return state
        if problems:
            raise CorruptCheckpoint(f"no checkpoint is whole: {'; '.join(problems)}")
        return None


def opened(checkpoint: Any) -> Any:
    """Return ``checkpoint`` as an object with the methods load and save, or None; a path names a folder."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, (str, os.PathLike)):
        if not os.fspath(checkpoint):
            raise ValueError("checkpoint: expected a Checkpoint or the path of its folder, got an empty path")
        return Checkpoint(checkpoint)  # type: ignore[arg-type]
    methods = (getattr(checkpoint, name, None) for name in ("load", "save"))
    if isinstance(checkpoint, type) or not all(callable(method) for method in methods):
        raise TypeError(f"checkpoint: expected a Checkpoint or the path of its folder, got {checkpoint!r}")
    return checkpoint


def resumable(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer whose ``checkpoint`` may be a path, and is refused if it belongs to another run.

    Parameters
    ----------
    optimizer : callable
        ``optimizer(objective, w0, *, checkpoint=None, **options)``, which calls ``checkpoint.load()`` once
        and ``checkpoint.save(state)`` after each iteration.

    Returns
    -------
    callable
        The optimizer. It raises ValueError where the checkpoint is that of another objective
        (`Objective.identity`), start or options, with what differs; ``max_iter``, ``tol`` and ``callback``
        may differ. A checkpoint of an earlier version of hfnb does not name its run and is refused as well.
        While the run lasts, other runs are kept out of the folder: they raise `hfnb.FolderInUse`.
    """
    signature = inspect.signature(optimizer)

    @functools.wraps(optimizer)
    def run(*args, **kwargs):
        checkpoint = opened(kwargs.get("checkpoint"))
        if checkpoint is None:
            return optimizer(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        (_, objective), (_, w0), *options = given.arguments.items()
        compared = {name: value for name, value in options if name not in _OF_THE_CALL}
        with getattr(checkpoint, "in_use", nullcontext)():
            who = run_identity.of_call(optimizer, objective, w0, compared)
            given.arguments["checkpoint"] = Resumed(checkpoint, who)
            return optimizer(*given.args, **given.kwargs)

    return run  # type: ignore[return-value]


class Resumed:
    """A checkpoint for one run: its states name the run, and those of other runs are refused."""

    def __init__(self, checkpoint, who: Mapping[str, str]):
        self.checkpoint, self.who = checkpoint, dict(who)

    def load(self) -> dict | None:
        """Return the newest state, or None; ValueError with what differs where it is another run's."""
        saved = self.checkpoint.load()
        if saved is None:
            return None
        state = dict(saved)
        found = state.pop("run", None)
        if not isinstance(found, dict):
            raise ValueError(f"{self._which()} does not say whose it is: an earlier version of hfnb wrote it")
        differs = [name for name in self.who if name in found and found[name] != self.who[name]]
        if differs:
            pairs = (f"{name}: expected {self.who[name]}, got {found[name]}" for name in differs)
            raise ValueError(
                f"{self._which()} belongs to another run ({'; '.join(pairs)}). An object that changes "
                "while it runs can say what it is by a method identity() -> {name: text}"
            )
        return state

    def save(self, state: dict) -> None:
        """Save a state."""
        self.checkpoint.save({**state, "run": self.who})

    def _which(self) -> str:
        folder = getattr(self.checkpoint, "folder", None)
        there = f" in {folder}" if folder else ""
        return f"checkpoint: expected a new folder or this run's own, but the checkpoint{there}"


def _ours(path: Path) -> bool:
    """Whether a file is a checkpoint, by its first bytes, or what is left of one."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) in (_MAGIC, b"")


def _read(path: Path) -> dict:
    content = path.read_bytes()
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("not a checkpoint of this format")
    payload = content[header.end() :]
    expected, found = header[1].decode(), hashlib.sha256(payload).hexdigest()
    if found != expected:
        raise ValueError(f"expected SHA-256 {expected}, found {found} ({len(content)} bytes)")
    state = _DataOnly(io.BytesIO(payload)).load()
    if not isinstance(state, dict):
        raise ValueError(f"expected a dictionary, found {type(state).__name__}")
    return state


def _is_data(module: str, name: str) -> bool:
    arrays = module.split(".")[0] == "numpy" and name in _ARRAYS
    return arrays or (module, name) == ("hfnb.optimizers.history", "Record")


class _DataOnly(pickle.Unpickler):
    """Reads arrays and records; a pickle that names anything else could run anything, and is refused."""

    def find_class(self, module: str, name: str):
        if _is_data(module, name):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a checkpoint holds data only, not {module}.{name}")


class _WritesData(pickle.Pickler):
    """Writes what `_DataOnly` reads: a run shall not find out when it is resumed that it cannot be."""

    def reducer_override(self, obj):
        named = obj if hasattr(obj, "__qualname__") else type(obj)
        if isinstance(obj, (np.generic, np.dtype)) or _is_data(named.__module__, named.__qualname__):
            return NotImplemented
        raise TypeError(f"a checkpoint holds numbers, text, arrays and lists of these, not {obj!r}"[:200])


def _pickled(state: dict) -> bytes:
    file = io.BytesIO()
    _WritesData(file, protocol=5).dump(state)
    return file.getvalue()
