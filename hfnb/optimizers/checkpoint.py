"""Checkpoints: a run can be resumed after any interruption, and gives the same results bit for bit."""

import errno
import functools
import hashlib
import inspect
import io
import os
import pickle
import re
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.datasets.files import written_whole
from hfnb.objectives import run_identity
from hfnb.validation import check_positive_int

_MAGIC = b"hfnb checkpoint "
_HEADER = re.compile(rb"hfnb checkpoint [12], ([0-9a-f]{64})\n")  # format 1 does not name the run
_NAME = re.compile(r"checkpoint-([0-9]{8,})")
_PART = re.compile(r"checkpoint-[0-9]{8,}\.[0-9a-f]{32}\.part")
_ARRAYS = {"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"}  # the names in NumPy's pickles
# Options that may differ when a run is resumed, because they do not change what it computes.
_OF_THE_CALL = {"max_iter", "tol", "callback", "checkpoint"}

LOCK_FILE = ".lock"
# Seconds. Engines whose client was killed keep the lock for about two seconds, until they end.
LOCK_WAIT = 10.0
# The errors of a file system without locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

Optimizer = TypeVar("Optimizer", bound=Callable[..., OptimizeResult])


class CheckpointLike(Protocol):
    """What an optimizer needs of a checkpoint: `Checkpoint` is one, and a class of your own may be."""

    def load(self) -> dict[str, Any] | None:
        """Return the last state that was saved, None if there is none."""

    def save(self, state: dict[str, Any]) -> None:
        """Save a state."""


class CorruptCheckpoint(ValueError):
    """All checkpoints in a folder are damaged; the message says what is wrong with each."""


class FolderInUse(RuntimeError):
    """Another run has the lock of a folder; the message names that run if it is known."""


class Checkpoint:
    """The last states of one run, as files in a folder, for the option ``checkpoint`` of an optimizer.

    Parameters
    ----------
    folder : str or path
        The folder. It is made if it does not exist; other files in it are not touched.
    keep : int
        Number of states that are kept.

    Attributes
    ----------
    folder : Path
        The absolute path of the folder.
    keep : int
        Number of states that are kept.

    Raises
    ------
    ValueError, TypeError
        If ``folder`` is not a path, or ``keep`` not a positive integer.

    Notes
    -----
    A state is a dictionary of arrays, numbers, text and records of a history. It is written with its SHA-256
    to a temporary file, which is renamed when it is complete. A run that is killed therefore leaves the last
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

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self.folder), self.keep)  # the lock stays with this process

    @property
    def files(self) -> list[Path]:
        """The files of the saved states, from old to new."""
        return [path for _, path in sorted(self._numbered()) if path.is_file()]

    def _numbered(self) -> list[tuple[int, Path]]:
        """Return the numbers and paths of all entries of the folder that are named like a checkpoint."""
        return [(int(name[1]), path) for name, path in self._named(_NAME)]

    def _named(self, pattern: re.Pattern[str]) -> Iterable[tuple[re.Match[str], Path]]:
        """Return the entries of the folder whose names match a pattern."""
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise NotADirectoryError(error.errno, "folder: expected a folder", str(self.folder)) from None
        return [(name, path) for path in paths if (name := pattern.fullmatch(path.name))]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Return a context in which no other run can use the folder.

        Raises
        ------
        FolderInUse
            If another run uses the folder.
        OSError
            If the folder cannot be made or written to.
        """
        with ExitStack() as stack:
            with self._saving():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder, LOCK_WAIT))
            self._in_use = True
            stack.callback(setattr, self, "_in_use", False)
            yield

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Add to the message of an OSError that saving failed, and which state is the last one."""
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

    def save(self, state: dict[str, Any]) -> None:
        """Save a state, and remove all but the last ``keep`` states.

        Parameters
        ----------
        state : dict
            Arrays, numbers, text and lists of these.

        Raises
        ------
        OSError
            If the state cannot be written; the message names the last one that was.
        TypeError
            If the state holds an object that `load` would refuse.
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

    def load(self) -> dict[str, Any] | None:
        """Return the newest complete state, with a warning about damaged files that are newer.

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
                if not path.exists():  # a running optimizer has replaced it by a newer one
                    return self.load()
                problems.append(f"{path}: {error}")
                continue
            if problems:
                warnings.warn(
                    f"damaged checkpoint ({'; '.join(problems)}): going back to {path}", stacklevel=2
                )
            return state
        if problems:
            raise CorruptCheckpoint(f"all checkpoints are damaged: {'; '.join(problems)}")
        return None


def opened(checkpoint: CheckpointLike | str | os.PathLike[str] | None) -> CheckpointLike | None:
    """Return the checkpoint that an optimizer was given.

    Parameters
    ----------
    checkpoint : Checkpoint or path or None
        A `Checkpoint` or another object with its methods load and save, or the path of a folder.

    Returns
    -------
    CheckpointLike or None
        The object itself, or a `Checkpoint` in that folder; None for None.

    Raises
    ------
    TypeError, ValueError
        If ``checkpoint`` is something else, or an empty path.
    """
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, (str, os.PathLike)):
        if not os.fspath(checkpoint):
            raise ValueError("checkpoint: expected a Checkpoint or the path of its folder, got an empty path")
        return Checkpoint(checkpoint)
    methods = (getattr(checkpoint, name, None) for name in ("load", "save"))
    if isinstance(checkpoint, type) or not all(callable(method) for method in methods):
        raise TypeError(f"checkpoint: expected a Checkpoint or the path of its folder, got {checkpoint!r}")
    return checkpoint


def resumable(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that also takes a path as ``checkpoint``, and refuses that of another run.

    Parameters
    ----------
    optimizer : callable
        ``optimizer(objective, w0, *, checkpoint=None, **options)``, which calls ``checkpoint.load()`` once
        and ``checkpoint.save(state)`` after each iteration.

    Returns
    -------
    callable
        The optimizer. It raises ValueError if the checkpoint belongs to a run with another objective
        (`Objective.identity`), start or options; the message says what differs. ``max_iter``, ``tol`` and
        ``callback`` may differ. A checkpoint of an earlier version of hfnb does not name its run and is
        refused as well. During the run the folder is locked; another run that uses it raises
        `hfnb.FolderInUse`.
    """
    signature = inspect.signature(optimizer)
    defaults = {
        name: run_identity.describe(each.default)
        for name, each in signature.parameters.items()
        if each.default is not each.empty
    }

    @functools.wraps(optimizer)
    def run(*args: Any, **kwargs: Any) -> OptimizeResult:
        checkpoint = opened(kwargs.get("checkpoint"))
        if checkpoint is None:
            return optimizer(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        (_, objective), (_, w0), *options = given.arguments.items()
        compared = {name: value for name, value in options if name not in _OF_THE_CALL}
        with getattr(checkpoint, "in_use", nullcontext)():
            who = run_identity.of_call(optimizer, objective, w0, compared)
            given.arguments["checkpoint"] = Resumed(checkpoint, who, defaults)
            return optimizer(*given.args, **given.kwargs)

    return cast(Optimizer, run)


class Resumed:
    """A checkpoint for one run: its states name the run, and those of other runs are refused.

    Parameters
    ----------
    checkpoint : Checkpoint or CheckpointLike
        Where states are saved.
    who : mapping
        The description {name: text} of the run.
    defaults : mapping
        {option: the description of its default}, for options that did not exist when a state was saved.
    """

    def __init__(
        self, checkpoint: CheckpointLike, who: Mapping[str, str], defaults: Mapping[str, str] = {}
    ) -> None:
        self.checkpoint, self.who, self.defaults = checkpoint, dict(who), dict(defaults)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state, None if there is none; ValueError if it belongs to another run."""
        saved = self.checkpoint.load()
        if saved is None:
            return None
        state = dict(saved)
        found = state.pop("run", None)
        if not isinstance(found, dict):
            raise ValueError(f"{self._which()} does not name its run: an earlier version of hfnb wrote it")
        if found.keys() <= self.who.keys():  # otherwise an option may only have had another name
            found = self.defaults | found
        differs = [name for name in self.who if name in found and found[name] != self.who[name]]
        if differs:
            pairs = (f"{name}: expected {self.who[name]}, got {found[name]}" for name in differs)
            raise ValueError(
                f"{self._which()} belongs to another run ({'; '.join(pairs)}). If an object differs "
                "only because it changes during a run, give its class a method identity() -> {name: text}"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Save a state together with the description of the run."""
        self.checkpoint.save({**state, "run": self.who})

    def _which(self) -> str:
        """Return the beginning of an error message, which names the folder if there is one."""
        folder = getattr(self.checkpoint, "folder", None)
        there = f" in {folder}" if folder else ""
        return f"checkpoint: expected a new folder or this run's own, but the checkpoint{there}"


def _ours(path: Path) -> bool:
    """Whether a file begins like a checkpoint, or is empty, as an interrupted write may leave it."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) in (_MAGIC, b"")


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file; ValueError if the file is damaged."""
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
    """Whether a name in a pickle is that of an array, a NumPy number or a `Record`."""
    arrays = module.split(".")[0] == "numpy" and name in _ARRAYS
    return arrays or (module, name) == ("hfnb.optimizers.history", "Record")


class _DataOnly(pickle.Unpickler):
    """Reads arrays and records. Any other name in a pickle is refused, because it could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that a pickle names, if it is data."""
        if _is_data(module, name):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a checkpoint holds data only, not {module}.{name}")


class _WritesData(pickle.Pickler):
    """Writes only what `_DataOnly` reads, so that a state that cannot be resumed is refused at once."""

    def reducer_override(self, obj: Any) -> Any:
        """Return NotImplemented for data, which is then pickled as usual; else raise TypeError."""
        named = obj if hasattr(obj, "__qualname__") else type(obj)
        if isinstance(obj, (np.generic, np.dtype)) or _is_data(named.__module__, named.__qualname__):
            return NotImplemented
        raise TypeError(f"a checkpoint holds numbers, text, arrays and lists of these, not {obj!r}"[:200])


def _pickled(state: dict[str, Any]) -> bytes:
    """Return the bytes of a state."""
    file = io.BytesIO()
    _WritesData(file, protocol=5).dump(state)
    return file.getvalue()


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """Return a context with the lock of an existing folder.

    The lock is on the file `LOCK_FILE` in the folder, which stays there. A run that is killed leaves no lock
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
    with open(folder / LOCK_FILE, "a+", encoding="utf-8") as file:
        try:
            while not _lock(file.fileno()):
                holder = _holder(folder)
                if time.monotonic() > end or holder.startswith(f"{_self()},"):
                    raise FolderInUse(
                        f"checkpoint: the checkpoint folder {folder} is in use by another run ({holder}): "
                        "give each run its own folder. If the machine of that run is lost, remove "
                        f"{LOCK_FILE}"
                    )
                time.sleep(0.05)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
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
        return (folder / LOCK_FILE).read_text(encoding="utf-8") or "it left no name"
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
