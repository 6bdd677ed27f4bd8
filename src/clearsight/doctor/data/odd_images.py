"""Images that cannot be read, that show nothing, or that are unlike the others of their set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clearsight.data.files import printable
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.file_names import file_names
from clearsight.doctor.data.scan import Scan
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["ConstantImages", "OddImages", "UnreadableImages"]

_SHOWN = 20
_ONE_VALUE = 1e-6  # a deviation below this is rounding


class UnreadableImages(Rule[DataEvidence]):
    """D5: files that cannot be decoded, or only with damage; what was found already is not said again."""

    id = "unreadable-image"
    source = "cleanvision; fastdup"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """The scan's findings, each under its own id (`truncated-image`, `non-finite-pixels`, …)."""
        known = {(finding.id, finding.where) for finding in evidence.dataset.findings}
        return [finding for finding in evidence.scan.findings if (finding.id, finding.where) not in known]


class ConstantImages(Rule[DataEvidence]):
    """D5: images of one single colour. It is a warning where they carry a class or objects: nothing of them is seen."""

    id = "constant-image"
    source = "cleanvision"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for those with labels, one for those without."""
        scan, records = evidence.scan, evidence.dataset.records
        flat = np.flatnonzero(scan.readable & (scan.std.max(axis=1, initial=0) < _ONE_VALUE))
        labelled = np.array([records[row].label is not None or bool(records[row].objects) for row in flat], dtype=bool)
        for rows, carry in ((flat[labelled], True), (flat[~labelled], False)):
            if len(rows):
                yield self._finding(evidence, rows, labelled=carry)

    def _finding(self, evidence: DataEvidence, rows: np.ndarray, *, labelled: bool) -> Finding:
        what = (
            "have a label all the same, which nothing in them shows; restore the files, or drop them"
            if labelled
            else "have no label; drop them unless empty images are meant"
        )
        images = "image is" if len(rows) == 1 else "images are"
        return Finding(
            id=self.id,
            severity="warning" if labelled else "info",
            where=_where(evidence, rows),
            explanation=f"{len(rows)} of {len(evidence.scan)} {images} of one single colour and {what}.",
            action="kept",
            evidence={
                "row": "D5",
                "images": len(rows),
                "labelled": labelled,
                "files": file_names(evidence.dataset, rows[:_SHOWN].tolist()),
            },
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One way to be odd.

    Args:
        name: in the evidence.
        said: in words, after "images are".
        sign: −1 odd when lower than the others, +1 when higher, 0 both.
        least: deviations count as at least so much, so that a very even set does not make small differences odd.
    """

    name: str
    said: str
    sign: int
    least: float


_KINDS = (
    _Kind(name="dark", said="much darker than the others", sign=-1, least=0.05),
    _Kind(name="light", said="much lighter than the others", sign=1, least=0.05),
    _Kind(name="blurred", said="much less sharp than the others", sign=-1, least=0.4),
    _Kind(name="size", said="of a size unlike the others'", sign=0, least=0.2),
    _Kind(name="aspect", said="much longer or wider than the others", sign=1, least=0.1),
)


class OddImages(Rule[DataEvidence]):
    """D6: images that are dark, light, blurred, or of odd size or shape beside the others of their set.

    Method: robust z, the distance to the median in units of 1.4826 × the median absolute deviation (Iglewicz and
        Hoaglin 1993, How to detect and handle outliers). Differs from tools with fixed thresholds, which call all of a
        night-time set dark: only what few images have is odd.

    Args:
        z: from which an image is odd.
        images: fewer are not judged.
        share: of the images above which they are a kind of their own, and not odd.
    """

    id = "odd-image"
    source = "Iglewicz and Hoaglin 1993, How to detect and handle outliers; cleanvision"

    def __init__(self, *, z: float = 6.0, images: int = 20, share: float = 0.05) -> None:
        self.z, self.images, self.share = z, images, share

    def lacks(self, evidence: DataEvidence) -> str:
        """Enough images to compare with."""
        count = int(evidence.scan.readable.sum())
        return "" if count >= self.images else f"{self.images} images to compare with ({count} can be read)"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each kind that there is, worst images first."""
        scan = evidence.scan
        measures = _measures(scan)
        for kind in _KINDS:
            values = measures[kind.name]
            rows = np.flatnonzero(scan.readable & np.isfinite(values))
            if len(rows) < self.images:
                continue
            centre = float(np.median(values[rows]))
            away = values[rows] - centre
            spread = max(1.4826 * float(np.median(np.abs(away))), kind.least)
            z = np.abs(away) if kind.sign == 0 else away * kind.sign
            odd = np.flatnonzero(z >= self.z * spread)
            if 0 < len(odd) <= self.share * len(rows):
                odd = odd[np.argsort(-z[odd], kind="stable")]
                yield self._finding(evidence, kind, rows[odd], z[odd] / spread)

    def _finding(self, evidence: DataEvidence, kind: _Kind, rows: np.ndarray, z: np.ndarray) -> Finding:
        images = "1 image is" if len(rows) == 1 else f"{len(rows)} images are"
        return Finding(
            id=self.id,
            severity="info",
            where=_where(evidence, rows),
            explanation=(
                f"{images} {kind.said}, by up to {z[0]:.1f} robust deviations ({self.z:g} are odd); look whether "
                f"{'it belongs' if len(rows) == 1 else 'they belong'} to the set."
            ),
            action="kept",
            evidence={
                "row": "D6",
                "kind": kind.name,
                "images": len(rows),
                "threshold": self.z,
                "files": file_names(evidence.dataset, rows[:_SHOWN].tolist()),
                "z": z[:_SHOWN].round(2).tolist(),
            },
            source=self.source,
        )


def _measures(scan: Scan) -> dict[str, np.ndarray]:
    """What each kind is judged by; NaN where an image has none."""
    height, width = np.maximum(scan.size, 1).T.astype(np.float64)
    contrast = (255 * scan.std.mean(axis=1)) ** 2
    # An image with little contrast has little to be sharp: what is left of the contrast in fine detail is compared.
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpness = np.log(scan.sharpness) - np.log(contrast)
    return {
        "dark": scan.percentiles[:, 4],
        "light": scan.percentiles[:, 1],
        "blurred": np.where((contrast > 1) & (scan.sharpness > 0), sharpness, np.nan),
        "size": np.log(height * width),
        "aspect": np.abs(np.log(height / width)),
    }


def _where(evidence: DataEvidence, rows: np.ndarray) -> str:
    """The file, or the data set where there are several."""
    dataset = evidence.dataset
    return printable(dataset.records[int(rows[0])].image) if len(rows) == 1 else str(dataset.root)
