"""A headless Chromium: found, installed where that may be done, and started.

`python tests/browser.py` installs it: playwright's own build, or, where that cannot be fetched, Debian's package. Where
neither can be had it says so in one line and ends with status 1. With MTF_NO_INSTALL=1 in the environment it installs
nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser", "missing"]

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL is drawn by the processor; a container's root has no user namespaces for the sandbox.
OPTIONS: Final = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
INSTALL_TIMEOUT_S: Final = 600


def missing() -> str:
    """Why no browser can be started; empty if one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return "" if _program() or _bundled() else "there is no Chromium; python tests/browser.py installs one"


def _program() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def _bundled() -> bool:
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    return any(folder.glob("chromium*/INSTALLATION_COMPLETE"))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser while the block runs; playwright's own if there is one."""
    from playwright.sync_api import sync_playwright

    options: dict[str, Any] = {} if _bundled() else {"executable_path": _program()}
    arguments = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(args=arguments, **options)
        try:
            yield started
        finally:
            started.close()


def install() -> str:
    """Install a browser; returns why it could not be done, or nothing."""
    if not missing():
        return ""
    if os.environ.get("MTF_NO_INSTALL") == "1":
        return "MTF_NO_INSTALL=1 forbids it"
    commands = [[sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        commands.append(["apt-get", "-qq", "-y", "install", "--no-install-recommends", "chromium"])
    for command in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, check=False, timeout=INSTALL_TIMEOUT_S)
        if not missing():
            return ""
    return missing()


if __name__ == "__main__":
    if reason := install():
        sys.stderr.write(f"no browser was installed: {reason}\n")
        sys.exit(1)
