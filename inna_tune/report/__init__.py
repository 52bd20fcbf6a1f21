"""The report of a study: one HTML file with everything in it."""

from inna_tune.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
