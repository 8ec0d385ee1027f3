"""The manifest: what a checkpoint is and which bytes belong to it, itself guarded by a hash."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mtf_trainer.checkpoint.decoding import decode
from mtf_trainer.checkpoint.encoding import encode
from mtf_trainer.checkpoint.faults import damaged
from mtf_trainer.checkpoint.files import FileEntry, MemberReader, digest, is_member_name
from mtf_trainer.checkpoint.strictjson import dumps, loads
from mtf_trainer.errors import CheckpointError

__all__ = [
    "FORMAT",
    "MANIFEST",
    "RESUME",
    "Kind",
    "Manifest",
    "check_section",
    "folder_name",
    "parse_folder_name",
    "parse_manifest",
    "read_manifest",
    "section_files",
]

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
RESUME: Final = "resume.json"

_MAX_MANIFEST = 1 << 30
_NO_HASH = "0" * 32
_TAIL = re.compile(rb'"hash": "([0-9a-f]{32})"\n}\n\Z')
_TAIL_LENGTH = len('"hash": ""\n}\n') + 32
_FOLDER = re.compile(r"ckpt-([0-9]{6,18})-step-([0-9]{8,18})")
_SECTION = re.compile(r"[a-z][a-z0-9_]{0,60}")


class Kind(enum.StrEnum):
    """Why a checkpoint was made."""

    INITIAL = "initial"
    PERIODIC = "periodic"
    EMERGENCY = "emergency"
    MANUAL = "manual"
    FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
        kind: why it was made.
        sequence: its place among the checkpoints of its folder; grows with every save.
        global_step: optimizer steps taken.
        epoch: the epoch that the run was in, from 0.
        metric: the value of `checkpoint.monitor` for this state; None if it was not validated.
        run_id: the run that wrote it.
        pinned: whether it is kept whatever the retention rules say.
        created_at: when it was made, UTC.
        sections: the names of its parts.
        files: every file but the manifest, by name.
        versions: the software that wrote it.
        fingerprint: what has to agree for a run to continue from it.
    """

    kind: Kind
    sequence: int
    global_step: int
    epoch: int
    metric: float | None
    run_id: str
    pinned: bool
    created_at: str
    sections: tuple[str, ...]
    files: dict[str, FileEntry]
    versions: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The manifest as a file."""
        files = {
            name: {"size": entry.size, "xxh3": entry.xxh3}
            | ({} if entry.tensors is None else {"tensors": entry.tensors})
            for name, entry in self.files.items()
        }
        plain = {"format": FORMAT} | vars(self)
        plain |= {"kind": str(self.kind), "sections": list(self.sections), "files": files}
        tree, tensors = encode(plain, where="manifest")
        if tensors:
            raise CheckpointError(f"a manifest holds plain data, not tensors or arrays: {next(iter(tensors))!r}")
        return _seal(dumps(tree | {"hash": _NO_HASH}))


def _seal(data: bytes) -> bytes:
    """Put the hash of `data` where its last zeros are."""
    head, tail = data[:-_TAIL_LENGTH], data[-_TAIL_LENGTH:]
    return head + tail.replace(_NO_HASH.encode(), digest(data).encode())


def _unseal(path: Path, data: bytes) -> None:
    found = _TAIL.search(data)
    if found is None:
        raise damaged(path, "does not end with its hash; it is incomplete or not a manifest")
    start, end = found.span(1)
    if digest(data[:start] + _NO_HASH.encode() + data[end:]) != found[1].decode():
        raise damaged(path, "its bytes are not those that were written")


def read_manifest(folder: Path) -> Manifest:
    """Read and verify the manifest of a checkpoint; no other file is looked at.

    Raises:
        DamagedCheckpointError: it is missing or not what was written.
        CheckpointError: it cannot be read, or was written by a later release in another format.
    """
    path = folder / MANIFEST
    with MemberReader(path, size=None, limit=_MAX_MANIFEST) as reader:
        data = reader.read(reader.size)
    manifest = parse_manifest(path, data)
    _check_name(folder, manifest)
    return manifest


def parse_manifest(path: Path, data: bytes) -> Manifest:
    """The manifest in the bytes of the file at `path`; raises as `read_manifest` does."""
    _unseal(path, data)
    try:
        plain = decode(loads(data), {})
        if not isinstance(plain, dict):
            raise ValueError("not a JSON object")
        if type(plain["format"]) is int and plain["format"] > FORMAT:
            raise CheckpointError(
                f"{path}: written in format {plain['format']}; this release reads up to {FORMAT}: update mtf-trainer",
                path=path,
            )
        return _from_plain(plain)
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, f"is not a valid manifest: {type(error).__name__}: {error}") from error


def _from_plain(plain: dict[str, Any]) -> Manifest:
    if plain["format"] != FORMAT:
        raise ValueError(f"there is no format {plain['format']!r}")
    metric = plain["metric"]
    if metric is not None and type(metric) is not float:
        raise TypeError(f"metric is {metric!r}")
    manifest = Manifest(
        kind=Kind(plain["kind"]),
        sequence=_number(plain, "sequence"),
        global_step=_number(plain, "global_step"),
        epoch=_number(plain, "epoch"),
        metric=metric,
        run_id=_typed(plain, "run_id", str),
        pinned=_typed(plain, "pinned", bool),
        created_at=_typed(plain, "created_at", str),
        sections=tuple(check_section(name) for name in _typed(plain, "sections", list)),
        files={name: _entry(name, item) for name, item in _typed(plain, "files", dict).items()},
        versions=_typed(plain, "versions", dict),
        fingerprint=_typed(plain, "fingerprint", dict),
    )
    expected = {RESUME, *(section_files(name)[0] for name in manifest.sections)}
    allowed = expected | {section_files(name)[1] for name in manifest.sections}
    if not expected <= manifest.files.keys() <= allowed:
        raise ValueError(f"the files {sorted(manifest.files)} do not fit the sections {list(manifest.sections)}")
    return manifest


def _typed(plain: dict[str, Any], key: str, kind: type[Any]) -> Any:
    if type(plain[key]) is not kind:
        raise TypeError(f"{key} is {plain[key]!r:.80}, not a {kind.__name__}")
    return plain[key]


def _number(plain: dict[str, Any], key: str) -> int:
    value: int = _typed(plain, key, int)
    if value < 0:
        raise ValueError(f"{key} is {value}")
    return value


def _entry(name: str, item: dict[str, Any]) -> FileEntry:
    if not isinstance(name, str) or not is_member_name(name):
        raise ValueError(f"{name!r} cannot be the name of a file inside a checkpoint")
    tensors = item.get("tensors")
    if tensors is not None and not isinstance(tensors, dict):
        raise TypeError(f"the tensors of {name} are {tensors!r:.80}")
    return FileEntry(_number(item, "size"), _typed(item, "xxh3", str), tensors)


def _check_name(folder: Path, manifest: Manifest) -> None:
    """A folder with a checkpoint's name must be that checkpoint; a copy under another name may be called anything."""
    parsed = parse_folder_name(folder.name)
    if parsed is not None and parsed != (manifest.sequence, manifest.global_step):
        original = folder_name(manifest.sequence, manifest.global_step)
        raise damaged(folder, f"holds the checkpoint {original}: the folder was renamed or its content replaced")


def folder_name(sequence: int, global_step: int) -> str:
    """The name of a published checkpoint's folder."""
    return f"ckpt-{sequence:06d}-step-{global_step:08d}"


def parse_folder_name(name: str) -> tuple[int, int] | None:
    """Sequence number and step of a folder that has the name of a published checkpoint, else None."""
    found = _FOLDER.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def section_files(section: str) -> tuple[str, str]:
    """The files of a section: its tree, and its tensors (a file that a section without tensors does not have)."""
    return f"{section}.json", f"{section}.safetensors"


def check_section(name: Any) -> str:
    """The name itself, if it may name a section.

    Raises:
        ValueError: it may not.
    """
    if not isinstance(name, str) or not _SECTION.fullmatch(name) or name in ("manifest", "resume"):
        raise ValueError(
            f"{name!r} cannot name a section: use small letters, digits and '_', and neither 'manifest' nor 'resume'"
        )
    return name
