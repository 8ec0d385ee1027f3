"""Take the pictures of docs/report.md and docs/tracking.md: `hatch run dev:pictures [--folder DIR]`.

Sweeps of 8 and of 1,000 runs are made as `tests/bench/scale.py` makes them, reported, and looked at in a headless
Chromium, light and dark; `mtf status --watch` is drawn by rich. The pictures go to docs/assets/report.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

from browser import browser, missing  # noqa: E402
from mtf_config import ConfigurationManager, ExecutionMode, load_sweep  # noqa: E402
from mtf_slurm import SLURMLauncher  # noqa: E402
from mtf_slurm.report import write_report  # noqa: E402
from scaling.making import fill, sweep_file  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = ROOT / "docs" / "assets" / "report"
WIDTH, HEIGHT = 1366, 768
VIEWS = {
    "light-8": ("runs", "timeline"),
    "dark-8": ("runs",),
    "light-1000": ("runs", "curves"),
    "dark-1000": ("parameters",),
}
DENSE = ("parameters",)  # thousands of fine lines, which make a large PNG
SEED = 32  # of eight runs with some preemptions and a failure among them
COLUMNS, LINES = 118, 28
# Plots are drawn when they come into view; there is nothing to wait for once they have their traces.
DRAWN = "document.querySelectorAll('#{view} .js-plotly-plot').length > 0 || '{view}' === 'runs'"
SETTLED_MS = 1500


def main() -> None:
    """Make the sweeps and take the pictures."""
    parser = argparse.ArgumentParser(prog="pictures", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where sweeps are made, and kept (default: one that is removed)")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(f"no pictures: {reason}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as temporary, browser() as chromium:
        for runs in (8, 1000):
            sweep = made((arguments.folder or Path(temporary)) / str(runs), runs)
            report = write_report(sweep)
            for theme in ("light", "dark"):
                page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
                page.goto(report.as_uri())
                take(page, f"{theme}-{runs}")
                page.close()
        watch(sweep)


def made(folder: Path, runs: int) -> Path:
    """A sweep of so many runs; one that is there is taken as it is."""
    file, output = sweep_file(folder, runs), folder / "digits"
    if not output.exists():
        search = load_sweep(file, ConfigurationManager(folder)).search
        launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
        launcher.submit_sweep(search, output, ExecutionMode.DRY_RUN)
        fill(output, seed=SEED)
    return output


def take(page: Page, name: str) -> None:
    """Pictures of parts of a page."""
    for view in VIEWS[name]:
        page.evaluate(f"document.documentElement.style.scrollBehavior = 'auto'; location.hash = '#{view}'")
        page.wait_for_function(DRAWN.format(view=view))
        page.wait_for_timeout(SETTLED_MS)
        page.mouse.move(0, 0)
        if view in DENSE:
            save(PICTURES / f"{name}-{view}.jpg", page.screenshot(type="jpeg", quality=85))
        else:
            save(PICTURES / f"{name}-{view}.png", page.screenshot())


def save(path: Path, data: bytes) -> None:
    """Write a picture and say so."""
    path.write_bytes(data)
    print(f"{path.relative_to(ROOT)}  {len(data) / 1000:.0f} kB")


def watch(sweep: Path) -> None:
    """What `mtf status --watch` shows of a sweep."""
    from rich.console import Console

    from mtf_slurm.board import Board
    from mtf_slurm.selection import Selection
    from mtf_slurm.watching import Screen

    board = Board(sweep)
    board.look(whole=True)
    for name, screen in (
        ("watch", Screen(Selection(sort="val_loss"), metric="val_loss")),
        ("watch-groups", Screen(Selection(), group="optimizer.name")),
    ):
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(screen.render(board, board.rows(), LINES, COLUMNS))
        save(PICTURES / f"{name}.svg", console.export_svg(title=f"mtf status {sweep.name} --watch").encode())


if __name__ == "__main__":
    main()
