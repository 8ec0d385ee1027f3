"""Where the files of a cluster lie: all of them in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtf_slurm.testing.errors import ClusterError

__all__ = ["MAX_FOLDER_BYTES", "Layout"]

# sockaddr_un takes 107 bytes and a NUL. The longest name is that of a job step's socket below the folder, such as
# /spool/node64/node64_67108863.4294967291 (the highest job id, the step of the batch script).
MAX_FOLDER_BYTES: Final = 107 - len("/spool/node64/node64_67108863.4294967291")


@dataclass(frozen=True)
class Layout:
    """The paths below a cluster's folder.

    Attributes:
        root: the folder; absolute, without symbolic links.
    """

    root: Path

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """The layout of a folder that need not exist yet.

        Raises:
            ClusterError: the folder's path is too long for the sockets in it, or holds what slurm.conf cannot.
        """
        root = folder.resolve()
        length = len(str(root).encode())
        if length > MAX_FOLDER_BYTES:
            raise ClusterError(
                f"{root}: a path of {length} bytes is too long for the Unix sockets below it; choose a folder with a "
                f"path of at most {MAX_FOLDER_BYTES} bytes"
            )
        # slurm.conf has no quoting: blanks end a value, commas and brackets list, % stands for a pattern
        if bad := sorted(set(str(root)) & set(" \t\n#,=[]%\"'\\")):
            raise ClusterError(f"{root}: slurm.conf cannot hold a path with {''.join(bad)!r}; choose another folder")
        return cls(root)

    @property
    def description(self) -> Path:
        """What `LocalCluster.attach` reads."""
        return self.root / "cluster.json"

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens."""
        return self.root / "keeper.sock"

    @property
    def etc(self) -> Path:
        """The folder of the configuration files."""
        return self.root / "etc"

    @property
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF names."""
        return self.etc / "slurm.conf"

    @property
    def munge_key(self) -> Path:
        """The secret that the daemons share."""
        return self.etc / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """Where munged listens."""
        return self.root / "munge" / "socket"

    @property
    def database(self) -> Path:
        """The data folder of the database."""
        return self.root / "database"

    @property
    def database_socket(self) -> Path:
        """Where the database listens."""
        return self.root / "run" / "mariadb"

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.root / "logs"

    def folders(self, nodes: int) -> list[Path]:
        """Every folder that must exist before the daemons start, parents first."""
        below = ("etc", "munge", "run", "state", "spool", "logs", "gpus", "database/mysql")
        return [self.root / name for name in below] + [self.root / "spool" / f"node{n}" for n in range(1, nodes + 1)]
