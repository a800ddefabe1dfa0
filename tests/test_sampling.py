"""Draws that partition the data, are proportional, and do not depend on who holds what."""

import numpy as np
import pytest

from hfnb import Dataset, Sample
from hfnb.objectives.sampling import Shards


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


def test_samples_are_the_same_whoever_holds_the_partitions():
    data = Dataset(np.arange(50.0)[:, None], np.arange(50))
    shards, sample = Shards.of(data, 6), Sample(17, 2, 1)
    together = np.sort(np.concatenate([Y for _, Y in shards.batches(sample)]))
    parts = [shards.select(held) for held in ([0, 4], [1, 2, 3], [5])]
    apart = np.sort(np.concatenate([Y for part in parts for _, Y in part.batches(sample)]))
    np.testing.assert_array_equal(together, apart)
    assert sum(1 for _ in shards.batches(sample)) == 1  # gathered, not partition by partition


def test_batches_of_everything_are_views_of_at_most_a_chunk():
    X = np.arange(50.0)[:, None]
    batches = list(Shards.of(Dataset(X, np.arange(50)), 4).batches(chunk=5))
    assert max(len(Y) for _, Y in batches) == 5
    assert all(np.shares_memory(part, X) for part, _ in batches)
