"""The report of a run: a self-contained page, and the classifier's model card."""

from pet_pipeline.report.stage import write_report

__all__ = ["write_report"]
