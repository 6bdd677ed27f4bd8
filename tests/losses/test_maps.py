"""Targets of dense losses in their two forms."""

from __future__ import annotations

import pytest
import torch

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.losses.maps import as_probabilities, check_map


def test_ids_become_probabilities() -> None:
    logits, ids = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 2], [1, 9]]])
    p, t = as_probabilities(logits, ids, ignore_index=9)
    torch.testing.assert_close(p, torch.tensor([[[1.0, 1.0, 1.0, 0.0]] * 3]) / 3)
    assert t.tolist() == [[[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]]
    p, t = as_probabilities(torch.zeros(1, 1, 2), torch.tensor([[1, 0]]), ignore_index=None)
    assert (p.tolist(), t.tolist()) == ([[[0.5, 0.5]]], [[[1, 0]]])
    soft = torch.rand(1, 3, 4)
    assert torch.equal(as_probabilities(torch.zeros(1, 3, 4), soft, ignore_index=None)[1], soft)


def test_an_ignored_id_may_be_any_number() -> None:
    check_map(torch.zeros(1, 2, 3), torch.tensor([[0, -1, 1]]), ignore_index=-1)
    check_map(torch.zeros(0, 2, 3), torch.zeros(0, 3, dtype=torch.int64))
    check_map(torch.zeros(1, 2, 3), torch.full((1, 3), 255), ignore_index=255)
    with pytest.raises(RangeError, match="found class id 2, expected 0 to 1; set ignore_index=2"):
        check_map(torch.zeros(1, 1, 3), torch.tensor([[0, 2, 1]]))
    with pytest.raises(ShapeError, match=r"class ids \(1, 3\) are whole numbers, such as int64, got torch.float32"):
        check_map(torch.zeros(1, 2, 3), torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="ignore_index: 9 is a class id, but the target has probabilities"):
        check_map(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), ignore_index=9)
    _, t = as_probabilities(torch.zeros(1, 1, 3), torch.tensor([[[0.25, 9.0, 1.0]]]), ignore_index=9)
    assert t.tolist() == [[[0.25, 0, 1]]]


@pytest.mark.parametrize("shape", [(2,), (1, 4), (1, 2, 4), (1, 1, 3), ()])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(1, 3\) class ids or \(1, 2, 3\) probabilities"):
        check_map(torch.zeros(1, 2, 3), torch.zeros(shape))


def test_the_check_disappears_under_compile() -> None:
    graph = torch.export.export(_Checked(), (torch.zeros(1, 1, 3), torch.zeros(1, 3, dtype=torch.int64))).graph
    assert not any("min" in str(node.target) or "item" in str(node.target) for node in graph.nodes)


class _Checked(torch.nn.Module):
    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        check_map(logits, target)
        return logits + target[:, None]
