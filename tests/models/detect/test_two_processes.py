"""Losses of two processes that see half the batch each are, on average, those of one process that sees all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys, torch, torch.distributed as dist
from clearsight.assign.assignment import Assignment
from clearsight.models.contour.snake_loss import SnakeLoss
from clearsight.models.contour.snake_targets import SnakeTargets
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.centernet_loss import CenterNetLoss
from clearsight.models.detect.dense import make_points
from clearsight.models.detect.fcos_loss import FcosLoss
from clearsight.models.detect.retinanet_loss import RetinaNetLoss
from clearsight.models.detect.ssd_loss import SsdLoss
from clearsight.models.detect.yolov3_loss import YoloV3Loss
from clearsight.types import Targets

rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
torch.manual_seed(0)
mine = torch.arange(4).chunk(world)[rank]
boxes = torch.tensor([[2.0, 2, 20, 20], [20, 20, 40, 44], [4, 20, 20, 40], [8, 8, 24, 20], [1, 1, 47, 47]])
labels, image = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0, 0, 0, 1, 3])
keep = torch.isin(image, mine)
targets = Targets(boxes=boxes[keep], labels=labels[keep], image=image[keep] - mine[0])
points = make_points([(6, 6)], (8,), anchors=[torch.tensor([[-8.0, -8, 8, 8]])])
logits, codes, more = torch.randn(4, 36, 3), torch.randn(4, 36, 4), torch.randn(4, 36)
heat, size, offset = torch.randn(4, 3, 12, 12), torch.randn(4, 2, 12, 12), torch.randn(4, 2, 12, 12)
rings, ends = torch.rand(5, 16, 2) * 40, torch.rand(5, 4, 2) * 40
snakes = SnakeTargets(targets.image, targets.boxes, ends[keep], rings[keep])

# Bags: seven pairs of five objects and five points.
object, point, weight, losses = torch.tensor([0, 0, 1, 2, 2, 3, 4]), torch.arange(7) % 5, torch.rand(7), torch.rand(7)
unlike, few = torch.rand(7), torch.randn(4, 5, 3)
of = torch.isin(object, keep.nonzero().squeeze(1))
bags = Assignment(object=object[of] - int((image < mine[0]).sum()), point=point[of], weight=weight[of],
                  combine="confidence", background=torch.ones(len(mine), 5), class_background=unlike[of])

terms = {
    "retinanet": RetinaNetLoss()(logits[mine], codes[mine], points, targets),
    "fcos": FcosLoss()(logits[mine], codes[mine].exp(), more[mine], points, targets),
    "ssd": SsdLoss()(torch.cat((logits, more[..., None]), dim=2)[mine], codes[mine], points, targets),
    "yolov3": YoloV3Loss()(logits[mine], codes[mine], more[mine], points, targets),
    "centernet": CenterNetLoss()(heat[mine], size[mine], offset[mine], targets, stride=4),
    "bags": bag_terms(bags, targets, few[mine], losses[of]),
    "snake": SnakeLoss()(ends[keep] + 1, [rings[keep] - 2, rings[keep] + 3], snakes, stride=4),
}
print(json.dumps({name: {term: value.item() for term, value in found.items()} for name, found in terms.items()}))
if world > 1:
    dist.destroy_process_group()
"""
LOSSES = ("retinanet", "fcos", "ssd", "yolov3", "centernet", "bags", "snake")
Terms = dict[str, dict[str, float]]


def run(folder: Path, world: int) -> list[Terms]:
    command = [sys.executable, "-c", PROGRAM]
    tail = [str(world), (folder / f"store{world}").as_posix()]
    started = [
        subprocess.Popen([*command, str(rank), *tail], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert all(process.returncode == 0 for process in started), said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Terms:
    return run(tmp_path_factory.mktemp("one"), 1)[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Terms]:
    return run(tmp_path_factory.mktemp("two"), 2)


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_at_half_the_batch_equal_one(name: str, one: Terms, two: list[Terms]) -> None:
    assert one.keys() == set(LOSSES)
    for term, value in one[name].items():
        assert sum(part[name][term] for part in two) / 2 == pytest.approx(value, rel=1e-5), term
        assert two[0][name][term] != pytest.approx(two[1][name][term], rel=1e-2), term  # the halves differ
