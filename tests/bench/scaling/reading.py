"""A report in a real browser: how long until its table stands, and until a filter has its effect."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scaling.counting import Call

TESTS = Path(__file__).resolve().parents[2]

# From the key that is pressed to the picture: what the page says, and the frame after it. Its own wait is in it.
FILTER = """
async (text) => {
  const shown = document.getElementById("shown");
  shown.textContent = "";
  const start = performance.now();
  const field = document.getElementById("filter");
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  while (shown.textContent === "") await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return (performance.now() - start) / 1000;
}
"""


def read_in_browser(report: Path, runs: int) -> Iterator[Call]:
    """Open the report and filter it; nothing where there is no browser, which is said."""
    sys.path.insert(0, str(TESTS))
    from browser import browser, missing

    if reason := missing():
        print(f"{runs:>6}  not opened: {reason}")
        return
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1366, "height": 768})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        start = time.perf_counter()
        page.goto(report.absolute().as_uri())
        page.wait_for_selector("#table tbody tr[data-run]")
        yield Call(runs, "browser: open", time.perf_counter() - start)
        page.wait_for_timeout(1500)  # what is below the table is drawn when the reader has time
        for text in ("learning_rate<0.01", "state=completed", "adamw"):
            yield Call(runs, "browser: filter", float(page.evaluate(FILTER, text)))
        page.locator("#curves").scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        yield Call(runs, "browser: filter, curves", float(page.evaluate(FILTER, "sgd")))
        if errors:
            raise RuntimeError(f"the page has errors: {errors}")
