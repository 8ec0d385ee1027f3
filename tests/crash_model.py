"""What a crash may leave of a folder: the system calls of a process, recorded, and every state that they allow.

A killed process leaves what its calls did so far. A machine that loses power may also lose whatever was not synced:
bytes of files since their last fsync, and names in folders since the folder's. Names of one folder are lost from
the newest on, as a journal does it; what happens in one folder or file says nothing about another.

Source: fsync(2), and T. S. Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, on what may be lost.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "openat,open,creat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat"
CALLS += ",unlink,unlinkat,rmdir"
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?.*$")


@dataclass(frozen=True)
class Op:
    """One call that changed the folder, or made a change durable."""

    name: str
    path: str
    target: str = ""
    count: int = 0


def record(command: list[str], folder: Path, log: Path) -> list[Op]:
    """Run a command and return what it did below `folder`, in order."""
    subprocess.run(
        ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", log, *command],
        check=True,
        capture_output=True,
        timeout=240,
    )
    ops = []
    for line in _joined(log.read_text()):
        found = _LINE.match(line)
        if found and int(found[3]) >= 0:
            ops += _parse(found[1], found[2], int(found[3]), found[4] or "")
    return [op for op in ops if op.path.startswith(f"{folder}/") or op.path == str(folder)]


def _joined(text: str) -> list[str]:
    """The lines, with calls put together that another thread's call has cut in two."""
    begun: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif found := re.match(r"^\d+ +<\.\.\. \w+ resumed>(.*)$", line):
            lines.append(begun.pop(pid) + found[1])
        else:
            lines.append(line)
    return lines


def _parse(name: str, arguments: str, result: int, opened: str) -> list[Op]:
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)
    descriptor = re.match(r"(?:AT_FDCWD|\d+)<([^>]*)>", arguments)
    base = descriptor[1] if descriptor else ""

    def place(text: str) -> str:
        return text if text.startswith("/") else f"{base}/{text}"

    if name in ("openat", "open", "creat"):
        return [Op("create", opened)] if "O_CREAT" in arguments else []
    if name in ("write", "pwrite64"):
        return [Op("write", base, count=result)]
    if name == "ftruncate":
        return [Op("truncate", base, count=int(arguments.rsplit(",", 1)[1]))]
    if name in ("fsync", "fdatasync"):
        return [Op("sync", base)]
    if name.startswith("rename"):
        return [Op("rename", place(quoted[0]), place(quoted[1]))]
    if name.startswith("mkdir"):
        return [Op("mkdir", place(quoted[0]))]
    removes_folder = name == "rmdir" or "AT_REMOVEDIR" in arguments
    return [Op("rmdir" if removes_folder else "unlink", place(quoted[0]))]


@dataclass
class _File:
    """A file: how much of its content is there, and how much of that is durable."""

    content: bytes
    length: int = 0
    durable: int = 0


@dataclass
class _Folder:
    """A folder: its entries as they are, and what was done to them since the last sync."""

    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, changes: dict[str, _File | _Folder | None]) -> None:
        _apply(self.entries, changes)
        self.pending.append(changes)

    def surviving(self, kept: int) -> dict[str, _File | _Folder]:
        entries = dict(self.durable)
        for changes in self.pending[:kept]:
            _apply(entries, changes)
        return entries


def _apply(entries: dict[str, _File | _Folder], changes: dict[str, _File | _Folder | None]) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """A folder as recorded calls change it.

    Args:
        before: the folder before the calls; all of it is durable.
        after: the folder after all of them; what is written has the content that it has there.
        root: the path that the calls were recorded under.
    """

    def __init__(self, before: Path, after: Path, root: Path) -> None:
        self._after = after
        self._root = str(root)
        self._written: dict[str, bytes] = {}
        self._top = self._load(before)

    def _load(self, path: Path) -> _Folder:
        folder = _Folder()
        for entry in path.iterdir():
            content = b"" if entry.is_dir() else entry.read_bytes()
            node = self._load(entry) if entry.is_dir() else _File(content, len(content), len(content))
            folder.entries[entry.name] = folder.durable[entry.name] = node
        return folder

    def apply(self, op: Op, final: dict[str, bytes], *, torn: int | None = None) -> None:
        """Do what a call did; of a write only `torn` bytes, if given. `final` has the content of each file opened."""
        folder, name = self._find(op.path)
        if op.name == "create":
            if name not in folder.entries:
                folder.change({name: _File(final.get(op.path, b""))})
        elif op.name == "mkdir":
            folder.change({name: _Folder()})
        elif op.name in ("unlink", "rmdir"):
            folder.change({name: None})
        elif op.name == "rename":
            target, new = self._find(op.target)
            assert target is folder
            folder.change({name: None, new: folder.entries[name]})
        elif op.name == "sync":
            node = folder.entries[name] if name else folder
            if isinstance(node, _File):
                node.durable = node.length
            else:
                node.durable, node.pending = dict(node.entries), []
        else:
            node = folder.entries[name]
            assert isinstance(node, _File)
            node.length = op.count if op.name == "truncate" else node.length + (op.count if torn is None else torn)

    def _find(self, path: str) -> tuple[_Folder, str]:
        folder, parts = self._top, Path(path).relative_to(self._root).parts
        for part in parts[:-1]:
            inner = folder.entries[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1] if parts else ""

    def write_to(self, path: Path, *, names: random.Random | float, data: bool) -> None:
        """Make a real folder of what is left.

        Args:
            path: is replaced.
            names: which part of the unsynced changes to names survives: 0 none, 1 all, or drawn for each folder.
            data: whether unsynced bytes survive.
        """
        shutil.rmtree(path, ignore_errors=True)
        self._restore(self._top, path, names, data)

    def _restore(self, folder: _Folder, path: Path, names: random.Random | float, data: bool) -> None:
        path.mkdir()
        share = names if isinstance(names, float) else names.random()
        for name, node in folder.surviving(round(share * len(folder.pending))).items():
            if isinstance(node, _Folder):
                self._restore(node, path / name, names, data)
            else:
                (path / name).write_bytes(node.content[: node.length if data else node.durable])
