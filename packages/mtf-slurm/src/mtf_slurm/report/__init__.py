"""A sweep as one HTML file: `collect` what is known, `render` it; the pages' own code lies in `assets`."""

from mtf_slurm.report.collect import collect_report
from mtf_slurm.report.model import Report
from mtf_slurm.report.render import ReportExtraError, render_report, write_report

__all__ = ["Report", "ReportExtraError", "collect_report", "render_report", "write_report"]
