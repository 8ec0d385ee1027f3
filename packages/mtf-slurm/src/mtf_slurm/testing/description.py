"""What a cluster's folder says about it, for whoever attaches to it later."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mtf_slurm.testing.errors import ClusterError
from mtf_slurm.testing.settings import ClusterSettings
from mtf_utils.atomic import write_json
from mtf_utils.settings import Settings, SettingsError, about

__all__ = ["Description"]


@dataclass(kw_only=True)
class Description(Settings):
    """The content of `cluster.json`."""

    version: int = field(default=1, metadata=about("Version of this schema.", minimum=1, maximum=1))
    settings: ClusterSettings = field(metadata=about("What the cluster pretends to be."))
    first_port: int = field(metadata=about("The controller's port; the others follow.", minimum=1, maximum=65535))
    detached: bool = field(metadata=about("Whether the cluster goes on when the process that started it ends."))
    temporary: bool = field(metadata=about("Whether the folder goes with the cluster."))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            ClusterError: there is none, or it is not one of ours.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ClusterError(f"no cluster was started in {path.parent}") from error
        except (OSError, ValueError, SettingsError) as error:
            raise ClusterError(f"{path} does not describe a cluster: {error}") from error

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.to_dict())
