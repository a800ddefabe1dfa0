"""From a corpus to memory-mapped frames with their targets, a speaker at a time.

So a corpus larger than memory will do. Targets come from the phone labels, cut into equal states, or from an
alignment made elsewhere.
"""

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hfnb.datasets._timit import Corpus, Labels, Utterance, read_utterance
from hfnb.datasets.dataset import MappedArray
from hfnb.datasets.files import CorpusError, CorruptFile, writable, written_whole
from hfnb.datasets.phones import frame_targets
from hfnb.studies.features import BANDS, count_frames, frame_centres, log_mel, normalize, stack_context
from hfnb.studies.speech import FrameOptions, SpeechDataset, reopen


class EqualStates:
    """Targets by the hand labels, every phone cut into equally long states."""

    def __init__(self, options: FrameOptions):
        self.options = options

    def targets(self, utterance: Utterance, labels: Labels, frames: int) -> np.ndarray:
        """Return the target of each frame, −1 for a frame without one."""
        sizes = self.options.phones, self.options.states
        return frame_targets(labels.starts, labels.ends, labels.phones, frame_centres(frames), *sizes)


class Alignment:
    """Targets from a text file of lines "fcjf0_sx127 0 0 1 1 2 …": an utterance, a number for each frame.

    Raises CorpusError, naming the line, for what is no number from 0 to phones × states − 1.
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
        """Return the target of each frame; raises CorpusError if there is not one for each."""
        targets, line = self._found.get(utterance.name, (np.empty(0, np.int64), None))
        if len(targets) != frames:
            raise CorpusError(
                self.path, f"{utterance.name}: expected {frames} targets, got {len(targets)}", line
            )
        return targets


FORMAT = 2  # of the cached files; another number makes them anew
MANY = 1000  # utterances that take long enough for a progress bar


def load_frames(
    corpus: Corpus, options: FrameOptions, cache: Path, alignment: Path | None = None, skip_bad: bool = False
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return the (train, test) frames of a corpus from files in ``cache``, which are made if need be.

    Raises CorpusError for the first bad utterance, or with ``skip_bad`` only if no utterance is good.
    """
    folder = cache / _fingerprint(corpus, options, alignment, skip_bad)
    if folder.is_dir():
        try:
            return _open(folder, corpus.kind, options)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            print(f"TIMIT: the features in the cache are damaged ({folder}: {error})")
            shutil.rmtree(folder)
    writable(cache)
    _build(corpus, options, folder, alignment, skip_bad)
    return _open(folder, corpus.kind, options)


def _fingerprint(corpus: Corpus, options: FrameOptions, alignment: Path | None, skip_bad: bool) -> str:
    """Name the cached files by all that they depend on: a file that changes makes another name."""
    parts = [
        [_stamp(path) for utterance in part for path in (utterance.sound, utterance.labels)]
        for part in (corpus.train, corpus.test)
    ]
    facts = [FORMAT, asdict(options), skip_bad, alignment and _stamp(alignment), parts]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return name, size and time of a file, zeros for one that is missing or cannot be looked at."""
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
    print(f"TIMIT: computing the features of {count:,} utterances, once: they are kept in the cache")
    with written_whole(folder) as working:
        working.mkdir()
        for part, utterances in (("train", corpus.train), ("test", corpus.test)):
            _write(working / part, utterances, options.context, target, skip_bad)


def _write(place: Path, utterances: tuple[Utterance, ...], context: int, target, skip_bad: bool) -> None:
    """Write the frames and targets of one part, and beside them what belongs to each utterance."""
    kept: list[tuple[Utterance, Labels, int]] = []
    skipped: list[CorpusError] = []
    bar = tqdm(total=len(utterances), desc=place.name, unit="utterance", disable=len(utterances) < MANY)
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
    """Yield (utterance, labels, energies, targets) of good utterances; bad ones raise or are listed."""
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
    """Map the files of both parts; raises an error of many kinds if they are not as `_build` wrote them."""
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
