"""Everything that is looked for in a model before its first step."""

from __future__ import annotations

from clearsight.doctor.model.activations import ActivationScale
from clearsight.doctor.model.batch_norm import OneValueNorm, TinyBatchNorm
from clearsight.doctor.model.dead_at_start import DeadAtStart
from clearsight.doctor.model.dependence import ImagesNotLearned, InputUnread, SamplesMixed
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.gradient_check import WrongGradient
from clearsight.doctor.model.identical_units import IdenticalUnits
from clearsight.doctor.model.initial_loss import InitialLossOff
from clearsight.doctor.model.input_changed import InputChanged
from clearsight.doctor.model.input_check import InputNotNormalised, WrongLayout
from clearsight.doctor.model.kernels import CheckerboardKernel, GriddingDilations
from clearsight.doctor.model.loss_target import LossTargetMismatch
from clearsight.doctor.model.lr_range import LearningRateOutOfBand
from clearsight.doctor.model.missing_parts import MissingNonLinearity, SoftmaxBeforeCrossEntropy
from clearsight.doctor.model.norm_order import BiasBeforeNorm, DropoutBeforeNorm
from clearsight.doctor.model.overfit import CannotOverfit
from clearsight.doctor.model.parameters import (
    CoupledDecayWithAdam,
    DecayOnNormAndBias,
    FrozenParameters,
    NotInOptimizer,
    ParametersWithoutGradient,
)
from clearsight.doctor.model.precision import PrecisionOverflow
from clearsight.doctor.rule import Rule

__all__ = ["PROBES", "RULES"]

RULES: tuple[Rule[ModelEvidence], ...] = (
    LossTargetMismatch(),
    WrongLayout(),
    InputNotNormalised(),
    SoftmaxBeforeCrossEntropy(),
    ParametersWithoutGradient(),
    NotInOptimizer(),
    InputUnread(),
    SamplesMixed(),
    InputChanged(),
    IdenticalUnits(),
    InitialLossOff(),
    ActivationScale(),
    DeadAtStart(),
    PrecisionOverflow(),
    MissingNonLinearity(),
    OneValueNorm(),
    TinyBatchNorm(),
    DropoutBeforeNorm(),
    GriddingDilations(),
    CheckerboardKernel(),
    BiasBeforeNorm(),
    FrozenParameters(),
    DecayOnNormAndBias(),
    CoupledDecayWithAdam(),
)
"""Rules that read the model and look at one batch: seconds."""

PROBES: tuple[Rule[ModelEvidence], ...] = (
    CannotOverfit(),
    ImagesNotLearned(),
    WrongGradient(),
    LearningRateOutOfBand(),
)
"""Rules that train a copy of the model, or run it many times: up to a minute."""
