"""Metrics: scores of classifiers, detectors and segmenters, with intervals and what explains them."""

from clearsight.metrics.classify import score_classification
from clearsight.metrics.compare_maps import SemanticResult, compare_maps
from clearsight.metrics.detect import score_detection
from clearsight.metrics.instances import score_instances
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores, main_metric
from clearsight.metrics.semantic import score_semantic

__all__ = [
    "ImageResult",
    "Scores",
    "SemanticResult",
    "compare_maps",
    "main_metric",
    "score_classification",
    "score_detection",
    "score_instances",
    "score_semantic",
]
