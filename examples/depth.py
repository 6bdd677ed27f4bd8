"""Depth from one image: generated scenes of known depth, a U-Net that learns them, and a picture of what it says.

python examples/depth.py                   # trains in a minute or two on two cores, writes depth.png
python examples/depth.py --steps 20 --out depth.png
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clearsight.data.normalisation import Statistics
from clearsight.metrics.depth import DepthErrors, depth_errors
from clearsight.models.segment.depth import DepthNet
from clearsight.models.segment.unet import UNet

HEIGHT, WIDTH, FOCAL = 96, 128, 110.0  # pixels
FARTHEST = 30.0  # metres; beyond it, and in the sky, there is no depth: 0
FOG = 25.0  # metres until a third of the colour is left

Floats = NDArray[np.floating[Any]]
WHITE, GREY = (255, 255, 255), (170, 174, 178)


# ------------------------------------------------------------------------------------------------ scenes
def scene(seed: int) -> tuple[NDArray[np.uint8], Floats]:
    """An image `(h, w, 3)` and the depth of each pixel `(h, w)` in metres, along the camera's axis.

    A textured ground, and boxes and balls on it; the camera's height and tilt differ from scene to scene.
    """
    rng = np.random.default_rng(seed)
    height, tilt = rng.uniform(1.0, 2.2), math.radians(rng.uniform(3.0, 16.0))
    across = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    down = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL
    right, below = np.meshgrid(across, down)
    # Rays whose part along the camera's axis is 1, so that the distance along a ray is the depth. World: x right,
    # y up, z forward, the ground at y = 0.
    up = -below * math.cos(tilt) - math.sin(tilt)
    ahead = math.cos(tilt) - below * math.sin(tilt)
    ray = np.stack((right, up, ahead), axis=-1)
    eye = np.array([0.0, height, 0.0])
    sun = rng.normal(size=3)
    sun[1] = abs(sun[1]) + 1.0
    sun /= np.linalg.norm(sun)

    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(up < 0, -height / up, np.inf)
    best, normal = ground, np.zeros_like(ray)
    normal[..., 1] = 1.0
    shades = rng.uniform(0.25, 0.75, (2, 3))
    size = rng.uniform(0.4, 0.8)
    color = np.where(checks(eye + ray * np.minimum(ground, 1e3)[..., None], size)[..., None], shades[0], shades[1])
    for _ in range(rng.integers(4, 8)):
        forward = rng.uniform(3.0, 14.0)
        centre = np.array([rng.uniform(-0.55, 0.55) * forward, 0.0, forward])
        paint = rng.uniform(0.2, 1.0, 3)
        if rng.random() < 0.5:
            found, facing, point = ball(eye, ray, centre, rng.uniform(0.4, 1.1))
        else:
            found, facing, point = box(eye, ray, centre, rng.uniform(0.6, 2.2, 3), rng.uniform(0, np.pi / 2))
        nearer = found < best
        stripes = np.where(checks(point, 0.35), 1.0, 0.65)[..., None]
        best = np.where(nearer, found, best)
        color = np.where(nearer[..., None], paint * stripes, color)
        normal = np.where(nearer[..., None], facing, normal)

    light = 0.35 + 0.65 * np.clip(normal @ sun, 0.0, None)
    clear = np.exp(-np.minimum(best, 1e3) / FOG)[..., None]
    pixels = clear * color * light[..., None] + (1 - clear) * np.array([0.72, 0.80, 0.90])
    pixels += rng.normal(scale=0.01, size=pixels.shape)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8), np.where(best < FARTHEST, best, 0.0)


def checks(point: Floats, size: float) -> NDArray[np.bool_]:
    """A chequered solid: every other cube of a side, which shows on all its surfaces."""
    return (np.floor(point / size + 1e-6).sum(axis=-1) % 2).astype(bool)


def ball(eye: Floats, ray: Floats, centre: Floats, radius: float) -> tuple[Floats, Floats, Floats]:
    """Depth at which each ray meets a ball that lies on the ground (inf: never), and the normal and place there."""
    middle = centre + np.array([0.0, radius, 0.0])
    a, b, c = (ray**2).sum(-1), ray @ (eye - middle), ((eye - middle) ** 2).sum() - radius**2
    root = b**2 - a * c
    found = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0.0))) / a, np.inf)
    found = np.where(found > 0, found, np.inf)
    point = eye + ray * np.where(np.isfinite(found), found, 0.0)[..., None]
    return found, (point - middle) / radius, point - middle


def box(eye: Floats, ray: Floats, centre: Floats, sides: Floats, turn: float) -> tuple[Floats, Floats, Floats]:
    """The same of a box that stands on the ground, turned about the vertical: between three pairs of planes."""
    cos, sin = np.cos(turn), np.sin(turn)
    own = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])  # rows are the box's axes
    middle = centre + np.array([0.0, sides[1] / 2, 0.0])
    start, along = own @ (eye - middle), ray @ own.T
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-sides / 2 - start) / along, (sides / 2 - start) / along
    enter, leave = np.minimum(one, other), np.maximum(one, other).min(-1)
    axis, found = enter.argmax(-1), enter.max(-1)
    found = np.where((found < leave) & (found > 0), found, np.inf)
    facing = -np.sign(np.take_along_axis(along, axis[..., None], -1)) * own[axis]
    return found, facing, start + along * np.where(np.isfinite(found), found, 0.0)[..., None]


def batch(seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(n, 3, h, w)` uint8 and depths `(n, 1, h, w)`."""
    images, depths = zip(*(scene(seed) for seed in seeds), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(depths)).float()[:, None]


# ------------------------------------------------------------------------------------------------ picture
MAPS = {
    "depth": np.array([(253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84)], dtype=np.float64),
    "error": np.array([(33, 102, 172), (247, 247, 247), (178, 24, 43)], dtype=np.float64),
}


def colored(values: Floats, name: str, ticks: Sequence[float]) -> NDArray[np.uint8]:
    """Numbers from the first tick to the last by a map of colours; grey where there is none."""
    anchors = MAPS[name]
    place = np.clip((values - ticks[0]) / (ticks[-1] - ticks[0]), 0, 1) * (len(anchors) - 1)
    mixed = np.stack([np.interp(place, np.arange(len(anchors)), channel) for channel in anchors.T], axis=-1)
    return np.where(np.isfinite(values)[..., None], mixed, 110).round().astype(np.uint8)


def panel(title: str, pixels: NDArray[np.uint8], bar: tuple[str, str, dict[float, str]] | None = None) -> Image.Image:
    """A picture with its axes in pixels, and a bar of its colours: name of the map, unit, what stands at each tick."""
    enlarge, left, top, bottom, margin = 3, 58, 40, 46, 112
    height, width = pixels.shape[0] * enlarge, pixels.shape[1] * enlarge
    whole = Image.new("RGB", (left + width + margin, top + height + bottom), (16, 18, 20))
    whole.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (left, top))
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(size=14)
    draw.text((left, top / 2), title, font=ImageFont.load_default(size=17), fill=WHITE, anchor="lm")
    for column in range(0, pixels.shape[1] + 1, 32):
        x = left + column * enlarge
        draw.line((x, top + height, x, top + height + 5), fill=GREY)
        draw.text((x, top + height + 8), str(column), font=font, fill=GREY, anchor="ma")
    for row in range(0, pixels.shape[0] + 1, 32):
        y = top + row * enlarge
        draw.line((left - 5, y, left, y), fill=GREY)
        draw.text((left - 8, y), str(row), font=font, fill=GREY, anchor="rm")
    draw.text((left + width / 2, top + height + 26), "column (pixels)", font=font, fill=GREY, anchor="ma")
    sideways = Image.new("RGB", (100, 18), (16, 18, 20))
    ImageDraw.Draw(sideways).text((50, 9), "row (pixels)", font=font, fill=GREY, anchor="mm")
    whole.paste(sideways.rotate(90, expand=True), (4, top + height // 2 - 50))
    if bar is not None:
        name, unit, ticks = bar
        low, high = min(ticks), max(ticks)
        ramp = np.linspace(high, low, height)[:, None].repeat(14, axis=1)
        whole.paste(Image.fromarray(colored(ramp, name, list(ticks))), (left + width + 14, top))
        for tick, said in ticks.items():
            y = top + (high - tick) / (high - low) * (height - 1)
            draw.line((left + width + 28, y, left + width + 33, y), fill=GREY)
            draw.text((left + width + 37, y), said, font=font, fill=GREY, anchor="lm")
        draw.text((left + width + 14, top / 2), unit, font=font, fill=GREY, anchor="lm")
    return whole


def picture(image: torch.Tensor, true: torch.Tensor, found: torch.Tensor) -> Image.Image:
    """Image, true depth, predicted depth and relative error, two by two."""
    truth, answer = (x.double().numpy() for x in (true, found))
    truth, answer = (np.where(truth > 0, x, np.nan) for x in (truth, answer))
    error = 100 * (answer / truth - 1)
    metres = {float(power): f"{2**power}" for power in range(6)}  # 1 to 32, each twice the one before
    percent = {float(value): f"{value:+d}" if value else "0" for value in range(-40, 41, 20)}
    panels = [
        panel("Image of a scene not trained on", image.permute(1, 2, 0).numpy()),
        panel(
            "True depth; grey: none, or far",
            colored(np.log2(truth), "depth", list(metres)),
            ("depth", "metres", metres),
        ),
        panel(
            "Predicted depth; grey: not judged",
            colored(np.log2(answer), "depth", list(metres)),
            ("depth", "metres", metres),
        ),
        panel(
            f"Error, of mean size {np.nanmean(np.abs(error)):.1f}%",
            colored(error, "error", list(percent)),
            ("error", "% too deep", percent),
        ),
    ]
    width, height = panels[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for number, each in enumerate(panels):
        whole.paste(each, (number % 2 * width, number // 2 * height))
    return whole


# ------------------------------------------------------------------------------------------------ training
def main(out: Path, *, steps: int = 300, scenes: int = 600) -> tuple[DepthErrors, DepthErrors]:
    torch.manual_seed(0)
    start = time.monotonic()
    images, depths = batch(range(scenes))
    held_images, held_depths = batch(range(100_000, 100_040))
    print(f"{scenes} scenes to learn from and {len(held_images)} held out, made in {time.monotonic() - start:.0f} s")

    net = UNet(3, 1, width=12, depth=4, up="bilinear")
    model = DepthNet(net, statistics=Statistics(mean=(0.5,) * 3, std=(0.25,) * 3))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    known = depths > 0
    torch.nn.init.constant_(net.get_parameter("out.bias"), float(depths[known].log().mean()))  # begin there, not at 1 m
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    start = time.monotonic()
    for step in range(steps):
        chosen = torch.randint(scenes, (8,))
        x, y = images[chosen], depths[chosen]
        if torch.rand(()) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        loss = model.loss(x, y)["scale_invariant"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.4f}, {time.monotonic() - start:.0f} s")

    model.eval()
    sizes = torch.tensor([held_images.shape[2:]] * len(held_images))
    found = torch.stack(model.predict(held_images, sizes))[:, None]
    # What a net that does not look at the image could say at best: each pixel's mean over the scenes learned from.
    mean = (depths.sum(0) / known.sum(0).clamp(min=1)).clamp(min=0.1).expand_as(held_depths)
    errors, baseline = depth_errors(found, held_depths), depth_errors(mean, held_depths)
    print(f"mean map:               {baseline}")
    print(f"net:                    {errors}")
    print(f"mean map, median scale: {depth_errors(mean, held_depths, median_scaling=True)}")
    print(f"net, median scale:      {depth_errors(found, held_depths, median_scaling=True)}")
    picture(held_images[0], held_depths[0, 0], found[0, 0]).save(out)
    print(f"Picture: {out}")
    return errors, baseline


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--scenes", type=int, default=600, help="to learn from")
    parser.add_argument("--out", type=Path, default=Path("depth.png"), help="picture to write")
    args = parser.parse_args()
    main(args.out, steps=args.steps, scenes=args.scenes)
