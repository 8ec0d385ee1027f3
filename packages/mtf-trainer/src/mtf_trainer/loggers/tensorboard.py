"""Records as an event file of TensorBoard."""

from __future__ import annotations

import importlib
import os
import struct
import time
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from mtf_trainer.errors import TrainerError
from mtf_trainer.loggers.protocol import LogRecord, metrics_of
from mtf_utils.atomic import write_bytes
from mtf_utils.rundir import read_metrics

__all__ = ["TensorBoardLogger"]

PREFIX: Final = "events.out.tfevents."
HEADER: Final = 2
"""Events before the first record: the version of the format, and the start of a session at step 0."""

INSTALL: Final = 'install it with `pip install "mtf-trainer[tensorboard]"`, or set logging.use_tensorboard to false'


class TensorBoardLogger:
    """Writes one event file into the folder `tensorboard` beside the journal; `tensorboard --logdir` finds it.

    Every record is one event, so that a process that continues a run knows where to cut the file: behind the record
    that its checkpoint counts on. What is lost with the end of a file comes back out of the journal. A file that must
    be cut is replaced by one of a new name and emptied: a TensorBoard that looks on has read beyond the cut, forgets
    what it knows, and begins with the new one. An empty file goes when the next process starts: TensorBoard would wait
    for a file that it reads and that is gone.

    Raises:
        TrainerError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            self._events: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
            self._summaries: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            self._writers: Any = importlib.import_module("tensorboard.summary.writer.record_writer")
        except ImportError as error:
            message = f"logging.use_tensorboard: tensorboard cannot be imported ({error}); {INSTALL}"
            raise TrainerError(message) from error
        self._journal = Path()
        self._file: BinaryIO | None = None

    def open(self, journal: Path, position: int | None) -> None:
        """See `MetricLogger.open`."""
        self.close()
        self._journal = journal
        folder = journal.parent / "tensorboard"
        folder.mkdir(exist_ok=True)
        files = sorted(folder.glob(f"{PREFIX}*"))
        for emptied in [file for file in files if not file.stat().st_size]:
            emptied.unlink()
            files.remove(emptied)
        for older in files[:-1]:  # its cut was under way when a process was killed
            os.truncate(older, 0)
        newest = files[-1] if files else None
        events, end = (0, 0) if newest is None or position is None else _first_events(newest, HEADER + position)
        if events < HEADER:
            events, end = 0, 0
        self._file = self._continued(folder, newest, end).open("ab", buffering=0)
        if events == 0:
            self._begin()
        for record in islice(read_metrics(journal), max(events - HEADER, 0), position) if position else ():
            self.log(record)

    @staticmethod
    def _continued(folder: Path, newest: Path | None, end: int) -> Path:
        """The file to write to, with the first `end` bytes of the newest one."""
        if newest is None:
            return folder / f"{PREFIX}{0:010d}"
        if newest.stat().st_size == end:
            return newest
        path = folder / f"{PREFIX}{int(newest.name.removeprefix(PREFIX)) + 1:010d}"
        with newest.open("rb") as file:
            write_bytes(path, file.read(end))
        os.truncate(newest, 0)
        return path

    def _begin(self) -> None:
        now, start = time.time(), self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(self._events.Event(wall_time=now, file_version="brain.Event:2"))
        self._write(self._events.Event(wall_time=now, session_log=start))  # who read another file forgets it

    def log(self, record: LogRecord) -> None:
        """See `MetricLogger.log`."""
        summary = self._summaries.Summary()
        if record["event"] == "image":
            self._add_image(summary, record)
        else:
            for name, value in metrics_of(record).items():
                summary.value.add(tag=name, simple_value=value)
        self._write(self._events.Event(wall_time=record["time"], step=record["step"], summary=summary))

    def _add_image(self, summary: Any, record: LogRecord) -> None:
        data = (self._journal.parent / str(record["file"])).read_bytes()
        width, height, _, kind = struct.unpack_from(">IIBB", data, 16)  # of the PNG header
        channels = {0: 1, 4: 2, 2: 3, 6: 4}[kind]
        image = self._summaries.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=data
        )
        summary.value.add(tag=str(record["name"]), image=image)

    def _write(self, event: Any) -> None:
        self._writers.RecordWriter(self._file).write(event.SerializeToString())

    def close(self) -> None:
        """See `MetricLogger.close`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _first_events(path: Path, limit: int) -> tuple[int, int]:
    """How many whole events a file has, at most `limit`, and where the last of them ends.

    Source: TensorFlow's TFRecord format: length (8 bytes), its checksum (4), data, its checksum (4).
    """
    size, end, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while count < limit:
            header = file.read(12)
            if len(header) < 12:
                break
            following = end + 16 + int(struct.unpack("<Q", header[:8])[0])
            if following > size:
                break
            file.seek(following)
            end, count = following, count + 1
    return count, end
