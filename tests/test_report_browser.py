"""The report in a real browser: what a reader clicks does what it says, and nothing goes wrong meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from browser import browser, missing
from scaling.making import fill, sweep_file

pytest.importorskip("plotly", reason="plotly is not installed")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

from mtf_config import (  # noqa: E402
    ConfigurationManager,
    ExecutionMode,
    NamingStrategy,
    ParameterGridSearch,
    load_sweep,
)
from mtf_slurm import SLURMLauncher  # noqa: E402
from mtf_slurm.report import write_report  # noqa: E402
from mtf_utils.rundir import SweepDirectory  # noqa: E402

RUNS = 60
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><b>bold</b>"


@dataclass
class Reader:
    """Someone who reads a report, and what they did."""

    page: Any
    said: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, kind: str, text: str) -> None:
        # a processor that draws WebGL warns that it is slow
        if kind in ("error", "warning") and "GPU stall" not in text:
            self.errors.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.errors.append(f"asked the network for {url}")

    def open(self, path: Path) -> None:
        self.said.append(f"opened {path.name}")
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#table tbody tr[data-run]")

    def click(self, what: str, selector: str) -> None:
        self.said.append(f"clicked {what}")
        self.page.locator(selector).first.click()

    def write(self, what: str, selector: str, text: str) -> None:
        self.said.append(f"wrote {text!r} into {what}")
        self.page.locator(selector).fill(text)

    def choose(self, what: str, selector: str, value: str) -> None:
        self.said.append(f"chose {value!r} as {what}")
        self.page.locator(selector).select_option(value)

    def press(self, selector: str, key: str) -> None:
        self.said.append(f"pressed {key} in {selector}")
        self.page.locator(selector).press(key)

    def shown(self) -> int:
        return int(self.page.locator("#shown").inner_text().split()[0])

    def wait_for(self, expression: str) -> None:
        self.page.wait_for_function(expression, timeout=30_000)

    def column(self, title: str) -> list[str]:
        """The texts of a column's cells in view."""
        titles = [text.strip() for text in self.page.locator("#table thead th").all_inner_texts()]
        place = titles.index(title) + 1
        return self.page.locator(f"#table tbody tr[data-run] td:nth-child({place})").all_inner_texts()  # type: ignore[no-any-return]

    def scroll_to(self, selector: str) -> None:
        self.said.append(f"scrolled to {selector}")
        self.page.locator(selector).scroll_into_view_if_needed()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    file = sweep_file(folder, RUNS)
    search = load_sweep(file, ConfigurationManager(folder)).search
    search.grids[0].add_parameter("custom_params.note", [HOSTILE])
    output = folder / "sweep"
    launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
    launcher.submit_sweep(search, output, ExecutionMode.DRY_RUN)
    fill(output)
    for run in SweepDirectory(output).runs():
        if run.metrics_file.exists():  # what has finished shows what its result says
            with run.metrics_file.open("a") as journal:
                journal.write(json.dumps({"event": "log", "epoch": 19, "step": 200, HOSTILE: 1.0}) + "\n")
    return write_report(output, folder / "report.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def reader(chromium: Any, report: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Reader]:
    context = chromium.new_context(viewport={"width": 1366, "height": 768}, color_scheme="light", offline=True)
    reader = Reader(context.new_page())
    reader.open(report)
    yield reader
    context.close()
    with capsys.disabled():
        print(*["", *reader.said], sep="\n  ")
    assert reader.errors == []


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose long names begin and end alike, whose seeds differ in their last digit; half of it diverged."""
    folder = tmp_path_factory.mktemp("odd")
    sweep_file(folder, 2)  # and the script that its command names
    model = {"name": "mlp", "hidden_size": 64, "dropout": 0.1}
    base = {"experiment_name": "a-name-that-goes-on-and-on-and-on", "model": model, "data": {"dataset_name": "d"}}
    search = ParameterGridSearch(base | {"optimizer": {"name": "adamw"}, "checkpoint": {"monitor": "val_loss"}})
    search.set_naming_strategy(NamingStrategy.DESCRIPTIVE)
    grid = search.create_grid("odd")
    grid.add_parameter("seed", [20240101, 20240102])
    for key, values in {
        "training.learning_rate": [0.01, 3e-8],
        "model.hidden_size": [64],
        "model.dropout": [0.1],
    }.items():
        grid.add_parameter(key, values)
    grid.add_parameter("optimizer.name", ["adamw"])
    launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
    launcher.submit_sweep(search, folder / "sweep", ExecutionMode.DRY_RUN)
    for place, run in enumerate(SweepDirectory(folder / "sweep").runs()):
        records = [
            {"event": "train", "epoch": step // 2, "step": step, "val_loss": None if place % 2 else 0.5 + place}
            for step in range(1, 9)
        ]
        run.metrics_file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return write_report(folder / "sweep", folder / "report.html")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two grids over different parameters, with a metric that is very small."""
    folder = tmp_path_factory.mktemp("mixed")
    sweep_file(folder, 2)  # and the script that its command names
    base = {"experiment_name": "m", "model": {"name": "mlp"}, "data": {"dataset_name": "d"}}
    search = ParameterGridSearch(base | {"optimizer": {"name": "adamw"}, "checkpoint": {"monitor": "val_loss"}})
    search.create_grid("sizes").add_parameter("model.width", [16, 8, 128])
    search.create_grid("notes").add_parameter("custom_params.note", [HOSTILE, "b"])
    launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
    launcher.submit_sweep(search, folder / "sweep", ExecutionMode.DRY_RUN)
    for place, run in enumerate(SweepDirectory(folder / "sweep").runs()):
        run.metrics_file.write_text(json.dumps({"event": "train", "step": 1, "val_loss": 1e-7 * (1 + place)}) + "\n")
    return write_report(folder / "sweep", folder / "report.html")


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that is only planned."""
    folder = tmp_path_factory.mktemp("nothing")
    search = load_sweep(sweep_file(folder, 4), ConfigurationManager(folder)).search
    launcher = SLURMLauncher(None, folder, project_root=folder, command="python train.py --config {config}")
    launcher.submit_sweep(search, folder / "sweep", ExecutionMode.DRY_RUN)
    return write_report(folder / "sweep", folder / "report.html")


def test_sorting(reader: Reader) -> None:
    assert reader.column("#")[:3] == ["1", "2", "3"]
    reader.click("the heading learning_rate", "#table thead button:text-is('learning_rate')")
    rates = [float(text) for text in reader.column("learning_rate") if text]
    assert rates == sorted(rates)
    assert len(rates) > 5
    reader.click("the heading learning_rate again", "#table thead button:text-is('learning_rate')")
    rates = [float(text) for text in reader.column("learning_rate") if text]
    assert rates == sorted(rates, reverse=True)
    assert reader.page.locator("#table thead th[aria-sort=descending]").count() == 1


def test_filtering(reader: Reader) -> None:
    assert reader.shown() == RUNS
    reader.write("the filter", "#filter", "optimizer.name=sgd learning_rate<0.01")
    reader.wait_for(f"!document.getElementById('shown').textContent.startsWith('{RUNS} ')")
    some = reader.shown()
    assert 0 < some < RUNS
    assert set(reader.column("optimizer.name")) == {"sgd"}
    assert all(float(text) < 0.01 for text in reader.column("learning_rate"))
    reader.write("the filter", "#filter", "nonsense<1")
    reader.page.locator("#misread", has_text="There is no column “nonsense”").wait_for()
    reader.click("Show all", "#clear")
    assert reader.shown() == RUNS
    reader.click("the state COMPLETED", "#states button[data-state=COMPLETED]")
    assert "COMPLETED" not in reader.column("State")
    assert reader.page.locator("#states button[data-state=COMPLETED]").get_attribute("aria-pressed") == "false"
    reader.click("the state COMPLETED again", "#states button[data-state=COMPLETED]")
    assert reader.shown() == RUNS


def test_choosing_another_metric_ranks_anew(reader: Reader) -> None:
    first = reader.column("Run")[0]
    reader.choose("the metric", "#metric", "val_accuracy")
    reader.choose("what is best", "#goal", "max")
    values = [float(text) for text in reader.column("val_accuracy")]
    assert values == sorted(values, reverse=True)
    reader.choose("what is best", "#goal", "min")
    assert reader.column("Run")[0] != first


def test_curves_hover_and_follow_the_filter(reader: Reader) -> None:
    reader.scroll_to("#curves-plot")
    reader.wait_for("document.querySelectorAll('#curves-plot .scatterlayer .trace').length === 10")
    reader.write("how many curves", "#curve-count", "25")
    reader.wait_for("document.querySelectorAll('#curves-plot .scatterlayer .trace').length === 25")
    box = reader.page.locator("#curves-plot .nsewdrag").first.bounding_box()
    reader.said.append("hovered over the curves")
    for share in (0.5, 0.55, 0.6, 0.7):
        reader.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.93)
        if reader.page.locator("#curves-plot .hoverlayer .hovertext").count():
            break
    hover = reader.page.locator("#curves-plot .hoverlayer .hovertext").first
    hover.wait_for(timeout=10_000)
    assert re.search(r"digits-\w+", hover.text_content())
    assert "val_loss" in hover.text_content()
    reader.click("logarithmic", "#curve-log")
    reader.choose("the axis", "#curve-x", "epoch")
    reader.page.locator("#curves-plot", has_text="Epoch").wait_for()
    reader.write("the filter", "#filter", "state=failed")
    reader.wait_for("document.querySelectorAll('#curves-plot .scatterlayer .trace').length < 25")


def test_a_run_opens_and_is_compared(reader: Reader) -> None:
    name = reader.column("Run")[1]
    reader.press("#table", "ArrowDown")
    reader.press("#table", "Enter")
    dialog = reader.page.locator("dialog#run")
    dialog.wait_for()
    assert dialog.locator("#run-name").inner_text() == name
    assert HOSTILE in dialog.inner_text()  # as text
    assert "Attempts" in dialog.inner_text()
    reader.click("add to curves", "dialog button:has-text('Add to curves')")
    reader.press("dialog#run", "Escape")
    reader.click("the box of the fifth run", "#table tbody tr[data-run]:nth-of-type(5) input")
    assert "2 selected" in reader.page.locator("#shown").inner_text()
    assert "Between the 2 selected runs" in reader.page.locator("#differences-note").inner_text()
    assert name in reader.page.locator("#differences").inner_text()


def test_parameters_timeline_and_code_are_drawn(reader: Reader) -> None:
    reader.scroll_to("#parallel-plot")
    reader.wait_for("document.querySelectorAll('#parallel-plot .axis-title').length >= 5")
    reader.scroll_to("#effects")
    reader.wait_for("document.querySelectorAll('#effects figure .trace').length >= 8")
    reader.scroll_to("#timeline-plot")
    reader.wait_for("document.querySelectorAll('#timeline-plot .scatterlayer .trace').length >= 3")
    assert "preempted" in reader.page.locator("#timeline-note").inner_text()
    reader.choose("the order of the timeline", "#timeline-order", "rank")
    reader.click("the configuration", "#code details summary")
    assert "dataset_name: digits" in reader.page.locator("#config").inner_text()
    assert "mtf-slurm" in reader.page.locator("#environment").inner_text()


def test_themes(reader: Reader) -> None:
    def paper() -> str:
        return str(reader.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    reader.click("the theme", "#theme")
    assert reader.page.locator("#theme").inner_text() == "Light"
    dark = paper()
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < sum(map(int, re.findall(r"\d+", light)))
    reader.click("the theme again", "#theme")
    assert paper() == light
    reader.page.emulate_media(color_scheme="dark")
    assert paper() == light, "a choice outlives a change of the system's"


def test_text_of_users_is_never_markup(reader: Reader) -> None:
    assert reader.page.locator("#metric option", has_text="<img").count() == 1
    reader.choose("the metric", "#metric", HOSTILE)
    reader.scroll_to("#effects")
    reader.wait_for("document.getElementById('effects').textContent !== ''")
    assert reader.page.locator("img").count() == 0
    assert reader.page.title() == "sweep"


def test_numbers_and_names_tell_runs_apart(reader: Reader, odd: Path) -> None:
    reader.open(odd)
    assert set(reader.column("seed")) == {"20240101", "20240102"}
    assert set(reader.column("learning_rate")) == {"0.01", "3e-8"}
    names = reader.column("Run")
    assert len(set(names)) == 4
    assert all(name.startswith("…seed=2024010") for name in names)
    assert sorted(reader.column("val_loss")) == ["0.5000", "2.500", "NaN", "NaN"]
    assert "of 2 runs, 2 are NaN" in reader.page.locator("#cards").inner_text()
    reader.write("the filter", "#filter", "val_loss=NaN")
    reader.wait_for("document.getElementById('shown').textContent.startsWith('2 ')")
    reader.click("Show all", "#clear")
    reader.scroll_to("#curves-plot")
    reader.choose("the axis", "#curve-x", "epoch")
    one_an_epoch = "[[1,2,3,4,5],[1,2,3,4,5]]"
    reader.wait_for(
        f"JSON.stringify(document.getElementById('curves-plot').data?.map(({{x}}) => x)) === '{one_an_epoch}'"
    )
    reader.scroll_to("#effects")
    reader.page.locator("#effects figcaption", has_text="seed").wait_for()  # alone: the rates that are left are one
    assert reader.page.locator("#effects figure").count() == 1


def test_axes_say_what_users_wrote(reader: Reader, mixed: Path) -> None:
    reader.open(mixed)
    reader.scroll_to("#parallel-plot")
    axes = reader.page.locator("#parallel-plot .axis")
    axes.first.wait_for()
    width, note, loss = (axis.locator(".tick text").all_text_contents() for axis in axes.all())
    assert width == ["", "8", "16", "128"]  # from below; runs of the other grid have none
    assert note == ["", HOSTILE[:17] + "…", "b"]
    assert len(loss) > 2
    assert all(re.fullmatch(r"[0-9.]+e[\u2212-]7", text) for text in loss)


def test_a_sweep_without_a_result_is_told_of(reader: Reader, nothing: Path) -> None:
    reader.open(nothing)
    assert set(reader.column("State")) == {"NOT_SUBMITTED"}
    assert reader.page.locator("#metric").is_disabled()
    reader.scroll_to("#parallel-plot")
    reader.wait_for("document.getElementById('parameters-note').textContent === 'no run has recorded a metric'")
    for view in ("curves-plot", "parallel-plot", "timeline-plot"):
        reader.scroll_to(f"#{view}")
        reader.page.locator(f"#{view}.empty").wait_for()
    reader.press("#table", "Enter")
    assert reader.page.locator("dialog#run h3", has_text="Parameters").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_they_stand_on(reader: Reader, theme: str) -> None:
    reader.page.evaluate(f"document.documentElement.dataset.theme = {theme!r}")
    colours = reader.page.evaluate(
        "(names) => Object.fromEntries(names.map((name) => [name, getComputedStyle(document.documentElement)"
        ".getPropertyValue(`--${name}`).trim()]))",
        ["paper", "surface", "sunk", "ink", "muted", "accent", "good", "bad", "warn", "work", "idle"],
    )
    words = ["ink", "muted", "accent", "good", "bad", "warn", "work", "idle"]
    weak = [
        (word, under)
        for word in words
        for under in ("paper", "surface", "sunk")
        if contrast(colours[word], colours[under]) < 4.5  # Source: WCAG 2.2, 1.4.3
    ]
    assert weak == []


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
