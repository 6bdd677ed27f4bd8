"""Label assignment: which points of a dense head answer for which objects. One method a file, one signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearsight.assign.atss import Atss
from clearsight.assign.base import Assigner
from clearsight.assign.max_iou import MaxIou
from clearsight.assign.simota import SimOta

if TYPE_CHECKING:
    from clearsight.recipe.model_sections import AssignerConfig

__all__ = ["ASSIGNERS", "Assigner", "build_assigner"]

ASSIGNERS: dict[str, type[MaxIou | Atss | SimOta]] = {"max_iou": MaxIou, "atss": Atss, "simota": SimOta}


def build_assigner(config: AssignerConfig) -> Assigner:
    """The assigner that a recipe's `model.assigner` section describes.

    Args:
        config: a section of `recipe.schema`; its `name` is a key of `ASSIGNERS`.

    Returns:
        The assigner.
    """
    return ASSIGNERS[config.name](**config.model_dump(exclude={"name"}))
