"""Frames of speech of the first corpus found: the TIMIT corpus, its free sample, or synthetic speech.

A dataset has one frame in each row, and is mapped from files that are made one speaker at a time, so that a
corpus may be larger than memory. Targets come from the phone labels, cut into equal states, or from an
alignment that another program made.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from hfnb.datasets import files
from hfnb.datasets.dataset import Dataset, MappedArray
from hfnb.datasets.files import (
    CorpusError,
    CorruptFile,
    cache_folder,
    entries,
    listing,
    named_folder,
    writable,
    written_whole,
)
from hfnb.datasets.timit_corpus import (
    PHONES_61,
    Corpus,
    Labels,
    Utterance,
    fold,
    frame_targets,
    is_corpus,
    open_corpus,
    phone_set,
    read_utterance,
)
from hfnb.progress_bars import progress_bar
from hfnb.studies import synthetic_speech
from hfnb.studies.features import BANDS, count_frames, frame_centres, log_mel, normalize, stack_context
from hfnb.validation import check_extra

logger = logging.getLogger(__name__)

SAMPLE = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip"
IN_DATA = ("timit-sample", "timit_sample", "timit")  # folders in HFNB_DATA, in any case of letters
FOUND = {
    "LDC": "the LDC's corpus",
    "free sample": "the free sample of the corpus (16 speakers)",
    "synthetic": "synthetic speech by espeak-ng, no human voice",
}


@dataclass(frozen=True)
class FrameOptions:
    """How frames and their targets are made of utterances.

    Attributes
    ----------
    context : int
        Neighbours of a frame on each side.
    phones : {61, 48, 39}
        Phone classes.
    states : int
        Parts into which each phone is cut.

    Raises
    ------
    ValueError
        For another number of phones, a negative context or less than one state.
    """

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
    """Frames of speech with their targets, and what phone errors are counted against.

    X and Y are mapped from files: a pickle holds the names of the files, not the numbers.

    Attributes
    ----------
    X : ndarray of float32, shape (n, 40 (2 context + 1))
        Normalized log-mel energies of each frame and its neighbours.
    Y : ndarray of int64, shape (n,)
        Targets, phone × states + state.
    names : tuple of str
        Speaker and sentence of each utterance.
    sounds : tuple of str
        The sound file of each utterance.
    rows : ndarray of int, shape (utterances + 1,)
        Utterance i is rows ``rows[i]`` to before ``rows[i + 1]``.
    labels : tuple of Labels
        The transcription of each utterance.
    options : FrameOptions
        How the frames were made.
    kind : {"LDC", "free sample", "synthetic"}
        The corpus.
    skipped : tuple of str
        What was wrong with each utterance that was left out.
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
        """The speakers' names, in the order of the utterances."""
        return tuple(dict.fromkeys(name.split("_")[0] for name in self.names))

    def split_speakers(self, held_out: int) -> tuple["SpeechDataset", "SpeechDataset"]:
        """Split by speaker, without a copy of the frames.

        Parameters
        ----------
        held_out : int
            Number of speakers in the second part, the last ones.

        Returns
        -------
        (SpeechDataset, SpeechDataset)
            Views of all but the last ``held_out`` speakers, and of these.

        Raises
        ------
        ValueError
            Unless at least one speaker is in each part.
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
        """Return the frames of an utterance.

        Parameters
        ----------
        i : int
            Its number in ``names``.

        Returns
        -------
        Dataset
            A view.
        """
        return self[int(self.rows[i]) : int(self.rows[i + 1])]

    def sequence(self, i: int, size: int = 39) -> list[str]:
        """Return the transcription of an utterance.

        Parameters
        ----------
        i : int
            Its number in ``names``.
        size : {61, 48, 39}
            Number of classes to which the phones are folded.

        Returns
        -------
        list of str
            Names of the phones.
        """
        return fold((PHONES_61[phone] for phone in self.labels[i].phones), size)

    def __reduce__(self):
        arrays = {name: MappedArray.of(self.__dict__[name]) or self.__dict__[name] for name in ("X", "Y")}
        return reopen, ({**self.__dict__, **arrays},)


def reopen(fields: dict[str, Any]) -> SpeechDataset:
    """Return a SpeechDataset with these fields; arrays that are mapped from files are opened, not read."""
    data = object.__new__(SpeechDataset)
    for name, value in fields.items():
        object.__setattr__(data, name, value.open() if isinstance(value, MappedArray) else value)
    return data


class EqualStates:
    """Targets by the hand labels: every phone is cut into equally long states."""

    def __init__(self, options: FrameOptions):
        self.options = options

    def targets(self, utterance: Utterance, labels: Labels, frames: int) -> np.ndarray:
        """Return the target of each frame, shape (frames,), −1 for a frame without one."""
        sizes = self.options.phones, self.options.states
        return frame_targets(labels.starts, labels.ends, labels.phones, frame_centres(frames), *sizes)


class Alignment:
    """Targets from a text file of lines "fcjf0_sx127 0 0 1 1 2 …": an utterance, a number for each frame.

    Parameters
    ----------
    path : Path
        The file.
    options : FrameOptions
        Targets are 0 to phones × states − 1.

    Raises
    ------
    CorpusError
        Naming the line: for anything but such numbers, and for a second line of an utterance.
    """

    def __init__(self, path: Path, options: FrameOptions):
        self.path, most = path, options.phones * options.states
        self._found: dict[str, tuple[np.ndarray, int]] = {}
        with open(path, encoding="utf-8", errors="replace") as file:
            for line, text in enumerate(file, start=1):
                name, *fields = text.split() or [""]
                try:
                    targets = np.array(fields, dtype=np.int64)
                except (ValueError, OverflowError):
                    raise CorpusError(path, "expected an utterance and integers", line) from None
                if np.any((targets < 0) | (targets >= most)):
                    raise CorpusError(path, f"expected targets from 0 to {most - 1}", line)
                if name and name.lower() in self._found:
                    raise CorpusError(path, f"{name}: expected one line, found another", line)
                self._found[name.lower()] = targets, line

    def targets(self, utterance: Utterance, labels: Labels, frames: int) -> np.ndarray:
        """Return the target of each frame, shape (frames,); CorpusError unless the file has one for each."""
        targets, line = self._found.get(utterance.name, (np.empty(0, np.int64), None))
        if len(targets) != frames:
            raise CorpusError(
                self.path, f"{utterance.name}: expected {frames} targets, got {len(targets)}", line
            )
        return targets


FORMAT = 2  # of the cached files; a new number makes them anew
MANY = 1000  # utterances: so many take long enough for a progress bar


def load_frames(
    corpus: Corpus, options: FrameOptions, cache: Path, alignment: Path | None = None, skip_bad: bool = False
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return the frames of a corpus, from files that are made if they are not there.

    Parameters
    ----------
    corpus : Corpus
    options : FrameOptions
    cache : Path
        Folder of the files. Their names depend on the options and on name, size and time of all files read.
    alignment : Path, optional
        File of targets (see `Alignment`), instead of the phone labels in equal parts.
    skip_bad : bool
        Leave out utterances that cannot be used.

    Returns
    -------
    (SpeechDataset, SpeechDataset)
        Training and test speakers.

    Raises
    ------
    CorpusError
        For the first bad utterance; with ``skip_bad``, if no utterance is good.

    Warns
    -----
    UserWarning
        If the files in the cache are damaged. They are made again.
    """
    folder = cache / _fingerprint(corpus, options, alignment, skip_bad)
    if folder.is_dir():
        try:
            return _open(folder, corpus.kind, options)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            problem = f"TIMIT: the features in the cache are damaged, and made again ({folder}: {error})"
            warnings.warn(problem, stacklevel=3)
            shutil.rmtree(folder)
    writable(cache)
    _build(corpus, options, folder, alignment, skip_bad)
    return _open(folder, corpus.kind, options)


def _fingerprint(corpus: Corpus, options: FrameOptions, alignment: Path | None, skip_bad: bool) -> str:
    """Return a name for the cached files: another one if anything that they depend on changes."""
    parts = [
        [_stamp(path) for utterance in part for path in (utterance.sound, utterance.labels)]
        for part in (corpus.train, corpus.test)
    ]
    facts = [FORMAT, asdict(options), skip_bad, alignment and _stamp(alignment), parts]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return name, size and time of a file, zeros for one that is missing or may not be looked at."""
    try:
        stat = path.stat()
        return str(path.resolve()), stat.st_size, stat.st_mtime_ns
    except OSError:
        return str(path), 0, 0


def _build(
    corpus: Corpus, options: FrameOptions, folder: Path, alignment: Path | None, skip_bad: bool
) -> None:
    """Write the files of both parts."""
    target = Alignment(alignment, options) if alignment else EqualStates(options)
    count = len(corpus.train) + len(corpus.test)
    logger.info("TIMIT: computing the features of %s utterances, once: the cache keeps them", f"{count:,}")
    with written_whole(folder) as working:
        working.mkdir()
        for part, utterances in (("train", corpus.train), ("test", corpus.test)):
            _write(working / part, utterances, options.context, target, skip_bad)


def _write(place: Path, utterances: tuple[Utterance, ...], context: int, target, skip_bad: bool) -> None:
    """Write the frames and targets of one part, and a file of what belongs to each utterance."""
    check_extra("hfnb.studies.speech_dataset", "speech", "tqdm")

    kept: list[tuple[Utterance, Labels, int]] = []
    skipped: list[CorpusError] = []
    few = len(utterances) < MANY
    bar = progress_bar(total=len(utterances), desc=place.name, unit="utterance", disable=few)
    with bar, open(f"{place}.X", "wb") as X, open(f"{place}.Y", "wb") as Y:
        for _, group in groupby(utterances, key=lambda utterance: utterance.speaker):
            spoken = list(_read(group, target, skipped if skip_bad else None))
            features = normalize([energies for _, _, energies, _ in spoken]) if spoken else []
            for (utterance, labels, _, targets), energies in zip(spoken, features, strict=True):
                given = targets >= 0
                X.write(stack_context(energies.astype(np.float32), context)[given].tobytes())
                Y.write(targets[given].astype(np.int64).tobytes())
                kept.append((utterance, labels, int(given.sum())))
            bar.update(len(spoken))
    if not kept:
        raise CorpusError(
            place.name, f"none of {len(utterances)} utterances is good; the first: {skipped[0]}"
        )
    np.savez(
        f"{place}.npz",
        names=[utterance.name for utterance, _, _ in kept],
        sounds=[str(utterance.sound.resolve()) for utterance, _, _ in kept],
        rows=np.cumsum([0, *(count for _, _, count in kept)]),
        cuts=np.cumsum([len(labels.phones) for _, labels, _ in kept])[:-1],
        skipped=np.array([str(error) for error in skipped], dtype=str),
        starts=np.concatenate([labels.starts for _, labels, _ in kept]),
        ends=np.concatenate([labels.ends for _, labels, _ in kept]),
        phones=np.concatenate([labels.phones for _, labels, _ in kept]),
    )


def _read(group: Iterable[Utterance], target, skipped: list | None) -> Iterator[tuple]:
    """Yield (utterance, labels, energies, targets) of good utterances; a bad one raises or is listed."""
    for utterance in group:
        try:
            samples, labels = read_utterance(utterance)
            targets = target.targets(utterance, labels, count_frames(len(samples)))
        except CorpusError as error:
            if skipped is None:
                raise
            skipped.append(error)
        else:
            yield utterance, labels, log_mel(samples), targets


def _open(folder: Path, kind: str, options: FrameOptions) -> tuple[SpeechDataset, SpeechDataset]:
    """Map the files of both parts; an error of any kind if they are not as `_build` wrote them."""
    return _open_part(folder, "train", kind, options), _open_part(folder, "test", kind, options)


def _open_part(folder: Path, part: str, kind: str, options: FrameOptions) -> SpeechDataset:
    """Map the files of one part."""
    with np.load(folder / f"{part}.npz") as stored:
        meta = dict(stored)
    n, width = int(meta["rows"][-1]), BANDS * (2 * options.context + 1)
    for name, expected in ((f"{part}.X", 4 * n * width), (f"{part}.Y", 8 * n)):
        if (size := (folder / name).stat().st_size) != expected:
            raise CorruptFile(f"{name}: expected {expected:,} bytes, found {size:,}")
    pieces = [np.split(meta[field], meta["cuts"]) for field in ("starts", "ends", "phones")]
    return reopen(
        {
            "X": MappedArray(str(folder / f"{part}.X"), "<f4", (n, width), 0),
            "Y": MappedArray(str(folder / f"{part}.Y"), "<i8", (n,), 0),
            "name": f"TIMIT {kind}, {part}",
            "rows": meta["rows"],
            "labels": tuple(Labels(*arrays) for arrays in zip(*pieces, strict=True)),
            "options": options,
            "kind": kind,
            **{field: tuple(meta[field].tolist()) for field in ("names", "sounds", "skipped")},
        }
    )


def timit(
    corpus: str | Path | None = None,
    *,
    context: int = 4,
    phones: int = 61,
    states: int = 3,
    sa: bool = False,
    test: str = "core",
    alignment: str | Path | None = None,
    skip_bad: bool = False,
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return frames of speech of TIMIT's form with their targets.

    Parameters
    ----------
    corpus : str or Path, optional
        The corpus's folder, "sample" or "synthetic". By default the first that is there: the folder
        ``HFNB_TIMIT``, ``timit-sample`` in ``HFNB_DATA``, NLTK's sample (fetched where the internet allows,
        unless ``HFNB_DATA`` is set), synthetic speech.
    context : int
        Neighbours of each frame on either side.
    phones : {61, 48, 39}
        Phone classes.
    states : int
        Equal parts into which each phone is cut.
    sa : bool
        Keep the sentences that all speakers read.
    test : {"core", "complete"}
        The test set of 24 speakers or of all.
    alignment : str or Path, optional
        A file of lines "fcjf0_sx127 0 0 1 …", the targets of each frame, instead of equal parts.
    skip_bad : bool
        Leave out bad utterances, with a warning that counts them.

    Returns
    -------
    train, test : SpeechDataset
        Of different speakers. X (n, 40 (2 context + 1)) float32: log-mel energies every 10 ms, mean 0 and
        variance 1 for each speaker, with their neighbours. Y (n,): phone × states + state.

    Raises
    ------
    CorpusError
        For a corpus or an utterance that cannot be used, naming the file and the line.
    FileNotFoundError
        If there is no corpus.
    ImportError
        If the packages of the extra "speech" are not installed.
    ValueError
        For an option out of range.

    Warns
    -----
    UserWarning
        If no corpus is found and synthetic speech is used instead, and if utterances are left out.

    References
    ----------
    J. S. Garofolo et al., TIMIT Acoustic-Phonetic Continuous Speech Corpus, LDC93S1 (1993).
    """
    options = FrameOptions(context, phones, states)
    opened = open_corpus(find_corpus(corpus), sa=sa, test=test)
    if corpus == "sample" and opened.kind != "free sample":
        raise CorpusError(opened.folder, f"expected the free sample of TIMIT, found {FOUND[opened.kind]}")
    frames = Path(alignment).expanduser() if alignment else None
    parts = load_frames(opened, options, cache_folder("timit"), frames, skip_bad)
    for part in parts:
        told = f"{len(part.names):,} utterances, {len(part):,} frames"
        logger.info("%s (%s): %s", part.name, FOUND[opened.kind], told)
        if part.skipped:
            problem = f"{part.name}: bad utterances left out: {len(part.skipped)}; first: {part.skipped[0]}"
            warnings.warn(problem, stacklevel=2)
    return parts


def find_corpus(corpus: str | Path | None = None) -> Path:
    """Return the folder of a corpus: the one asked for, or the first that is there.

    Parameters
    ----------
    corpus : str or Path, optional
        As for `timit`.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If no corpus is there, or not the one asked for.
    TypeError, ValueError
        If ``corpus`` is no name of a folder.
    """
    if not (corpus is None or isinstance(corpus, str | os.PathLike)):
        raise TypeError(f"corpus: expected a folder, 'sample', 'synthetic' or None, got {corpus!r}")
    if corpus is not None and not str(corpus).strip():
        raise ValueError(f"corpus: expected a folder, 'sample', 'synthetic' or None, got {corpus!r}")
    if corpus == "synthetic":
        return _synthetic()
    if corpus not in (None, "sample"):
        return Path(corpus).expanduser()
    if corpus is None and (folder := named_folder("HFNB_TIMIT")):
        return folder
    data = named_folder("HFNB_DATA")
    if sample := _sample_here(data) or _fetched_sample(may_fetch=data is None):
        return sample
    missing = "cannot be fetched"
    if data:
        missing = f"is not in HFNB_DATA (timit-sample in {data}; {listing(data)}), so nothing was fetched"
    if corpus is None and synthetic_speech.available():
        warnings.warn(
            f"TIMIT: no corpus here, and the free sample {missing}: synthetic speech takes its place, "
            "which says nothing about speech recognition",
            stacklevel=3,
        )
        return _synthetic()
    raise FileNotFoundError(
        f"TIMIT: no corpus here, and the free sample {missing}. Set HFNB_TIMIT to the folder of the "
        "LDC's corpus, or run nltk.download('timit') where the internet allows and set HFNB_TIMIT to the "
        'folder that it makes, or install espeakng-loader (pip install "hfnb[speech]") for synthetic speech'
    )


def _sample_here(data: Path | None) -> Path | None:
    """Return the sample's folder if it is on this machine: in ``data`` (HFNB_DATA) or where NLTK has it."""
    if data:
        if is_corpus(data):
            return data
        named = [path for path in entries(data) if path.name.lower() in IN_DATA and path.is_dir()]
        if named:
            return min(named, key=lambda path: IN_DATA.index(path.name.lower()))
    nltk = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    places = [folder / "corpora" / "timit" for folder in (*nltk, Path.home() / "nltk_data")]
    return next((place for place in places if place.is_dir()), None)


def _fetched_sample(may_fetch: bool) -> Path | None:
    """Return the folder of the sample in the cache, fetched if possible where it may be; else None."""
    folder = cache_folder("timit-sample")
    if folder.is_dir():
        return folder
    if not may_fetch or not files.answering([SAMPLE]):
        return None
    logger.info("TIMIT: fetching the free sample from %s", SAMPLE)
    writable(folder.parent)
    try:
        with written_whole(folder) as working, tempfile.TemporaryDirectory() as place:
            archive = Path(place, "timit.zip")
            files.download(SAMPLE, archive)
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(working)
            open_corpus(working)
    except (OSError, zipfile.BadZipFile, CorpusError) as error:
        warnings.warn(f"TIMIT: the free sample could not be fetched: {error}", stacklevel=4)
        return None
    return folder


def _synthetic() -> Path:
    """Return the folder of the synthetic corpus in the cache, made on first use."""
    folder = cache_folder("timit-synthetic")
    if not folder.is_dir():
        logger.info("TIMIT: making synthetic speech")
        writable(folder.parent)
        with written_whole(folder) as working:
            synthetic_speech.synthesize(working)
    return folder
