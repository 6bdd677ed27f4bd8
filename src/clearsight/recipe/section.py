"""What every section of a recipe is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "Fraction", "Pixels", "Positive", "Rate", "Section"]

# Numbers are strict where Python would be generous: `true` is no count, and infinity no length.
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Pixels = Annotated[int, Field(ge=8, le=16384, strict=True)]


class Section(BaseModel):
    """Frozen, and closed: a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
