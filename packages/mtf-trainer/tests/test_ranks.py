"""Several ranks train one model: as one process would, and through anything that happens to one of them."""

from __future__ import annotations

import collections
import json
import os
import signal

import pytest
import torch

from mtf_utils.rundir import read_metrics


def losses(folder, name):
    records = read_metrics(folder / "checkpoints" / "metrics.jsonl")
    return [record[name] for record in records if name in record]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_two_ranks_learn_what_one_learns_from_batches_twice_as_large(ranks, tmp_path, accumulate):
    ranks.train("ranks_simple.py", tmp_path / "two", 2, "--batch", "3", "--accumulate", str(accumulate))
    ranks.train("ranks_simple.py", tmp_path / "one", 1, "--batch", "6", "--accumulate", str(accumulate))
    for name in ("train_loss", "val_loss"):
        two, one = losses(tmp_path / "two", name), losses(tmp_path / "one", name)
        assert len(one) >= 2
        assert two == pytest.approx(one, rel=1e-5)
    two, one = (torch.load(tmp_path / folder / "weights.pt", weights_only=True) for folder in ("two", "one"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


def test_every_sample_comes_once_an_epoch_although_the_number_of_ranks_changes(ranks, tmp_path):
    ranks.train("ranks_simple.py", tmp_path, 2, "--accumulate", "4", "--stop", "0:2", status=75)
    ranks.train("ranks_simple.py", tmp_path, 1, "--accumulate", "4", "--stop", "0:7", status=75)
    ranks.train("ranks_simple.py", tmp_path, 2, "--accumulate", "4")
    assert "environment.ranks was 1, is 2" in (tmp_path / "log-0").read_text()
    seen = collections.Counter(line for rank in (0, 1) for line in (tmp_path / f"seen-{rank}").read_text().splitlines())
    assert seen == {f"{epoch} {index}": 1 for epoch in (0, 1) for index in range(58)}


def digests(folder):
    return [json.loads((folder / f"digest-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def undisturbed(ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    ranks.train("ranks_task.py", folder, 2)
    return digests(folder)


def pace(folder, rank):
    file = folder / f"pace-{rank}"
    return tuple(map(int, file.read_text().split()[1:])) if file.exists() and file.read_text() else (0, -1)


@pytest.mark.parametrize("victims", [[1], [0, 1]], ids=["one", "all"])
def test_all_ranks_stop_together_and_go_on_to_the_same_bits(ranks, tmp_path, undisturbed, victims):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--pace", "0.05") as started:
        ranks.wait_for(lambda: all(pace(tmp_path, rank) >= (0, 5) for rank in (0, 1)), "mid-accumulation")
        for victim in victims:
            started.processes[victim].send_signal(signal.SIGTERM)
        assert started.statuses() == [75, 75], started.said()
    ranks.train("ranks_task.py", tmp_path, 2)
    assert digests(tmp_path) == undisturbed


def test_a_rank_that_is_killed_ends_the_others_which_go_on_to_the_same_bits(ranks, tmp_path, undisturbed):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--pace", "0.05") as started:
        ranks.wait_for(lambda: pace(tmp_path, 1) >= (1, 2), "the second epoch")
        os.kill(started.processes[1].pid, signal.SIGKILL)
        assert started.statuses() == [1, -signal.SIGKILL], started.said()
        assert "TrainerError: the ranks cannot go on: a rank has ended without a word" in started.said()
    ranks.train("ranks_task.py", tmp_path, 2)
    assert digests(tmp_path) == undisturbed


def test_the_last_words_of_a_rank_that_fails_are_those_of_all(ranks, tmp_path):
    with ranks.RankProcesses("ranks_task.py", tmp_path, 2, "--fail", "1") as started:
        assert started.statuses() == [1, 1]
        for log in started.logs:
            assert "the last words of this rank" in log.read_text()
