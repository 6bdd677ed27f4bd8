"""Recurrent layers over sequences of different lengths, and a classifier on top of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest
from clearsight.nn.checks import check_dropped, check_positive, check_rank

__all__ = ["RECURRENT", "Recurrent", "SequenceClassifier", "recurrent"]

RECURRENT: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Layers of PyTorch's recurrent kernels that see each sequence up to its length and no further.

    What lies beyond a length may be anything, NaN too: it changes neither a result nor a gradient. The first direction
    never sees it before a sequence ends; the second reads each sequence turned round within its own length, so that
    there, too, what is beyond comes last.

    That is as exact as PyTorch's packed sequences, and differs in cost and use: nothing is sorted, the fused kernels
    stay in use (on CPUs, forward and backward take 0.3 to 0.9 of the time), and it is exported to ONNX for batches of
    any size. The number of steps is fixed there, as PyTorch's exporter has it: export with the longest, and pad.
    `torch.compile` breaks the graph around the kernels, which it does not look into (no `fullgraph`). An LSTM's cell
    state is not given: `torch.nn.LSTM` itself has that of full sequences.

    Method: Elman 1990 (`rnn`, with tanh); Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000
    (`lstm`); Cho et al. 2014, arXiv:1406.1078 (`gru`); Schuster and Paliwal 1997 for two directions.

    Shape: x `(n, t, inputs)`, or `(t, n, inputs)` without `batch_first`, and lengths `(n,)` → states
    `(n, t, directions · width)` in the order of x, 0 beyond each length, and last `(n, directions · width)`: the first
    direction's state after the last step beside the second's after the first. An empty batch gives empty tensors.

    Args:
        name: a key of `RECURRENT`.
        inputs: features of a step.
        width: size of the state.
        layers: each reads the states of the one before.
        bidirectional: whether a second direction reads from the end.
        batch_first: whether x and states are `(n, t, …)`.
        dropout: share of the states that is dropped between layers while training, in [0, 1).

    Raises:
        ConfigError: the name is unknown, or a size is below 1.
        RangeError: the dropout is out of range.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        width: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if name not in RECURRENT:
            raise ConfigError(f"recurrent: there is none named {name!r}{nearest(name, RECURRENT)}")
        for what, size in (("inputs", inputs), ("width", width), ("layers", layers)):
            check_positive(size, what)
        check_dropped(dropout, "dropout")
        self.layers, self.directions, self.batch_first = layers, 2 if bidirectional else 1, batch_first
        self.width = self.directions * width
        self.dropout = nn.Dropout(dropout)
        # A kernel for each layer and direction, over (t, n, features): each has its own order of the steps.
        read = [inputs] * self.directions + [self.width] * (self.directions * (layers - 1))
        self.kernels = nn.ModuleList(RECURRENT[name](size, width) for size in read)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States of the last layer, and its last ones.

        Args:
            x: the sequences.
            lengths: steps of each, whole numbers from 1 to t, on any device; None where all have t.

        Raises:
            ShapeError: x is no batch of sequences of these features, has no step, or lengths is not `(n,)`.
            RangeError: a length is below 1 or above t. Checked on CPUs only: on a GPU it would wait for the device.
        """
        check_rank(x, "Recurrent: x", "n t inputs" if self.batch_first else "t n inputs")
        if self.batch_first:
            x = x.transpose(0, 1)
        steps, count = x.shape[:2]
        if lengths is not None:
            _check_lengths(lengths, count, steps)
        if steps == 0:
            if count:
                raise ShapeError(f"Recurrent: x: expected at least one step, got {count} sequences without any")
            return x.new_zeros((0, 0, self.width)), x.new_zeros((0, self.width))
        order = None if lengths is None else _Order(lengths.to(x.device), steps)
        states, last = self._run(x if order is None else x.masked_fill(order.beyond, 0), order)
        if order is not None:
            states = states.masked_fill(order.beyond, 0)
        return (states.transpose(0, 1) if self.batch_first else states), last

    def _run(self, states: Tensor, order: _Order | None) -> tuple[Tensor, Tensor]:
        ends: list[Tensor] = []
        for layer in range(self.layers):
            states = self.dropout(states) if layer else states
            read, ends = [], []
            for direction in range(self.directions):
                kernel = self.kernels[layer * self.directions + direction]
                out, _ = kernel(_turn(states, order) if direction else states)
                ends.append(out[-1] if order is None else out.flatten(0, 1).index_select(0, order.last))
                read.append(_turn(out, order) if direction else out)
            states = torch.cat(read, dim=2) if len(read) > 1 else read[0]
        return states, torch.cat(ends, dim=1)

    def extra_repr(self) -> str:
        """The layout, for `print(model)`."""
        return f"batch_first={self.batch_first}"


def recurrent(
    name: str,
    inputs: int,
    width: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = True,
    dropout: float = 0.0,
) -> Recurrent:
    """Recurrent layers by name; see `Recurrent` for shapes.

    Args:
        name: a key of `RECURRENT`: `rnn`, `lstm` or `gru`.
        inputs: features of a step.
        width: size of the state.
        layers: each reads the states of the one before.
        bidirectional: whether a second direction reads from the end.
        batch_first: whether sequences are `(n, t, inputs)`, else `(t, n, inputs)`.
        dropout: share of the states that is dropped between layers while training, in [0, 1).

    Raises:
        ConfigError: the name is unknown, or a size is below 1.
        RangeError: the dropout is out of range.
    """
    return Recurrent(
        name, inputs, width, layers=layers, bidirectional=bidirectional, batch_first=batch_first, dropout=dropout
    )


class SequenceClassifier(nn.Module):
    """One class for a sequence of symbols: a vector for each symbol, recurrent layers, their last states, a linear one.

    Shape: tokens `(n, t)` whole numbers and lengths `(n,)` → logits `(n, classes)`. What stands beyond a length does
    not matter and need not be a symbol.

    Args:
        vocabulary: number of symbols.
        classes: number of classes.
        kind: a key of `RECURRENT`.
        embed: size of a symbol's vector.
        width: size of the state.
        layers: recurrent layers.
        bidirectional: whether a second direction reads from the end.
        dropout: share that is dropped of the last states, and between layers, in [0, 1).

    Raises:
        ConfigError: the kind is unknown, or a size is below 1.
        RangeError: the dropout is out of range.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        kind: str = "lstm",
        embed: int = 64,
        width: int = 128,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for what, size in (("vocabulary", vocabulary), ("classes", classes), ("embed", embed)):
            check_positive(size, what)
        self.embed = nn.Embedding(vocabulary, embed)
        self.recurrent = recurrent(kind, embed, width, layers=layers, bidirectional=bidirectional, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.recurrent.width, classes)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of the classes.

        Args:
            tokens: symbols, each from 0 to vocabulary - 1.
            lengths: of the sequences, from 1 to t; None where all have t.

        Raises:
            ShapeError: tokens is not `(n, t)`, or lengths not `(n,)`.
            RangeError: a length or a symbol is out of range. Checked on CPUs only.
        """
        check_rank(tokens, "SequenceClassifier: tokens", "n t")
        if lengths is not None:
            _check_lengths(lengths, *tokens.shape)
            steps = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens.masked_fill(steps >= lengths.to(tokens.device)[:, None], 0)
        _check_tokens(tokens, self.embed.num_embeddings)
        _, last = self.recurrent(self.embed(tokens), lengths)
        return self.head(self.dropout(last))


def _check_lengths(lengths: Tensor, count: int, steps: int) -> None:
    """Refuse lengths that are not one whole number for each sequence, from 1 to the number of steps."""
    if torch.compiler.is_compiling():
        return
    if lengths.shape != (count,) or lengths.is_floating_point():
        raise ShapeError(
            f"lengths: expected ({count},) whole numbers, one for each sequence, got {tuple(lengths.shape)} "
            f"{str(lengths.dtype).removeprefix('torch.')}"
        )
    if count == 0 or lengths.device.type != "cpu" or (int(lengths.min()) >= 1 and int(lengths.max()) <= steps):
        return
    index = int(((lengths < 1) | (lengths > steps)).nonzero()[0])
    raise RangeError(
        f"lengths[{index}]: expected 1 to {steps}, the steps of the batch, got {int(lengths[index])}; "
        "leave empty sequences out"
    )


def _check_tokens(tokens: Tensor, vocabulary: int) -> None:
    if torch.compiler.is_compiling() or tokens.device.type != "cpu" or not tokens.numel():
        return
    if int(tokens.min()) >= 0 and int(tokens.max()) < vocabulary:
        return
    row, column = ((tokens < 0) | (tokens >= vocabulary)).nonzero()[0].tolist()
    raise RangeError(
        f"tokens[{row}, {column}]: expected 0 to {vocabulary - 1}, got {int(tokens[row, column])}; "
        "give symbols that training did not see a number of their own"
    )


class _Order:
    """Where each sequence ends, as rows of `(t·n, features)`.

    Args:
        lengths: `(n,)`.
        steps: t.
    """

    def __init__(self, lengths: Tensor, steps: int) -> None:
        step = torch.arange(steps, device=lengths.device)[:, None]
        count = lengths.shape[0]
        sequence = torch.arange(count, device=lengths.device)
        self.beyond = (step >= lengths)[:, :, None]  # t n 1
        self.last = (lengths - 1) * count + sequence
        # The row that comes to each place when sequences are turned round; what comes beyond their ends is never read.
        self.turned = ((lengths - 1 - step).clamp(min=0) * count + sequence).flatten()


def _turn(x: Tensor, order: _Order | None) -> Tensor:
    """Each sequence of x `(t, n, c)` turned round; twice, and it is as it was."""
    if order is None:
        return x.flip(0)
    return x.flatten(0, 1).index_select(0, order.turned).view_as(x)
