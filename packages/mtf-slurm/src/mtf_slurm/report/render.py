"""The report's HTML: one file with everything in it, so that it opens from a disk, years later, without a network."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import jinja2

from mtf_slurm.errors import SLURMError
from mtf_slurm.report.collect import collect_report
from mtf_slurm.report.model import Report
from mtf_slurm.results import GridSearchResult
from mtf_utils.atomic import refuse_special, write_text
from mtf_utils.rundir import SweepDirectory

__all__ = ["ReportExtraError", "render_report", "write_report"]

_SCRIPTS: Final = (
    "data.js",
    "state.js",
    "table.js",
    "details.js",
    "charts.js",
    "curves.js",
    "parameters.js",
    "timeline.js",
    "main.js",
)
"""The page's own code, in the order in which it is read; each file needs those before it."""


class ReportExtraError(SLURMError, ImportError):
    """What draws the plots is not installed."""


def write_report(
    sweep: GridSearchResult | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
) -> Path:
    """Write a report of a sweep as one HTML file that needs no network.

    Args:
        sweep: its results, or its folder.
        path: of the file; None is `report.html` in the sweep's folder.
        metric: to rank by; None is the one that the sweep's own checkpoints are ranked by.
        mode: whether its smallest or largest value is the best; None is as the sweep has it, else the smallest.

    Returns:
        The path of the file.

    Raises:
        ReportExtraError: plotly is not installed.
        SLURMError: there is no sweep in the folder, it has no runs, or none of them has the metric.
        OSError: the file cannot be written.
    """
    _plotly()  # what is missing is said before a large sweep is read
    result = sweep if isinstance(sweep, GridSearchResult) else GridSearchResult.load(sweep)
    file = Path(path) if path is not None else SweepDirectory(result.output_dir).report_file
    refuse_special(file)
    write_text(file, render_report(collect_report(result, metric=metric, mode=mode)))
    return file


def render_report(report: Report) -> str:
    """The text of the file.

    Whatever users named or logged is in it as JSON, of which the page makes text and never markup. A policy in the page
    forbids scripts other than the report's own, and every connection.

    Raises:
        ReportExtraError: plotly is not installed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    # a script ends at the first "</script", wherever that stands
    scripts = [text.replace("</script", "<\\/script") for text in (_plotly(), _own_code())]
    return environment.get_template("report.html.j2").render(
        title=report.name,
        style=_asset("report.css"),
        scripts=scripts,
        sources=" ".join(f"'sha256-{_digest(text)}'" for text in scripts),
        data=_json(report.to_dict()),
    )


def _json(value: Any) -> str:
    """JSON without any character that could end the element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return resources.files("mtf_slurm.report").joinpath("assets", name).read_text("utf-8")


@cache
def _own_code() -> str:
    return '"use strict";\n' + "\n".join(_asset(name) for name in _SCRIPTS)


@cache
def _plotly() -> str:
    try:
        offline = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise ReportExtraError(
            "a report needs plotly, which is not installed: pip install 'mtf-slurm[report]'"
        ) from error
    text: str = offline.get_plotlyjs()
    return text
