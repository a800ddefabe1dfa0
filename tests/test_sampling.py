"""Draws that partition the data, are proportional, and do not depend on who holds what."""

import numpy as np
import pytest

from hfnb import Dataset, Sample
from hfnb.objectives.sampling import Shards, default_partitions


@pytest.mark.parametrize(("n", "partitions"), [(100, 24), (7, 3), (5, 24), (60, 1)])
def test_partitions_cut_the_data_evenly_and_completely(n, partitions):
    shards = Shards.of(Dataset(np.arange(float(n))[:, None], np.arange(n)), partitions)
    sizes = [len(Y) for _, Y in shards.parts.values()]
    assert len(sizes) == partitions
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.concatenate([Y for _, Y in shards.parts.values()]), np.arange(n))


@pytest.mark.parametrize("size", [1, 7, 25, 100])
def test_an_epoch_takes_no_sample_twice_and_each_batch_a_fair_share_of_every_partition(size):
    offsets = np.arange(11) * 10
    batches = [Sample(size, seed=3, index=i).rows(offsets) for i in range(100 // size)]
    assert all(len(batch) == size for batch in batches)
    assert len(np.unique(np.concatenate(batches))) == size * len(batches)
    shares = np.array([np.histogram(batch, offsets)[0] for batch in batches])
    assert np.abs(shares - size / 10).max() < 2


def test_draws_differ_by_seed_and_epoch_and_repeat_otherwise():
    offsets = np.arange(5) * 25
    draws = {(s, i): Sample(20, s, i).rows(offsets).tolist() for s in (0, 1) for i in (0, 5)}
    assert len({tuple(draw) for draw in draws.values()}) == 4
    assert draws[0, 5] == Sample(20, 0, 5).rows(offsets).tolist()


def test_over_many_epochs_every_sample_is_drawn_equally_often():
    offsets = np.array([0, 3, 10, 40])
    counts = np.zeros(40)
    for index in range(4000):
        counts[Sample(8, 0, index).rows(offsets)] += 1
    assert counts.sum() == 32000
    # 800 epochs of 5 batches of 8: all 40 once an epoch
    np.testing.assert_array_equal(counts, 800)


def drawn(shards, sample, apart=False):
    """The rows of a mini-batch that are held, sorted, by a label that numbers them."""
    return np.sort(np.concatenate([Y for _, Y in shards.pieces(sample, apart)]))


@pytest.mark.parametrize("apart", [False, True])
def test_samples_are_the_same_whoever_holds_the_partitions(apart):
    data = Dataset(np.arange(50.0)[:, None], np.arange(50))
    shards, sample = Shards.of(data, 6), Sample(17, 2, 1)
    parts = [shards.select(held) for held in ([0, 4], [1, 2, 3], [5])]
    found = np.sort(np.concatenate([drawn(part, sample, apart) for part in parts]))
    np.testing.assert_array_equal(found, drawn(shards, sample))
    assert [part.count(sample) for part in parts] == [len(drawn(part, sample)) for part in parts]
    np.testing.assert_array_equal(drawn(Shards.joined(parts), sample, apart), found)
    for X, Y in Shards.joined(parts).pieces(sample, apart):
        np.testing.assert_array_equal(X[:, 0], Y)
    assert len(Shards.joined(parts).pieces(sample)) == 1  # gathered, not partition by partition


@pytest.mark.parametrize("n", [5, 97, 1000])
def test_numbers_of_partitions_that_divide_24_draw_the_same_rows(n):
    data, sample = Dataset(np.arange(float(n))[:, None], np.arange(n)), Sample(n // 2, 4, 3)
    expected = drawn(Shards.of(data, 24), sample)
    for partitions in (1, 2, 3, 4, 6, 8, 12):
        np.testing.assert_array_equal(drawn(Shards.of(data, partitions), sample), expected)


def test_pieces_of_everything_are_views():
    X = np.arange(50.0)[:, None]
    shards = Shards.of(Dataset(X, np.arange(50)), 4)
    for apart, lengths in ((False, [50]), (True, [12, 13, 12, 13])):
        pieces = shards.pieces(apart=apart)
        assert [len(Y) for _, Y in pieces] == lengths
        assert all(np.shares_memory(part, X) for part, _ in pieces)
        np.testing.assert_array_equal(np.concatenate([Y for _, Y in pieces]), np.arange(50))


@pytest.mark.parametrize("n", [1, 511, 2047, 2048, 3071, 3072, 12_287, 12_288, 60_000])
@pytest.mark.parametrize("least", [1, 4, 5, 24, 25, 100])
def test_partitions_by_default(n, least):
    """At least as many as asked for, and otherwise no more than leave 512 rows to each."""
    count = default_partitions(n, least)
    assert count >= least
    assert count % 24 == 0 or 24 % count == 0  # so that mini-batches have the same strata
    fewer = [each for each in (1, 4, 6, 8, 12, 24) if each < count]
    assert n >= 512 * count or all(each < least for each in fewer)
