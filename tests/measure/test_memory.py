"""Memory against the allocator, and against cases worked out by hand."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as watch

from clearsight.measure.count import count
from clearsight.measure.memory import LiveBytes, SavedBytes


def test_live_bytes_follow_storages_not_views():
    given = torch.empty(3)
    live = LiveBytes([given])
    live.add(given)
    live.add(given[1:])
    assert live.now == 0
    x = torch.empty(10)
    live.add(x)
    live.add(x.view(2, 5))
    assert live.now == 40
    y = x[2:4]
    live.add(y)
    del x
    gc.collect()
    assert live.now == 40  # the view keeps it
    del y
    gc.collect()
    assert live.now == 0


def test_the_id_of_a_dead_storage_can_come_again():
    live = LiveBytes([])
    for _ in range(50):
        live.add(torch.empty(7))
    gc.collect()
    assert live.now == 0
    kept = [torch.empty(7) for _ in range(50)]
    for one in kept:
        live.add(one)
    assert live.now == 50 * 28


def test_saved_bytes_count_each_storage_once():
    weight = torch.empty(5)
    saved = SavedBytes([weight])
    x = torch.empty(10)
    assert saved.add(weight) == saved.add(weight[1:]) == 0
    assert [saved.add(x), saved.add(x), saved.add(x.view(5, 2))] == [40, 0, 0]
    assert saved.add(torch.empty(100)[:3]) == 400  # a part keeps the whole


# ------------------------------------------------------------------------------------------------ by hand
def test_a_chain_needs_two_neighbours_at_once():
    mib = 2**18  # elements
    chain = nn.Sequential(nn.Tanh(), nn.Tanh(), nn.ReLU(inplace=True), nn.Tanh())
    found = count(chain, torch.empty(mib))
    assert found.live_bytes == 2 * 2**20
    # The first makes one beside the input, which is the caller's.
    assert found.layers["0"].live_bytes == 2**20
    assert found.layers["2"].live_bytes == 2**20
    trained = count(chain, torch.empty(mib), training=True, input_gradient=True)
    assert (
        trained.saved_bytes == 3 * 2**20
    )  # of each tanh its result, of the ReLU its result, which is the same storage
    assert trained.live_bytes == 0


class Residual(nn.Module):
    """A sum of the input's double and what comes after it."""

    def forward(self, x):
        x = x * 2
        return x + x.sin().cos()


def test_what_a_shortcut_holds_is_alive():
    found = count(Residual(), torch.empty(256))
    assert found.live_bytes == 3 * 1024
    # x twice for the product's... nothing: sine and cosine keep their inputs, a sum keeps nothing
    assert count(Residual(), torch.empty(256), training=True, input_gradient=True).saved_bytes == 2 * 1024


def test_parameters_and_buffers_are_not_counted_and_inputs_are():
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    found = count(layer, torch.empty(2, 3, 10, 10), training=True)
    image, map_ = 2 * 3 * 100 * 4, 2 * 8 * 64 * 4
    assert found.saved_bytes == image + map_ + 2 * 8 * 4  # and the batch's mean and deviation
    assert found.layers["0"].saved_bytes == image


# ------------------------------------------------------------------------------------------------ the allocator
class Branches(nn.Module):
    """Concatenations, shortcuts and attention, without kernels that want memory of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 64), nn.Linear(96, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, x):
        x = self.norm(x)
        wide = F.gelu(self.first(x))
        x = x + self.second(torch.cat([x, wide], -1))
        heads = x.unflatten(-1, (4, 8)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
        return self.norm(mixed * x.sigmoid())


def allocated(function):
    """Peak and end of what the allocator gave out and took back while a function ran, in bytes."""
    with watch(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = function()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del kept
    return peak, now


@pytest.mark.filterwarnings("ignore::Warning")
def test_what_is_kept_for_the_backward_pass_is_what_the_allocator_gave_out():
    model, x = Branches(), torch.randn(4, 50, 32)
    model(x)
    _, kept = allocated(lambda: model(x))
    out = x.numel() * 4  # the result is not kept for the backward pass of its norm
    assert count(model, x, training=True).saved_bytes == kept - out + x.numel() * 4  # the input was there before


@pytest.mark.filterwarnings("ignore::Warning")
def test_the_peak_in_inference_is_the_allocators():
    class Plain(nn.Module):
        def forward(self, x):
            wide = torch.cat([x.sin(), x.cos(), x.exp()], 1)
            x = wide.softmax(1).sum(1, keepdim=True) * x
            return torch.cat([x, F.layer_norm(x, x.shape[1:])], 1) + wide[:, :64]

    model, x = Plain(), torch.randn(8, 32, 20)
    with torch.no_grad():
        model(x)
        peak, _ = allocated(lambda: model(x))
    assert count(model, x).live_bytes == peak
