"""The daemons of a cluster: their command lines, environments and logs."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from typing import Final

from mtf_slurm.testing.layout import Layout
from mtf_slurm.testing.programs import program, search_path
from mtf_slurm.testing.settings import ClusterSettings

__all__ = ["ACCOUNTING", "CONTROLLER", "DATABASE", "MUNGE", "Daemon", "daemons", "user_name"]

MUNGE: Final = "munged"
CONTROLLER: Final = "slurmctld"
ACCOUNTING: Final = "slurmdbd"
DATABASE: Final = "mariadbd"

# What a daemon gets of this process's environment. Anything else, such as SLURM_* of a job that the tests run in,
# would find its way into the cluster.
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "TMPDIR", "TZ", "USER")


@dataclass(frozen=True)
class Daemon:
    """A program that runs as long as the cluster does.

    Attributes:
        name: what it is called; its log is `<name>.log`, what it prints goes into `<name>.out`.
        argv: the command line, which keeps it in the foreground.
        environ: its whole environment.
    """

    name: str
    argv: list[str]
    environ: dict[str, str] = field(default_factory=dict)


def daemons(settings: ClusterSettings, layout: Layout) -> dict[str, Daemon]:
    """The daemons by name, in the order in which they start.

    Raises:
        ClusterUnavailableError: one of the programs is not installed.
    """
    environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environ |= {"PATH": search_path(), "SLURM_CONF": str(layout.slurm_conf)}
    listed = [Daemon(MUNGE, _munged(layout), environ)]
    if settings.accounting:
        listed.append(Daemon(DATABASE, _mariadbd(layout), environ))
        listed.append(Daemon(ACCOUNTING, [program(ACCOUNTING), "-D"], environ | _database_socket(layout)))
    listed.append(Daemon(CONTROLLER, [program(CONTROLLER), "-D"], environ))
    for number in range(1, settings.nodes + 1):
        listed.append(Daemon(f"node{number}", [program("slurmd"), "-D", "-N", f"node{number}"], environ))
    return {daemon.name: daemon for daemon in listed}


def user_name() -> str:
    """The user whom the daemons run as, which is this process's; a number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _munged(layout: Layout) -> list[str]:
    return [
        program(MUNGE),
        "--foreground",
        "--force",  # it would rather have its files in folders that only root may write to
        f"--key-file={layout.munge_key}",
        f"--socket={layout.munge_socket}",
        f"--pid-file={layout.root}/run/munged.pid",
        f"--log-file={layout.logs}/{MUNGE}.log",
        f"--seed-file={layout.root}/munge/seed",
        "--num-threads=4",
    ]


def _mariadbd(layout: Layout) -> list[str]:
    """No network, no users and no durability: its only client reaches it through a socket in the cluster's folder."""
    return [
        program(DATABASE),
        "--no-defaults",
        f"--user={user_name()}",
        f"--datadir={layout.database}",
        f"--socket={layout.database_socket}",
        f"--pid-file={layout.root}/run/mariadbd.pid",
        f"--log-error={layout.logs}/{DATABASE}.log",
        "--skip-networking",
        "--skip-grant-tables",
        "--skip-log-bin",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--innodb-doublewrite=OFF",
        "--debug-no-sync",
        "--sync-frm=OFF",
        "--innodb-buffer-pool-load-at-startup=OFF",
    ]


def _database_socket(layout: Layout) -> dict[str, str]:
    return {"MYSQL_UNIX_PORT": str(layout.database_socket)}
