"""Several ranks train one model: as one process would, and through anything that happens to one of them."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import signal

import pytest
import torch

from mtf_trainer.averages import read_averaged_model
from mtf_trainer.checkpoint.folder import read_model
from mtf_utils.rundir import read_metrics


def latest(folder):
    return (folder / "checkpoints" / "latest").read_text().strip()


def losses(folder, name):
    records = read_metrics(folder / "checkpoints" / "metrics.jsonl")
    return [record[name] for record in records if name in record]


@pytest.mark.parametrize(("accumulate", "kind"), [(1, "ddp"), (4, "ddp"), (4, "fsdp")])
def test_two_ranks_learn_what_one_learns_from_batches_twice_as_large(ranks, tmp_path, accumulate, kind):
    options = ("--batch", "3", "--accumulate", str(accumulate), "--strategy", kind)
    ranks.train("ranks_simple.py", tmp_path / "two", 2, *options)
    ranks.train("ranks_simple.py", tmp_path / "one", 1, "--batch", "6", "--accumulate", str(accumulate))
    for name in ("train_loss", "val_loss"):
        two, one = losses(tmp_path / "two", name), losses(tmp_path / "one", name)
        assert len(one) >= 2
        assert two == pytest.approx(one, rel=1e-5)
    two, one = (read_model(tmp_path / folder / "checkpoints" / latest(tmp_path / folder)) for folder in ("two", "one"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "between", "stop"), [("ddp", 1, "0:7"), ("fsdp", 1, "0:7"), ("fsdp", 3, "0:4")])
def test_every_sample_comes_once_an_epoch_although_the_number_of_ranks_changes(ranks, tmp_path, kind, between, stop):
    options = ("--accumulate", "4", "--strategy", kind)
    ranks.train("ranks_simple.py", tmp_path, 2, *options, "--stop", "0:2", status=75)
    ranks.train("ranks_simple.py", tmp_path, between, *options, "--stop", stop, status=75)
    ranks.train("ranks_simple.py", tmp_path, 2, *options)
    (line,) = [each for each in (tmp_path / "log-0").read_text().splitlines() if "no longer exact:" in each]
    assert f"ranks was {between}, is 2" in line
    seen = collections.Counter(line for file in tmp_path.glob("seen-*") for line in file.read_text().splitlines())
    assert seen == {f"{epoch} {index}": 1 for epoch in (0, 1) for index in range(58)}


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
def test_what_metrics_of_all_ranks_collected_counts_once_and_what_is_left_out_is_named(ranks, tmp_path):
    words = ["--collect", "--samples", "55"]  # of an epoch's last stretch nothing is left for the second of two ranks
    ranks.train("ranks_simple.py", tmp_path, 2, *words, "--stop", "0:2", status=75)
    ranks.train("ranks_simple.py", tmp_path, 1, *words, "--stop", "0:9", status=75)
    (line,) = [each for each in (tmp_path / "log-0").read_text().splitlines() if "no longer exact:" in each]
    assert line.endswith("ranks was 2, is 1; of callback Losses only what rank 0 had is left")
    ranks.train("ranks_simple.py", tmp_path, 2, *words)
    assert "is left" not in (tmp_path / "log-0").read_text()
    ends = [record for record in read_metrics(tmp_path / "checkpoints" / "metrics.jsonl") if "train_mse" in record]
    assert len(ends) == 2
    assert [end["train_mse"] for end in ends] == pytest.approx([end["train_loss"] for end in ends], rel=1e-5)


def steps(folder):
    return max(record.get("step", 0) for record in read_metrics(folder / "checkpoints" / "metrics.jsonl"))


@pytest.mark.parametrize(("place", "rank", "end"), [("0:2", 0, 4), ("0:2", 1, 4), ("0:", 1, 10)])
def test_one_rank_may_ask_for_an_early_end_of_all(ranks, tmp_path, place, rank, end):
    ranks.train("ranks_simple.py", tmp_path, 2, "--lonely", f"stop:{rank}", place)
    assert steps(tmp_path) == end


@pytest.mark.parametrize("after", [1, 2])
def test_what_one_rank_asked_for_before_it_was_preempted_is_not_forgotten(ranks, tmp_path, after):
    options = ("--lonely", "stop:1", "0:2", "--stop", "0:2")
    ranks.train("ranks_simple.py", tmp_path, 2, *options, status=75)
    assert steps(tmp_path) == 3
    ranks.train("ranks_simple.py", tmp_path, after, *options)
    assert steps(tmp_path) == 4


@pytest.mark.parametrize(("place", "rank"), [("0:2", 0), ("0:2", 1), ("0:", 0)])
def test_a_rank_that_saves_alone_waits_no_longer_than_it_takes_to_find_out(ranks, tmp_path, place, rank):
    with ranks.RankProcesses("ranks_simple.py", tmp_path, 2, "--lonely", f"save:{rank}", place) as started:
        assert started.statuses() == [1, 1]
        said = f"rank {rank} called save_checkpoint(), and rank {1 - rank} went on without it"
        for log in started.logs:
            assert said in log.read_text()
    ranks.train("ranks_simple.py", tmp_path, 2)


def digests(folder):
    return [json.loads((folder / f"digest-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def trained(ranks, tmp_path_factory, strategy):
    folder = tmp_path_factory.mktemp("undisturbed")
    ranks.train("ranks_task.py", folder, 2, "--strategy", strategy)
    return folder


@pytest.fixture(scope="module")
def undisturbed(trained):
    return digests(trained)


def test_activations_that_are_not_kept_change_nothing(ranks, tmp_path, strategy, undisturbed):
    ranks.train("ranks_task.py", tmp_path, 2, "--strategy", strategy, "--recompute", "Linear", "BatchNorm1d")
    assert digests(tmp_path) == undisturbed


def test_averages_come_out_of_a_checkpoint_as_whole_as_weights(trained):
    raw, averaged = (read(trained / "checkpoints" / latest(trained)) for read in (read_model, read_averaged_model))
    assert {name: value.shape for name, value in averaged.items()} == {name: raw[name].shape for name in raw}
    moved = {name for name in raw if not torch.equal(raw[name], averaged[name])}
    assert moved == {name for name in raw if raw[name].is_floating_point()}


def pace(folder, rank):
    file = folder / f"pace-{rank}"
    return tuple(map(int, file.read_text().split()[1:])) if file.exists() and file.read_text() else (0, -1)


@pytest.mark.parametrize("victims", [[1], [0, 1]], ids=["one", "all"])
def test_all_ranks_stop_together_and_go_on_to_the_same_bits(ranks, tmp_path, strategy, undisturbed, victims):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--strategy", strategy, "--pace", "0.05") as started:
        ranks.wait_for(lambda: all(pace(tmp_path, rank) >= (0, 5) for rank in (0, 1)), "mid-accumulation")
        for victim in victims:
            started.processes[victim].send_signal(signal.SIGTERM)
        assert started.statuses() == [75, 75], started.said()
    ranks.train("ranks_task.py", tmp_path, 2, "--strategy", strategy)
    assert digests(tmp_path) == undisturbed


@pytest.mark.parametrize(("victim", "heard"), [(0, "rank 0 has ended"), (1, "a rank has ended")])
def test_a_rank_that_is_killed_ends_the_others_which_go_on_to_the_same_bits(
    ranks, tmp_path, strategy, undisturbed, victim, heard
):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--strategy", strategy, "--pace", "0.05") as started:
        ranks.wait_for(lambda: pace(tmp_path, 1) >= (1, 2), "the second epoch")
        os.kill(started.processes[victim].pid, signal.SIGKILL)
        assert started.statuses()[victim] == -signal.SIGKILL
        assert started.statuses()[1 - victim] == 1, started.said()
        assert f"TrainerError: the ranks cannot go on: {heard} without a word" in started.said()
    ranks.train("ranks_task.py", tmp_path, 2, "--strategy", strategy)
    assert digests(tmp_path) == undisturbed


def test_the_last_words_of_a_rank_that_fails_are_those_of_all(ranks, tmp_path):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--fail", "1") as started:
        assert started.statuses() == [1, 1]
        for log in started.logs:
            assert "the last words of this rank" in log.read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_leaves_without_the_others_ends_them_too(ranks, tmp_path, rank):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--leave", str(rank)) as started:
        assert started.statuses()[rank] == 0
        assert started.statuses()[1 - rank] == 1
        assert f"rank {rank}: SystemExit: 0" in started.logs[1 - rank].read_text()


def test_what_only_one_rank_was_given_is_named_before_anything_is_trained(ranks, tmp_path):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--lonely") as started:
        assert started.statuses() == [1, 1]
        for log in started.logs:
            assert "callbacks is Trace, Sum, EMA, Pace, Failing on rank 0 and Trace, Sum, EMA, Pace" in log.read_text()
    assert not (tmp_path / "checkpoints" / "latest").exists()
