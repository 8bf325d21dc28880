"""The data quality report: what came in, what was refused, and what a version looks like.

``write_report(settings, version_id)`` writes ``reports/data_quality/<version_id>.json`` and
``.html`` from the version's own files; it can be repeated for any version that is kept.
"""

from recsys.quality.report import report_after_publishing, write_report

__all__ = ["report_after_publishing", "write_report"]
