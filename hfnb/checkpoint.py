"""Save the state of a run so that it survives whatever ends it, and resume it bit by bit."""

import hashlib
import io
import os
import pickle
import re
import warnings
from pathlib import Path

from hfnb.datasets.cache import written_whole

_HEADER = re.compile(rb"hfnb checkpoint 1, ([0-9a-f]{64})\n")
_ARRAYS = {"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"}  # what NumPy's pickles are made of


class CorruptCheckpoint(ValueError):
    """No checkpoint in a folder is whole; the message says what is wrong with each."""


class Checkpoint:
    """The last ``keep`` states of one run, in files of ``folder``; give it to an optimizer as ``resume``.

    A state is a dictionary of arrays, numbers, text and records of a history. A file is written aside, with
    its SHA-256, and then put in place: a run that is killed leaves the file before it whole.

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
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        # Absolute: engines may have another working directory.
        self.folder, self.keep = Path(folder).expanduser().absolute(), keep

    @property
    def files(self) -> list[Path]:
        """The checkpoints there are, from old to new."""
        return sorted(self.folder.glob("checkpoint-*[0-9]"))

    def save(self, state: dict) -> None:
        """Add a checkpoint and remove those beyond ``keep``; OSError, naming what there is, if it cannot."""
        payload, files = pickle.dumps(state, protocol=5), self.files
        header = b"hfnb checkpoint 1, %s\n" % hashlib.sha256(payload).hexdigest().encode()
        number = int(files[-1].name.split("-")[1]) + 1 if files else 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_whole(self.folder / f"checkpoint-{number:08d}") as path, path.open("wb") as file:
                file.write(header)
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            last = f"the last one is {files[-1]}" if files else "there is none yet"
            raise OSError(error.errno, f"cannot save a checkpoint ({error.strerror}); {last}") from error
        for old in [*files[: -self.keep + 1 or None], *self.folder.glob("checkpoint-*.part")]:
            old.unlink(missing_ok=True)

    def load(self) -> dict | None:
        """Return the newest state that is whole, or None if none was saved.

        Warns of each damaged file that it passes over; CorruptCheckpoint if all are.
        """
        problems = []
        for path in reversed(self.files):
            try:
                state = _read(path)
            except (OSError, ValueError, pickle.UnpicklingError) as error:
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


def _read(path: Path) -> dict:
    content = path.read_bytes()
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("not a checkpoint of this format")
    payload = content[header.end() :]
    expected, found = header[1].decode(), hashlib.sha256(payload).hexdigest()
    if found != expected:
        raise ValueError(f"expected SHA-256 {expected}, found {found} ({len(content)} bytes)")
    return _DataOnly(io.BytesIO(payload)).load()


class _DataOnly(pickle.Unpickler):
    """Reads arrays and records; a pickle that names anything else could run anything, and is refused."""

    def find_class(self, module: str, name: str):
        arrays = module.split(".")[0] == "numpy" and name in _ARRAYS
        if arrays or (module, name) == ("hfnb.history", "Record"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a checkpoint holds data only, not {module}.{name}")
