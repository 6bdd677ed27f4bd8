"""What is switched while a count runs is switched back."""

from __future__ import annotations

import random
import threading

import pytest
import torch
import torch.nn.functional as F

from clearsight.measure.isolation import isolated

META = torch.device("meta")


def state():
    return random.random(), torch.rand(3).tolist()


def test_random_numbers_drawn_inside_leave_no_trace():
    before = random.getstate(), torch.get_rng_state()
    with isolated(torch.device("cpu")):
        inside = state()
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert state() == inside


@pytest.mark.parametrize("fails", [False, True])
def test_attention_is_put_back_whatever_happens(fails):
    attention = F.scaled_dot_product_attention
    try:
        with isolated(META):
            assert F.scaled_dot_product_attention is not attention
            assert not torch.backends.mha.get_fastpath_enabled()
            with isolated(META):  # one within another
                pass
            assert F.scaled_dot_product_attention is not attention
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        assert fails
    assert F.scaled_dot_product_attention is attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_with_data_is_pytorchs_own_meanwhile():
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True)
    with isolated(META):
        found = F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True)
    torch.testing.assert_close(found, expected)
    with isolated(torch.device("cpu")):
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True), expected)


@pytest.mark.parametrize(
    ("change", "one_operation"),
    [({}, True), ({"dropout_p": 0.1}, False), ({"attn_mask": torch.empty(5, 5, device="meta")}, True)],
)
def test_without_data_attention_is_one_operation_where_a_cpu_runs_it_as_one(change, one_operation):
    q, k, v = torch.empty(3, 2, 4, 5, 8, device="meta", requires_grad=True)
    with isolated(META):
        out = F.scaled_dot_product_attention(q, k, v, **change)
    assert out.shape == (2, 4, 5, 8)
    assert ("FlashAttentionForCpu" in out.grad_fn.name()) == one_operation


def test_threads_wait_for_each_other():
    attention = F.scaled_dot_product_attention
    seen = []

    def work():
        for _ in range(20):
            with isolated(META):
                seen.append(F.scaled_dot_product_attention is not attention)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert seen == [True] * 80
    assert F.scaled_dot_product_attention is attention
