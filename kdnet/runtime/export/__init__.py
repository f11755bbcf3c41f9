"""``kdnet export``: the student alone, checked, compared with its teachers, written."""

from kdnet.runtime.export.plan import ExportOptions
from kdnet.runtime.export.run import Export, export_net

__all__ = ["Export", "ExportOptions", "export_net"]
