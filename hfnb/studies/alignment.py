"""Frame targets: from the phone labels cut into equal states, or from an alignment made elsewhere."""

from pathlib import Path

import numpy as np

from hfnb.datasets.corpus import Labels, Utterance
from hfnb.datasets.errors import CorpusError
from hfnb.datasets.phones import frame_targets
from hfnb.studies.features import frame_centres
from hfnb.studies.speech import FrameOptions


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
