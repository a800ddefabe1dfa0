"""Acoustic features as in hybrid acoustic models: log-mel energies, normalized, with their neighbours.

Every 10 ms a window of 25 ms is cut out, its power spectrum is summed in triangular bands that are equally
wide on the mel scale, and the logarithm is taken.
"""

import numpy as np

from hfnb.datasets.timit_corpus import RATE, WINDOW
from hfnb.validation import check_extra

STEP = 160  # samples: 10 ms
BANDS = 40


def count_frames(samples: int) -> int:
    """Return the number of whole windows in a signal.

    Parameters
    ----------
    samples : int
        Length of the signal at 16 kHz.

    Returns
    -------
    int
        1 + ⌊(samples − 400) / 160⌋, or 0 for a signal shorter than a window.

    Examples
    --------
    >>> count_frames(16_000), count_frames(399)
    (98, 0)
    """
    return max(0, 1 + (samples - WINDOW) // STEP)


def frame_centres(frames: int) -> np.ndarray:
    """Return the sample in the middle of each window.

    Parameters
    ----------
    frames : int
        Number of windows.

    Returns
    -------
    ndarray of int, shape (frames,)
        160 t + 200 for window t.

    Examples
    --------
    >>> frame_centres(3)
    array([200, 360, 520])
    """
    return STEP * np.arange(frames) + WINDOW // 2


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return log-mel energies: Kaldi's features with 40 bands, without dither.

    Parameters
    ----------
    samples : array_like, shape (n,)
        Sound at 16 kHz, on the scale of int16.

    Returns
    -------
    ndarray of float64, shape (frames, 40)
        Computed in single precision by kaldi-native-fbank.

    Raises
    ------
    ImportError
        If kaldi-native-fbank is not installed.
    ValueError
        If ``samples`` are not one channel.

    Notes
    -----
    Each window loses its mean, is pre-emphasized (x_t − 0.97 x_{t−1}), multiplied by a Hann window to the
    power 0.85, and transformed. The energies of the bands, from 20 Hz to 8 kHz, are at least 1.2e−7 before
    the logarithm.

    References
    ----------
    Kaldi's program compute-fbank-feats, with its defaults but for the number of bands and the dither.

    Examples
    --------
    >>> log_mel(np.zeros(16_000)).shape
    (98, 40)
    """
    check_extra("hfnb.studies.features", "speech", "kaldi_native_fbank")
    import kaldi_native_fbank

    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise ValueError(f"samples: expected shape (n,), got {samples.shape}")
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BANDS
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(RATE, samples)
    bank.input_finished()
    frames = [bank.get_frame(i) for i in range(bank.num_frames_ready)]
    return np.array(frames, dtype=np.float64).reshape(-1, BANDS)


def normalize(utterances: list[np.ndarray]) -> list[np.ndarray]:
    """Return one speaker's features with mean 0 and variance 1 in each band.

    Parameters
    ----------
    utterances : list of ndarray, shape (frames, 40)
        All that the speaker said: mean and variance are taken over all utterances together.

    Returns
    -------
    list of ndarray, shape (frames, 40)

    Examples
    --------
    >>> normalize([np.array([[1.0], [2.0]]), np.array([[3.0]])])[1]
    array([[1.2247]])
    """
    together = np.concatenate(utterances)
    mean, deviation = together.mean(axis=0), together.std(axis=0)
    return [(features - mean) / np.maximum(deviation, 1e-3) for features in utterances]


def stack_context(features: np.ndarray, context: int = 4) -> np.ndarray:
    """Return each frame together with its neighbours.

    Parameters
    ----------
    features : ndarray, shape (frames, d)
    context : int
        Number of neighbours on each side. The first frame is repeated before itself, and the last one after
        itself.

    Returns
    -------
    ndarray, shape (frames, d (2 context + 1))

    Examples
    --------
    >>> stack_context(np.array([[1.0], [2.0], [3.0]]), 1).tolist()
    [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    frames, bands = features.shape
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded.reshape(-1), (2 * context + 1) * bands)
    return windows[::bands][:frames].copy()
