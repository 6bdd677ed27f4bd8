from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.data.class_map import read_class_map
from clearsight.errors import ConfigError, DataError
from clearsight.ops.selection import Selection
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import EvalConfig
from clearsight.train.compose import compose, compose_evaluator, read_data
from clearsight.train.devices import make_fabric
from clearsight.train.evaluate import Evaluator, SemanticPrediction, predict_split
from clearsight.types import Classification, Instances, SemanticMap


class Oracle(nn.Module):
    """Answers with the truth, in the pixels of the images that it is shown."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self.answers = iter([b.targets for b in evaluator.loader.epoch(0)])
        self.selection: Selection | None = None

    def predict(self, images, sizes, selection):
        self.selection = selection
        targets = next(self.answers)
        return [
            Instances(
                boxes=targets.boxes[targets.image == i],
                labels=targets.labels[targets.image == i],
                scores=torch.ones(int((targets.image == i).sum())),
            )
            for i in range(len(images))
        ]


def test_a_perfect_detector_scores_one_although_images_are_resized(small_recipe):
    recipe = small_recipe(eval__nms_iou=0.7, eval__score_threshold=0.02, eval__max_detections=50)
    data = read_data(recipe)
    assert data.val is not None
    evaluator = compose_evaluator(recipe, make_fabric(recipe.trainer), data.val)
    oracle = Oracle(evaluator)
    summary = evaluator(oracle)
    assert summary["map"] == pytest.approx(1.0)
    assert oracle.selection == Selection(score_threshold=0.02, nms_iou=0.7, max_detections=50, box_voting=True)
    scores = evaluator.score(predict_split(evaluator, Oracle(evaluator)), bootstrap=10)
    assert scores.intervals["map"] == pytest.approx((1.0, 1.0))
    assert scores.images == len(data.val)


class Guess(nn.Module):
    def predict(self, images, sizes):
        probs = torch.full((len(images), 10), 0.05)
        probs[:, 3] = 0.55
        return [Classification(probs=one) for one in probs]


def test_a_classifier_that_always_says_three(tmp_path, digits):
    dataset = digits.digit_files(tmp_path, 40)
    evaluator = Evaluator(
        fabric=make_fabric(digits.cpu()),
        dataset=dataset,
        loader=Ordered(digits, 40),
        config=EvalConfig(),
        task="classification",
    )
    share = sum(record.label == 3 for record in dataset.records) / 40
    assert evaluator(Guess())["accuracy"] == pytest.approx(share)


class Ordered:
    def __init__(self, digits, n: int) -> None:
        self.digits, self.n = digits, n

    def __len__(self) -> int:
        return self.n // 8

    def epoch(self, epoch, start=0):
        for first in range(0, self.n, 8):
            yield self.digits.batch_of(range(first, min(self.n, first + 8)))


def test_an_image_that_was_not_loaded_is_missed(tmp_path, digits):
    dataset = digits.digit_files(tmp_path, 40)
    loader = Ordered(digits, 36)
    fabric = make_fabric(digits.cpu())
    evaluator = Evaluator(fabric=fabric, dataset=dataset, loader=loader, config=EvalConfig(), task="classification")
    with pytest.raises(DataError, match=r"4 of 40 images were not loaded: \[36, 37, 38, 39\]"):
        evaluator(Guess())


class Seer(nn.Module):
    """Answers with the targets of the batches, as a segmenter of every kind does."""

    def __init__(self, evaluator: Evaluator, *, classes: int = 2) -> None:
        super().__init__()
        self.answers = iter([b.targets for b in evaluator.loader.epoch(0)])
        self.classes = classes

    def predict(self, images, sizes, selection=None):
        targets = next(self.answers)
        if selection is None:
            hot = nn.functional.one_hot(targets.semantic.clamp(max=self.classes - 1), self.classes)
            return [
                SemanticMap(probs=one[:height, :width].movedim(-1, 0).float())
                for one, (height, width) in zip(hot, sizes.tolist(), strict=True)
            ]
        return [
            Instances(
                boxes=targets.boxes[targets.image == i],
                labels=targets.labels[targets.image == i],
                scores=torch.ones(int((targets.image == i).sum())),
                masks=targets.masks[targets.image == i],
            )
            for i in range(len(images))
        ]


@pytest.mark.real
@pytest.mark.parametrize(("size", "least"), [(512, 1.0), (256, 0.85)])
def test_a_perfect_segmenter_of_real_slices(shared_data, size, least):
    recipe = load_recipe("membrane-unet", [f"data.root={shared_data / 'membrane'}", f"data.size=[{size},{size}]"])
    data = read_data(recipe)
    assert data.test is not None
    assert sorted(int(record.image.stem) for record in data.test.records) == list(range(24, 30))
    evaluator = compose_evaluator(recipe, make_fabric(recipe.trainer), data.test)
    found = predict_split(evaluator, Seer(evaluator))
    assert all(isinstance(one, SemanticPrediction) for one in found)
    scores = evaluator.score(found, bootstrap=10)
    assert scores.main >= least  # of half the size, borders are interpolated
    assert scores.summary["foreground_rand"] >= least
    agreed = found[0].labels.labels() == read_class_map(data.test.records[0])
    assert agreed.mean() >= least


@pytest.mark.real
def test_perfect_masks_of_real_nuclei(shared_data):
    recipe = load_recipe("nuclei-maskrcnn", [f"data.root={shared_data / 'nuclei'}", "data.size=[360,360]"])
    data = read_data(recipe)
    assert data.test is not None
    assert len(data.test) == 15
    evaluator = compose_evaluator(recipe, make_fabric(recipe.trainer), data.test)
    summary = evaluator(Seer(evaluator))
    assert summary["map_75"] == pytest.approx(1.0, abs=0.02)  # masks are resized there and back
    assert summary["boundary_f"] > 0.99


@pytest.mark.real
def test_regions_of_a_class_that_is_not_there(shared_data):
    recipe = load_recipe("membrane-unet", [f"data.root={shared_data / 'membrane'}", "eval.regions=cells"])
    with pytest.raises(ConfigError, match="no class 'cells'; did you mean 'cell'"):
        compose(recipe, make_fabric(recipe.trainer))
