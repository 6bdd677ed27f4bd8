"""Everything that is looked for in a run."""

from __future__ import annotations

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.bottleneck import GrowingMemory, LoaderBound
from clearsight.doctor.run.divergence import DivergingLoss, LearningRateTooHigh, WrongSign
from clearsight.doctor.run.generalisation import ClassImbalance, Overfitting, OverRegularised
from clearsight.doctor.run.gradients import ClippedSteps, ExplodingGradient, VanishingGradient
from clearsight.doctor.run.label_order import UnshuffledBatches
from clearsight.doctor.run.loop_faults import GradientChanged, GradientsNotCleared, NotInOptimizer
from clearsight.doctor.run.norm_statistics import DriftingNormStatistics, WrongMode
from clearsight.doctor.run.not_finite import NonFiniteLogged
from clearsight.doctor.run.oscillation import Oscillation, Plateau
from clearsight.doctor.run.prior import ClassNeverPredicted, DoubleSoftmax, LabelsUnrelated, StuckAtPrior
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.schedule import MomentumTooLong, RateStillRising
from clearsight.doctor.run.slow import LearningRateTooLow, NotConverged, Underfitting
from clearsight.doctor.run.spikes import LossSpike
from clearsight.doctor.run.units import DeadUnits, SaturatedUnits
from clearsight.doctor.run.updates import NotUpdated, WeightDrift

__all__ = ["RULES"]

RULES: tuple[Rule[RunRecord], ...] = (
    NonFiniteLogged(),
    GradientsNotCleared(),
    GradientChanged(),
    NotInOptimizer(),
    UnshuffledBatches(),
    NotUpdated(),
    WrongMode(),
    WrongSign(),
    LearningRateTooHigh(),
    MomentumTooLong(),
    RateStillRising(),
    DivergingLoss(),
    ExplodingGradient(),
    LossSpike(),
    DoubleSoftmax(),
    VanishingGradient(),
    DeadUnits(),
    SaturatedUnits(),
    ClassImbalance(),
    LearningRateTooLow(),
    StuckAtPrior(),
    LabelsUnrelated(),
    Overfitting(),
    OverRegularised(),
    Underfitting(),
    ClassNeverPredicted(),
    NotConverged(),
    Oscillation(),
    Plateau(),
    DriftingNormStatistics(),
    WeightDrift(),
    ClippedSteps(),
    LoaderBound(),
    GrowingMemory(),
)
