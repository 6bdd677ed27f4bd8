"""Everything that is looked for in data, besides what its readers report."""

from __future__ import annotations

from clearsight.doctor.data.augmentation_check import AugmentationBreaksLabel
from clearsight.doctor.data.conflicting_labels import ConflictingLabels
from clearsight.doctor.data.duplicates import Leaks, NearDuplicates, NearDuplicatesAcrossSplits
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.imbalance import ClassImbalance, FewExamples
from clearsight.doctor.data.label_drift import LabelDrift
from clearsight.doctor.data.label_errors import LabelErrors
from clearsight.doctor.data.label_outliers import LabelOutliers
from clearsight.doctor.data.normalisation_check import NormalisationMismatch
from clearsight.doctor.data.object_counts import ImagesWithoutObjects, OddObjectCount, TooManyObjects
from clearsight.doctor.data.object_scale import AnchorsMissObjects, ObjectsBelowStride, ObjectsBeyondField
from clearsight.doctor.data.object_statistics import OddObject
from clearsight.doctor.data.odd_images import ConstantImages, OddImages, UnreadableImages
from clearsight.doctor.data.shift import SplitDrift
from clearsight.doctor.data.spurious import SpuriousProperty
from clearsight.doctor.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule[DataEvidence], ...] = (
    UnreadableImages(),
    ConstantImages(),
    Leaks(),
    NearDuplicatesAcrossSplits(),
    NearDuplicates(),
    ConflictingLabels(),
    LabelErrors(),
    LabelOutliers(),
    FewExamples(),
    ClassImbalance(),
    LabelDrift(),
    SplitDrift(),
    SpuriousProperty(),
    NormalisationMismatch(),
    ObjectsBelowStride(),
    ObjectsBeyondField(),
    AnchorsMissObjects(),
    TooManyObjects(),
    AugmentationBreaksLabel(),
    ImagesWithoutObjects(),
    OddObjectCount(),
    OddObject(),
    OddImages(),
)
