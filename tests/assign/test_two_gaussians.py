"""Two Gaussians a group against scikit-learn, one group at a time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from clearsight.assign.two_gaussians import fit_two


def sklearns(values: np.ndarray, steps: int) -> GaussianMixture:
    mixture = GaussianMixture(
        2,
        weights_init=np.array([0.5, 0.5]),
        means_init=np.array([[values.min()], [values.max()]]),
        precisions_init=np.ones((2, 1, 1)),
        max_iter=steps,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(values[:, None])


@pytest.mark.parametrize("steps", [1, 3, 100])
def test_is_scikit_learns(steps: int) -> None:
    groups = 30
    sizes = torch.randint(2, 46, (groups,))
    sizes[0], sizes[1] = 2, 45
    first = torch.rand(groups, 45) < torch.rand(groups, 1)
    values = torch.where(first, torch.randn(groups, 45) * 0.2 + 0.5, torch.randn(groups, 45) * 0.6 + 2)
    valid = torch.arange(45) < sizes[:, None]
    valid[2] = valid[2][torch.randperm(45)]  # not at the beginning alone
    found = fit_two(values.masked_fill(~valid, 1e9), valid, steps=steps)
    for group in range(groups):
        mine = values[group, valid[group]].double().numpy()
        expected = sklearns(mine, steps)
        np.testing.assert_allclose(found.weight[group], expected.weights_, rtol=1e-7)
        np.testing.assert_allclose(found.mean[group], expected.means_[:, 0], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.variance[group], expected.covariances_[:, 0, 0], rtol=1e-6)
        assert found.steps[group] == expected.n_iter_
        joint = found.joint[group][:, valid[group]]
        np.testing.assert_allclose(joint.logsumexp(0), expected.score_samples(mine[:, None]), rtol=1e-7, atol=1e-9)
        assert (joint[1] > joint[0]).tolist() == expected.predict(mine[:, None]).astype(bool).tolist()
    if steps == 100:
        assert len(found.steps.unique()) > 5  # groups stop by themselves


def test_two_heaps_by_hand() -> None:
    values = torch.tensor([[0.0, 2.0, 100.0, 104.0, 102.0]])
    found = fit_two(values, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(found.weight, torch.tensor([[0.4, 0.6]], dtype=torch.float64))
    torch.testing.assert_close(found.mean, torch.tensor([[1.0, 102.0]], dtype=torch.float64))
    torch.testing.assert_close(found.variance, torch.tensor([[1.0, 8 / 3]], dtype=torch.float64), rtol=1e-5, atol=0)


def test_all_alike_and_nothing() -> None:
    found = fit_two(torch.full((1, 4), 3.0), torch.tensor([[True, True, True, False]]))
    assert found.mean.tolist() == [[pytest.approx(3), pytest.approx(3)]]
    assert torch.isfinite(found.joint).all()
    assert fit_two(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.bool)).mean.shape == (0, 2)
