"""Mask R-CNN with torchvision's weights gives torchvision's numbers; it learns; it exports."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRcnn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import box_iou

from clearsight.data.collate import collate
from clearsight.data.normalisation import fixed_statistics
from clearsight.data.read import read_dataset
from clearsight.data.samples import SampleSet
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.light import LightBackbone
from clearsight.models.detect.box_head import BoxHead
from clearsight.models.detect.faster_rcnn import LEVELS
from clearsight.models.detect.rois import RoiSampler
from clearsight.models.detect.rpn import Rpn, RpnLoss
from clearsight.models.necks.fpn import Fpn
from clearsight.models.segment.mask_head import MaskHead
from clearsight.models.segment.mask_rcnn import MaskRcnn, build_mask_rcnn, convert_torchvision_mask_rcnn
from clearsight.ops.paste import paste_masks
from clearsight.ops.selection import Selection
from clearsight.recipe.schema import DataConfig
from clearsight.types import Targets

FEW = {f"rpn_{when}_nms_top_n_{where}": 60 for when in ("pre", "post") for where in ("train", "test")}
KEPT = 12
ALL = 100_000  # samples; there are fewer, so all are taken and nothing is drawn by chance
TERMS = ["rpn_class", "rpn_box", "class", "box", "mask"]


def make(
    backbone: str | nn.Module = "resnet18",
    *,
    classes: int = 3,
    channels: int = 256,
    box_width: int = 1024,
    mask_width: int = 256,
    mask_convs: int = 4,
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
    norm: str | None = None,
    proposals: int = 60,
    sampler: RoiSampler | None = None,
    rpn_loss: RpnLoss | None = None,
    stage: Literal["joint", "rpn", "boxes"] = "joint",
) -> MaskRcnn:
    body = build_backbone(backbone, norm=norm) if isinstance(backbone, str) else backbone
    neck = Fpn({level: body.channels[level] for level in LEVELS}, channels, strides=body.strides, extra="p6")
    strides = list(neck.strides.values())
    return MaskRcnn(
        body,  # pyright: ignore[reportArgumentType]
        neck,
        Rpn(
            channels,
            strides,
            anchor_sizes=anchor_sizes,
            proposals=proposals,
            train_proposals=proposals,
            criterion=rpn_loss,
        ),
        BoxHead(channels, classes, strides=strides[:-1], width=box_width),
        MaskHead(channels, classes, strides=strides[:-1], width=mask_width, convs=mask_convs),
        statistics=fixed_statistics("imagenet", channels=3),
        stage=stage,
        sampler=sampler,
    )


def small(*, stage: Literal["joint", "rpn", "boxes"] = "joint", norm: str = "batch") -> MaskRcnn:
    model = make(
        LightBackbone(norm=norm),
        channels=32,
        box_width=48,
        mask_width=16,
        mask_convs=1,
        anchor_sizes=(12, 24, 48, 96, 192),
        sampler=RoiSampler(samples=64),
        stage=stage,
    )
    nn.init.normal_(model.mask_head.mask_fcn_logits.weight, std=0.5)
    return model


def sharpen(model: TorchvisionMaskRcnn, factor: float = 1.0) -> TorchvisionMaskRcnn:
    """Scores that pass the threshold, boxes that are not the anchors, masks that are neither full nor empty."""
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.1 * factor)
    nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.05 * factor)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1 * factor)
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.3 * factor)
    nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.3 * factor)
    return model


def peer(size: tuple[int, int]) -> TorchvisionMaskRcnn:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    model = TorchvisionMaskRcnn(
        backbone,
        4,
        min_size=min(size),
        max_size=max(size),
        rpn_batch_size_per_image=ALL,
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=ALL,
        box_positive_fraction=1.0,
        box_detections_per_img=KEPT,
        **FEW,
    )
    model.roi_heads.mask_head = MaskRCNNHeads(256, (48, 48, 48), 1)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(48, 48, 4)
    return sharpen(model)


def same_model(theirs: TorchvisionMaskRcnn, backbone: str = "resnet18", *, classes: int = 3) -> MaskRcnn:
    state = theirs.state_dict()
    width = len(state["roi_heads.mask_predictor.conv5_mask.bias"])
    convs = len(theirs.roi_heads.mask_head)  # pyright: ignore[reportArgumentType]
    ours = make(
        backbone,
        classes=classes,
        mask_width=width,
        mask_convs=convs,
        sampler=RoiSampler(samples=ALL, share=1.0),
        rpn_loss=RpnLoss(samples=ALL, share=1.0),
    )
    missing, unexpected = ours.load_state_dict(ours.adapt_weights(state), strict=False)
    assert (missing, unexpected) == (["input_norm.mean", "input_norm.std"], [])
    assert count(ours) == count(theirs) - width - 1  # the mask of the background
    return ours


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def compare(theirs: TorchvisionMaskRcnn, ours: MaskRcnn, images: Tensor) -> None:
    theirs.eval().double()  # in float32 two of a thousand scores are so close that they may change places
    ours.eval().double()
    images = images.double()
    size = (images.shape[-2], images.shape[-1])
    levels = ours.levels(images)
    detections = ours.predict(images, torch.tensor([size] * len(images)), Selection(max_detections=KEPT))
    for number, (mine, other) in enumerate(zip(detections, theirs(list(images)), strict=True)):
        assert mine.scores is not None
        assert mine.masks is not None
        assert len(mine) > 10
        assert (mine.labels + 1).tolist() == other["labels"].tolist()
        torch.testing.assert_close(mine.boxes, other["boxes"].float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine.scores, other["scores"].float(), rtol=1e-4, atol=1e-4)
        image = torch.full_like(mine.labels, number)
        probs = ours.mask_head.probabilities(levels, mine.boxes, image, mine.labels)
        pasted = paste_masks(probs, mine.boxes, size, threshold=None)
        torch.testing.assert_close(pasted, other["masks"][:, 0], rtol=0, atol=1e-4)
        sure = (other["masks"][:, 0] - 0.5).abs() > 1e-4
        assert torch.equal(mine.masks & sure, (other["masks"][:, 0] > 0.5) & sure)
        share = mine.masks.flatten(1).float().sum(1) / (mine.boxes[:, 2:] - mine.boxes[:, :2]).prod(1)
        assert ((share > 0.1) & (share < 0.9)).float().mean() > 0.3


@pytest.mark.parametrize("size", [(128, 192), (96, 160)])  # 96×160: level P6 does not divide the image
def test_resnet18_with_torchvisions_weights(size: tuple[int, int]) -> None:
    theirs = peer(size)
    compare(theirs, same_model(theirs), torch.rand(2, 3, *size))


def test_resnet50_with_torchvisions_weights() -> None:
    theirs = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=5,
        min_size=128,
        max_size=128,
        box_detections_per_img=KEPT,
        **FEW,
    )
    sharpen(theirs, 0.02)  # its activations are large
    compare(theirs, same_model(theirs, "resnet50", classes=4), torch.rand(1, 3, 128, 128))


def test_size_of_the_published_weights() -> None:
    with torch.device("meta"):  # 90 classes and the background; torchvision's file says 44,401,393
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        ours = make("resnet50", norm="frozen_batch", classes=90)
    assert count(ours) == 44_401_393 - 257
    adapted = convert_torchvision_mask_rcnn(theirs.state_dict())
    own = ours.state_dict()
    assert own.keys() - adapted.keys() == {"input_norm.mean", "input_norm.std"}
    assert all(value.shape == own[name].shape for name, value in adapted.items() if "num_batches" not in name)


def test_names_of_older_files() -> None:
    old = {
        "backbone.fpn.inner_blocks.1.bias": "neck.inner_blocks.1.0.bias",
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "roi_heads.box_head.fc6.weight": "box_head.fc6.weight",
        "roi_heads.mask_head.mask_fcn1.weight": "mask_head.convs.0.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "mask_head.convs.3.0.bias",
        "roi_heads.mask_predictor.conv5_mask.bias": "mask_head.conv5_mask.bias",
    }
    one = torch.zeros(1)
    assert convert_torchvision_mask_rcnn(dict.fromkeys(old, one)) == dict.fromkeys(old.values(), one)


def test_faster_rcnns_weights_are_taken_too() -> None:
    model = small()
    assert list(model.adapt_weights({"backbone.body.conv1.weight": torch.zeros(1)})) == ["backbone.conv1.weight"]


def disc(box: Tensor, size: tuple[int, int]) -> Tensor:
    """The ellipse within a box, `(h, w)` bool."""
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1


def with_masks(targets: Targets, size: tuple[int, int]) -> Targets:
    drawn = [disc(box, size) for box in targets.boxes]
    targets.masks = torch.stack(drawn) if drawn else torch.zeros((0, *size), dtype=torch.bool)
    return targets


def test_losses_are_torchvisions(as_targets: Callable[..., Targets]) -> None:
    theirs = peer((96, 128)).double()  # in float32 a ReLU at zero may fall to either side
    ours = same_model(theirs).double()
    images = torch.rand(3, 3, 96, 128, dtype=torch.float64)
    boxes = [
        torch.tensor([[10.0, 20, 60, 80], [30, 30, 120, 90], [100, 5, 120, 25], [31, 30, 120, 92]]),
        torch.zeros(0, 4),
        torch.tensor([[50.0, 60, 90, 90], [91, 70, 92, 72]]),  # the second of two pixels
    ]
    labels = [torch.tensor([0, 2, 1, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([1, 0])]
    targets = with_masks(as_targets(boxes, labels), (96, 128))
    assert targets.masks is not None
    assert targets.masks[-1].sum() == 2
    masks = targets.masks.split([len(box) for box in boxes])
    listed = [
        {"boxes": box, "labels": label + 1, "masks": mask.to(torch.uint8)}
        for box, label, mask in zip(boxes, labels, masks, strict=True)
    ]
    expected = theirs.train()(list(images), listed)
    terms = ours.train().loss(images, targets)
    assert list(terms) == TERMS
    names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    for mine, other in zip(TERMS, names, strict=True):
        assert expected[other] > 1e-3
        torch.testing.assert_close(terms[mine], expected[other].double(), rtol=1e-5, atol=1e-6)
    sum(terms.values()).backward()
    sum(expected.values()).backward()
    reference = convert_torchvision_mask_rcnn({name: p.grad for name, p in theirs.named_parameters()})
    for name, p in ours.named_parameters():
        scale = reference[name].abs().max()
        assert p.grad is not None
        torch.testing.assert_close(p.grad / scale, reference[name] / scale, rtol=1e-4, atol=1e-5, msg=name)


EDGES: dict[str, tuple[list[list[float]], list[int]]] = {
    "overlapping": ([[10.0, 10, 50, 60], [12, 8, 55, 62]], [1, 2]),
    "none": ([], []),
    "one to three pixels": ([[30.0, 30, 31, 31], [50, 50, 52, 51], [70, 70, 71, 73]], [0, 1, 2]),
    "below a pixel": ([[30.3, 30.1, 30.4, 30.2]], [0]),
    "without area": ([[30.0, 30.0, 30.0, 40.0]], [0]),
    "larger than the image": ([[-50.0, -40.0, 200.0, 300.0]], [2]),
    "cut by the border": ([[-20.0, -20.0, 20.0, 20.0], [80, 80, 120, 130]], [2, 0]),
    "identical": ([[10.0, 10, 50, 60]] * 3, [1, 2, 1]),
}


@pytest.mark.parametrize("case", EDGES)
def test_any_targets_give_finite_gradients(case: str, as_targets: Callable[..., Targets]) -> None:
    model = small()
    boxes, labels = EDGES[case]
    targets = as_targets(
        [torch.tensor(boxes).view(-1, 4), torch.zeros(0, 4)], [torch.tensor(labels).long(), torch.zeros(0).long()]
    )
    with_masks(targets, (96, 96))
    terms = model.loss(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8), targets)
    assert list(terms) == TERMS
    assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
    assert (terms["mask"] > 0) == (case not in ("none", "without area", "below a pixel"))  # these have empty masks
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_masks_that_are_empty_teach_boxes_only(as_targets: Callable[..., Targets]) -> None:
    model = small()
    targets = with_masks(as_targets([torch.tensor([[10.0, 10, 50, 60]])], [torch.tensor([1])]), (96, 96))
    assert targets.masks is not None
    targets.masks[:] = False
    terms = model.loss(torch.rand(1, 3, 96, 96), targets)
    assert terms["mask"].item() == 0 < terms["box"].item()
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_masks_that_are_missing_or_of_another_size(as_targets: Callable[..., Targets]) -> None:
    model, images = small(), torch.rand(1, 3, 96, 96)
    targets = as_targets([torch.tensor([[10.0, 10, 50, 60]])], [torch.tensor([1])])
    with pytest.raises(ShapeError, match="96 x 96 for each of 1 objects, got none; read the data with the task"):
        model.loss(images, targets)
    with pytest.raises(ShapeError, match=r"got masks of \(1, 80, 96\)"):
        model.loss(images, with_masks(targets, (80, 96)))
    assert model.loss(images, as_targets([torch.zeros(0, 4)], [torch.zeros(0).long()]))["mask"].item() == 0
    targets.masks = None
    assert list(small(stage="rpn").loss(images, targets)) == TERMS[:2]


def test_no_images(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    images = torch.rand(0, 3, 96, 96)
    assert model.predict(images, torch.zeros(0, 2)) == []
    terms = model.loss(images, with_masks(as_targets([torch.zeros(0, 4)], [torch.zeros(0).long()]), (96, 96)))
    assert [term.item() for term in terms.values()] == [0, 0, 0, 0, 0]


def test_what_is_not_finite_finds_nothing(as_targets: Callable[..., Targets]) -> None:
    model = small().eval()
    images, sizes = torch.rand(2, 3, 96, 96), torch.tensor([[96, 96]] * 2)
    nn.init.constant_(next(model.backbone.parameters()), float("nan"))  # pyright: ignore[reportAttributeAccessIssue]
    found = model.predict(images, sizes)
    assert [len(each) for each in found] == [0, 0]
    assert [each.masks.shape for each in found if each.masks is not None] == [(0, 96, 96)] * 2
    targets = with_masks(as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2), (96, 96))
    terms = model.loss(images, targets)
    assert all(term.isnan() for term in terms.values())


def test_masks_that_are_not_finite_are_empty() -> None:
    model = small().eval()
    nn.init.constant_(model.mask_head.mask_fcn_logits.weight, float("nan"))
    nn.init.normal_(model.box_head.cls_score.weight, std=0.5)
    (found,) = model.predict(torch.rand(1, 3, 96, 96), torch.tensor([[96, 96]]))
    assert len(found) > 3
    assert found.masks is not None
    assert not found.masks.any()


def test_stages(as_targets: Callable[..., Targets]) -> None:
    images = torch.rand(2, 3, 96, 96)
    targets = with_masks(as_targets([torch.tensor([[10.0, 10, 50, 60]])] * 2, [torch.tensor([1])] * 2), (96, 96))
    learning = {}
    for stage, names in (("joint", TERMS), ("rpn", TERMS[:2]), ("boxes", TERMS[2:])):
        model = small(stage=stage)
        terms = model.loss(images, targets)
        assert list(terms) == names
        sum(terms.values()).backward()
        learning[stage] = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learning["rpn"] == {"backbone", "neck", "rpn"}
    assert learning["boxes"] == {"backbone", "neck", "box_head", "mask_head"}
    assert learning["joint"] == learning["rpn"] | learning["boxes"]


def test_what_depends_on_the_classes() -> None:
    two, three = (make(LightBackbone(), classes=k, channels=16, box_width=8, mask_width=8) for k in (2, 3))
    shapes = {name: p.shape for name, p in two.named_parameters()}
    differ = {name for name, p in three.named_parameters() if p.shape != shapes[name]}
    assert differ == set(MaskRcnn.class_layer)
    before = {name: p.clone() for name, p in three.named_parameters()}
    nn.init.ones_(three.mask_head.mask_fcn_logits.bias)  # pyright: ignore[reportArgumentType]
    three.reset_classes()
    changed = {name for name, p in three.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in MaskRcnn.class_layer if name.endswith("weight")}


def test_what_is_refused() -> None:
    good = small()
    parts = (good.backbone, good.neck, good.rpn, good.box_head)
    statistics = fixed_statistics("imagenet", channels=3)
    with pytest.raises(ConfigError, match="3 classes of boxes and 2 of masks"):
        MaskRcnn(*parts, MaskHead(32, 2, strides=(4, 8, 16, 32)), statistics=statistics)
    with pytest.raises(ConfigError, match="mask_regions: must be at least 1, got 0"):
        MaskRcnn(*parts, good.mask_head, statistics=statistics, mask_regions=0)
    with pytest.raises(ConfigError, match="stage: expected"):
        small(stage="masks")  # pyright: ignore[reportArgumentType]


def test_a_recipes_section() -> None:
    config = SimpleNamespace(
        backbone="resnet18",
        norm="group",
        drop_path=0.0,
        neck="fpn",
        fpn_channels=16,
        anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0),
        box_width=24,
        pooling="pool",
        proposals=20,
        train_proposals=30,
        samples=10,
        stage="boxes",
        mask_channels=12,
        mask_convs=3,
        mask_size=7,
    )
    model = build_mask_rcnn(
        config,  # pyright: ignore[reportArgumentType]
        num_classes=2,
        channels=1,
        statistics=fixed_statistics("unit", channels=1),
    )
    assert (model.stage, model.sampler.samples, model.rpn.proposals) == ("boxes", 10, 20)
    assert (len(model.mask_head.convs), model.mask_head.conv5_mask.out_channels) == (3, 12)
    assert model.eval()(torch.rand(1, 1, 64, 64)).masks.shape == (1, 20, 14, 14)


def test_forward_says_what_predict_draws() -> None:
    model = small().eval()
    nn.init.normal_(model.box_head.cls_score.weight, std=0.5)
    images, sizes = torch.rand(2, 3, 64, 96), torch.tensor([[64, 96]] * 2)
    with torch.no_grad():
        scores, boxes, region, label, masks = model(images)
    assert (scores.shape, boxes.shape, masks.shape) == ((2, 60, 3), (2, 60, 3, 4), (2, 60, 28, 28))
    assert (region.shape, label.shape) == ((2, 60), (2, 60))
    hits = 0
    for number, found in enumerate(model.predict(images, sizes, Selection(score_threshold=0.3))):
        assert found.scores is not None
        assert found.masks is not None
        assert found.masks.shape == (len(found), 64, 96)
        place = torch.arange(60)
        chosen = scores[number, region[number], label[number]]
        assert torch.equal(chosen, scores[number].amax(1).sort(descending=True).values)
        here = boxes[number, region[number], label[number]]
        for box, kind, score, mask in zip(found.boxes, found.labels, found.scores, found.masks, strict=True):
            same = ((chosen - score).abs() < 1e-5) & (label[number] == kind) & (here - box).abs().amax(1).lt(1e-3)
            for row in place[same][:1]:
                pasted = paste_masks(masks[number, row, None].sigmoid(), here[row, None], (64, 96))[0]
                assert (pasted == mask).float().mean() > 0.999
                hits += int(mask.any())
    assert hits > 5
    model.mask_regions = 7
    assert model(images).masks.shape == (2, 7, 28, 28)


def exported(model: MaskRcnn, images: Tensor) -> list[Tensor]:
    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    return [torch.from_numpy(part) for part in session.run(None, {session.get_inputs()[0].name: images.numpy()})]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_onnx() -> None:
    model = small().eval()
    nn.init.normal_(model.box_head.cls_score.weight, std=0.5)
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=1.0)  # or equal scores change places
    model.mask_regions = 20
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        expected = model(images)
    for mine, other in zip(exported(model, images), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


PHOTOS = (5, 15, 18)  # of 16 to 20 nuclei of some 15 pixels; smaller ones suffer from pasting at whole pixels


@pytest.mark.real
def test_overfits_three_images_of_nuclei(shared_data: Path) -> None:
    data = read_dataset(shared_data / "nuclei", images="skip")
    samples = SampleSet(data, data=DataConfig(root=str(shared_data), size=(128, 128)), task="instance")
    batch = collate([samples[index] for index in PHOTOS])
    model = make(
        LightBackbone(),
        classes=1,
        channels=48,
        box_width=96,
        mask_width=32,
        mask_convs=2,
        anchor_sizes=(8, 16, 32, 64, 128),
        proposals=100,
        sampler=RoiSampler(samples=64),
    )
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    steps = 130
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        loss = sum(model.loss(batch.images, batch.targets).values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    found = model.eval().predict(batch.images, batch.sizes, Selection(score_threshold=0.5))
    overlaps = []
    assert batch.targets.masks is not None
    for number, each in enumerate(found):
        mine = batch.targets.image == number
        assert each.masks is not None
        truth, drawn = batch.targets.masks[mine].flatten(1).float(), each.masks.flatten(1).float()
        both = truth @ drawn.mT
        iou = both / (truth.sum(1)[:, None] + drawn.sum(1) - both).clamp(min=1)
        matched = box_iou(batch.targets.boxes[mine], each.boxes) > 0.5
        overlaps += (iou * matched).amax(1).tolist() if len(each) else [0.0] * int(mine.sum())
    hits = torch.tensor([iou for iou in overlaps if iou > 0])
    assert len(hits) >= 0.8 * len(overlaps)
    assert hits.mean() >= 0.75
    assert sum(len(each) for each in found) < 1.3 * len(overlaps)
