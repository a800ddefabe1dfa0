"""Acoustic features as in hybrid acoustic models: log-mel energies, normalized, with their neighbours.

Every 10 ms a window of 25 ms is cut out, its power spectrum is summed in triangular bands that are equally
wide on the mel scale, and the logarithm is taken. The options are Kaldi's defaults with 40 bands.
"""

from functools import cache

import numpy as np

from hfnb.datasets.sound import RATE, WINDOW

STEP, TRANSFORM = 160, 512  # samples: 10 ms, and the power of two next to the window
BANDS, LOWEST = 40, 20.0  # Hz; the highest band ends at half the sampling rate
PREEMPHASIS = 0.97
FLOOR = np.finfo(np.float32).eps


def count_frames(samples: int) -> int:
    """Return the number of whole windows in a signal: 1 + ⌊(samples − 400) / 160⌋, or 0.

    >>> count_frames(16_000), count_frames(399)
    (98, 0)
    """
    return max(0, 1 + (samples - WINDOW) // STEP)


def frame_centres(frames: int) -> np.ndarray:
    """Return the sample in the middle of each window: 160 t + 200."""
    return STEP * np.arange(frames) + WINDOW // 2


def mel(frequency):
    """Return the pitch in mel of a frequency in Hz, 1127 ln(1 + f / 700)."""
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)


@cache
def mel_bands() -> np.ndarray:
    """Return the (257, 40) weights of the triangular bands over the bins of the power spectrum."""
    edges = np.linspace(mel(LOWEST), mel(RATE / 2), BANDS + 2)
    bins = mel(np.arange(TRANSFORM // 2 + 1) * RATE / TRANSFORM)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


@cache
def povey_window() -> np.ndarray:
    """Return Kaldi's window of 400 samples: a Hann window to the power 0.85."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel energies (frames, 40) in float64 of samples (n,) at 16 kHz on the scale of int16.

    Each window loses its mean, is pre-emphasized (x_t − 0.97 x_{t−1}), weighted, and transformed; the bands'
    energies are floored at 1.2e−7 before the logarithm. Raises ValueError if samples are not one channel.

    Source: Kaldi's compute-fbank-feats without dither.

    >>> log_mel(np.zeros(16_000)).shape
    (98, 40)
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 1:
        raise ValueError(f"samples: expected shape (n,), got {samples.shape}")
    frames = count_frames(len(samples))
    if not frames:
        return np.empty((0, BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::STEP]
    windows = windows - windows.mean(axis=1, keepdims=True)
    before = np.concatenate([windows[:, :1], windows[:, :-1]], axis=1)
    windows = (windows - PREEMPHASIS * before) * povey_window()
    power = np.abs(np.fft.rfft(windows, TRANSFORM)) ** 2
    return np.log(np.maximum(power @ mel_bands(), FLOOR))


def normalize(utterances: list[np.ndarray]) -> list[np.ndarray]:
    """Return one speaker's features (frames, 40), mean 0 and variance 1 in each band over all utterances."""
    together = np.concatenate(utterances)
    mean, deviation = together.mean(axis=0), together.std(axis=0)
    return [(features - mean) / np.maximum(deviation, 1e-3) for features in utterances]


def stack_context(features: np.ndarray, context: int = 4) -> np.ndarray:
    """Return each frame with ``context`` neighbours on both sides, (frames, d (2 context + 1)).

    Frames before the first and after the last repeat it.

    >>> stack_context(np.array([[1.0], [2.0], [3.0]]), 1).tolist()
    [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    frames, bands = features.shape
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded.reshape(-1), (2 * context + 1) * bands)
    return windows[::bands][:frames].copy()
