"""Files that are written in pieces, past the page cache or through it, and disks that fail meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_trainer.checkpoint import CheckpointStore, Kind, Snapshot, read_checkpoint, writing
from mtf_trainer.checkpoint.deadline import Deadline
from mtf_trainer.checkpoint.writing import MemberWriter, write_member
from mtf_trainer.errors import CheckpointError
from mtf_utils.sections import CheckpointConfig

KEEP_ALL = CheckpointConfig(keep_last=1000)
SMALL = 4096
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module", params=["disk", "memory"])
def folder(request, tmp_path_factory):
    """On a file system of a disk, which is written to directly, or on one without a device."""
    if request.param == "disk":
        yield tmp_path_factory.mktemp("files")
        return
    if not MEMORY.is_dir():
        pytest.skip("there is no file system in memory")
    path = Path(tempfile.mkdtemp(dir=MEMORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def set_piece(monkeypatch):
    return lambda size: monkeypatch.setattr(writing, "PIECE", size)


def content(size):
    return bytes(index * 31 % 251 for index in range(size))


def is_direct(path):
    """Whether this process has the file open for direct writes."""
    for link in Path("/proc/self/fd").iterdir():
        if os.path.realpath(link) == str(path):
            status = Path(f"/proc/self/fdinfo/{link.name}").read_text()
            return bool(int(status.split("flags:")[1].split()[0], 8) & os.O_DIRECT)
    raise AssertionError(f"{path} is not open")


# 1000 is no size that a disk takes: the first direct write is refused, and the page cache takes over.
@pytest.mark.parametrize("piece", [SMALL, 1000])
@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.one_of(st.integers(0, 3 * SMALL), st.sampled_from([SMALL - 1, SMALL, SMALL + 1])), max_size=6))
def test_what_was_written_in_any_portions_is_there(folder, piece, sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "PIECE", piece)
        parts = [content(size) for size in sizes]
        path, deadline = folder / "file", Deadline(None)
        with MemberWriter(path, deadline) as writer:
            hashes = [writer.write(part) for part in parts]
            entry = writer.finish()
        found = path.read_bytes()
        path.unlink()
    assert found == b"".join(parts)
    assert deadline.written == entry.size == len(found)
    assert entry.xxh3 == xxhash.xxh3_128_hexdigest(found)
    assert hashes == [xxhash.xxh3_128_hexdigest(part) for part in parts]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT") or not Path("/proc/self/fdinfo").is_dir(), reason="needs Linux")
def test_whole_pieces_bypass_the_page_cache_where_there_is_a_disk(folder, set_piece):
    set_piece(SMALL)
    path = folder / "file"
    with MemberWriter(path, Deadline(None)) as writer:
        writer.write(content(3 * SMALL + 5))
        on_disk = os.major(path.stat().st_dev) != 0
        assert is_direct(path) == on_disk
        writer.finish()
        assert not is_direct(path)
    path.unlink()


def test_a_long_file_is_flushed_on_the_way(folder, set_piece, monkeypatch):
    set_piece(SMALL)
    monkeypatch.setattr(writing, "_FLUSHED", 3 * SMALL)
    monkeypatch.setattr(writing, "_WAITING", 7 * SMALL)
    data = content(40 * SMALL + 1)
    entry = write_member(folder / "file", data, Deadline(None))
    assert entry.xxh3 == xxhash.xxh3_128_hexdigest(data)
    assert (folder / "file").read_bytes() == data
    (folder / "file").unlink()


def test_nothing_is_written_after_the_time_is_up(folder, set_piece):
    set_piece(SMALL)
    now = [0.0]
    deadline = Deadline(1.0, clock=lambda: now[0])
    path = folder / "file"
    with MemberWriter(path, deadline) as writer:
        writer.write(content(4 * SMALL))
        now[0] = 2.0
        with pytest.raises(CheckpointError, match="not durable within 1 s"):
            writer.write(content(4 * SMALL))
    assert path.stat().st_size <= 4 * SMALL
    path.unlink()


class Disk:
    """A small file system on a device that can be made to fail."""

    def __init__(self, place):
        self.place = place
        self.mounted = place / "mounted"
        self._image = place / "memory" / "image"
        self._fill = place / "memory" / "fill"

    def mount(self):
        self.mounted.mkdir()
        self._image.parent.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", self._image.parent)
        with self._image.open("wb") as file:
            file.truncate(96 << 20)
        # One group of blocks without a journal: what the file system says of itself lies at the beginning, and exists.
        options = ["-b", "4096", "-O", "^has_journal", "-E", "lazy_itable_init=0,nodiscard", "-m", "0"]
        run("mkfs.ext4", "-q", "-F", *options, self._image)
        run("mount", "-o", "loop", self._image, self.mounted)

    def fill(self):
        """Let the device run out of memory."""
        with self._fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))

    def shrink(self):
        """Cut off the end of the device."""
        self._resize(8 << 20)

    def heal(self):
        self._fill.unlink(missing_ok=True)
        self._resize(96 << 20)

    def _resize(self, size):
        os.truncate(self._image, size)
        run("losetup", "-c", run("losetup", "-j", self._image, "-n", "-O", "NAME").strip())

    def unmount(self):
        for path in (self.mounted, self._image.parent):
            subprocess.run(["umount", path], check=False, capture_output=True)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path)
    try:
        made.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        made.unmount()
        pytest.skip(f"a file system on a loop device cannot be made here: {error}")
    yield made
    made.unmount()


def snapshot(step, size):
    weight = torch.full((size // 4,), float(step))
    return Snapshot({"step": step}, {"model": {"weight": weight}}, 0, step, steady=[weight])


# Whole pieces fail when they are written; less than one lies in the page cache until the sync.
@pytest.mark.parametrize("size", [30 << 20, 3 << 20], ids=["write", "sync"])
@pytest.mark.parametrize(("harm", "fault"), [("fill", "No space left on device"), ("shrink", "Input/output error")])
def test_a_device_that_fails_is_an_error_in_the_loop_and_leaves_the_rest_intact(disk, size, harm, fault):
    directory = disk.mounted / "checkpoints"
    with CheckpointStore(directory, KEEP_ALL, run_id="run") as store:
        first = store.save(snapshot(1, 1 << 20), kind=Kind.PERIODIC)
        (disk.mounted / "ballast").write_bytes(bytes(7 << 20))  # what comes now lies beyond the device's new end
        os.sync()
        getattr(disk, harm)()
        with pytest.raises(CheckpointError, match=rf"cannot write .*model\.safetensors: {fault}"):
            store.save(snapshot(2, size), kind=Kind.PERIODIC)
        store.save_in_background(snapshot(3, size), kind=Kind.PERIODIC)
        store.join_copies()
        while store.is_saving:
            os.sched_yield()
        with pytest.raises(CheckpointError, match=rf"cannot write .*model\.safetensors: {fault}"):
            store.check()
        assert store.paths() == [first]
        assert read_checkpoint(first).sections["model"]["weight"].eq(1).all()
        disk.heal()
        second = store.save(snapshot(4, 1 << 20), kind=Kind.PERIODIC)
        assert store.paths() == [first, second]
        assert store.newest().global_step == 4
