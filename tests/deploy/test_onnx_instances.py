"""Mask R-CNN as an ONNX file: boxes, and the pixels of the images that they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from clearsight.deploy.onnx import export_onnx
from clearsight.deploy.onnx_instances import MaskGraph
from clearsight.errors import ConfigError
from clearsight.models import create_model
from clearsight.models.segment.mask_rcnn import MaskRcnn
from clearsight.ops.paste import paste_masks
from clearsight.ops.selection import Selection
from clearsight.types import Instances

Photos = Callable[[int, tuple[int, int]], Tensor]
Same = Callable[..., list[tuple[Tensor, Tensor]]]

SIZE = (64, 96)
KEPT = Selection(score_threshold=0.3, max_detections=20)


@pytest.fixture
def model() -> MaskRcnn:
    """One that sees something everywhere, of any shape."""
    options: dict[str, Any] = {"fpn_channels": 16, "box_width": 16, "mask_channels": 8, "mask_convs": 1}
    made = create_model("mask_rcnn", num_classes=3, backbone="resnet18", proposals=60, **options).eval()
    assert isinstance(made, MaskRcnn)
    nn.init.normal_(made.box_head.cls_score.weight, std=0.5)
    nn.init.normal_(made.rpn.head.cls_logits.weight, std=1.0)
    nn.init.normal_(made.mask_head.mask_fcn_logits.weight, std=1.0)
    return made


def assert_pixels(found: Sequence[Tensor], expected: list[Instances], assert_same: Same) -> None:
    boxes, labels, scores, masks = found
    for number, (mine, theirs) in enumerate(assert_same((boxes, labels, scores), expected)):
        truth = expected[number].masks
        assert truth is not None
        pasted = paste_masks(masks[number, mine], boxes[number, mine], SIZE)
        assert (pasted == truth[theirs]).double().mean() > 0.9999
        assert not masks[number, len(mine) :].any()
    assert sum(len(one) for one in expected) > 5
    assert any(bool(one.masks.any()) for one in expected if one.masks is not None)


def test_the_graph_keeps_what_predict_keeps(model: MaskRcnn, photos: Photos, assert_same: Same) -> None:
    images = photos(3, SIZE)
    with torch.no_grad():
        found = MaskGraph(model, KEPT)(images)
    assert_pixels(found, model.predict(images, torch.tensor([SIZE] * 3), KEPT), assert_same)


def test_other_masks_are_refused(model: MaskRcnn, photos: Photos) -> None:
    images, graph = photos(2, SIZE), MaskGraph(model, KEPT)
    with torch.no_grad():
        found = graph(images)
    graph.check([images], found)
    with pytest.raises(ConfigError, match="of the masks' pixels differ"):
        graph.check([images], found._replace(masks=found.masks.flip(-1)))
    with pytest.raises(ConfigError, match=r"of \d+ detections \d+ differ"):
        graph.check([images], found._replace(boxes=found.boxes + 1))


@pytest.mark.long
def test_the_file_gives_what_predict_gives(model: MaskRcnn, tmp_path: Path, photos: Photos, assert_same: Same) -> None:
    images = photos(3, SIZE)
    path = export_onnx(model, tmp_path / "m.onnx", size=SIZE, selection=KEPT, example=images[:2])
    session = InferenceSession(str(path))
    for some in (images[:1], images):
        found = [torch.as_tensor(one) for one in session.run(None, {"images": some.numpy()})]
        assert_pixels(found, model.predict(some, torch.tensor([SIZE] * len(some)), KEPT), assert_same)


def test_the_page_pastes_as_we_do(repo_root: Path) -> None:
    page = (repo_root / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(def paste\(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"np": np}
    exec(code, names)
    probs = torch.rand(40, 28, 28).pow(0.5)
    corner = torch.rand(40, 2) * torch.tensor([80.0, 50.0])
    boxes = torch.cat((corner, corner + torch.rand(40, 2) * 60), dim=1)
    expected = paste_masks(probs, boxes, SIZE).numpy()
    found = [names["paste"](mask, box, *SIZE) for mask, box in zip(probs.numpy(), boxes.numpy(), strict=True)]
    assert (np.stack(found) == expected).mean() > 0.9999
    assert expected.any(axis=(1, 2)).mean() > 0.9
