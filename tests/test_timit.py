"""TIMIT: the real sample against its files and Kaldi; a synthetic corpus for every tree and fault."""

import itertools
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import warnings
import wave
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hfnb.datasets import CorpusError, files
from hfnb.datasets.dataset import MappedArray
from hfnb.datasets.timit_corpus import (
    CORE_TEST,
    PHONES_61,
    fold,
    fold_table,
    open_corpus,
    phone_set,
    read_labels,
    read_sound,
    read_utterance,
)
from hfnb.studies.features import count_frames, frame_centres, log_mel, normalize, stack_context
from hfnb.studies.speech_dataset import find_corpus, timit
from hfnb.studies.speech_recognition import count_bigram, log_likelihoods, phone_error_rate, viterbi
from hfnb.studies.synthetic_speech import synthesize

SAMPLE = Path(os.environ.get("HFNB_DATA") or Path(__file__).parents[2] / "shared" / "data") / "timit-sample"


@pytest.fixture(scope="session")
def sample():
    if not SAMPLE.is_dir():
        pytest.skip("the TIMIT sample is not here (HFNB_DATA/timit-sample)")
    return SAMPLE


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A small synthetic corpus that tests read and copy, never change."""
    pytest.importorskip("espeakng_loader", reason="the optional extra 'speech' is not installed")
    folder = tmp_path_factory.mktemp("spoken") / "corpus"
    synthesize(folder, speakers=(2, 2), sentences=4)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path_factory, caplog):
    """A cache of its own for every test, and no corpus that the machine happens to have."""
    for variable in ("HFNB_TIMIT", "HFNB_DATA", "NLTK_DATA"):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("HFNB_CACHE", str(home / "cache"))
    monkeypatch.setattr(files, "answering", lambda urls: set())
    caplog.set_level("INFO", "hfnb")
    return home


@pytest.fixture
def corpus(spoken, tmp_path):
    """A copy of the synthetic corpus to damage."""
    return Path(shutil.copytree(spoken, tmp_path / "corpus"))


def transcription(path):
    """Read a .PHN file in the plainest way."""
    return [(int(a), int(b), phone) for a, b, phone in map(str.split, path.read_text().splitlines())]


# Phones


def test_the_published_classes():
    assert [len(phone_set(size)) for size in (61, 48, 39)] == [61, 48, 39]
    together = [
        {"aa", "ao"}, {"ah", "ax", "ax-h"}, {"er", "axr"}, {"hh", "hv"}, {"ih", "ix"}, {"l", "el"},
        {"m", "em"}, {"n", "en", "nx"}, {"ng", "eng"}, {"sh", "zh"}, {"uw", "ux"},
        {"pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"},
    ]  # fmt: skip
    classes = {}
    for phone, number in zip(PHONES_61, fold_table(39), strict=True):
        classes.setdefault(number, set()).add(phone)
    assert classes.pop(-1) == {"q"}
    assert sorted(map(sorted, (c for c in classes.values() if len(c) > 1))) == sorted(map(sorted, together))
    by_48 = {"cl", "vcl", "epi", "sil", "zh", "el", "en", "ao", "ix", "ax"}
    assert by_48 <= set(phone_set(48))
    assert fold(fold(PHONES_61, 48), 39) == fold(PHONES_61, 39)


def test_unknown_phones_and_sizes_are_named():
    with pytest.raises(ValueError, match=r"'xx' is not one of TIMIT's: aa ae"):
        fold(["aa", "xx"])
    with pytest.raises(ValueError, match=r"phones: expected 61, 48 or 39, got 40"):
        phone_set(40)


# Sound


def write_sphere(path, samples, rate=16_000):
    soundfile.write(path, samples, rate, format="NIST", subtype="PCM_16", endian="LITTLE")


HEADER = "NIST_1A\n   1024\n{}end_head\n"
PCM = "sample_count -i 4\nsample_rate -i 16000\nsample_n_bytes -i 2\nsample_byte_format -s2 01\n"
PCM += "channel_count -i 1\n"


@pytest.mark.parametrize(("order", "dtype"), [("01", "<i2"), ("10", ">i2")])
def test_sphere_is_bit_exact_in_both_byte_orders(tmp_path, order, dtype):
    """A file made by the definition of SPHERE 2.6: a header of 1024 bytes, then the samples."""
    samples = np.random.default_rng(0).integers(-32768, 32768, size=5000).astype(np.int16)
    samples[:3] = -32768, 32767, 256
    fields = PCM.replace("-s2 01", f"-s2 {order}").replace("count -i 4", "count -i 5000")
    raw = HEADER.format(fields).encode().ljust(1024) + samples.astype(dtype).tobytes()
    (tmp_path / "SX1.WAV").write_bytes(raw)
    read, rate = read_sound(tmp_path / "SX1.WAV")
    assert np.array_equal(read, samples)
    assert (read.dtype, rate) == (np.int16, 16_000)


def test_sample_is_read_as_the_standard_library_reads_it(sample):
    """One of its 160 files is SPHERE, the others are RIFF."""
    for path in sorted(sample.glob("*/s*.wav")):
        raw = path.read_bytes()
        if raw.startswith(b"NIST_1A"):
            samples = np.frombuffer(raw, "<i2", offset=1024)
        else:
            with wave.open(str(path)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.array_equal(read_sound(path)[0], samples)


@pytest.mark.parametrize(
    ("fields", "data", "words"),
    [
        (PCM + "sample_coding -s26 pcm,embedded-shorten-v2.00\n", b"ajkg\2", "shorten-compressed .*sph2pipe"),
        (PCM, b"ajkg\2\0\0\0", "shorten-compressed .*sph2pipe"),
        (PCM + "sample_coding -s4 ulaw\n", b"12345678", "expected 16-bit PCM, found ULAW: .*sph2pipe"),
        (PCM.replace("nt -i 1", "nt -i 2"), b"12345678", "expected one channel, found 2"),
        (PCM, b"1234567", "truncated: header promises 4 samples, the file holds 3"),
        (PCM.replace("sample_rate -i 16000\n", ""), b"12345678", "expected a NIST SPHERE .* says: "),
        (PCM.replace("-s2 01", "-s2 11"), b"12345678", "expected a NIST SPHERE .*: Error in NIST"),
        ("sample_count\n", b"12345678", "expected a NIST SPHERE .* says: "),
        (PCM.replace("count -i 4", "count 4"), b"12345678", "malformed SPHERE header .*sample_count"),
    ],
)
def test_unreadable_sphere_says_why(tmp_path, fields, data, words):
    path = tmp_path / "SX1.WAV"
    path.write_bytes(HEADER.format(fields).encode().ljust(1024) + data)
    with pytest.raises(CorpusError, match=rf"SX1\.WAV: {words}"):
        read_sound(path)


def test_unreadable_riff_and_other_files_say_why(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros((100, 2)), 16_000, subtype="PCM_16")
    with pytest.raises(CorpusError, match=r"x\.wav: expected one channel, found 2"):
        read_sound(path)
    soundfile.write(path, np.zeros(100), 16_000, subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(CorpusError, match="truncated: header promises 100 samples, the file holds 75"):
        read_sound(path)
    path.write_bytes(whole[:20])
    with pytest.raises(CorpusError, match=r"x\.wav: expected a NIST SPHERE or RIFF .*'fmt ' chunk"):
        read_sound(path)
    path.write_bytes(b"ID3 music")
    with pytest.raises(CorpusError, match=r"x\.wav: expected a NIST SPHERE or RIFF"):
        read_sound(path)


# Features


def plain_log_mel(samples):
    """Log-mel energies by their definition, in double precision."""

    def mel(frequency):
        return 1127 * np.log1p(frequency / 700)

    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 400)[::160]
    windows = windows - windows.mean(axis=1, keepdims=True)
    windows = windows - 0.97 * np.column_stack([windows[:, 0], windows[:, :-1]])
    power = np.abs(np.fft.rfft(windows * np.hanning(400) ** 0.85, 512)) ** 2
    edges, bins = np.linspace(mel(20), mel(8000), 42), mel(np.arange(257) * 16_000 / 512)
    rising = (bins - edges[:-2, None]) / np.diff(edges[:-1])[:, None]
    falling = (edges[2:, None] - bins) / np.diff(edges[1:])[:, None]
    bands = np.clip(np.minimum(rising, falling), 0, None)
    return np.log(np.maximum(power @ bands.T, np.finfo(np.float32).eps))


def test_features_follow_their_definition(sample):
    far = 0
    for path in sorted(sample.glob("dr*/s[ix]*.wav")):
        sound = read_sound(path)[0]
        single, double = log_mel(sound), plain_log_mel(sound)
        assert single.shape == double.shape
        rounded = np.abs(single - double) >= 1e-3
        # Kaldi computes in single precision: what is e^15 below the frame's peak is rounding there.
        assert (double < double.max(axis=1, keepdims=True) - 15)[rounded].all()
        far += rounded.sum()
    assert far < 10  # of 1.5 million


def test_silence_and_too_little_sound():
    assert np.allclose(log_mel(np.zeros(800)), np.log(np.finfo(np.float32).eps))
    assert log_mel(np.zeros(399)).shape == (0, 40)
    with pytest.raises(ValueError, match=r"samples: expected shape \(n,\)"):
        log_mel(np.zeros((2, 800)))


def test_normalization_and_context():
    random = np.random.default_rng(0)
    utterances = [random.normal(3, 5, size=(frames, 40)) for frames in (30, 50)]
    together = np.concatenate(normalize(utterances))
    assert np.allclose(together.mean(axis=0), 0)
    assert np.allclose(together.std(axis=0), 1)
    features = random.normal(size=(7, 2))
    for context in (0, 1, 4):
        stacked = stack_context(features, context)
        for t in range(7):
            around = [features[min(max(t + shift, 0), 6)] for shift in range(-context, context + 1)]
            assert np.array_equal(stacked[t], np.concatenate(around))


# The real sample


def test_frames_and_targets_follow_the_files_exactly(sample):
    for data in timit(sample):
        assert data.X.dtype == np.float32
        assert data.X.shape == (data.rows[-1], 360)
        assert data.classes == 183
        for i, name in enumerate(data.names):
            speaker, sentence = name.split("_")
            (path,) = sample.glob(f"*-{speaker}/{sentence}.phn")
            labels, length = transcription(path), soundfile.info(path.with_suffix(".wav")).frames
            at = np.full(length, -1)  # the phone and the state of every sample
            for start, end, phone in labels:
                part = 3 * np.arange(end - start) // (end - start)
                at[start:end] = 3 * PHONES_61.index(phone) + part
            frames = np.array([at[start : start + 400][200] for start in range(0, length - 399, 160)])
            assert np.array_equal(data.utterance(i).Y, frames[frames >= 0])
            assert [tuple(row) for row in zip(data.labels[i].starts, data.labels[i].ends, strict=True)] == [
                (start, end) for start, end, _ in labels
            ]
            assert data.sequence(i, 61) == [phone for _, _, phone in labels]
            assert Path(data.sounds[i]) == path.with_suffix(".wav").resolve()


def test_sample_is_split_by_speaker_and_text(sample, caplog):
    train, test = timit(sample)
    assert "the free sample of the corpus" in caplog.text
    speakers, texts = (
        [{name.split("_")[k] for name in part.names} for part in (train, test)] for k in (0, 1)
    )
    assert (len(speakers[0]), len(speakers[1]), len(train.names), len(test.names)) == (12, 4, 96, 32)
    assert not speakers[0] & speakers[1]
    assert not texts[0] & texts[1]
    assert not any(text.startswith("sa") for text in texts[0] | texts[1])
    assert sum(len(part.names) for part in timit(sample, sa=True)) == 160


def test_speakers_are_normalized_one_by_one(sample):
    train, _ = timit(sample, context=0)
    for speaker in {name.split("_")[0] for name in train.names}:
        rows = [train.utterance(i).X for i, name in enumerate(train.names) if name.startswith(speaker)]
        together = np.concatenate(rows)
        # Frames after the last label count in the mean but are no rows.
        assert np.abs(together.mean(axis=0)).max() < 0.05
        assert np.abs(together.std(axis=0) - 1).max() < 0.05


@pytest.mark.parametrize("phones", [48, 39])
def test_fewer_classes_leave_out_the_glottal_stop(sample, phones):
    all_frames, _ = timit(sample, context=0)
    folded, _ = timit(sample, context=0, phones=phones, states=1)
    stop = PHONES_61.index("q")
    assert len(folded) == len(all_frames) - np.sum(stop == all_frames.Y // 3)
    table = np.array(
        [phone_set(phones).index(*fold([phone], phones)) if phone != "q" else -1 for phone in PHONES_61]
    )
    assert np.array_equal(folded.Y, table[all_frames.Y[stop != all_frames.Y // 3] // 3])


def test_frames_that_are_certain_decode_to_their_transcription(sample):
    train, test = timit(sample, context=0, phones=39, states=1)
    bigram = count_bigram(
        [[phone_set(39).index(p) for p in train.sequence(i)] for i in range(len(train.names))], 39
    )
    heard, said = [], []
    for i in range(len(test.names)):
        outputs = np.where(np.arange(39) == test.utterance(i).Y[:, None], 0.0, -50.0)
        heard.append([phone_set(39)[phone] for phone in viterbi(log_likelihoods(outputs, train.Y), bigram)])
        said.append(test.sequence(i))
    # What is lost: phones between two frames, and a class that follows itself (a closure after a pause).
    repeated = sum(a == b for sequence in said for a, b in itertools.pairwise(sequence))
    assert phone_error_rate(said, heard) < (repeated + 0.02 * sum(map(len, said))) / sum(map(len, said))


# The LDC's tree


def rename(corpus, change):
    """Rename everything in a tree, from the leaves up."""
    for path in sorted(corpus.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(change(path.name)))


def test_the_tree_may_be_in_lower_case_and_deeper(corpus, tmp_path):
    (corpus / "SYNTHETIC.TXT").unlink()
    before = open_corpus(corpus, test="complete")
    rename(corpus, str.lower)
    (tmp_path / "cd").mkdir()
    corpus.rename(tmp_path / "cd" / "timit")
    after = open_corpus(tmp_path / "cd", test="complete")
    assert [u.name for u in after.train] == [u.name for u in before.train]
    assert after.kind == "LDC"
    assert all(utterance.sound.is_file() and utterance.labels.is_file() for utterance in after.test)


def test_core_test_set(corpus):
    (corpus / "SYNTHETIC.TXT").unlink()
    names = CORE_TEST.split()
    assert (len(names), len(set(names)), sum(name.startswith("f") for name in names)) == (24, 24, 8)
    with pytest.raises(CorpusError, match="no utterance of a test speaker"):
        open_corpus(corpus)
    (speaker,) = corpus.glob("TEST/*/M*")
    speaker.rename(speaker.with_name("MDAB0"))
    assert {utterance.speaker for utterance in open_corpus(corpus).test} == {"mdab0"}
    assert len({utterance.speaker for utterance in open_corpus(corpus, test="complete").test}) == 2
    with pytest.raises(ValueError, match="test: expected 'core' or 'complete', got 'all'"):
        open_corpus(corpus, test="all")


def test_synthetic_is_called_synthetic(spoken, caplog):
    train, test = timit(spoken)
    assert caplog.text.count("synthetic speech by espeak-ng, no human voice") == 2
    assert "synthetic" in train.name
    assert (train.kind, len(train.names), len(test.names)) == ("synthetic", 4, 4)
    assert "no human voice" in (spoken / "SYNTHETIC.TXT").read_text().lower()


def test_synthetic_speech_is_the_same_bits_each_time(spoken, tmp_path):
    synthesize(tmp_path / "again", speakers=(2, 2), sentences=4)
    synthesize(tmp_path / "other", speakers=(2, 2), sentences=4, seed=1)
    files = sorted(path.relative_to(spoken) for path in spoken.rglob("*.*"))
    assert len(files) == 3 * 16 + 1
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (spoken / file).read_bytes()
    assert any((tmp_path / "other" / file).read_bytes() != (spoken / file).read_bytes() for file in files)


def test_synthetic_files_are_sphere_with_labels_throughout(spoken):
    phones = set()
    for path in spoken.rglob("*.WAV"):
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == 16_000
        assert 1000 < np.abs(samples).max() < 32767  # audible, not clipped
        labels = transcription(path.with_suffix(".PHN"))
        assert labels[0][0] == 0
        assert labels[-1][1] == len(samples)
        assert [end for _, end, _ in labels[:-1]] == [start for start, _, _ in labels[1:]]
        assert labels[0][2] == labels[-1][2] == "h#"
        phones |= {phone for _, _, phone in labels}
    assert len(phones) > 35
    assert phones <= set(PHONES_61)


@pytest.mark.parametrize(
    "numbers", [{"speakers": (0, 1)}, {"speakers": (700, 1)}, {"sentences": 2}, {"seed": -1}]
)
def test_impossible_synthetic_corpora(tmp_path, numbers):
    with pytest.raises(ValueError, match="speakers, sentences, seed: expected"):
        synthesize(tmp_path, **numbers)


# Bad input


def edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def shorten(path):
    samples, rate = read_sound(path)
    write_sphere(path, samples[:-1], rate)


def set_rate(path):
    write_sphere(path, read_sound(path)[0], 8000)


def third_line(text):
    return lambda lines: [*lines[:2], text.format(*lines[2].split()) + "\n", *lines[3:]]


FAULTS = {
    "missing labels": (".PHN", Path.unlink, r"\.phn: missing \.PHN file of utterance \w+_s"),
    "missing sound": (".WAV", Path.unlink, r"\.wav: missing sound file of utterance \w+_s"),
    "past the end": (".WAV", shorten, r"\.PHN, line \d+: label past the end of the sound: it ends at (\d+)"),
    "overlap": (
        ".PHN",
        lambda p: edit(p, third_line("1 {1} {2}")),
        r"\.PHN, line 3: overlapping labels: .* at 1,",
    ),
    "unknown phone": (
        ".PHN",
        lambda p: edit(p, third_line("{0} {1} zz")),
        r"\.PHN, line 3: unknown phone 'zz'; .*aa",
    ),
    "no length": (".PHN", lambda p: edit(p, third_line("{0} {0} {2}")), r"\.PHN, line 3: empty label"),
    "no number": (
        ".PHN",
        lambda p: edit(p, third_line("x {1} {2}")),
        r"\.PHN, line 3: expected 'start end phone'",
    ),
    "two fields": (
        ".PHN",
        lambda p: edit(p, third_line("{0} {1}")),
        r"\.PHN, line 3: expected 'start end phone'",
    ),
    "no labels": (".PHN", lambda p: p.write_text("\n"), r"\.PHN: empty utterance: .* found none"),
    "no sound": (
        ".WAV",
        lambda p: write_sphere(p, np.zeros(0, np.int16)),
        r"\.WAV: empty utterance: 0 samples",
    ),
    "wrong rate": (".WAV", set_rate, r"\.WAV: expected a sampling rate of 16000 Hz, found 8000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_utterance_is_named_and_can_be_skipped(corpus, fault):
    end, damage, words = FAULTS[fault]
    path = next(corpus.glob(f"TRAIN/*/*/SI*{end}"))
    damage(path)
    with pytest.raises(CorpusError, match=words) as caught:
        timit(corpus)
    assert path.stem.lower() in str(caught.value).lower()
    assert not list(Path(os.environ["HFNB_CACHE"]).rglob("*.X"))
    with pytest.warns(UserWarning, match="train: bad utterances left out: 1; first: "):
        train, test = timit(corpus, skip_bad=True)
    assert (len(train.names), len(train.skipped), len(test.names), len(test.skipped)) == (3, 1, 4, 0)
    assert re.search(words, train.skipped[0])


def test_a_corpus_with_no_good_utterance_is_an_error(corpus):
    for path in corpus.glob("TEST/*/*/*.PHN"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"none of 4 utterances is good; the first: .*missing \.PHN"):
        timit(corpus, skip_bad=True)


def test_a_folder_that_is_not_TIMIT(tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    with pytest.raises(
        CorpusError, match=r"expected a TIMIT corpus, found neither TRAIN and TEST .*dr1-fvmh0"
    ):
        timit(tmp_path)
    with pytest.raises(CorpusError, match=r"nowhere: expected a folder"):
        timit(tmp_path / "nowhere")
    monkeypatch.setenv("HFNB_TIMIT", str(tmp_path))
    with pytest.raises(CorpusError, match="expected a TIMIT corpus"):
        timit()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": -1}, "context: expected an integer of at least 0, got -1"),
        ({"states": 0}, "states: expected an integer of at least 1, got 0"),
        ({"phones": 40}, "phones: expected 61, 48 or 39, got 40"),
        ({"test": "dev"}, "test: expected 'core' or 'complete', got 'dev'"),
    ],
)
def test_bad_options(spoken, options, words):
    with pytest.raises(ValueError, match=words):
        timit(spoken, **options)


# What systems, converters and copies leave in a corpus


def tree(folder, *, mark=True):
    """Write a corpus of noise: two speakers to train, one to test, two sentences each; return all samples."""
    random, spoken = np.random.default_rng(0), {}
    for place in ("TRAIN/DR1/FAAA0", "TRAIN/DR2/MBBB0", "TEST/DR1/MDAB0"):
        (folder / place).mkdir(parents=True)
        for sentence in ("SI1", "SX2"):
            samples = random.integers(-9999, 9999, size=random.integers(900, 1100)).astype(np.int16)
            path = folder / place / f"{sentence}.WAV"
            write_sphere(path, samples)
            path.with_suffix(".PHN").write_text(f"0 400 h#\n400 {len(samples)} sh\n")
            spoken[f"{place[-5:]}_{sentence}".lower()] = samples
    if mark:
        (folder / "SYNTHETIC.TXT").touch()
    return spoken


def utterances(folder):
    corpus = open_corpus(folder)
    return {each.name: each for each in (*corpus.train, *corpus.test)}


def test_files_that_systems_leave_are_ignored(tmp_path):
    spoken = tree(tmp_path / "timit")
    for path in list((tmp_path / "timit").rglob("*")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(60))
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (path.parent / name).write_bytes(b"\0")
    shutil.copytree(tmp_path / "timit", tmp_path / "__MACOSX" / "timit")
    found = utterances(tmp_path)
    assert found.keys() == spoken.keys()
    for name, utterance in found.items():
        assert np.array_equal(read_utterance(utterance)[0], spoken[name])


def test_twins_are_read_once_and_the_same_one_each_time(tmp_path):
    """SA1.WAV.wav beside SA1.WAV, as converters write it; it stands in where the original is compressed."""
    spoken = tree(tmp_path)
    for path in list(tmp_path.rglob("*.WAV")):
        soundfile.write(f"{path}.wav", read_sound(path)[0], 16_000, subtype="PCM_16")
    found = utterances(tmp_path)
    assert all(utterance.sound.name.endswith(("1.WAV", "2.WAV")) for utterance in found.values())
    compressed, gone = found["faaa0_si1"].sound, found["faaa0_sx2"].sound
    compressed.write_bytes(HEADER.format(PCM).encode().ljust(1024) + b"ajkg\2")
    gone.unlink()
    found = utterances(tmp_path)
    assert found.keys() == spoken.keys()
    for name, utterance in found.items():
        assert np.array_equal(read_utterance(utterance)[0], spoken[name])


@pytest.mark.parametrize("name", ["TIMIT", "LDC93S1/timit/TIMIT", "archive/data"])
def test_nested_folders_and_links_are_searched(tmp_path, name):
    spoken = tree(tmp_path / "disk")
    (tmp_path / "data" / name).parent.mkdir(parents=True)
    (tmp_path / "data" / name).symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "pictures" / "train").mkdir(parents=True)  # other datasets have these names, too
    (tmp_path / "data" / "pictures" / "test").mkdir()
    assert utterances(tmp_path / "data").keys() == spoken.keys()


def two_trains(folder):
    shutil.copytree(folder / "corpus" / "TRAIN", folder / "corpus" / "train")


def two_corpora(folder):
    shutil.copytree(folder / "corpus", folder / "copy")


def two_places(folder):
    shutil.copytree(folder / "corpus/TRAIN/DR1/FAAA0", folder / "corpus/TRAIN/DR3/faaa0")


def two_labels(folder):
    shutil.copy(folder / "corpus/TRAIN/DR1/FAAA0/SI1.PHN", folder / "corpus/TRAIN/DR1/FAAA0/si1.phn")


@pytest.mark.parametrize(
    ("copy", "names"),
    [
        (two_trains, "TRAIN and train"),
        (two_corpora, "copy and corpus"),
        (two_places, "TRAIN/DR1/FAAA0 and TRAIN/DR3/faaa0"),
        (two_labels, "SI1.PHN and si1.phn"),
    ],
)
def test_what_is_there_twice_is_refused(tmp_path, copy, names):
    tree(tmp_path / "corpus")
    if (tmp_path / "CORPUS").exists():
        pytest.skip("this file system does not tell upper from lower case")
    copy(tmp_path)
    with pytest.raises(CorpusError, match=f"expected only one of {names}"):
        open_corpus(tmp_path)


def test_a_speaker_on_both_sides_is_refused(tmp_path):
    tree(tmp_path)
    shutil.copytree(tmp_path / "TRAIN/DR1/FAAA0", tmp_path / "TEST/DR1/FAAA0")
    with pytest.raises(CorpusError, match="other speakers in TEST than in TRAIN, found faaa0 in both"):
        open_corpus(tmp_path)


def test_what_is_there_instead_of_a_corpus_is_said(tmp_path):
    (tmp_path / "timit.zip").touch()
    (tmp_path / "TRAIN").mkdir()
    with pytest.raises(CorpusError, match=r"expected a TIMIT corpus, .*; found there: timit\.zip, TRAIN/$"):
        open_corpus(tmp_path)
    with pytest.raises(CorpusError, match=r"timit\.zip: expected a folder with a TIMIT corpus, found a file"):
        open_corpus(tmp_path / "timit.zip")


def as_riff(path):
    soundfile.write(path, read_sound(path)[0], 16_000, format="WAV", subtype="PCM_16")


@pytest.mark.parametrize("extra", [b"LIST\4\0\0\0INFO", b"junk\3\0\0\0abc\0"])
def test_other_chunks_around_the_sound_do_not_matter(tmp_path, extra):
    samples = np.arange(-500, 500).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="PCM_16")
    raw = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(raw[:12] + extra + raw[12:] + extra)
    assert np.array_equal(read_sound(tmp_path / "x.wav")[0], samples)
    soundfile.write(tmp_path / "x.wav", samples, 16_000, format="WAVEX", subtype="PCM_16")
    assert np.array_equal(read_sound(tmp_path / "x.wav")[0], samples)


def test_sound_that_is_longer_than_its_header_says_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    write_sphere(path, np.ones(1000, np.int16))
    path.write_bytes(path.read_bytes() + bytes(200))
    with pytest.raises(CorpusError, match=r"x\.wav: too long: header promises 1000 samples, .* holds 1100"):
        read_sound(path)
    path.write_bytes(b"")
    soundfile.write(path, np.zeros(1000), 16_000, subtype="PCM_16")
    raw = path.read_bytes()
    path.write_bytes(raw.replace((2000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(CorpusError, match=r"x\.wav: malformed RIFF file"):
        read_sound(path)


def test_no_damage_to_a_corpus_passes_unseen_and_every_error_names_the_file(tmp_path):
    """200 corpora with spoiled sound, SPHERE or RIFF, or labels: what is read is right, or refused."""
    random, spoken = np.random.default_rng(0), tree(tmp_path / "whole")
    refused = 0
    for _ in range(200):
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / "corpus"))
        path = random.choice(sorted(folder.glob("T*/*/*/*")))
        if path.suffix == ".WAV" and random.random() < 0.5:
            as_riff(path)
        raw = path.read_bytes()
        header = 400 if raw[:4] == b"NIST" else 44  # of SPHERE's 1024 bytes the rest is filled up
        at = int(random.integers(min(header, len(raw))))
        spoiled = {
            "cut": raw[: random.integers(len(raw))],
            "flip": raw[:at] + bytes([raw[at] ^ 1 << random.integers(8)]) + raw[at + 1 :],
            "byte": raw[:at] + random.bytes(1) + raw[at + 1 :],
            "longer": raw + random.bytes(random.integers(1, 50)),
            "noise": random.bytes(30),
        }
        what = random.choice([*spoiled, "gone", "folder", "link"])
        if what in spoiled:
            path.write_bytes(spoiled[what])
        else:
            path.unlink()
            if what == "folder":
                path.mkdir()
            elif what == "link":
                path.symlink_to(path)
        for name, utterance in utterances(folder).items():
            try:
                samples, labels, said = *read_utterance(utterance), None
            except CorpusError as error:
                said = str(error)
            if said is not None:
                assert path.name.lower() in said.lower(), f"{what}: {said}"
                refused += 1
            else:
                assert np.array_equal(samples, spoken[name]), (what, path)
                if path.suffix == ".WAV":
                    assert labels.ends.tolist() == [400, len(samples)]
        shutil.rmtree(folder)
    assert 100 < refused < 200


# Alignments


def write_alignment(path, corpus, change=lambda name, targets: targets):
    """Write the equal thirds that `timit` makes itself, changed."""
    lines = []
    for utterance in (*corpus.train, *corpus.test):
        samples, _ = read_sound(utterance.sound)
        labels = read_labels(utterance.labels, len(samples))
        centres = frame_centres(count_frames(len(samples)))
        label = np.searchsorted(labels.ends, centres, side="right")
        part = 3 * (centres - labels.starts[label]) // (labels.ends - labels.starts)[label]
        targets = change(utterance.name, (3 * labels.phones[label] + part).tolist())
        lines.append(" ".join(map(str, (utterance.name, *targets))) + "\n")
    path.write_text("".join(lines))
    return path


def test_alignment_gives_the_targets(spoken, tmp_path):
    equal, _ = timit(spoken)
    path = write_alignment(tmp_path / "ali.txt", open_corpus(spoken))
    aligned, _ = timit(spoken, alignment=path)
    assert np.array_equal(aligned.Y, equal.Y)
    write_alignment(path, open_corpus(spoken), lambda name, targets: [7] * len(targets))
    assert set(timit(spoken, alignment=path)[0].Y) == {7}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, targets: targets[:-1], r"ali\.txt, line 1: \w+: expected \d+ targets, got \d+"),
        (lambda name, targets: [*targets[:-1], 183], r"ali\.txt, line 1: expected targets from 0 to 182"),
        (lambda name, targets: [*targets[:-1], "x"], r"ali\.txt, line 1: expected an utterance and integers"),
        (lambda name, targets: [9**30], r"ali\.txt, line 1: expected an utterance and integers"),
    ],
)
def test_bad_alignments_are_named_by_line(spoken, tmp_path, change, words):
    path = write_alignment(tmp_path / "ali.txt", open_corpus(spoken), change)
    with pytest.raises(CorpusError, match=words):
        timit(spoken, alignment=path)


def test_alignment_with_a_second_line_or_that_is_no_text(spoken, tmp_path):
    path = write_alignment(tmp_path / "ali.txt", open_corpus(spoken))
    path.write_text(path.read_text() + path.read_text().splitlines()[0].upper())
    with pytest.raises(CorpusError, match=r"ali\.txt, line 9: \w+: expected one line, found another"):
        timit(spoken, alignment=path)
    path.write_bytes(b"\x1f\x8b\xff\xfe\n")
    with pytest.raises(CorpusError, match=r"ali\.txt: \w+: expected \d+ targets, got 0"):
        timit(spoken, alignment=path)


def test_alignment_without_an_utterance(spoken, tmp_path):
    path = write_alignment(tmp_path / "ali.txt", open_corpus(spoken))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(CorpusError, match=r"ali\.txt: \w+: expected \d+ targets, got 0"):
        timit(spoken, alignment=path)


# The memory-mapped cache


def test_arrays_are_mapped_and_pickles_hold_only_their_names(spoken):
    train, _ = timit(spoken)
    assert type(train.X) is np.ndarray
    assert not train.X.flags.writeable
    assert not train.X.flags.owndata
    raw = pickle.dumps(train)
    assert len(raw) < train.X.nbytes / 50
    again = pickle.loads(raw)
    assert MappedArray.of(again.X) == MappedArray.of(train.X)
    assert np.array_equal(again.Y, train.Y)
    assert again.sequence(1) == train.sequence(1)
    rows = MappedArray.of(train[3:9].X)
    assert np.array_equal(rows.open(), train.X[3:9])
    shutil.rmtree(os.environ["HFNB_CACHE"])
    with pytest.raises(FileNotFoundError, match="HFNB_CACHE"):
        pickle.loads(raw)


def test_what_is_not_in_a_file_is_not_mapped(spoken, tmp_path):
    train, _ = timit(spoken)
    assert MappedArray.of(np.ones(3)) is None
    assert MappedArray.of(train.X * 2) is None
    assert MappedArray.of(train.X[:, 1:]) is None
    (tmp_path / "x").write_bytes(bytes(80))
    private = np.memmap(tmp_path / "x", np.float64, mode="c")
    private[:] = 1
    assert MappedArray.of(private) is None


def test_cache_is_used_until_the_corpus_changes(corpus):
    first, _ = timit(corpus)
    assert MappedArray.of(timit(corpus)[0].X) == MappedArray.of(first.X)
    assert MappedArray.of(timit(corpus, context=1)[0].X) != MappedArray.of(first.X)
    path = next(corpus.glob("TRAIN/*/*/SI*.PHN"))
    edit(path, third_line("{0} {1} oy"))
    changed, _ = timit(corpus)
    assert MappedArray.of(changed.X) != MappedArray.of(first.X)
    assert np.any(changed.Y != first.Y)


@pytest.mark.parametrize("name", ["train.X", "test.Y", "train.npz"])
@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:-8]), Path.unlink])
def test_damaged_features_are_made_again(spoken, caplog, name, damage):
    before = np.array(timit(spoken)[0].X)
    assert caplog.text.count("computing the features of 8 utterances") == 1
    damage(next(Path(os.environ["HFNB_CACHE"]).rglob(name)))
    said = rf"features in the cache are damaged, .*({name}|zip)"
    with pytest.warns(UserWarning, match=said):
        assert np.array_equal(timit(spoken)[0].X, before)
    assert caplog.text.count("computing") == 2
    timit(spoken)
    assert caplog.text.count("computing") == 2


def test_a_cache_that_is_full_need_not_be_writable(spoken, monkeypatch):
    timit(spoken)
    monkeypatch.setattr("hfnb.studies.speech_dataset.writable", lambda folder: pytest.fail("writes"))
    timit(spoken)


def test_cache_without_permission(spoken, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HFNB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PermissionError, match="set HFNB_CACHE"):
        timit(spoken)


# Which corpus


def test_the_corpus_that_is_there_is_used(spoken, sample, monkeypatch):
    monkeypatch.setenv("HFNB_DATA", str(sample.parent))
    assert timit()[0].kind == "free sample"
    monkeypatch.setenv("HFNB_TIMIT", str(spoken))
    assert timit()[0].kind == "synthetic"
    assert timit("sample")[0].kind == "free sample"


def test_a_folder_that_the_user_named_is_not_passed_over(quick, alone, monkeypatch):
    """HFNB_DATA without the sample: nothing is fetched, and what was found there is said."""
    monkeypatch.setattr(files, "answering", lambda urls: pytest.fail("asks the network"))
    (alone / "data" / "mnist").mkdir(parents=True)
    monkeypatch.setenv("HFNB_DATA", str(alone / "data"))
    expected = (
        f"not in HFNB_DATA (timit-sample in {alone / 'data'}; found there: mnist/), so nothing was fetched"
    )
    with pytest.warns(UserWarning, match=re.escape(f"{expected}: synthetic speech takes its place")):
        assert timit()[0].kind == "synthetic"
    with pytest.raises(FileNotFoundError, match=re.escape(expected)):
        timit("sample")
    for variable in ("HFNB_DATA", "HFNB_TIMIT"):
        monkeypatch.setenv(variable, str(alone / "nowhere"))
        with pytest.raises(
            FileNotFoundError, match=f"{variable}: expected a folder, got .*nowhere, which does"
        ):
            timit()


@pytest.mark.parametrize("name", ["timit-sample", "TIMIT-Sample", "timit_sample", "timit", "."])
def test_the_sample_is_found_in_HFNB_DATA_under_its_usual_names(sample, alone, monkeypatch, name):
    (alone / "data").mkdir()
    if name != ".":
        (alone / "data" / name).symlink_to(sample)
    monkeypatch.setenv("HFNB_DATA", str(sample if name == "." else alone / "data"))
    found = find_corpus("sample")
    assert found.resolve() == sample.resolve()


def test_another_corpus_is_not_the_sample(spoken, alone, monkeypatch):
    (alone / "data").mkdir()
    (alone / "data" / "timit").symlink_to(spoken)
    monkeypatch.setenv("HFNB_DATA", str(alone / "data"))
    with pytest.raises(CorpusError, match="expected the free sample of TIMIT, found synthetic speech"):
        timit("sample")


@pytest.mark.parametrize(("corpus", "error"), [(5, TypeError), (True, TypeError), ("", ValueError)])
def test_corpus_that_is_no_folder(corpus, error):
    with pytest.raises(error, match="corpus: expected a folder, 'sample', 'synthetic' or None, got"):
        timit(corpus)


@pytest.fixture
def quick(spoken, monkeypatch):
    """Speech that is synthesized at once: the small corpus made before."""
    monkeypatch.setattr(
        "hfnb.studies.synthetic_speech.synthesize", lambda folder: shutil.copytree(spoken, folder)
    )


def test_nothing_but_the_synthesizer(quick):
    with pytest.warns(UserWarning, match="no corpus here, .* cannot be fetched: synthetic speech takes its"):
        train, _ = timit()
    assert (train.kind, len(train.names)) == ("synthetic", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert timit("synthetic")[0].names == train.names


def test_nothing_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    for corpus in (None, "sample"):
        with pytest.raises(FileNotFoundError, match=r"HFNB_TIMIT .*nltk\.download.*espeakng-loader"):
            timit(corpus)
    with pytest.raises(ImportError, match=r'needs espeakng-loader: pip install "hfnb\[speech\]"$'):
        timit("synthetic")


def test_a_synthesizer_that_fails_says_why(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CorpusError, match="no synthetic corpus made: NotADirectoryError"):
        synthesize(tmp_path / "file" / "corpus")


@pytest.fixture
def internet(corpus, monkeypatch, tmp_path):
    """A server on loopback with an archive in the form of NLTK's, and the archive's path."""
    web = tmp_path / "web"
    web.mkdir()
    with zipfile.ZipFile(web / "timit.zip", "w") as archive:
        for place, speaker in zip(
            sorted(corpus.glob("T*/*/*")), ("fvmh0", "madc0", "faem0", "mcpm0"), strict=True
        ):
            for path in place.iterdir():
                archive.write(path, f"timit/dr1-{speaker}/{path.name.lower()}")
    handler = partial(SimpleHTTPRequestHandler, directory=web)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            sys.modules["hfnb.studies.speech_dataset"],
            "SAMPLE",
            f"http://127.0.0.1:{server.server_port}/timit.zip",
        )
        monkeypatch.setattr(files, "answering", set)
        yield web / "timit.zip"
        server.shutdown()


def test_sample_is_fetched_once(internet, caplog):
    train, _ = timit("sample")
    assert (train.kind, len(train.names)) == ("free sample", 4)
    assert "fetching" in caplog.text
    internet.unlink()
    assert timit("sample")[0].names == train.names


@pytest.mark.parametrize("damage", ["cut", "not TIMIT", "gone"])
def test_bad_archive_is_not_kept(internet, quick, alone, damage):
    if damage == "cut":
        internet.write_bytes(internet.read_bytes()[:1000])
    elif damage == "not TIMIT":
        with zipfile.ZipFile(internet, "w") as archive:
            archive.writestr("readme.txt", "hello")
    else:
        internet.unlink()
    with (
        pytest.warns(UserWarning, match="could not be fetched"),
        pytest.warns(UserWarning, match="synthetic speech takes its place"),
    ):
        assert timit()[0].kind == "synthetic"
    assert not (alone / "cache" / "timit-sample").exists()


# TIMIT's size

# ru_maxrss would not do: a program inherits it from the process that started it, such as a test worker.
MEASURE = """
import re, sys, time
from hfnb.studies.speech_dataset import timit
start = time.perf_counter()
train, test = timit(sys.argv[1])
print(len(train.names), len(train), time.perf_counter() - start)
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.fixture
def large(spoken, alone):
    """A synthetic corpus with a quarter of TIMIT's speakers; 750 MB with its cache, gone after the test."""
    folder = alone / "corpus"
    synthesize(folder, speakers=(116, 1))
    # Sentences that are called SA are left out: here none is called so.
    for place in folder.glob("TRAIN/*/*"):
        for number in (1, 2):
            for path in place.glob(f"SA{number}.*"):
                path.rename(path.with_name(f"SI99{number}{path.suffix}"))
    yield folder
    shutil.rmtree(alone)


@pytest.mark.slow
def test_a_corpus_larger_than_the_memory_it_needs(large):
    run = subprocess.run([sys.executable, "-c", MEASURE, large], capture_output=True, text=True, check=True)
    counts, peak = run.stdout.splitlines()[-2:]
    utterances, frames, seconds = map(float, counts.split())
    print(f"{utterances:.0f} utterances, {frames:.0f} frames: {seconds:.1f} s, peak {float(peak):.0f} MB")
    assert utterances == 1160
    assert frames > 250_000
    assert float(peak) < 200  # the whole process, Python and NumPy included; the sound alone has 130 MB
