"""Draws that partition the data, are proportional, and do not depend on who holds what."""

import numpy as np
import pytest

from hfnb import Dataset, Sample
from hfnb.objectives.sampling import Draws, Shards, default_partitions


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


def test_growing_batches_are_doubled_up_to_a_quarter_of_the_data_and_then_are_all_of_it():
    draws, sizes = Draws(0, "growing", "part", n=60_000), []
    while not draws.whole:
        sizes.append((draws.loss(3).size, draws.curvature(3).size))
        draws = draws.enlarged()
    assert sizes == [(500 * 2**k, 125 * 2**k) for k in range(5)]  # 8,000, but not 16,000 of 60,000
    assert (draws.loss(3), draws.curvature(3).size) == (None, 6000)
    assert draws.enlarged() == draws.after(1.0, -1.0) == draws
    assert Draws(0, "growing", "part", n=1999).whole
    assert Draws(0, "growing", "part", n=2000).loss(0).size == 500
    assert Draws(0, "growing", "part", n=400).curvature(0) is None  # all samples are fewer than 500
    assert Draws(0, "growing", "part", n=60_000).enlarged(everything=True).whole


def test_batches_that_a_user_chose_do_not_grow():
    for batch_size in (100, "all"):
        draws = Draws(0, batch_size, "same", n=60_000)
        assert draws.after(1.0, -1.0) == draws.enlarged() == draws.enlarged(everything=True) == draws
        assert draws.curvature(2) == draws.loss(2)


@pytest.mark.parametrize(
    ("shown", "grows"), [(1.0, False), (0.7, False), (0.5, False), (0.3, True), (-0.5, True)]
)
def test_a_batch_grows_if_fresh_samples_show_too_little_of_the_decrease(shown, grows):
    """Each step lowers the loss by 1 on its own batch, and by ``shown``, but for noise, on fresh samples."""
    random = np.random.default_rng(0)
    draws = Draws(0, "growing", "part", n=10**6)
    for _ in range(30):
        draws = draws.after(1.0, shown + 0.05 * random.standard_normal())
    assert (draws.size > 500) == grows


def test_a_single_unlucky_batch_does_not_let_it_grow():
    draws = Draws(0, "growing", "part", n=10**6)
    for shown in (1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0):
        draws = draws.after(1.0, shown)
    assert draws.size == 500
