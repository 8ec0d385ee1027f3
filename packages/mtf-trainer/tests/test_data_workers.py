"""Loader workers: deaf to notices, gone with their parent, waited for only as long as nobody asks to stop."""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtf_trainer.data import DataWaitInterrupted, make_source

DEADLINE_S = 60


class Gated(Dataset):
    """Yields the worker's pid; indices from `blocked` on wait for a file."""

    def __init__(self, gate, blocked=2):
        self.gate = Path(gate)
        self.blocked = blocked

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index >= self.blocked:
            self.gate.with_suffix(".waited-for").touch()
            while not self.gate.exists():
                time.sleep(0.005)
        return torch.tensor([index, os.getpid()]), random.random()


class GatedStream(IterableDataset):
    def __init__(self, gate):
        self.samples = Gated(gate)

    def __iter__(self):
        return (self.samples[index] for index in range(8))


def gone(pid):
    """Whether a process has ended; one that nobody has reaped counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def values(batch):
    return batch[0][:, 0].tolist(), batch[1].tolist()


class Patience:
    """A stop flag that comes up after it was asked for a few times."""

    def __init__(self):
        self.left = None

    def __call__(self):
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", [Gated, GatedStream])
def test_waiting_ends_when_asked_to_and_loses_nothing(tmp_path, kind, persistent):
    gate, stop = tmp_path / "gate", Patience()
    loader = DataLoader(kind(gate), batch_size=1, num_workers=1, persistent_workers=persistent)
    reference = make_source(loader, seed=1, stream="train")
    gate.touch()
    reference.open(0)
    whole = [values(reference.next()) for _ in range(8)]
    reference.close()

    gate.unlink()
    source = make_source(loader, seed=1, stream="train", should_stop=stop)
    source.open(0)
    assert [values(source.next()) for _ in range(2)] == whole[:2]
    stop.left = 2
    with pytest.raises(DataWaitInterrupted):
        source.next()
    assert stop.left == -1
    stop.left = None
    gate.touch()
    assert values(source.next()) == whole[2]
    source.open(0, 2)
    assert [values(source.next()) for _ in range(6)] == whole[2:]
    source.close()


def test_waiting_for_workers_to_change_epochs_can_be_interrupted(tmp_path):
    gate, stop = tmp_path / "gate", Patience()
    loader = DataLoader(Gated(gate), batch_size=1, num_workers=1, persistent_workers=True)
    source = make_source(loader, seed=1, stream="train", should_stop=stop)
    source.open(0)
    pid = int(source.next()[0][0, 1])
    stop.left = 2
    with pytest.raises(DataWaitInterrupted):
        source.open(1)
    wait_until(lambda: gone(pid))
    stop.left = None
    gate.touch()
    source.open(1)
    assert [values(source.next())[0] for _ in range(8)] == [[index] for index in range(8)]
    source.close()


def test_replaying_can_be_interrupted():
    stop = Patience()
    source = make_source(lambda: iter(range(100)), seed=1, stream="train", should_stop=stop)
    stop.left = 3
    with pytest.raises(DataWaitInterrupted, match="batch 50"):
        source.open(0, 50)
    stop.left = None
    source.open(0, 50)
    assert source.next() == 50


def test_closing_ends_workers_in_the_middle_of_a_fetch(tmp_path):
    source = make_source(DataLoader(Gated(tmp_path / "never"), num_workers=1), seed=1, stream="train")
    source.open(0)
    pid = int(source.next()[0][0, 1])
    wait_until((tmp_path / "never.waited-for").exists)
    source.close()
    assert gone(pid)
    source.close()


def test_a_source_that_is_dropped_leaves_no_worker(tmp_path):
    source = make_source(DataLoader(Gated(tmp_path / "never"), num_workers=1), seed=1, stream="train")
    source.open(0)
    pid = int(source.next()[0][0, 1])
    wait_until((tmp_path / "never.waited-for").exists)
    del source
    gc.collect()
    wait_until(lambda: gone(pid))


def test_a_lost_worker_is_an_error_and_not_a_hang(tmp_path):
    source = make_source(DataLoader(Gated(tmp_path / "never"), num_workers=1), seed=1, stream="train")
    source.open(0)
    pid = int(source.next()[0][0, 1])
    source.next()
    gc.disable()  # the error may come up in any line, also in a callback of the collector, where it would be lost
    try:
        with pytest.raises(RuntimeError, match=f"{pid}.*(exited unexpectedly|killed by signal)"):  # noqa: PT012
            os.kill(pid, signal.SIGKILL)
            source.next()
    finally:
        gc.enable()
    source.close()


class Fatal(Gated):
    """Its worker kills itself once the file is there."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if index >= self.blocked:
            os.kill(os.getpid(), signal.SIGKILL)
        return item


def test_a_worker_lost_while_a_stop_is_requested_is_an_interruption(tmp_path):
    gate = tmp_path / "gate"
    received = []

    def should_stop():
        if len(received) < 2:
            return False
        asked_before = gate.exists()
        gate.touch()
        return asked_before

    source = make_source(DataLoader(Fatal(gate), num_workers=1), seed=1, stream="train", should_stop=should_stop)
    source.open(0)
    for _ in range(2):
        received.append(values(source.next())[0])
    assert received == [[0], [1]]
    with pytest.raises(DataWaitInterrupted, match="worker ended"):
        source.next()
    source.close()


def test_a_users_error_in_a_worker_reaches_the_user():
    source = make_source(DataLoader([1, 2], num_workers=1, collate_fn=fail), seed=1, stream="train")
    source.open(0)
    with pytest.raises(ZeroDivisionError):
        source.next()
    source.close()


def fail(samples):
    return samples[0] / 0


def test_the_signal_mask_is_as_before():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    source = make_source(DataLoader(range(4), num_workers=1), seed=1, stream="train")
    source.open(0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    source.close()


def script(body):
    """A process of its own session, so that signals can be sent to its group."""
    text = textwrap.dedent(
        """
        import os, signal, sys, time, torch
        from torch.utils.data import DataLoader, Dataset
        from mtf_trainer.data import make_source

        class Pids(Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, index):
                if index >= 4 and os.path.exists(sys.argv[1]):
                    time.sleep(1000)
                return torch.tensor([index, os.getpid()])

        """
    ) + textwrap.dedent(body)
    return lambda *args: subprocess.Popen(
        [sys.executable, "-c", text, *map(str, args)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_workers_survive_signals_to_their_whole_group(tmp_path):
    run = script(
        """
        for name in ("SIGTERM", "SIGUSR1", "SIGINT", "SIGALRM"):
            signal.signal(signal.Signals[name], lambda *_: None)
        print("ready", flush=True)
        for persistent in (False, True):
            loader = DataLoader(Pids(), batch_size=2, num_workers=2, persistent_workers=persistent)
            source = make_source(loader, seed=1, stream="train")
            for epoch in range(6):
                source.open(epoch)
                seen = [index for _ in range(4) for index in source.next()[:, 0].tolist()]
                assert seen == list(range(8)), seen
            source.close()
        print("whole", flush=True)
        os._exit(0)  # an interpreter that shuts down has no handlers any more
        """
    )
    with run(tmp_path / "absent") as process:
        assert process.stdout.readline() == "ready\n"
        sent = 0
        while process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM):
                os.killpg(process.pid, number)
                sent += 1
            time.sleep(0.001)
        assert process.stdout.read() == "whole\n"
        assert process.returncode == 0
        assert sent > 20


@pytest.mark.skipif(sys.platform != "linux", reason="a request to the Linux kernel")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_parent_that_was_killed_even_in_the_middle_of_a_fetch(tmp_path, method):
    run = script(
        f"""
        if __name__ == "__main__":
            data = Pids() if {method!r} == "fork" else torch.utils.data.TensorDataset(torch.arange(64))
            source = make_source(
                DataLoader(data, num_workers=2, multiprocessing_context={method!r}), seed=1, stream="train"
            )
            source.open(0)
            source.next()
            print(*(worker.pid for worker in source._iterator._workers), flush=True)
            time.sleep(1000)
        """
    )
    slow = tmp_path / "slow"
    slow.touch()
    with run(slow) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        process.kill()
        wait_until(lambda: all(gone(pid) for pid in pids))


def test_a_process_ends_while_its_workers_are_in_the_middle_of_a_fetch(tmp_path):
    run = script(
        """
        source = make_source(DataLoader(Pids(), num_workers=1), seed=1, stream="train")
        source.open(0)
        for _ in range(4):
            pid = int(source.next()[0, 1])
        print(pid, flush=True)
        raise SystemExit(75)
        """
    )
    slow = tmp_path / "slow"
    slow.touch()
    with run(slow) as process:
        pid = int(process.stdout.readline())
        assert process.wait(DEADLINE_S) == 75
        wait_until(lambda: gone(pid))
