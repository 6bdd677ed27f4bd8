"""What is wrong with a data set: annotations, image files, and the text that says so."""

from __future__ import annotations

from clearsight.data.check_images import check_images
from clearsight.data.check_records import check_records
from clearsight.data.check_shapes import check_shapes
from clearsight.data.findings_text import format_findings

__all__ = ["check_images", "check_records", "check_shapes", "format_findings"]
