"""What is widened, and what stays as it is."""

from __future__ import annotations

import pytest
import torch

from clearsight.nn.precision import at_least_float32


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.uint8, torch.int64])
def test_half_precision_and_whole_numbers_are_widened(given: torch.dtype) -> None:
    assert at_least_float32(torch.zeros(1, dtype=given)).dtype == torch.float32


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_enough_digits_stay(given: torch.dtype) -> None:
    x = torch.zeros(1, dtype=given)
    assert at_least_float32(x) is x
