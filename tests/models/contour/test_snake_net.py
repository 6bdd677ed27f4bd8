"""Deep Snake's network: beside its definition, under turns and shifts that it must follow, and exported."""

from __future__ import annotations

import io

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from clearsight.errors import ConfigError
from clearsight.models.contour.snake_net import CircularConv, Snake, SnakeNet, read_rings
from clearsight.ops.rings import diamond, octagon, resample_rings

BOXES = torch.tensor([[4.0, 8.0, 20.0, 16.0], [10.0, 2.0, 13.0, 30.0], [30.0, 30.0, 30.5, 31.0]])
IMAGE = torch.tensor([0, 1, 1])


def small(**options: int) -> Snake:
    """In evaluation mode, with statistics and last weights that do something."""
    torch.manual_seed(0)
    snake = Snake(6, width=8, **{"points": 32, "start_points": 16, "iterations": 2} | options)
    for layer in snake.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    for net in (snake.start, *snake.rounds):
        nn.init.normal_(net.predict[-1].weight, std=0.2)  # pyright: ignore
    return snake.eval()


def still(snake: Snake) -> Snake:
    """A snake that moves nothing."""
    for net in (snake.start, *snake.rounds):
        nn.init.zeros_(net.predict[-1].weight)  # pyright: ignore
        nn.init.zeros_(net.predict[-1].bias)  # pyright: ignore
    return snake


# ------------------------------------------------------------------------------------------------ convolution
@pytest.mark.parametrize(("dilation", "points"), [(1, 4), (1, 40), (2, 40), (4, 128), (4, 16)])
def test_around_the_ring_as_a_loop_goes(dilation: int, points: int) -> None:
    layer = CircularConv(3, 5, dilation=dilation).eval()
    x = torch.randn(2, 3, points)
    weight = layer.layers[0].weight
    expected = torch.zeros(2, 5, points)
    for vertex in range(points):
        for tap in range(9):
            seen = x[:, :, (vertex + (tap - 4) * dilation) % points]
            expected[:, :, vertex] += seen @ weight[:, :, tap].T  # pyright: ignore
    norm = layer.layers[1]
    torch.testing.assert_close(layer(x), F.relu(norm(expected)))


def test_a_vertex_reaches_64_to_either_hand() -> None:
    net = SnakeNet(3, 8).eval()
    nn.init.zeros_(net.of_ring.weight)
    x = torch.rand(1, 3, 200, requires_grad=True)
    net(x)[0, :, 100].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (36, 164)
    x.grad = None
    nn.init.normal_(net.of_ring.weight)
    net(x)[0, :, 100].sum().backward()
    assert x.grad.abs().sum(dim=(0, 1))[:36].any()  # the ring's vector tells of all


def test_the_rings_vector_is_joined_with_every_vertex() -> None:
    net = SnakeNet(4, 8).eval()
    x = torch.randn(3, 4, 40)
    said = [net.layers[0](x)]
    for layer in list(net.layers)[1:]:
        said.append(layer(said[-1]) + said[-1])
    states = torch.cat(said, dim=1)
    ring = net.fusion(states).max(dim=2, keepdim=True).values.expand(-1, -1, 40)
    weight = torch.cat((net.of_ring.weight, net.of_vertex.weight), dim=1)
    joined = F.conv1d(torch.cat((ring, states), dim=1), weight, net.of_vertex.bias)
    torch.testing.assert_close(net(x), net.predict(joined))


def test_the_papers_sizes() -> None:
    net = SnakeNet(66)
    assert [layer.layers[0].dilation for layer in net.layers] == [(d,) for d in (1, 1, 1, 1, 2, 2, 4, 4)]  # pyright: ignore
    assert net.fusion.weight.shape == (256, 1024, 1)
    shapes = [tuple(layer.weight.shape) for layer in net.predict if isinstance(layer, nn.Conv1d)]
    assert shapes == [(64, 256, 1), (2, 64, 1)]
    trunk = 9 * 128 * (66 + 7 * 128) + 8 * 2 * 128
    heads = (1024 * 256 + 256) + (1280 * 256 + 256) + (256 * 64 + 2 * 64) + (64 * 2 + 2)
    assert sum(p.numel() for p in net.parameters()) == trunk + heads


# ------------------------------------------------------------------------------------------------ reading
def test_read_as_grid_sample() -> None:
    features = torch.randn(2, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    rings = (torch.rand(6, 20, 2, dtype=torch.float64) * 14 - 2).requires_grad_()
    image = torch.tensor([0, 1, 1, 0, 1, 0])
    found = read_rings(features, rings, image)
    grid = rings / torch.tensor([9.0, 7.0], dtype=torch.float64) * 2 - 1
    expected = F.grid_sample(
        features[image], grid[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )[..., 0]
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    mine = torch.autograd.grad((found * weight).sum(), (features, rings))
    theirs = torch.autograd.grad((expected * weight).sum(), (features, rings))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_read_by_hand() -> None:
    features = torch.arange(12.0).view(1, 1, 3, 4)
    places = torch.tensor([[[0.5, 0.5], [2.0, 0.5], [1.5, 2.0], [-9.0, 9.0], [4.0, 3.0], [torch.nan, torch.inf]]])
    assert read_rings(features, places, torch.tensor([0])).flatten().tolist() == [0.0, 1.5, 7.0, 8.0, 11.0, 8.0]


# ------------------------------------------------------------------------------------------------ from box to contour
def test_a_snake_that_stays_where_it_is() -> None:
    snake = still(small())
    features = torch.randn(2, 6, 12, 12)
    extremes = snake.extremes(features, BOXES, IMAGE)
    assert extremes[0].tolist() == [[12.0, 8.0], [4.0, 12.0], [12.0, 16.0], [20.0, 12.0]]
    expected = resample_rings(octagon(extremes), 32)
    torch.testing.assert_close(snake(features, BOXES, IMAGE), expected)
    assert expected[0, 0].tolist() == [12.0, 8.0]
    assert expected[0].amin(dim=0).tolist() == [4.0, 8.0]
    assert expected[0].amax(dim=0).tolist() == [20.0, 16.0]


def test_offsets_are_cells_at_first_and_pixels_then() -> None:
    snake, features = still(small()), torch.randn(2, 6, 12, 12)
    bias = torch.tensor([1.0, -0.5])
    for net in (snake.start, *snake.rounds):
        net.predict[-1].bias.data = bias.clone()  # pyright: ignore
    extremes = snake.extremes(features, BOXES, IMAGE)
    torch.testing.assert_close(extremes, diamond(BOXES)[:, [0, 3, 2, 1]] + 4 * bias)
    first, second = snake.evolve(features, diamond(BOXES, 20), IMAGE)
    torch.testing.assert_close(first, diamond(BOXES, 20) + bias)
    torch.testing.assert_close(second, diamond(BOXES, 20) + 2 * bias)


def test_extreme_points_stay_on_the_map() -> None:
    snake, features = still(small()), torch.randn(2, 6, 12, 12)
    snake.start.predict[-1].bias.data = torch.tensor([-100.0, 100.0])  # pyright: ignore
    contours = snake(features, BOXES, IMAGE)
    assert contours.unique(dim=1)[:, 0].tolist() == [[0.0, 48.0]] * 3


@pytest.mark.parametrize("shift", [1, 7, 20])
def test_a_round_follows_the_choice_of_the_first_point(shift: int) -> None:
    snake, features = small(), torch.randn(2, 6, 12, 12)
    contours = diamond(BOXES, 40)
    moved = snake.evolve(features, contours, IMAGE)
    turned = snake.evolve(features, contours.roll(shift, dims=1), IMAGE)
    for one, other in zip(moved, turned, strict=True):
        torch.testing.assert_close(other, one.roll(shift, dims=1), rtol=1e-5, atol=1e-4)
        assert (one - contours).abs().max() > 0.1


def test_all_of_it_follows_a_shift_by_whole_cells() -> None:
    snake, features = small(), torch.randn(2, 6, 30, 30)
    for net in (snake.start, *snake.rounds):
        net.predict[-1].weight.data /= 20  # pyright: ignore  # no vertex leaves the map
    boxes = BOXES + 20
    shifted = features.roll((3, -2), dims=(2, 3))
    by = torch.tensor([-2.0, 3.0]) * 4
    before = snake.evolve(features, diamond(boxes, 40), IMAGE)
    after = snake.evolve(shifted, diamond(boxes, 40) + by, IMAGE)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one + by, rtol=1e-5, atol=1e-4)
    whole = snake(features, boxes, IMAGE)
    torch.testing.assert_close(snake(shifted, boxes + by.repeat(2), IMAGE), whole + by, rtol=1e-5, atol=1e-4)
    assert (snake(features, boxes + by.repeat(2), IMAGE) - whole - by).abs().max() > 0.01  # it does look at the map


def test_every_object_is_its_own() -> None:
    snake, features = small(), torch.randn(2, 6, 12, 12)
    together = snake(features, BOXES, IMAGE)
    for index in range(3):
        alone = snake(features[IMAGE[index]][None], BOXES[index][None], torch.tensor([0]))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-4)


def test_places_are_relative_to_each_objects_own_corner() -> None:
    seen: list[Tensor] = []
    snake, features = small(), torch.zeros(2, 6, 12, 12)
    snake.rounds[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    snake.evolve(features, diamond(BOXES, 16), IMAGE)
    places = seen[0][:, -2:]
    assert places.amin(dim=2).tolist() == [[0.0, 0.0]] * 3
    assert places.amax(dim=2).tolist() == [[16.0, 8.0], [3.0, 28.0], [0.5, 1.0]]
    snake.start.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    snake.extremes(features, BOXES, IMAGE)
    assert seen[1][:, -2:].amax(dim=2).tolist() == [[4.0, 2.0], [0.75, 7.0], [0.125, 0.25]]  # in cells


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="points: must be at least 16, got 15"):
        Snake(points=15)
    for count in (12, 42):
        with pytest.raises(ConfigError, match=f"start_points: .* got {count}"):
            Snake(start_points=count)
    with pytest.raises(ConfigError, match="iterations: must be at least 1"):
        Snake(iterations=0)
    with pytest.raises(ConfigError, match="width: must be at least 1"):
        Snake(width=0)


# ------------------------------------------------------------------------------------------------ other forms
def test_half_precision() -> None:
    snake, features = small(), torch.randn(2, 6, 12, 12)
    full = snake(features, BOXES, IMAGE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = snake(features, BOXES, IMAGE)
        read = snake(features.bfloat16(), BOXES, IMAGE)
    assert half.dtype == read.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.5)
    torch.testing.assert_close(read, full, rtol=0.05, atol=0.5)


def test_compiled() -> None:
    torch.compiler.reset()
    snake, features = small(), torch.randn(2, 6, 12, 12)
    with torch.no_grad():
        compiled = torch.compile(snake, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(
            compiled(features, BOXES, IMAGE), snake(features, BOXES, IMAGE), rtol=1e-4, atol=1e-3
        )


@pytest.mark.long
def test_the_exported_snake_gives_the_same_for_any_number_of_objects() -> None:
    snake, features = small(iterations=1), torch.randn(2, 6, 12, 12)
    program = torch.onnx.export(
        snake,
        (features, BOXES, IMAGE),
        input_names=["features", "boxes", "image"],
        dynamic_shapes=({}, {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    for boxes, image in ((BOXES, IMAGE), (BOXES.repeat(3, 1) + 1, 1 - IMAGE.repeat(3))):
        fed = {"features": features.numpy(), "boxes": boxes.numpy(), "image": image.numpy()}
        (found,) = session.run(None, fed)
        with torch.no_grad():
            expected = snake(features, boxes, image)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-3)
