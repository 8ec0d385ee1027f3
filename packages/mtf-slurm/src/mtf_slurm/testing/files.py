"""Write what the daemons of a cluster read before they start."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Final

from mtf_slurm.testing import configuration
from mtf_slurm.testing.daemons import user_name
from mtf_slurm.testing.errors import ClusterError
from mtf_slurm.testing.layout import Layout
from mtf_slurm.testing.programs import run_command
from mtf_slurm.testing.settings import ClusterSettings

__all__ = ["prepare_folder", "write_files"]

MUNGE_KEY_BYTES: Final = 128


def prepare_folder(layout: Layout, nodes: int) -> None:
    """Make the folder and what belongs in it; what an earlier cluster left there is removed.

    Raises:
        ClusterError: there are files in the folder that no cluster has made.
    """
    root = layout.root
    try:
        found = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        found = set()
    except NotADirectoryError as error:
        raise ClusterError(f"{root} is not a folder") from error
    own = {folder.relative_to(root).parts[0] for folder in layout.folders(0)}
    own |= {layout.description.name, layout.keeper_socket.name}
    if found and (layout.description.name not in found or found - own):
        strange = ", ".join(sorted(found - own)[:5] or sorted(found)[:5])
        raise ClusterError(f"{root} holds files that are not a cluster's ({strange}); choose an empty or a new folder")
    for name in found:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # nobody else has any business here: the key of munged lets its holder run jobs as the cluster's user
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.geteuid():
        raise ClusterError(f"{root} belongs to another user; choose a folder of your own")
    for folder in layout.folders(nodes):
        folder.mkdir(parents=True, exist_ok=True)


def write_files(settings: ClusterSettings, layout: Layout, first_port: int) -> None:
    """Write the configuration, munge's key and the devices of the pretended GPUs."""
    user = user_name()
    _write(layout.slurm_conf, configuration.slurm_conf(settings, layout, first_port, user))
    _write(layout.etc / "gres.conf", configuration.gres_conf(settings, layout))
    _write(layout.etc / "cgroup.conf", configuration.cgroup_conf(_slurm_version()))
    _write(layout.etc / "plugstack.conf", "")
    if settings.accounting:
        _write(layout.etc / "slurmdbd.conf", configuration.slurmdbd_conf(layout, first_port, user))
    layout.munge_key.touch(mode=0o600)
    layout.munge_key.write_bytes(secrets.token_bytes(MUNGE_KEY_BYTES))
    for number in range(settings.gpus):
        # only for a character device does Slurm set CUDA_VISIBLE_DEVICES; where a link leads is what counts
        (layout.root / "gpus" / f"gpu{number}").symlink_to("/dev/null")


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)  # slurmdbd reads its file only if nobody else can
    path.write_text(text, encoding="utf-8")


def _slurm_version() -> tuple[int, int]:
    said = run_command(["slurmctld", "-V"]).stdout
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None:
        raise ClusterError(f"slurmctld -V says {said!r}, which names no version")
    return int(match[1]), int(match[2])
