"""A dataset of speech: a frame a row, and what phone errors are scored by."""

from dataclasses import dataclass

import numpy as np

from hfnb.datasets._timit import Labels
from hfnb.datasets.dataset import Dataset, MappedArray
from hfnb.datasets.phones import PHONES_61, fold, phone_set


@dataclass(frozen=True)
class FrameOptions:
    """How frames are made of utterances: neighbours on each side, phone classes, and states in each."""

    context: int = 4
    phones: int = 61
    states: int = 3

    def __post_init__(self):
        phone_set(self.phones)
        for name, least in (("context", 0), ("states", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechDataset(Dataset):
    """Frames of speech: X (n, 40 (2 context + 1)) float32 and Y (n,) targets phone × states + state.

    Utterance i, called ``names[i]`` and to be heard in ``sounds[i]``, is rows ``rows[i]`` to before
    ``rows[i + 1]``; ``labels[i]`` is its transcription. ``kind`` is "LDC", "free sample" or "synthetic";
    ``skipped`` says what was wrong with each utterance left out. X and Y are mapped from files: a pickle
    holds the names of the files, not the numbers.
    """

    names: tuple[str, ...]
    sounds: tuple[str, ...]
    rows: np.ndarray
    labels: tuple[Labels, ...]
    options: FrameOptions
    kind: str
    skipped: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of targets: phones × states."""
        return self.options.phones * self.options.states

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who speaks, in the order of the utterances."""
        return tuple(dict.fromkeys(name.split("_")[0] for name in self.names))

    def split_speakers(self, held_out: int) -> tuple["SpeechDataset", "SpeechDataset"]:
        """Return all but the last ``held_out`` speakers, and these; both views, nothing is copied.

        Raises ValueError unless at least one speaker is on either side.
        """
        if not 1 <= held_out < len(self.speakers):
            raise ValueError(f"held_out: expected 1 to {len(self.speakers) - 1} speakers, got {held_out}")
        first = next(i for i, name in enumerate(self.names) if name.startswith(self.speakers[-held_out]))
        return self._utterances(slice(0, first)), self._utterances(slice(first, None))

    def _utterances(self, chosen: slice) -> "SpeechDataset":
        """Return consecutive utterances."""
        kept = {field: self.__dict__[field][chosen] for field in ("names", "sounds", "labels")}
        start, stop, _ = chosen.indices(len(self.names))
        rows = self.rows[start : stop + 1]
        X, Y = (A[rows[0] : rows[-1]] for A in (self.X, self.Y))
        return reopen({**self.__dict__, **kept, "rows": rows - rows[0], "X": X, "Y": Y})

    def utterance(self, i: int) -> Dataset:
        """Return the frames of one utterance."""
        return self[int(self.rows[i]) : int(self.rows[i + 1])]

    def sequence(self, i: int, size: int = 39) -> list[str]:
        """Return the phones of one utterance in order, folded to 61, 48 or 39 classes."""
        return fold((PHONES_61[phone] for phone in self.labels[i].phones), size)

    def __reduce__(self):
        arrays = {name: MappedArray.of(self.__dict__[name]) or self.__dict__[name] for name in ("X", "Y")}
        return reopen, ({**self.__dict__, **arrays},)


def reopen(fields: dict) -> SpeechDataset:
    """Return a SpeechDataset with these fields and its mapped arrays opened (not read)."""
    data = object.__new__(SpeechDataset)
    for name, value in fields.items():
        object.__setattr__(data, name, value.open() if isinstance(value, MappedArray) else value)
    return data
