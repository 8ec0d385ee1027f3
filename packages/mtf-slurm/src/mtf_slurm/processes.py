"""Other programs and processes: run one, ask whether an attempt's process lives, end what it left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from mtf_utils.rundir import ENV_RUN_DIR, RunDirectory, StartReceipt

__all__ = ["environment_of", "host_name", "is_alive", "kill_group", "kill_remains", "run_program", "visible_gpus"]

PROC = Path("/proc")


def run_program(*words: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str] | None:
    """Run a program and return what it said; None when it is not installed or does not answer in time."""
    program = shutil.which(words[0])
    if program is None:
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=timeout_s, check=False)
    return None


def host_name() -> str:
    """The name of this host as `job.sh` writes it (`uname -n`)."""
    return os.uname().nodename


def visible_gpus(environ: dict[str, str] | None = None) -> list[str]:
    """The GPUs that this process may use, as entries for CUDA_VISIBLE_DEVICES; asks no CUDA library."""
    environ = dict(os.environ) if environ is None else environ
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        devices = [device.strip() for device in chosen.split(",")]
        # CUDA uses the devices up to the first that is not valid
        return devices[: next((i for i, d in enumerate(devices) if d in ("", "-1", "NoDevFiles")), len(devices))]
    answer = run_program("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
    if answer is None or answer.returncode != 0:
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip().isdecimal()]


def is_alive(run: RunDirectory, receipt: StartReceipt) -> bool | None:
    """Whether the process that wrote the receipt still runs that run's `job.sh`; None if it cannot be seen from here.

    A process of the same number that runs something else does not count: numbers are used again.
    """
    if receipt.job_id is not None or receipt.host != host_name():
        return None
    return any(_is_script(word, run.job_script) for word in _command_line(receipt.pid))


def _is_script(word: str, script: Path) -> bool:
    path = Path(word)
    if path.name != script.name:
        return False
    # started by hand with a relative path; the script has changed its directory since
    return not path.is_absolute() or path.resolve() == script.resolve()


def _command_line(pid: int) -> list[str]:
    """The words of the process's command; empty when there is no such process, or when it is a zombie."""
    if PROC.joinpath("self", "cmdline").exists():
        try:
            data = PROC.joinpath(str(pid), "cmdline").read_bytes()
        except OSError:  # no such process, or gone while it was read
            return []
        return [os.fsdecode(word) for word in data.split(b"\0") if word]
    answer = run_program("ps", "-o", "command=", "-p", str(pid))
    return answer.stdout.split() if answer else []


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where that cannot be seen."""
    try:
        data = PROC.joinpath(str(pid), "environ").read_bytes()
    except OSError:  # no such process, not ours, or another operating system
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def kill_group(pid: int) -> None:
    """SIGKILL the process group that the process leads; nothing happens if there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_remains(run: RunDirectory, receipt: StartReceipt) -> None:
    """End what a killed `job.sh` left at work in the folder of its run, lest two attempts write there at once.

    The attempt's process is known to be gone. Its group is ended if a member says, by its environment, that it
    belongs to this run; where environments cannot be read, nothing is.
    """
    for folder in PROC.glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if os.getpgid(pid) != receipt.pid:
                continue
        except OSError:  # gone meanwhile
            continue
        mark = environment_of(pid).get(ENV_RUN_DIR)
        if mark is not None and Path(mark).resolve() == run.path.resolve():
            kill_group(receipt.pid)
            return
