"""The report of a run, one self-contained HTML file, and pictures with what was found drawn on them."""

from clearsight.report.content import ReportContent
from clearsight.report.html import write_report
from clearsight.report.overlay import draw_instances, draw_label

__all__ = ["ReportContent", "draw_instances", "draw_label", "write_report"]
