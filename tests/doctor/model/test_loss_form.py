from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clearsight.doctor.model.loss_form import close, find_form, rows_of, smoothed_floor


def one_hot(labels):
    return F.one_hot(labels, 10).float()


@pytest.mark.parametrize(
    ("loss", "change", "name", "smoothing"),
    [
        (lambda m, x, t: F.cross_entropy(m(x), t), None, "cross entropy", 0.0),
        (lambda m, x, t: F.nll_loss(m(x).softmax(1).log(), t), None, "cross entropy", 0.0),
        (lambda m, x, t: F.cross_entropy(m(x), t, label_smoothing=0.1), None, "cross entropy", 0.1),
        (lambda m, x, t: F.cross_entropy(m(x), t, reduction="sum"), None, "summed cross entropy", 0.0),
        (lambda m, x, t: F.cross_entropy(m(x), t), one_hot, "soft cross entropy", 0.0),
        (lambda m, x, t: F.binary_cross_entropy_with_logits(m(x), t), one_hot, "binary", 0.0),
        (lambda m, x, t: F.mse_loss(m(x), t), one_hot, "squared", 0.0),
    ],
)
def test_usual_losses_are_recognised(cnn, evidence_of, loss, change, name, smoothing):
    evidence = evidence_of(cnn, loss=loss)
    evidence.targets = evidence.targets if change is None else change(evidence.targets)
    found = find_form(evidence)
    assert (found.name, found.classes) == (name, 10)
    assert found.smoothing == pytest.approx(smoothing, abs=3e-3)
    assert find_form(evidence) is found  # one look serves all rules


def test_other_losses_are_not(cnn, evidence_of):
    def margin(m, x, t):
        return F.multi_margin_loss(m(x), t)

    def weighted(m, x, t):
        return F.cross_entropy(m(x), t, weight=torch.arange(1.0, 11.0))

    assert find_form(evidence_of(cnn, loss=margin)) is None
    assert find_form(evidence_of(cnn, loss=weighted)) is None
    assert find_form(evidence_of(cnn, targets=None, loss=lambda m, x, t: m(x).square().mean())) is None


def test_every_output_against_every_target_is_told_from_pairs(evidence_of):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    wanted = torch.linspace(-1, 1, 32)
    crossed = evidence_of(model, targets=wanted, loss=lambda m, x, t: (m(x) - t).square().mean())
    assert find_form(crossed).name == "squared all pairs"
    paired = evidence_of(model, targets=wanted, loss=lambda m, x, t: (m(x)[:, 0] - t).square().mean())
    assert find_form(paired).name == "squared"


def test_the_floor_of_smoothed_labels_is_their_entropy():
    wanted = torch.full((1, 10), 0.01)
    wanted[0, 3] = 0.91
    perfect = float(F.cross_entropy(wanted.log(), torch.tensor([3]), label_smoothing=0.1))
    assert smoothed_floor(0.1, 10) == pytest.approx(perfect, rel=1e-5)
    assert smoothed_floor(0.0, 10) == 0


def test_only_known_ids_count():
    rows, ids = rows_of(torch.arange(12.0).view(1, 3, 2, 2), torch.tensor([[[0, 255], [2, -1]]]))
    assert rows.tolist() == [[0, 4, 8], [2, 6, 10]]
    assert ids.tolist() == [0, 2]


def test_close():
    assert close(1.0, 1.00002)
    assert not close(1.0, 1.0001)
    assert not close(math.nan, math.nan)
