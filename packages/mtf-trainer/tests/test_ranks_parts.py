"""What several ranks are made of, without a process each: who they are, how data is dealt, how they agree and save."""

from __future__ import annotations

import dataclasses
import math
import random
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed import HashStore
from torch.utils.data import BatchSampler, DataLoader, Sampler, TensorDataset, random_split

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot, publishing, read_checkpoint
from mtf_trainer.data import Division, make_source
from mtf_trainer.distributed.accord import check_accord, layout_of
from mtf_trainer.distributed.agreement import Agreement
from mtf_trainer.distributed.channel import Channel
from mtf_trainer.distributed.crew import RankCrew
from mtf_trainer.distributed.processes import is_lost, why_lost
from mtf_trainer.distributed.roll_call import TOGETHER, RollCall
from mtf_trainer.distributed.team import Team
from mtf_trainer.distributed.world import World, find_world, first_host
from mtf_trainer.errors import CheckpointError, TrainerError
from mtf_trainer.preemption import StopFlag
from mtf_utils.sections import CheckpointConfig, DistributedConfig

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}


def test_torchrun_says_who_is_who_also_inside_a_step_of_slurm():
    assert find_world(SLURM | TORCHRUN) == World(1, 2, 1, "host", 29500, "torchrun")


def test_srun_says_who_is_who_and_the_first_node_is_where_to_meet():
    world = find_world(SLURM, resolves=lambda host: True)
    assert (world.rank, world.size, world.local_rank, world.address, world.launcher) == (3, 4, 1, "node01", "srun")
    assert 10_000 <= world.port < 30_000
    other = find_world(SLURM | {"SLURM_STEP_ID": "1"}, resolves=lambda host: True)
    assert other.port != world.port


def test_an_address_takes_the_place_of_a_name_that_does_not_resolve():
    assert find_world(SLURM, resolves=lambda host: False).address == "10.0.0.1"
    with pytest.raises(TrainerError, match="'node01', cannot be resolved: set MASTER_ADDR"):
        find_world(SLURM | {"SLURM_LAUNCH_NODE_IPADDR": ""}, resolves=lambda host: False)
    assert find_world(SLURM | {"MASTER_ADDR": "there", "MASTER_PORT": "5"}).address == "there"


@pytest.mark.parametrize(
    "environ", [{}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}]
)
def test_one_process_trains_alone(environ):
    assert find_world(environ) == World()


@pytest.mark.parametrize("wrong", [{"RANK": "2"}, {"RANK": "x"}, {"MASTER_PORT": "-1"}])
def test_variables_that_make_no_sense_are_named(wrong):
    with pytest.raises(TrainerError, match=next(iter(wrong))):
        find_world(TORCHRUN | wrong)


def test_a_number_of_ranks_without_a_rank_is_no_reason_to_train_alone():
    with pytest.raises(TrainerError, match="WORLD_SIZE=2 without RANK"):
        find_world({"WORLD_SIZE": "2", "MASTER_ADDR": "host"})
    assert find_world(SLURM | {"WORLD_SIZE": "4", "MASTER_ADDR": "host"}).rank == 3


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("node[03-05,9]", "node03"),
        ("r[1-2]n[01-10],x", "r1n01"),
        ("c[7]-ib", "c7-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


class OwnOrder(Sampler):
    """A rule that nobody knows."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return iter(torch.randperm(self.size).tolist())

    def __len__(self):
        return self.size


def sources(size, batch, ranks, *, drop_last=False, own=False):
    data = TensorDataset(torch.arange(size))
    if own:
        loader = DataLoader(data, batch_sampler=BatchSampler(OwnOrder(size), batch, drop_last))
    else:
        loader = DataLoader(data, batch_size=batch, shuffle=True, drop_last=drop_last)
    return [make_source(loader, seed=5, stream="train", division=Division(rank, ranks)) for rank in range(ranks)]


def read(source, epoch, start=0, stop=None):
    """The batches of one rank, and how much each counts."""
    source.open(epoch, start)
    stop = source.batches_in(epoch) if stop is None else stop
    return [(source.next()[0].tolist(), source.factor(epoch, number)) for number in range(start, stop)]


sizes = {"size": st.integers(1, 40), "batch": st.integers(1, 5), "ranks": st.integers(1, 5)}


@given(**sizes, own=st.booleans())
def test_every_sample_comes_once_and_the_mean_of_the_ranks_is_that_of_all(size, batch, ranks, own):
    dealt = [read(source, 1) for source in sources(size, batch, ranks, own=own)]
    seen = [index for parts in dealt for indices, factor in parts if factor for index in indices]
    assert sorted(seen) == list(range(size))
    for parts in zip(*dealt, strict=True):
        together = [value for indices, factor in parts if factor for value in indices]
        means = [factor * sum(indices) / len(indices) for indices, factor in parts]
        assert sum(means) / ranks == pytest.approx(sum(together) / len(together))


@given(**sizes, drop_last=st.booleans())
def test_ranks_together_see_what_one_sees_in_batches_of_their_sum(size, batch, ranks, drop_last):
    dealt = [read(source, 2) for source in sources(size, batch, ranks, drop_last=drop_last)]
    together = [[i for indices, factor in parts if factor for i in indices] for parts in zip(*dealt, strict=True)]
    alone = read(sources(size, batch * ranks, 1, drop_last=drop_last)[0], 2)
    assert together == [indices for indices, _ in alone]


@given(**sizes, data=st.data(), own=st.booleans())
def test_other_numbers_of_ranks_go_on_with_what_is_left(size, batch, ranks, data, own):
    seen, at, before = [], 0, None
    for count in (ranks, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))):
        now = sources(size, batch, count, own=own)
        for source in now:
            if before is not None:
                source.load_state_dict(before)
                source.take_over(0, at)
        stop = data.draw(st.integers(at, now[0].batches_in(0)))
        for source in now:
            seen += [index for indices, factor in read(source, 0, at, stop) if factor for index in indices]
        at, before = stop, now[0].state_dict()
    (last,) = sources(size, batch, 1, own=own)
    last.load_state_dict(before)
    last.take_over(0, at)
    seen += [index for indices, _ in read(last, 0, at) for index in indices]
    assert sorted(seen) == list(range(size))


def test_data_that_can_only_be_iterated_is_not_divided():
    with pytest.raises(TrainerError, match="cannot be divided among 2 ranks"):
        make_source([1, 2], seed=1, stream="train", division=Division(0, 2))


def team(store, rank, size):
    return SimpleNamespace(
        rank=rank,
        size=size,
        launcher="",
        met=0,
        timeout=timedelta(seconds=20),
        channel=lambda purpose, **options: Channel(store),
    )


def in_threads(work, ranks):
    """Have each of these ranks do it in a thread of its own."""
    threads = [threading.Thread(target=work, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)


def loop_on(agreement):
    """Pass boundaries until something happens."""
    while not agreement.is_due():
        time.sleep(0.001)


def run_loop(agreement, boundaries, draw, arrive, left):
    """A loop that meets the others at every third boundary, as training does in its collectives."""
    for number in range(1, boundaries + 1):
        if agreement.is_due():
            left.append(number)
            return
        time.sleep(draw.uniform(0.0, 0.003))
        if number % 3 == 0:
            arrive.wait(timeout=30)
    left.append(math.inf)


@pytest.mark.parametrize("told", [[2], [0, 1, 2, 3], [1, 3]])
@pytest.mark.parametrize("seed", range(3))
def test_all_ranks_leave_at_the_same_boundary(told, seed):
    store, draw, size = HashStore(), random.Random(seed), 4
    flags = [StopFlag() for _ in range(size)]
    members = [Agreement(team(store, rank, size), flags[rank], patience_s=20) for rank in range(size)]
    arrive, left = threading.Barrier(size), []
    loops = [
        threading.Thread(target=run_loop, args=(member, 20_000, random.Random(f"{seed}{n}"), arrive, left))
        for n, member in enumerate(members)
    ]
    for member, loop in zip(members, loops, strict=True):
        member.start()
        loop.start()
    for rank in told:
        time.sleep(draw.uniform(0.0, 0.05))
        flags[rank].request("SIGTERM")
    for loop in loops:
        loop.join(timeout=60)
    for member in members:
        member.close()
    assert len(left) == size
    assert len(set(left)) == 1
    assert left[0] < math.inf
    assert {flag.signal_name for flag in flags} == {"SIGTERM"}


def test_a_failure_reaches_every_loop_at_its_next_boundary():
    store = HashStore()
    first, second = (Agreement(team(store, rank, 2), StopFlag(), patience_s=20) for rank in range(2))
    first.start()
    second.fail(ValueError("no more"))
    with pytest.raises(TrainerError, match="rank 1: ValueError: no more"):
        loop_on(first)
    first.close()


def test_a_process_that_comes_to_no_boundary_is_ended_when_another_has_failed():
    store, ended = HashStore(), threading.Event()
    waiting = Agreement(team(store, 0, 2), StopFlag(), patience_s=0.1, end=lambda status: ended.set())
    waiting.start()
    Agreement(team(store, 1, 2), StopFlag(), patience_s=0.1).fail(ValueError("no more"))
    assert ended.wait(timeout=30)
    waiting.close()


def call_roll(places, calls=1, patience_s=20, quiet=()):
    """Every rank but the quiet calls the roll where it is; what each of them heard."""
    store, heard = HashStore(), {}
    members = [
        RollCall(rank, len(places), lambda rank=rank: places[rank], lambda: Channel(store), patience_s=patience_s)
        for rank in range(len(places))
    ]

    def call(rank):
        try:
            for _ in range(calls):
                members[rank].gather("this")
            heard[rank] = ""
        except TrainerError as error:
            heard[rank] = str(error)

    in_threads(call, [rank for rank in range(len(places)) if rank not in quiet])
    return heard


def test_ranks_that_come_together_go_on():
    assert call_roll([(3, 1)] * 3, calls=4) == {0: "", 1: "", 2: ""}


def test_ranks_that_call_at_different_places_hear_of_it():
    heard = call_roll([(3, 1), (3, 2)])
    assert set(heard.values()) == {f"this was called by the ranks at different places: {TOGETHER}"}


def test_a_rank_that_does_not_come_to_a_call_is_named():
    heard = call_roll([(3, 1)] * 3, patience_s=0.1, quiet=[1])
    assert set(heard.values()) == {f"this waited 0.1 s for rank 1: {TOGETHER}"}


def test_a_rank_that_goes_on_where_another_waits_ends_both():
    store = HashStore()
    first, second = (Agreement(team(store, rank, 2), StopFlag(), patience_s=20) for rank in range(2))
    for member in (first, second):
        member.start()
        assert not member.is_due()
    said = "rank 0 called this, and rank 1 went on without it"
    heard = []

    def go_on():
        try:
            loop_on(second)
        except TrainerError as error:
            heard.append(str(error))

    loop = threading.Thread(target=go_on)
    loop.start()
    with pytest.raises(TrainerError, match=said):
        first.gather("this")
    loop.join(timeout=60)
    assert said in heard[0]
    with pytest.raises(TrainerError, match=said):
        loop_on(first)
    for member in (first, second):
        member.close()


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("[gloo] Timed out waiting 18000ms for recv operation", "longer than distributed.timeout_minutes=0.3 for"),
        ("[gloo] Connection closed by peer [127.0.0.1]:2724", "a rank has ended without a word"),
    ],
)
def test_what_is_wrong_with_another_rank_is_told_in_plain_words(said, meaning):
    error = RuntimeError(said)
    assert is_lost(error)
    assert meaning in why_lost(error, DistributedConfig(timeout_minutes=0.3))


def test_a_rank_that_does_not_answer_is_named():
    flag, ended = StopFlag(), threading.Event()
    member = Agreement(team(HashStore(), 0, 3), flag, patience_s=0.2, end=lambda status: ended.set())
    member.start()
    flag.request("SIGTERM")
    with pytest.raises(TrainerError, match=r"no answer from rank 1, 2 within 0.2 s"):
        loop_on(member)
    member.close()


class Threads(Team):
    """A rank that is a thread."""

    def __init__(self, rank, slots, barrier):
        self.rank, self.size, self.slots, self.barrier = rank, len(slots), slots, barrier

    def gather(self, value):
        self.slots[self.rank] = value
        self.barrier.wait(timeout=30)
        told = list(self.slots)
        self.barrier.wait(timeout=30)
        return told


def compare(*given):
    """What every rank hears when so much is given to each."""
    slots, barrier, heard = [None] * len(given), threading.Barrier(len(given)), {}

    def work(rank):
        try:
            check_accord(Threads(rank, slots, barrier), given[rank])
        except TrainerError as error:
            heard[rank] = str(error)

    in_threads(work, range(len(given)))
    return heard


def test_ranks_that_were_given_the_same_have_nothing_to_say():
    given = {"model": layout_of(nn.BatchNorm1d(2)), "settings": {"precision": object()}}
    assert compare(given, given | {"settings": {"precision": object()}}, given) == {}


def test_what_one_rank_was_given_and_others_were_not_is_named_on_all():
    given = {"callbacks": ["Trace"], "data": {"train": {"length": 70}}, "model": layout_of(nn.Linear(4, 16))}
    other = {"callbacks": [], "data": {"train": {"length": 40}}, "model": layout_of(nn.Linear(4, 17))}
    heard = compare(given, given, other)
    assert heard.keys() == {0, 1, 2}
    assert len(set(heard.values())) == 1
    for difference in (
        "callbacks is Trace on rank 0 and none on rank 2",
        "data.train.length is 70 on rank 0 and 40 on rank 2",
        "model.weight is 'float32[16, 4]' on rank 0 and 'float32[17, 4]' on rank 2",
    ):
        assert difference in heard[0]
    assert "on rank 1" not in heard[0]


def test_a_split_that_every_rank_drew_for_itself_is_another_one():
    data = TensorDataset(torch.zeros(20, 1))

    def choice(seed):
        part, _ = random_split(data, [15, 5], torch.Generator().manual_seed(seed))
        inner, _ = random_split(part, [10, 5], torch.Generator().manual_seed(1))
        return make_source(DataLoader(inner, batch_size=2), seed=0, stream="train").choice()

    assert choice(1) == choice(1)
    assert choice(1) != choice(2)
    assert make_source(DataLoader(data), seed=0, stream="train").choice() is None
    heard = compare({"split": {"train": choice(1)}}, {"split": {"train": choice(2)}})
    assert f"split.train is {choice(1)!r} on rank 0 and {choice(2)!r} on rank 1" in heard[0]


def test_of_many_differences_the_first_few_are_named():
    heard = compare({str(n): 0 for n in range(9)}, {})
    assert "4 is 0 on rank 0 and None on rank 1; and 4 more" in heard[1]


def save_together(directory, snapshots, *, background=False, elsewhere=None, kinds=None, patience_s=30):
    """Save once with every rank in a thread, all but the first where else they are told to; what came of it on each."""
    store, size = HashStore(), len(snapshots)
    results = {}

    def work(rank):
        crew = RankCrew(rank, size, lambda: Channel(store), patience_s=patience_s)
        place = elsewhere if elsewhere is not None and rank > 0 else directory
        kind = Kind.PERIODIC if kinds is None else kinds[rank]
        with CheckpointStore(place, CheckpointConfig(), run_id="r", crew=crew, publishes=rank == 0) as checkpoints:
            try:
                if background:
                    checkpoints.save_in_background(snapshots[rank], kind=kind)
                    results[rank] = checkpoints.wait()
                else:
                    results[rank] = checkpoints.save(snapshots[rank], kind=kind)
            except CheckpointError as error:
                results[rank] = error

    in_threads(work, range(size))
    return [results[rank] for rank in range(size)]


def snapshot(section, value):
    return Snapshot(resume={"at": 1}, sections={section: value}, epoch=0, global_step=3)


@pytest.mark.parametrize("background", [False, True])
def test_ranks_save_one_checkpoint_together(tmp_path, background):
    snapshots = [snapshot("model", {"w": torch.ones(3)}), *(snapshot(f"rank_{n}", {"n": n}) for n in (1, 2))]
    paths = save_together(tmp_path, snapshots, background=background)
    assert len(set(paths)) == 1
    checkpoint = read_checkpoint(paths[0])
    assert checkpoint.sections["rank_1"] == {"n": 1}
    assert checkpoint.sections["rank_2"] == {"n": 2}
    assert torch.equal(checkpoint.sections["model"]["w"], torch.ones(3))
    assert read_checkpoint(paths[0], lambda name: name == "rank_2").sections == {"rank_2": {"n": 2}}


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_part_that_cannot_be_written_leaves_no_checkpoint(tmp_path, culprit):
    snapshots = [snapshot("model", {"n": 0}), snapshot("rank_1", {"n": 1})]
    blocked = snapshots[culprit]
    blocked.refers_to = lambda: (_ for _ in ()).throw(CheckpointError("no space"))
    results = save_together(tmp_path, snapshots, patience_s=2)
    assert all(isinstance(result, CheckpointError) for result in results)
    assert not list(tmp_path.glob("ckpt-*"))


@pytest.mark.parametrize("background", [False, True])
def test_a_save_of_one_rank_alone_takes_no_part_from_a_later_one_of_another(tmp_path, background):
    first, second = snapshot("model", {"n": 0}), snapshot("rank_1", {"n": 1})
    later = dataclasses.replace(second, global_step=9)
    for snapshots, kinds, said in (
        ([first, second], [Kind.MANUAL, Kind.FINAL], "the manual checkpoint of epoch 1, step 3, and rank 1 the final"),
        (
            [first, later],
            [Kind.MANUAL, Kind.MANUAL],
            "step 3, and rank 1 the manual checkpoint of epoch 1, step 9",
        ),
    ):
        results = save_together(tmp_path, snapshots, background=background, kinds=kinds)
        for result in results:
            assert isinstance(result, CheckpointError)
            assert said in str(result)
            assert "has to be called by every rank" in str(result)
        assert not list(tmp_path.glob("ckpt-*"))


def test_ranks_without_a_common_file_system_are_told_at_the_first_save(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "ARRIVAL_S", 0.1)
    snapshots = [snapshot("model", {"n": 0}), snapshot("rank_1", {"n": 1})]
    results = save_together(tmp_path / "here", snapshots, elsewhere=tmp_path / "there")
    for result in results:
        assert isinstance(result, CheckpointError)
        assert "has to be on a file system that all nodes share" in str(result)
    assert not list((tmp_path / "here").glob("ckpt-*"))
