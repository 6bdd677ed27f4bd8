from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clearsight.train.devices import make_fabric
from clearsight.train.step import LossModule, Stepper, _Held
from clearsight.types import Targets


def stepper(digits, model, *, lr=0.5, optimizer=torch.optim.SGD, **changes):
    trainer = digits.cpu(**{"clip_norm": None, **changes})
    fabric = make_fabric(trainer)
    module = fabric.setup_module(LossModule(model))
    return Stepper(fabric, module, fabric.setup_optimizers(optimizer(model.parameters(), lr=lr)), trainer)


def new_model(digits):
    torch.manual_seed(3)
    return digits.DigitNet(dropout=0.0)


def weights(model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_one_step_by_hand(digits):
    model, twin = new_model(digits), new_model(digits)
    batch = digits.batch_of(range(16))
    measured = stepper(digits, model)([batch])
    terms = twin.loss(batch.images, batch.targets)
    torch.stack(list(terms.values())).sum().backward()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    with torch.no_grad():
        for p in twin.parameters():
            p -= 0.5 * p.grad
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-6, atol=1e-7)
    assert measured.names == ("class", "spread")
    torch.testing.assert_close(measured.values, torch.stack([*terms.values(), norm]).detach(), rtol=1e-5, atol=1e-7)


def test_accumulation_equals_one_large_batch(digits):
    large, small = new_model(digits), new_model(digits)
    one, four = stepper(digits, large), stepper(digits, small)
    for start in (0, 32, 64):
        measured = one([digits.batch_of(range(start, start + 32))])
        parts = [digits.batch_of(range(start + i, start + i + 8)) for i in range(0, 32, 8)]
        again = four(parts)
        torch.testing.assert_close(measured.values, again.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights(large), weights(small), rtol=1e-5, atol=1e-6)


def test_clipping_by_norm(digits):
    model = new_model(digits)
    before = weights(model)
    measured = stepper(digits, model, lr=1.0, clip_norm=0.01)([digits.batch_of(range(16))])
    assert measured.values[-1] > 0.01  # the norm that is reported is the one before clipping
    torch.testing.assert_close(torch.linalg.vector_norm(weights(model) - before).item(), 0.01, rtol=1e-3, atol=0)


def test_clipping_by_value(digits):
    model = new_model(digits)
    before = weights(model)
    stepper(digits, model, lr=1.0, clip_value=1e-4)([digits.batch_of(range(16))])
    change = (weights(model) - before).abs()
    assert change.max().item() == pytest.approx(1e-4, rel=1e-2)
    assert (change > 0.99e-4).float().mean() > 0.5


def test_lbfgs_evaluates_the_batch_several_times(digits):
    model = new_model(digits)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    batch = digits.batch_of(range(32))
    first = stepper(digits, model, lr=0.1, optimizer=torch.optim.LBFGS)([batch])
    assert len(calls) > 3
    assert model.loss(batch.images, batch.targets)["class"] < first.values[0] + 1e-6


class Probe(nn.Module):
    """Says what reaches a model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.seen: dict[str, object] = {}

    def loss(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        product = self.weight @ self.weight
        self.seen = {
            "images": images.dtype,
            "boxes": targets.boxes.clone(),
            "product": product.dtype,
            "channels_last": images.is_contiguous(memory_format=torch.channels_last),
        }
        return {"x": product.mean()}


def test_mixed_precision_reaches_the_layers_and_not_the_boxes(digits):
    batch = digits.batch_of(range(4))
    batch.images = batch.images.repeat(1, 3, 1, 1)
    batch.targets.boxes = torch.tensor([[301.0, 0.0, 333.25, 10.0]])
    model = Probe()
    stepper(digits, model, precision="bf16-mixed")([batch])
    assert model.seen["product"] is torch.bfloat16
    assert model.seen["images"] is torch.uint8
    assert model.seen["channels_last"] is True
    assert torch.equal(model.seen["boxes"], batch.targets.boxes)  # bf16 would make 302 of 301
    stepper(digits, model)([batch])
    assert model.seen["product"] is torch.float32


def test_held_batches_are_opaque():
    assert not hasattr(_Held, "__dataclass_fields__")


def test_no_batches(digits):
    with pytest.raises(ValueError, match="at least one batch"):
        stepper(digits, new_model(digits))([])
