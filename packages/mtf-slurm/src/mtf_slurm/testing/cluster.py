"""A throw-away Slurm on this host: real daemons, pretended hardware, everything inside one folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mtf_slurm.testing.configuration import CLUSTER_NAME, port_count
from mtf_slurm.testing.connection import KeeperConnection
from mtf_slurm.testing.daemons import ACCOUNTING, CONTROLLER, DATABASE, MUNGE, daemons
from mtf_slurm.testing.description import Description
from mtf_slurm.testing.errors import ClusterError, ClusterUnavailableError
from mtf_slurm.testing.files import prepare_folder, write_files
from mtf_slurm.testing.layout import MAX_FOLDER_BYTES, Layout
from mtf_slurm.testing.output import not_ready, parse_rpc_counts
from mtf_slurm.testing.ports import is_listening, reserve_ports
from mtf_slurm.testing.programs import is_available, run_command, search_path
from mtf_slurm.testing.settings import ClusterSettings

__all__ = ["LocalCluster"]

START_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.01

# Variables that steer Slurm's commands; those of a job that this process itself runs in must not reach the cluster.
_FOREIGN: Final = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_", "SCONTROL_")


class LocalCluster:
    """A Slurm cluster of this process's user on this host, for as long as the `with` block runs.

    It needs no rights, touches nothing outside its folder, and several run side by side. When the process that
    started it is gone, for whatever reason, the cluster and its jobs are ended by the keeper of their processes.

    Args:
        settings: what the cluster pretends to be; None is the default of everything.
        folder: where it lies; afterwards its logs are there. None is a temporary folder that goes with the cluster.
        detached: whether the cluster goes on when this process ends, until `attach(folder).stop()`. Needs a folder.

    Raises:
        ClusterError: the folder's path is too long, or the cluster is detached and has no folder.
    """

    def __init__(
        self, settings: ClusterSettings | None = None, *, folder: str | Path | None = None, detached: bool = False
    ) -> None:
        if detached and folder is None:
            raise ClusterError("a detached cluster needs a folder: by it the cluster is found again")
        self._settings = settings or ClusterSettings()
        self._temporary = folder is None
        self._detached = detached
        self._layout = Layout.of(_temporary_folder() if folder is None else Path(folder))
        self._keeper = KeeperConnection(self._layout)

    @classmethod
    def attach(cls, folder: str | Path) -> Self:
        """The cluster that this or another process started in a folder; `stop` ends it, nothing else does.

        Raises:
            ClusterError: no cluster was started there.
        """
        layout = Layout.of(Path(folder))
        description = Description.read(layout.description)
        cluster = cls(description.settings, folder=layout.root, detached=description.detached)
        cluster._temporary = description.temporary
        return cluster

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def __enter__(self) -> Self:
        if not self.is_up():
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def settings(self) -> ClusterSettings:
        """What the cluster pretends to be."""
        return self._settings

    @property
    def folder(self) -> Path:
        """The absolute path of the cluster's folder."""
        return self._layout.root

    def is_up(self) -> bool:
        """Whether the cluster was started and not stopped; single daemons may be away all the same."""
        return self._keeper.is_up()

    def start(self) -> None:
        """Start every daemon; returns when every node takes jobs.

        Raises:
            ClusterUnavailableError: a program is missing.
            ClusterError: the folder is in use, or a daemon does not come up (with the end of its log).
        """
        if reason := is_available(accounting=self._settings.accounting):
            raise ClusterUnavailableError(reason)
        if self.is_up():
            raise ClusterError(f"a cluster is up in {self.folder} already; attach to it, or stop it first")
        prepare_folder(self._layout, self._settings.nodes)
        try:
            self._start_daemons()
        except BaseException:  # an interrupt, too, must leave nothing behind
            with contextlib.suppress(ClusterError):  # what went wrong first is what matters
                self.stop()
            raise

    def _start_daemons(self) -> None:
        with reserve_ports(port_count(self._settings)) as first_port:
            Description(
                settings=self._settings, first_port=first_port, temporary=self._temporary, detached=self._detached
            ).write(self._layout.description)
            self._keeper.start(owned=not self._detached, remove=self._temporary)
            write_files(self._settings, self._layout, first_port)
            self._start_daemon(MUNGE)
            if self._settings.accounting:
                self._start_daemon(DATABASE)
            self._wait(lambda: is_listening(self._layout.munge_socket), MUNGE)
        if self._settings.accounting:
            self._wait(lambda: is_listening(self._layout.database_socket), DATABASE)
            self.start_accounting()
            # else the controller does so a moment later, and what it says before that is late
            self.run(["sacctmgr", "--immediate", "--quiet", "add", "cluster", CLUSTER_NAME])
        self._start_daemon(CONTROLLER)
        for name in self._node_names():
            self._start_daemon(name)
        self.wait_ready()

    def stop(self) -> None:
        """End every process of the cluster at once, jobs included; nothing happens if there is none.

        A temporary folder is removed; another one keeps its logs, but not the queue.

        Raises:
            ClusterError: a process does not end.
        """
        self._keeper.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use the cluster: SLURM_CONF, and a PATH with the daemons."""
        return {"SLURM_CONF": str(self._layout.slurm_conf), "PATH": search_path()}

    def run(
        self,
        words: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        text_in: str = "",
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the cluster, as from a login node; its output is captured as text.

        Args:
            words: the command and its arguments, such as `["sbatch", "--parsable", "job.sh"]`.
            check: whether an exit status other than 0 is an error.
            timeout_s: after this long the command is killed, which is an error.
            text_in: what it reads from its standard input; sbatch takes its script from there.
            cwd: the working directory; None is the cluster's folder.
            environ: variables beside those of `environment` and of this process, whose own SLURM_* are left out.

        Raises:
            ClusterError: the command is not there, failed or took too long.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        done = run_command(
            words,
            environ=inherited | self.environment() | dict(environ or {}),
            cwd=cwd or self.folder,
            text_in=text_in,
            timeout_s=timeout_s,
        )
        if check and done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
            raise ClusterError(f"{' '.join(words)}: status {done.returncode}: {said}")
        return done

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when the controller answers and every node takes jobs.

        Raises:
            ClusterError: a daemon has ended, or that took too long.
        """
        self._wait(lambda: is_listening(self._first_port()), CONTROLLER, timeout_s=timeout_s)
        self._wait(lambda: self._not_ready() is None, CONTROLLER, *self._node_names(), timeout_s=timeout_s)

    def _not_ready(self) -> str | None:
        done = self.run(["sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %t"], check=False)
        return not_ready(done.stdout, self._settings.nodes) if done.returncode == 0 else done.stderr.strip()

    def freeze_controller(self) -> None:
        """Stop the controller in its tracks (SIGSTOP): connections are taken and requests queued, none is answered."""
        self._keeper.ask("signal", name=CONTROLLER, signal=signal.SIGSTOP)

    def thaw_controller(self) -> None:
        """Let a frozen controller go on (SIGCONT), with what was asked meanwhile."""
        self._keeper.ask("signal", name=CONTROLLER, signal=signal.SIGCONT)

    def kill_controller(self) -> None:
        """End the controller with SIGKILL; what it had not written to its state yet is lost."""
        self._keeper.ask("kill", name=CONTROLLER)

    def start_controller(self) -> None:
        """Start the controller again, from the state that it left; returns when every node takes jobs."""
        self._start_daemon(CONTROLLER)
        self._wait(lambda: is_listening(self._first_port()), CONTROLLER)
        for name in self._node_names():
            # they report at once, where they would wait for seconds to be asked. Source: slurmd(8)
            self._keeper.ask("signal", name=name, signal=signal.SIGHUP)
        self.wait_ready()

    def stop_accounting(self) -> None:
        """End slurmdbd with SIGKILL: sacct fails, the controller keeps what it has to tell."""
        self._need_accounting()
        self._keeper.ask("kill", name=ACCOUNTING)

    def start_accounting(self) -> None:
        """Start slurmdbd again; returns when it answers."""
        self._need_accounting()
        self._start_daemon(ACCOUNTING)
        self._wait(lambda: is_listening(self._first_port() + 1), ACCOUNTING, DATABASE)

    def logs(self) -> dict[str, Path]:
        """The log of each daemon that has written one; the nodes' have their names."""
        found = {path.stem: path for path in sorted(self._layout.logs.glob("*.out")) if path.stat().st_size}
        return found | {path.stem: path for path in sorted(self._layout.logs.glob("*.log")) if path.stat().st_size}

    def log_tail(self, name: str, lines: int = 20) -> str:
        """The last lines of a daemon's log; empty when it has written none.

        Args:
            name: such as `slurmctld`, `node1`, `munged`, `slurmdbd`, `mariadbd`.
            lines: how many.
        """
        path = self.logs().get(name)
        return "" if path is None else "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])

    def rpc_counts(self) -> dict[str, int]:
        """How many requests of each kind, such as REQUEST_SUBMIT_BATCH_JOB, the controller has had (sdiag)."""
        return parse_rpc_counts(self.run(["sdiag"]).stdout)

    def reset_rpc_counts(self) -> None:
        """Let `rpc_counts` begin at nothing again."""
        self.run(["sdiag", "--reset"])

    def _node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self._settings.nodes + 1)]

    def _first_port(self) -> int:
        return Description.read(self._layout.description).first_port

    def _need_accounting(self) -> None:
        if not self._settings.accounting:
            raise ClusterError("this cluster has no accounting; ask for it with ClusterSettings(accounting=True)")

    def _start_daemon(self, name: str) -> None:
        daemon = daemons(self._settings, self._layout)[name]
        output = str(self._layout.logs / f"{name}.out")
        self._keeper.ask("start", name=name, argv=daemon.argv, environ=daemon.environ, output=output)

    def _wait(self, condition: Callable[[], bool], *names: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Poll until the condition holds; an error as soon as one of the daemons has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = self._keeper.ask("state")["ended"]
            for name in names:
                if name in ended:
                    raise ClusterError(f"{name} ended with status {ended[name]}; {self._end_of_log(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{names[0]} is not ready after {timeout_s:g} s; {self._end_of_log(names[0])}")
            time.sleep(POLL_S)

    def _end_of_log(self, name: str) -> str:
        tail = self.log_tail(name)
        return f"its log ends with:\n{tail}" if tail else "it has logged nothing"


def _temporary_folder() -> Path:
    """A folder that does not exist yet, so that a cluster which is never started leaves none."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent).encode()) > MAX_FOLDER_BYTES // 2:  # sockets need short paths
        parent = Path("/tmp")  # noqa: S108 - the name cannot be guessed, and the folder must be ours
    return parent / f"mtf-slurm-{secrets.token_hex(6)}"
