"""Sequences of different lengths: exact, whatever stands beyond their ends."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.recurrent import RECURRENT, Recurrent, SequenceClassifier, recurrent
from clearsight.reference.lstm import Lstm
from clearsight.reference.rnn import Rnn

LENGTHS = torch.tensor([3, 7, 1, 5])


def sequences(*, features: int = 5, steps: int = 7, lengths: Tensor = LENGTHS) -> Tensor:
    """Numbers in float64, with NaN beyond the lengths."""
    x = torch.randn(len(lengths), steps, features, dtype=torch.float64)
    x[torch.arange(steps) >= lengths[:, None]] = torch.nan
    return x


def torchs(layer: Recurrent, name: str, inputs: int, width: int) -> nn.RNNBase:
    """PyTorch's own layer with the same weights."""
    both = layer.directions == 2
    own = RECURRENT[name](inputs, width, num_layers=layer.layers, bidirectional=both, batch_first=True).double()
    with torch.no_grad():
        for theirs, mine in zip(own.parameters(), layer.parameters(), strict=True):  # by layer, then by direction
            theirs.copy_(mine)
    return own


# ------------------------------------------------------------------------------------------------ held against PyTorch
@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_states_and_all_gradients_are_those_of_packed_sequences(name, layers, bidirectional, ragged) -> None:
    layer = recurrent(name, 5, 4, layers=layers, bidirectional=bidirectional).double()
    own = torchs(layer, name, 5, 4)
    lengths = LENGTHS if ragged else torch.full((4,), 7)
    x = sequences(lengths=lengths).requires_grad_()
    packed_x = x.detach().nan_to_num(0).requires_grad_()
    states, last = layer(x, lengths if ragged else None)
    packed = pack_padded_sequence(packed_x, lengths, batch_first=True, enforce_sorted=False)
    out, hidden = own(packed)
    expected, _ = pad_packed_sequence(out, batch_first=True)
    hidden = hidden[0] if name == "lstm" else hidden
    ends = torch.cat(list(hidden[-layer.directions :]), dim=1)
    torch.testing.assert_close(states, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(last, ends, rtol=1e-12, atol=1e-13)
    for result, peers in ((states, expected), (last, ends)):
        factor = torch.randn_like(result)
        (result * factor).sum().backward(retain_graph=True)
        (peers * factor).sum().backward(retain_graph=True)
    torch.testing.assert_close(x.grad, packed_x.grad, rtol=1e-11, atol=1e-12)  # 0, not NaN, beyond the lengths
    for mine, theirs in zip(layer.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-11, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    name=st.sampled_from(sorted(RECURRENT)),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
)
def test_neither_padding_nor_company_nor_order_changes_a_sequence(lengths, extra, name, layers, bidirectional) -> None:
    layer = recurrent(name, 3, 2, layers=layers, bidirectional=bidirectional).double()
    ends = torch.tensor(lengths)
    x = sequences(features=3, steps=max(lengths) + extra, lengths=ends)
    states, last = layer(x, ends)
    order = torch.randperm(len(lengths))
    turned, turned_last = layer(x[order], ends[order])
    torch.testing.assert_close(turned, states[order], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(turned_last, last[order], rtol=1e-12, atol=1e-14)
    for i, length in enumerate(lengths):
        alone, alone_last = layer(x[i : i + 1, :length])
        torch.testing.assert_close(states[i, :length], alone[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(last[i], alone_last[0], rtol=1e-12, atol=1e-14)
        assert (states[i, length:] == 0).all()


def test_the_second_direction_starts_at_the_end_and_not_in_the_padding() -> None:
    # Wrong forms: the padded batch as it is (the second direction reads padding first), and its state at the last step.
    layer = recurrent("lstm", 5, 4, bidirectional=True).double()
    own = torchs(layer, "lstm", 5, 4)
    x = sequences().nan_to_num(0)
    out, (hidden, _) = own(x)
    states, last = layer(x, LENGTHS)
    torch.testing.assert_close(states[:, :, :4], out[:, :, :4] * (states[:, :, :4] != 0))
    assert (states[0, :3, 4:] - out[0, :3, 4:]).abs().min() > 1e-4
    assert (last[0, 4:] - hidden[1, 0]).abs().min() > 1e-4
    torch.testing.assert_close(last[:, 4:], states[:, 0, 4:])


def test_time_first_is_the_same_turned_round() -> None:
    layer = recurrent("gru", 5, 4, bidirectional=True).double()
    turned = recurrent("gru", 5, 4, bidirectional=True, batch_first=False).double()
    turned.load_state_dict(layer.state_dict())
    x = sequences()
    states, last = layer(x, LENGTHS)
    other, other_last = turned(x.transpose(0, 1), LENGTHS)
    assert other.shape == (7, 4, 8)
    torch.testing.assert_close(other.transpose(0, 1), states)
    torch.testing.assert_close(other_last, last)


def test_dropout_is_between_layers_and_while_training() -> None:
    torch.manual_seed(0)
    layer = recurrent("rnn", 5, 64, layers=2, dropout=0.5)
    x = torch.randn(3, 6, 5)
    seen: list[Tensor] = []
    handle = layer.kernels[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    layer(x)
    dropped = (seen[0] == 0).float().mean()
    assert 0.4 < dropped < 0.6
    layer.eval()
    states, _ = layer(x)
    torch.testing.assert_close(layer(x)[0], states)
    assert (seen[1] != 0).all()
    handle.remove()
    alone = recurrent("rnn", 5, 4, dropout=0.9)
    torch.testing.assert_close(alone(x)[0], alone.eval()(x)[0])  # one layer has nothing between


# ------------------------------------------------------------------------------------------------ held against NumPy
@pytest.mark.parametrize("name", ["rnn", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sequence_of_each_length_is_the_references_forward_and_backward(name, layers, bidirectional) -> None:
    layer = recurrent(name, 5, 4, layers=layers, bidirectional=bidirectional).double()
    x = sequences().requires_grad_()
    states, _ = layer(x, LENGTHS)
    factor = torch.randn_like(states)
    (states * factor).sum().backward()
    sums = {key: np.zeros(value.shape) for key, value in layer.named_parameters()}
    for i, length in enumerate(LENGTHS.tolist()):
        own, dx = by_reference(layer, name, x[i, :length].detach().numpy(), factor[i, :length].numpy(), sums)
        np.testing.assert_allclose(states[i, :length].detach().numpy(), own, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(x.grad[i, :length].numpy(), dx, rtol=1e-9, atol=1e-11)
        assert (x.grad[i, length:] == 0).all()
    for key, value in layer.named_parameters():
        np.testing.assert_allclose(value.grad.numpy(), sums[key], rtol=1e-9, atol=1e-11, err_msg=key)


def by_reference(
    layer: Recurrent, name: str, x: np.ndarray, grad: np.ndarray, sums: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """States of one sequence and the gradient of x; gradients of the weights are added to `sums`."""
    stack, out = [], x[None]
    for depth in range(layer.layers):
        row = []
        for direction in range(layer.directions):
            number = depth * layer.directions + direction
            kernel = layer.kernels[number]
            w = {key[:-3]: value.detach().numpy() for key, value in kernel.named_parameters()}
            inputs, width = w["weight_ih"].shape[1], w["weight_hh"].shape[1]
            bias = w["bias_ih"] + w["bias_hh"]
            if name == "lstm":
                cell = Lstm(inputs, width)
                cell.params = {"w_x": w["weight_ih"], "w_h": w["weight_hh"], "b": bias}
            else:
                cell = Rnn(inputs, width, width)
                cell.params = {"w_xh": w["weight_ih"], "w_hh": w["weight_hh"], "b_h": bias}
                cell.params |= {"w_hy": np.eye(width), "b_y": np.zeros(width)}
            row.append((cell, f"kernels.{number}.", -1 if direction else 1))
        stack.append(row)
        out = np.concatenate([cell.forward(out[:, ::step])[:, ::step] for cell, _, step in row], axis=2)
    grad = grad[None]
    for row in reversed(stack):
        width, total = grad.shape[2] // len(row), np.zeros(1)
        for i, (cell, prefix, step) in enumerate(row):
            total = total + cell.backward(grad[:, ::step, i * width : (i + 1) * width])[0][:, ::step]
            keys = ("w_x", "w_h", "b") if name == "lstm" else ("w_xh", "w_hh", "b_h")
            for key, parts in zip(keys, (["weight_ih"], ["weight_hh"], ["bias_ih", "bias_hh"]), strict=True):
                for part in parts:
                    sums[f"{prefix}{part}_l0"] += cell.grads[key]
        grad = total
    return out[0], grad[0]


def test_gradients_are_those_of_differences() -> None:
    layer = recurrent("gru", 2, 2, layers=2, bidirectional=True).double()
    lengths = torch.tensor([2, 3])
    x = sequences(features=2, steps=3, lengths=lengths).nan_to_num(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, lengths), (x,))


# ------------------------------------------------------------------------------------------------ where it is used
def test_empty_batches_and_a_single_step() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for name in RECURRENT:
        layer = recurrent(name, 5, 4, layers=2, bidirectional=True)
        for x in (torch.zeros(0, 7, 5), torch.zeros(0, 0, 5)):
            for lengths in (none, None):
                states, last = layer(x, lengths)
                assert (states.shape, last.shape) == ((0, x.shape[1], 8), (0, 8))
        states, last = layer(torch.randn(2, 1, 5), torch.ones(2, dtype=torch.int32))
        torch.testing.assert_close(states[:, 0], last)
    model = SequenceClassifier(10, 3)
    assert model(torch.zeros(0, 0, dtype=torch.int64), none).shape == (0, 3)


def test_half_precision_is_close() -> None:
    for name in RECURRENT:
        layer = recurrent(name, 5, 4, layers=2, bidirectional=True)
        x = sequences().float().requires_grad_()
        states, _ = layer(x, LENGTHS)
        with torch.autocast("cpu", torch.bfloat16):
            half, _ = layer(x, LENGTHS)
        torch.testing.assert_close(half.float(), states, rtol=0.02, atol=0.02)
        half.float().sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.filterwarnings("ignore")  # of the compiler, where it breaks the graph around a kernel
def test_compiled_it_is_the_same() -> None:
    layer = recurrent("lstm", 5, 4, bidirectional=True)
    x = sequences().float().requires_grad_()
    states, last = layer(x, LENGTHS)
    torch.compiler.reset()
    compiled, compiled_last = torch.compile(layer, backend="aot_eager")(x, LENGTHS)
    torch.testing.assert_close(compiled, states)
    torch.testing.assert_close(compiled_last, last)
    (expected,) = torch.autograd.grad(states.sum(), x)
    (found,) = torch.autograd.grad(compiled.sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")  # of the exporter itself
def test_export_to_onnx_gives_the_same_for_batches_of_any_size() -> None:
    import onnxruntime

    model = SequenceClassifier(10, 3, embed=5, width=4, layers=2).eval()
    tokens = torch.randint(10, (4, 7))
    n = {0: torch.export.Dim("n")}
    program = torch.onnx.export(model, (tokens, LENGTHS), dynamo=True, dynamic_shapes=(n, n), verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = (entry.name for entry in session.get_inputs())
    for some in ([0, 1, 2, 3], [2], [3, 0]):
        (logits,) = session.run(None, {first: tokens[some].numpy(), second: LENGTHS[some].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(tokens[some], LENGTHS[some]), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ the classifier
def test_the_classifier_reads_the_last_states_of_both_directions() -> None:
    model = SequenceClassifier(10, 3, embed=5, width=4, layers=2, dropout=0.5).eval()
    tokens = torch.randint(10, (4, 7))
    logits = model(tokens, LENGTHS)
    assert logits.shape == (4, 3)
    _, last = model.recurrent(model.embed(tokens), LENGTHS)
    torch.testing.assert_close(logits, model.head(last))
    for i, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(model(tokens[i : i + 1, :length]), logits[i : i + 1])
    beyond = tokens.masked_fill(torch.arange(7) >= LENGTHS[:, None], -100)
    torch.testing.assert_close(model(beyond, LENGTHS), logits, rtol=0, atol=0)  # what stands there is no symbol


def test_the_classifier_learns_what_only_the_first_letter_tells() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(2, 10, (64, 9))
    tokens[:, 0] = torch.arange(64) % 2
    lengths = torch.randint(1, 10, (64,))
    model = SequenceClassifier(10, 2, embed=8, width=16, bidirectional=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(tokens, lengths), tokens[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(tokens, lengths).argmax(1) == tokens[:, 0]).all()


# ------------------------------------------------------------------------------------------------ what does not fit
@pytest.mark.parametrize(
    ("lengths", "error", "said"),
    [
        ([3, 0, 7, 1], RangeError, r"lengths\[1\]: expected 1 to 7, the steps of the batch, got 0; leave empty"),
        ([3, 1, 7, -1], RangeError, r"lengths\[3\]: .* got -1"),
        ([3, 1, 8, 1], RangeError, r"lengths\[2\]: .* got 8"),
        ([3, 1, 7], ShapeError, r"lengths: expected \(4,\) whole numbers, one for each sequence, got \(3,\) int64"),
        ([3.0, 1, 7, 1], ShapeError, r"lengths: expected \(4,\) whole numbers.*got \(4,\) float32"),
    ],
)
def test_lengths_that_do_not_fit(lengths, error, said) -> None:
    with pytest.raises(error, match=said):
        recurrent("lstm", 5, 4)(torch.zeros(4, 7, 5), torch.tensor(lengths))
    with pytest.raises(error, match=said):
        SequenceClassifier(10, 3)(torch.zeros(4, 7, dtype=torch.int64), torch.tensor(lengths))


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"Recurrent: x: expected \(n, t, inputs\), got \(7, 5\)"):
        recurrent("lstm", 5, 4)(torch.zeros(7, 5))
    with pytest.raises(ShapeError, match=r"x: expected at least one step, got 4 sequences without any"):
        recurrent("lstm", 5, 4)(torch.zeros(4, 0, 5))
    with pytest.raises(ShapeError, match=r"tokens: expected \(n, t\), got \(3,\)"):
        SequenceClassifier(10, 3)(torch.zeros(3, dtype=torch.int64))
    for wrong in (10, -1):
        tokens = torch.zeros(2, 3, dtype=torch.int64)
        tokens[1, 2] = wrong
        with pytest.raises(RangeError, match=rf"tokens\[1, 2\]: expected 0 to 9, got {wrong}; give symbols"):
            SequenceClassifier(10, 3)(tokens)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="recurrent: there is none named 'lstn'; did you mean 'lstm'"):
        recurrent("lstn", 5, 4)
    for key in ("inputs", "width", "layers"):
        with pytest.raises(ConfigError, match=f"{key}: must be at least 1, got 0"):
            recurrent("lstm", **{"inputs": 5, "width": 4, key: 0})
    for key in ("vocabulary", "classes", "embed"):
        with pytest.raises(ConfigError, match=f"{key}: must be at least 1, got 0"):
            SequenceClassifier(**{"vocabulary": 5, "classes": 4, key: 0})
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(RangeError, match=r"dropout: the share that is dropped must be in \[0, 1\)"):
            SequenceClassifier(5, 4, dropout=wrong)


# ------------------------------------------------------------------------------------------------ real names
def test_equal_names_are_on_one_side_of_the_split_and_kinds_of_names_in_proportion(repo_root) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "names.py"))
    rng = np.random.default_rng(0)
    names, labels = [], []
    for i in range(400):
        languages = [[0], [1], [2], [0, 1]][int(rng.integers(4))]
        for language in languages:
            times = int(rng.integers(1, 4))
            names += [f"name{i}"] * times
            labels += [language] * times
    parts = example["split_names"](names, labels, seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(names)))
    learn, held_out = ({names[i] for i in part} for part in parts)
    assert learn.isdisjoint(held_out)
    for label in range(3):
        counts = [sum(labels[i] == label for i in part) for part in parts]
        assert counts[1] / sum(counts) == pytest.approx(0.2, abs=0.03)
    several = {name for name in set(names) if len({labels[i] for i, n in enumerate(names) if n == name}) > 1}
    assert len(several & held_out) / len(several) == pytest.approx(0.2, abs=0.03)
    again = example["split_names"](names, labels, seed=3)
    assert again[1].tolist() == parts[1].tolist() != example["split_names"](names, labels, seed=4)[1].tolist()


@pytest.mark.real
@pytest.mark.slow
def test_an_lstm_tells_the_language_of_names_it_never_saw(repo_root, shared_data, capsys) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "names.py"))
    scores = example["main"](shared_data / "names", epochs=4)
    said = capsys.readouterr().out
    assert "16048 names to learn, 4002 held out" in said
    plain, weighted = (scores[way].summary for way in ("plain", "weighted"))
    assert plain["accuracy"] >= 0.75  # a fifth held out; always Russian would be 0.47
    assert weighted["balanced_accuracy"] > plain["balanced_accuracy"] + 0.03
    rare = ["Portuguese", "Vietnamese", "Korean", "Scottish", "Polish"]
    assert all(language in said for language in rare)
    told = [sum(example["recalls"](scores[way], rare).values()) for way in ("weighted", "plain")]
    assert told[0] > told[1]
