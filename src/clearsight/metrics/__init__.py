"""Metrics: scores of classifiers and detectors, with intervals and what explains them."""

from clearsight.metrics.classify import score_classification
from clearsight.metrics.detect import score_detection
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores, main_metric

__all__ = ["ImageResult", "Scores", "main_metric", "score_classification", "score_detection"]
