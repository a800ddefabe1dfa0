"""What a sum costs, against algorithms played through and real links; the model, against what is known."""

import numpy as np
import pytest
from hosts import Hosts
from on_engines import MPI, NET, OPTIONS
from test_hosts import HOSTS, run_on_head

from hfnb import Dataset, Objective, first_order, hessian_free, models
from hfnb.engines import Cluster
from hfnb.objectives.costs import Counts
from hfnb.optimizers import Recorder
from hfnb.studies import scaling_model
from hfnb.studies.scaling_model import (
    Interconnect,
    Run,
    RunCost,
    Setting,
    Workload,
    allreduce,
    expected_maximum,
    workloads,
)

# What a sum costs


def recursive_doubling(vectors):
    """Play it through: in each round all exchange all with a partner twice as far; what the rounds take."""
    n, rounds, distance = len(vectors), [], 1
    while distance < n:
        vectors = [vectors[i] + vectors[i ^ distance] for i in range(n)]
        rounds.append(vectors[0].nbytes)
        distance *= 2
    return vectors, rounds


def scatter_and_gather(vectors):
    """Play it through: rounds of exchanging halves of what is left to add up, then of collecting them."""
    n, rounds = len(vectors), []
    spans = [(0, vectors[0].size)] * n
    vectors, distance = [vector.copy() for vector in vectors], n // 2
    while distance:
        before, halves = [vector.copy() for vector in vectors], []
        for i, (start, stop) in enumerate(spans):
            middle = (start + stop) // 2
            halves.append((middle, stop) if i & distance else (start, middle))
            vectors[i][slice(*halves[i])] += before[i ^ distance][slice(*halves[i])]
        spans, distance = halves, distance // 2
        rounds.append(vectors[0][slice(*spans[0])].nbytes)
    distance = 1
    while distance < n:
        before, both = [vector.copy() for vector in vectors], []
        for i in range(n):
            other = spans[i ^ distance]
            vectors[i][slice(*other)] = before[i ^ distance][slice(*other)]
            both.append((min(spans[i][0], other[0]), max(spans[i][1], other[1])))
        rounds.append(vectors[0][slice(*spans[0])].nbytes)
        spans, distance = both, 2 * distance
    return vectors, rounds


@pytest.mark.parametrize("engines", [1, 2, 4, 16, 64])
@pytest.mark.parametrize(
    ("play", "size", "pairs"),
    [
        (recursive_doubling, 16, False),
        (recursive_doubling, 8192, True),
        (scatter_and_gather, 8192, False),
    ],
)
def test_allreduce_costs_what_its_algorithm_does(play, size, pairs, engines):
    vectors = [np.arange(size // 8.0) + i for i in range(engines)]
    summed, rounds = play(vectors)
    for each in summed:
        np.testing.assert_array_equal(each, sum(vectors))
    assert allreduce(size, engines, pairs) == (len(rounds), sum(rounds))


def test_other_numbers_of_engines_pay_for_folding_in():
    """As MPICH's allreduce.c says: 2⌊log₂ 6⌋ + 2 messages, 2·5/6 + 2 times the bytes."""
    messages, size = allreduce(6000, engines=6)
    assert (messages, size) == (6, pytest.approx(22_000))
    assert allreduce(16, engines=6) == (4, 64)


@pytest.mark.parametrize("n", [2, 3, 16, 1024])
def test_expected_maximum(n):
    drawn = np.random.default_rng(n).standard_normal((4000, n)).max(axis=1)
    assert expected_maximum(n) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(4000))
    known = {2: 1 / np.sqrt(np.pi), 3: 1.5 / np.sqrt(np.pi)}
    assert expected_maximum(n) == pytest.approx(known.get(n, expected_maximum(n)), rel=1e-4)


# Workload, read from a history


@pytest.fixture
def counted(monkeypatch):
    """What an objective was asked for since the last record, noted as it happens."""
    calls, add = [], Counts.add

    def note(counts, what, samples, numbers=0, bytes=0, times=1):
        calls.extend([(what, samples // times)] * times)
        add(counts, what, samples, numbers, bytes, times)

    monkeypatch.setattr(Counts, "add", note)
    return calls


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_work_of_hessian_free_is_what_was_asked_for(dtype, data, counted):
    asked, w0 = [], NET.init(0, dtype=dtype)

    def callback(record):
        asked.append(list(counted))
        counted.clear()

    history = hessian_free(Objective(NET, data), w0, callback=callback, **OPTIONS).history
    found = workloads(history, w0, OPTIONS["curvature_batch_size"])
    assert len(found) == len(asked) == OPTIONS["max_iter"] + 1
    for work, calls in zip(found, asked, strict=True):
        for what in ("gradients", "products", "losses"):
            assert getattr(work, what) == sum(name == what for name, _ in calls)
        assert {work.batch} == {samples for name, samples in calls if name != "products"}
    assert found[1].size == w0.size * (4 if dtype == np.float32 else 16)


def test_work_of_sgd_is_its_steps(data, w0):
    history = first_order(Objective(NET, data), w0, batch_size=60, max_iter=2).history
    assert [(each.gradients, each.batch, each.losses) for each in workloads(history, w0)[1:]] == [
        (10, 60, 0)
    ] * 2


def test_losses_of_a_line_search_share_a_reduction(data, w0):
    """Two iterations by hand: a gradient, and a search of five losses in one reduction; then one of one."""
    objective = Objective(NET, data)
    recorder = Recorder(objective, None)
    for steps in ([0.1, 0.2, 0.4, 0.8, 1.6], [1.0]):
        _, g = objective.value_and_gradient(w0)
        objective.values_along(w0, -g, steps)
        recorder.add(w0, iteration=len(recorder.history), loss=0.0)
    found = workloads(recorder.history, w0)
    kinds = [(each.gradients, each.losses, each.searches, each.batch) for each in found]
    assert kinds == [(1, 5, 1, len(data)), (1, 1, 1, len(data))]
    # of 16 engines: 4 messages for each of the two sums, which are both of pairs
    assert found[0].communication_cost(16) == (2, 8, 4 * 16 * (w0.size + 5))


def test_wrong_parameters_are_named(alone, w0):
    with pytest.raises(ValueError, match=r"w0: expected the parameters .* got 7"):
        workloads(alone.history, w0[:7], OPTIONS["curvature_batch_size"])


# The model, where the truth is known


def seconds(work, engines, noise):
    """A machine whose engines disturb each other by a tenth; a loss costs 2 µs a sample, a gradient 6, ...

    The times of engines scatter by 3 % of what they compute; a sum takes 10 µs and 1 ns a byte between two.
    """
    slow, r, s = 1 + 0.1 * (engines - 1), work.batch / engines, work.curvature_batch_size / engines
    computed = {
        "gradient": work.gradients * (1e-3 + 6e-6 * r * slow),
        "product": work.products * (2e-3 + 12e-6 * s * slow) + (work.products > 0) * 4e-6 * s,
        "loss": work.losses * (5e-4 + 2e-6 * r * slow),
    }
    sums = work.gradients + work.products + work.losses
    size = (work.gradients + work.products) * work.size + 16 * work.losses
    others = {
        "serial": 0.01 + 2e-3 * work.products,
        "reduction": 1e-5 * sums + (engines > 1) * 1e-9 * size,
        "waiting": (engines > 1) * 0.03 / np.sqrt(np.pi) * sum(computed.values()),
    }
    return {part: value * noise() for part, value in (computed | others).items()}


def measured(noise=lambda: 1.0):
    """Runs of the machine above, on one and two engines, with different batches of curvature."""
    random, found = np.random.default_rng(0), []
    for engines in (1, 2):
        for s in (500, 2000, 8000):
            counts = [(1, random.integers(10, 60), random.integers(5, 15)) for _ in range(10)]
            asked = [Workload(*each, 20_000, s, 1_500_000) for each in counts]
            asked += [Workload(100, 0, 0, s / 10, 0, 1_500_000), Workload(0, 0, 100, s / 10, 0, 1_500_000)]
            found.append(
                Run(Setting(engines, engines - 1), asked, [seconds(w, engines, noise) for w in asked])
            )
    return found


def test_fit_recovers_the_truth():
    costs = scaling_model.fit(measured()).costs
    np.testing.assert_allclose(costs["gradient"], [1e-3, 6e-6, 6e-7], rtol=1e-6)
    np.testing.assert_allclose(costs["product"], [2e-3, 12e-6, 12e-7, 4e-6], rtol=1e-6)
    np.testing.assert_allclose(costs["loss"], [5e-4, 2e-6, 2e-7], rtol=1e-6)
    np.testing.assert_allclose(costs["serial"], [0.01, 0, 0, 2e-3, 0], atol=1e-9)
    np.testing.assert_allclose(costs["reduction"], [1e-5, 1e-9], atol=1e-15)
    np.testing.assert_allclose(costs["waiting"], [0, 0.03], rtol=1e-3, atol=1e-9)


def by_hand(work, engines, network):
    """Seconds on nodes of their own: no colocated; what the network takes comes on top of copying."""
    slowest = 1 + 0.03 * expected_maximum(engines)
    r, s = work.batch / engines, work.curvature_batch_size / engines
    computed = (
        1e-3 + 6e-6 * r + work.products * (2e-3 + 12e-6 * s) + 4e-6 * s + work.losses * (5e-4 + 2e-6 * r)
    )
    k, vectors = np.log2(engines), 1 + work.products
    copied = 1e-9 * (2 * (1 - 1 / engines) * 1_500_000 * vectors + 16 * k * work.losses)
    sent = network.latency * k * (2 * vectors + work.losses) + 8e9 / network.bandwidth * copied
    serial = 0.01 + 2e-3 * work.products
    return computed * slowest + serial + 1e-5 * (vectors + work.losses) + copied + sent


@pytest.mark.parametrize("engines", [1, 16, 32])
def test_prediction_is_the_sum_by_hand(engines):
    network, work = Interconnect(50e-6, 10e9), Workload(1, 30, 10, 64_000, 32_000 / 4, 1_500_000)
    found = scaling_model.fit(measured()).seconds([work], Setting(engines, interconnect=network))
    assert found == pytest.approx(by_hand(work, engines, network), rel=1e-4)


def test_bootstrap_covers_the_truth():
    random = np.random.default_rng(1)
    runs = measured(lambda: random.uniform(0.95, 1.05))
    network, work = Interconnect(50e-6, 10e9), Workload(1, 30, 10, 64_000, 8000, 1_500_000)
    truth = by_hand(work, 1, network) / by_hand(work, 16, network)
    low, middle, high = scaling_model.speedup(
        scaling_model.bootstrap(runs), [work], Setting(16, interconnect=network)
    )
    assert low <= truth <= high
    assert middle == pytest.approx(truth, rel=0.03)
    assert abs(runs[0].error(scaling_model.fit(runs[1:]))) < 0.05


def test_whole_partitions_bound_the_speedup():
    """Of 24 partitions one of 16 engines holds two: the work is done in 2/24, not 1/16 of the time."""
    model = scaling_model.Model(
        {
            "gradient": np.array([0, 1e-6, 0]),
            "product": np.array([0, 2e-6, 0, 0]),
            "loss": np.array([0, 1e-6, 0]),
            "serial": np.zeros(5),
            "reduction": np.zeros(2),
            "waiting": np.zeros(2),
        }
    )
    work = Workload(1, 30, 10, 48_000, 9600, 1_500_000)
    found = [
        scaling_model.speedup([model], [work], Setting(16, partitions=partitions))[1]
        for partitions in (24, 48, None)
    ]
    np.testing.assert_allclose(found, [12, 16, 16], rtol=1e-9)


def test_linearizing_anew_does_not_flatter_many_engines():
    """One engine of two has the memory for its 10,000 samples, one alone is taken to have it for 20,000."""
    costs = {part: np.zeros(n) for part, n in (("gradient", 3), ("loss", 3), ("serial", 5), ("reduction", 2))}
    model = scaling_model.Model(costs | {"product": np.array([0, 1e-6, 0, 2e-6]), "waiting": np.zeros(2)})
    work = Workload(0, 30, 0, 0, 20_000, 1_500_000)
    for kept, linearizations in ((0, 30), (10_000, 15.5), (20_000, 1), (np.inf, 1)):
        seconds = model.seconds([work], Setting(kept=kept))
        assert seconds == pytest.approx(20_000 * (30 * 1e-6 + linearizations * 2e-6))
    two = Setting(2, kept=10_000)
    assert model.seconds([work], two) == pytest.approx(10_000 * (30 * 1e-6 + 2e-6))
    assert scaling_model.speedup([model], [work], two)[1] == pytest.approx(2)


# The model of whole runs, by hand

SIZE = 1_502_640  # bytes of the parameters of 784-400-150-10 in float32
LOCAL = RunCost(  # an iteration of local solves: gradient, mean solution, seven losses
    computed=4.8, serial=0.01, reductions=3, bytes=SIZE + 4 + SIZE + 8 + 7 * 16, size=SIZE, parts=16
)


@pytest.mark.parametrize(("nodes", "share"), [(1, 1), (2, 1 / 2), (10, 1 / 8), (16, 1 / 16), (1024, 1 / 16)])
def test_a_node_computes_whole_cells(nodes, share):
    """Of 16 cells, one of 10 nodes holds two; of 1,024 nodes only 16 have work."""
    assert LOCAL.compute(nodes) == pytest.approx(4.8 * share + 0.01)
    late = 1 + 0.03 * expected_maximum(min(nodes, 16))
    assert LOCAL.compute(nodes, scatter=0.03) == pytest.approx(4.8 * share * late + 0.01)


@pytest.mark.parametrize("gigabits", [1, 10, 100])
def test_reductions_take_what_their_messages_and_bytes_do(gigabits):
    """On 16 nodes: 8 messages and 15/8 of the bytes for each of two vectors, 4 messages for the losses."""
    network = Interconnect(50e-6, gigabits * 1e9)
    bits = 8 * (2 * 15 / 8 * SIZE + 4 * (7 * 16 + 12))
    expected = (2 * 8 + 4) * 50e-6 + bits / (gigabits * 1e9)
    assert LOCAL.communication(16, network) == pytest.approx(expected, rel=1e-12)
    assert LOCAL.communication(1024, network) == LOCAL.communication(16, network)
    assert LOCAL.communication(1, network) == 0
    assert LOCAL.seconds(16, network) == pytest.approx(expected + 0.31)


def test_without_network_and_serial_part_the_speedup_is_the_number_of_nodes():
    free, alone = Interconnect(0.0, np.inf), RunCost(7.0, 0.0, 10, 10 * SIZE, SIZE)
    for nodes in (1, 3, 16, 1000):
        assert alone.seconds(1, free) / alone.seconds(nodes, free) == pytest.approx(nodes)


def test_a_mini_batch_of_64_keeps_64_nodes_busy():
    step = RunCost(computed=6.4, serial=0.0, reductions=100, bytes=100 * (SIZE + 4), size=SIZE, parts=64)
    network = Interconnect(50e-6, 10e9)
    assert [step.compute(nodes) for nodes in (1, 48, 64, 1024)] == pytest.approx([6.4, 0.2, 0.1, 0.1])
    assert step.communication(64, network) == pytest.approx(
        100 * (12 * 50e-6 + 8 * 2 * 63 / 64 * SIZE / 1e10)
    )


def test_both_models_agree_on_a_run_that_both_can_describe():
    """The sums of a synchronous step, with the model of parts and with that of whole runs."""
    work = Workload(30, 0, 0, 4096, 0, SIZE)
    run = RunCost(0.0, 0.0, 30, 30 * SIZE, SIZE)
    network = Interconnect(50e-6, 10e9)
    for nodes in (2, 16, 24, 1024):
        _, messages, path = work.communication_cost(nodes)
        assert run.communication(nodes, network) == pytest.approx(network.seconds(messages, path))


# The model, on real engines


LARGE = models.mlp([784, 400, 150, 10])
SIZES = (120, 240)


@pytest.fixture(scope="module")
def few():
    """So few samples that a run spends its time on sums."""
    random = np.random.default_rng(0)
    return Dataset(random.random((960, 784), np.float32), random.integers(0, 10, 960))


@pytest.fixture(scope="module")
def model(few, own_ipython_dir):
    """Fitted on this host alone, by one and two engines."""
    w0, runs = LARGE.init(0), []
    for engines in (1, 2):
        with Cluster(n=engines, engines="mpi") as cluster:
            for size in SIZES:
                options = {"max_iter": 4, "tol": 0.0, "curvature_batch_size": size, "progress": False}
                runs.append(
                    Run.of(cluster.minimize(LARGE, few, w0, **options).history, w0, size, engines=engines)
                )
    return scaling_model.fit(runs)


@pytest.mark.slow
@HOSTS
@MPI
@pytest.mark.parametrize(("n", "megabits"), [(2, 100)])
def test_sums_over_links_of_known_bandwidth_take_what_is_predicted(n, megabits, model, few, tmp_path):
    """Told of the links, the model predicts several hosts.

    The links are slow, and of the iterations the least disturbed counts: all hosts share this machine.
    """
    w0, options = LARGE.init(0), {"max_iter": 4, "tol": 0.0, "curvature_batch_size": 240}
    on_hosts = {f"host{i + 1}": 1 for i in range(n)}
    cluster = {"engines": "mpi", "hosts": on_hosts, "deadline": 60, "timeout": 90}
    job = {"cluster": cluster, "arguments": (LARGE, few, w0), "runs": [(options, None)]}
    with Hosts(n, rate=f"{megabits}mbit") as hosts:
        report, _ = run_on_head(hosts, job, tmp_path)
    run = Run.of(report["runs"][0]["result"].history, w0, options["curvature_batch_size"], engines=n)
    there = Setting(n, n - 1, Interconnect(latency=0.0, bandwidth=megabits * 1e6), partitions=24)
    predicted = [model.parts([work], there)["reduction"] for work in run.workloads]
    took = [seconds["reduction"] for seconds in run.seconds]
    assert np.min(np.divide(took, predicted)) == pytest.approx(1, abs=0.15)
