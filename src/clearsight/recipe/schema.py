"""What a recipe may say: one pydantic model a section, unknown keys refused, every value checked at once.

A recipe is plain data. Builders elsewhere (`build_model`, `build_optimizer`, …) are the only readers of a section.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clearsight.recipe.model_sections import ModelConfig, model_task
from clearsight.recipe.section import Count, Fraction, Pixels, Positive, Section
from clearsight.types import Task

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EarlyStopConfig",
    "EvalConfig",
    "LoaderConfig",
    "OptimizerConfig",
    "Recipe",
    "ScheduleConfig",
    "SplitConfig",
    "TrainerConfig",
    "WatchConfig",
]


# ------------------------------------------------------------------------------------------------ data
class SplitConfig(Section):
    """How to split data whose files name no splits."""

    method: Literal["auto", "random", "stratified", "grouped", "ordered"] = "auto"
    """`auto`: grouped where records carry a group, else stratified where classes allow it, else random. `ordered`: by
    file name (slice 9 before slice 10), the first to train and the last to test: for volumes and films."""
    fractions: tuple[Fraction, Fraction, Fraction] | None = None
    """Shares of train, val, test, adding up to 1; None chooses by size (6:2:2 small, 98:1:1 above a million)."""
    seed: int = 0

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.fractions is not None and abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must add up to 1, they add up to {sum(self.fractions):g}")
        return self


class DataConfig(Section):
    """Where the data is and how it is read."""

    root: str | None = None
    """Folder or annotation file; None for data that is generated (`format: digit_scenes`)."""
    format: Literal[
        "auto", "image_folder", "csv", "voc", "coco", "yolo", "mask_png", "instance_png", "labelme", "digit_scenes"
    ] = "auto"
    """`auto` looks at the files."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; None takes them from the files."""
    train: str | tuple[str, ...] = "train"
    """Split, or splits, to train on."""
    val: str | None = "val"
    """Split watched during training; None trains without validation."""
    test: str | None = "test"
    """Split that `eval` scores by default."""
    split: SplitConfig = SplitConfig()
    size: tuple[Pixels, Pixels] = (320, 320)
    """Height and width that the model sees."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """`letterbox` keeps the aspect ratio and pads on the right and below; `stretch` does not."""
    channels: Annotated[int, Field(ge=1, le=64)] = 3
    """Channels of the model's input; grey images are repeated, alpha is dropped with a finding."""
    normalize: Literal["data", "imagenet", "unit", "percentile"] = "data"
    """`data`: mean and deviation of the training images; `unit`: to [0, 1]; `percentile`: each image's 1st to 99th."""
    strict: bool = False
    """Refuse data with any error-level finding; else drop just those items and count them."""
    scenes: Annotated[int, Field(ge=3)] = 600
    """Number of images that `digit_scenes` generates."""
    scenes_seed: int = 0


class AugmentConfig(Section):
    """Random changes to training images; a value of 0 switches one off."""

    flip_horizontal: Fraction = 0.5
    """Probability."""
    flip_vertical: Fraction = 0.0
    """Probability."""
    rotate90: Fraction = 0.0
    """Probability of a quarter turn, on square inputs; others turn by a half."""
    turn_batches: Fraction = 0.0
    """Probability that all images of a batch turn by a quarter together, on inputs that are not square."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation in degrees."""
    zoom: tuple[Positive, Positive] | None = None
    """Range of the random scale about a random centre; above 1 crops, below 1 shrinks onto a canvas."""
    zoom_probability: Fraction = 1.0
    brightness: Fraction = 0.0
    """Largest relative change."""
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    mosaic: Fraction = 0.0
    """Probability of four images in one (detection, instance segmentation)."""
    mixup: Fraction = 0.0
    """Probability of blending with another image."""
    mixup_alpha: Positive = 1.0
    """Both parameters of the Beta distribution that the blend is drawn from."""
    cutmix: Fraction = 0.0
    """Probability of a patch of another image (classification)."""
    cutmix_alpha: Positive = 1.0
    cutout: Fraction = 0.0
    """Probability of an erased square."""
    cutout_size: Fraction = 0.25
    """Side of the square relative to the shorter side of the image."""
    copy_paste: Fraction = 0.0
    """Probability of pasting small objects of the same image again elsewhere."""
    close_mosaic: Fraction = 0.1
    """Last share of the training that runs without mosaic and mixup."""


class LoaderConfig(Section):
    """Batches and worker processes."""

    batch_size: Count = 16
    """Images of one forward pass, over all processes together."""
    eval_batch_size: Count = 16
    workers: Annotated[int, Field(ge=0, le=128)] | Literal["auto"] = "auto"
    """Worker processes a process; `auto` leaves one core a process to the model, at most 8."""
    cache: Literal["none", "ram"] = "ram"
    """`ram` keeps decoded, resized images where they fit into half of the free memory."""


# ------------------------------------------------------------------------------------------------ training
class OptimizerConfig(Section):
    """The update rule."""

    name: Literal[
        "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam", "lbfgs"
    ] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    """Peak learning rate of the heads."""
    backbone_lr: Positive = 1.0
    """Factor on `lr` for the backbone's parameters."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.05
    decay_norm_and_bias: bool = False
    """Decay one-dimensional parameters (norm scales, biases) too."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)


class ScheduleConfig(Section):
    """The learning rate over the run, as a factor on `optimizer.lr`."""

    name: Literal["constant", "step", "linear", "cosine", "one_cycle", "plateau"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the run in which the rate rises linearly from `warmup_start`."""
    warmup_start: Fraction = 0.01
    """Factor at the first step."""
    final: Fraction = 0.01
    """Factor at the last step (linear, cosine, one_cycle)."""
    milestones: tuple[Fraction, ...] = (0.6, 0.85)
    """Shares of the run at which `step` multiplies by `gamma`."""
    gamma: Fraction = 0.1
    """Factor of `step` and `plateau`."""
    patience: Count = 5
    """Evaluations without improvement before `plateau` lowers the rate."""


class EarlyStopConfig(Section):
    """Stop when the watched metric no longer improves."""

    patience: Count = 10
    """Evaluations without improvement."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainerConfig(Section):
    """How long, on what, and how a run is kept."""

    epochs: Count | None = None
    steps: Count | None = None
    """Optimiser steps."""
    minutes: Positive | None = None
    """Wall clock; the schedule then follows the clock, and such a run does not repeat bit for bit."""
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: Count = 1
    strategy: str = "auto"
    """Lightning Fabric's: `auto`, `ddp`, `ddp_spawn`; those that split the weights over processes are refused."""
    sync_batch_norm: bool = False
    """Batch norm looks at the images of all processes; on GPUs."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """`auto`: bf16 autocast where the device has it, else 32-bit."""
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = True
    """Only algorithms that give the same bits each time."""
    accumulate: Count = 1
    """Batches whose gradients are averaged before a step."""
    clip_norm: Positive | None = 10.0
    clip_value: Positive | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights, warmed up; 0 switches it off."""
    swa_at: Fraction = 1.0
    """Share of the run after which the rate stays and weights are averaged equally, epoch by epoch, not by `ema`."""
    hold_norm_at: Fraction = 1.0
    """Share of the run after which batch norm holds its running statistics, and trains as it will be used; 1: never."""
    eval_every: Count = 1
    """Epochs between evaluations on `data.val`."""
    checkpoint_steps: Count | None = None
    """Steps between saves of `last.ckpt`, besides the one at each epoch's end."""
    monitor: str | None = None
    """Metric that picks the best checkpoint; None takes the task's own (`map`, `accuracy`, `miou`)."""
    early_stop: EarlyStopConfig | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            found = "none" if not given else " and ".join(given)
            raise ValueError(f"give exactly one of epochs, steps or minutes; found {found}")
        return self


class EvalConfig(Section):
    """What predictions count and how they are scored."""

    score_threshold: Fraction = 0.01
    """Lowest score of a detection that is kept for scoring."""
    nms_iou: Fraction = 0.6
    max_detections: Count = 100
    """Kept an image."""
    box_voting: bool = True
    """Move each kept box to the weighted mean of the boxes that suppression dropped for it (Kim and Lee 2020)."""
    nms: Literal["class", "agnostic", "soft"] = "class"
    """Which overlapping boxes compete: of a class, all, or of a class by losing score (Bodla et al. 2017)."""
    boundary_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """Pixels by which a boundary may be off and still be right (semantic segmentation)."""
    regions: str | None = None
    """Class whose connected regions are compared by the foreground-restricted Rand score, such as that of the cells
    between membranes (semantic segmentation)."""
    bootstrap: Annotated[int, Field(ge=0)] = 200
    """Resamples of the images for intervals; 0 gives none."""
    draw_threshold: Fraction = 0.4
    """Lowest score that is drawn."""


class WatchConfig(Section):
    """What the doctor does while a run goes; it never changes the weights."""

    enabled: bool = True
    """Record gradients, updates and units of the layers, and say what is wrong as soon as it shows."""
    every: Count = 50
    """Steps between measurements of the layers; the first ones are measured more often."""
    stop: bool = False
    """End the run at an error, such as gradients that are never cleared."""


class Recipe(Section):
    """Everything that decides a run."""

    name: str
    """Also the run's folder below `runs/`."""
    description: str = ""
    task: Task
    data: DataConfig
    model: ModelConfig
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    trainer: TrainerConfig
    eval: EvalConfig = EvalConfig()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _model_fits_task(self) -> Self:
        task = model_task(self.model.name)
        if self.task != task:
            raise ValueError(f"model.name {self.model.name!r} does task {task!r}, not {self.task!r}")
        return self
