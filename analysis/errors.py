"""Mistakes a person can correct: ``report.py`` prints them as one line."""


class ReportError(Exception):
    """There is nothing to report on, or a choice is needed first."""
