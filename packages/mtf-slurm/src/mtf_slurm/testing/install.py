"""Install what a cluster needs from Debian's packages, where that may be done, and leave no service behind.

`python -m mtf_slurm.testing.install [--accounting]` does nothing when everything is there. It needs apt-get, and root
or sudo without a password; where it cannot install, it says so in one line and ends with status 1. With
MTF_NO_INSTALL=1 in the environment it installs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mtf_slurm.testing.errors import ClusterError, ClusterUnavailableError
from mtf_slurm.testing.programs import find_program, is_available, missing_packages, run_command

__all__ = ["install", "main"]

# Asked by every maintainer script before it starts a service. Source: invoke-rc.d(8); 101 is "not allowed".
POLICY: Final = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT: Final = "#!/bin/sh\nexit 101\n"

# Another apt-get may be at work; packages may have to come over a slow line.
LOCK_TIMEOUT_S: Final = 300
INSTALL_TIMEOUT_S: Final = 1200.0


def install(*, accounting: bool = False) -> list[str]:
    """Install the Debian packages that are missing; their services are neither started nor enabled.

    Args:
        accounting: whether slurmdbd and a database are wanted too.

    Returns:
        The packages that were asked for; empty when nothing was missing.

    Raises:
        ClusterUnavailableError: nothing may be installed here.
        ClusterError: apt-get failed.
    """
    packages = list(missing_packages(accounting=accounting))
    if not packages:
        return []
    prefix = _privileges()
    before = _installed_units()
    with _services_held_back(prefix):
        _apt_get(prefix, packages)
        _disable(prefix, _installed_units() - before)
    if reason := is_available(accounting=accounting):
        raise ClusterError(f"{' '.join(packages)} were installed, and still: {reason}")
    return packages


def _privileges() -> list[str]:
    """The words that give a command root's rights."""
    reason = None
    if os.environ.get("MTF_NO_INSTALL") == "1":
        reason = "MTF_NO_INSTALL=1 forbids it"
    elif find_program("apt-get") is None:
        reason = "there is no apt-get"
    elif os.geteuid() == 0:
        return []
    elif find_program("sudo") is None or run_command(["sudo", "-n", "true"]).returncode != 0:
        reason = "that takes root, or sudo without a password"
    else:
        return ["sudo", "-n"]
    raise ClusterUnavailableError(f"nothing was installed: {reason}")


def _apt_get(prefix: Sequence[str], packages: Sequence[str]) -> None:
    quietly = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    quietly += ["-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}", "-o", "Dpkg::Use-Pty=0"]
    command = [*quietly, "install", "--no-install-recommends", *packages]
    done = run_command(command, timeout_s=INSTALL_TIMEOUT_S)
    if done.returncode != 0:
        # no package lists yet, or lists that name files which are gone
        run_command([*quietly, "update"], timeout_s=INSTALL_TIMEOUT_S)
        done = run_command(command, timeout_s=INSTALL_TIMEOUT_S)
    if done.returncode != 0:
        raise ClusterError(f"apt-get install {' '.join(packages)} failed: {_last_lines(done)}")


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "; ".join((done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-3:])


@contextlib.contextmanager
def _services_held_back(prefix: Sequence[str]) -> Iterator[None]:
    """Forbid maintainer scripts to start services; a policy that the machine already has stays as it is."""
    if POLICY.exists():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / POLICY.name
        policy.write_text(POLICY_TEXT, encoding="ascii")
        done = run_command([*prefix, "install", "-m", "0755", str(policy), str(POLICY)])
    if done.returncode != 0:
        raise ClusterUnavailableError(f"nothing was installed: {POLICY} cannot be written: {_last_lines(done)}")
    try:
        yield
    finally:
        run_command([*prefix, "rm", "-f", str(POLICY)])


def _installed_units() -> set[str]:
    folders = (Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))
    return {unit.name for folder in folders for unit in folder.glob("*.service")}


def _disable(prefix: Sequence[str], units: set[str]) -> None:
    """Enabled is what maintainer scripts leave a service as; a throw-away cluster uses none of them."""
    for unit in sorted(units):
        if find_program("systemctl") is None:
            command = ["update-rc.d", unit.removesuffix(".service"), "disable"]
        else:  # works on the links of a machine that systemd did not boot, too
            now = ["--now"] if Path("/run/systemd/system").is_dir() else []
            command = ["systemctl", "--quiet", "disable", *now, unit]
        done = run_command([*prefix, *command])
        if done.returncode != 0:
            raise ClusterError(f"the service {unit} could not be disabled: {_last_lines(done)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mtf_slurm.testing.install", description=__doc__)
    parser.add_argument("--accounting", action="store_true", help="also slurmdbd and a MariaDB server")
    accounting = parser.parse_args(arguments).accounting
    try:
        packages = install(accounting=accounting)
    except ClusterError as error:
        reason = is_available(accounting=accounting)
        sys.stderr.write(f"{error}{f' ({reason})' if reason else ''}\n")
        return 1
    if packages:
        sys.stdout.write(f"installed {' '.join(packages)}, with their services disabled\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
