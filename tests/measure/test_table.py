"""What people read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from clearsight.measure.latency import Latency
from clearsight.measure.profile import Profile
from clearsight.measure.rows import Row
from clearsight.measure.table import as_text, comparison_table, profile_table, summary

TIME = Latency(median=0.01234, quartiles=(0.012, 0.0131), runs=7, device="cpu", threads=2)


def row(name="stem", **more):
    numbers = {
        "parameters": 9408, "multiply_adds": 118_013_952, "flops": 235_225_088, "flops_usual": 236_027_904,
        "backward_multiply_adds": 999_600_000, "inference_bytes": 3 * 2**20, "training_bytes": 2**19,
        "moved_bytes": 200 * 2**20, "intensity": 61.06, "outputs": ((1, 64, 112, 112), (1, 2)), "calls": 1,
    }  # fmt: skip
    return Row(name=name, kind="Conv2d", **{**numbers, **more})


def made(**more):
    base = Profile(
        name="net",
        inputs=((1, 3, 224, 224),),
        types=("float32",),
        total=row("net"),
        stages=(row(), row("head", outputs=())),
        layers=(row("stem.0", seconds=0.0015),),
        uncounted={"aten.topk": 3},
        notes=("a note",),
        counted_on="meta",
        latency=TIME,
    )
    return base.model_copy(update=more)


def drawn(table):
    text = io.StringIO()
    Console(file=text, width=200, color_system=None).print(table)
    return text.getvalue().splitlines()


def test_a_row_a_stage_and_the_total():
    head, first, second, total = drawn(profile_table(made()))
    assert head.split() == [
        "stage", "kind", "output", "params", "mult-adds", "FLOPs", "backward", "alive", "MiB", "kept", "MiB", "moved",
        "MiB", "FLOPs/byte",
    ]  # fmt: skip
    numbers = ["9.41", "k", "118", "M", "235", "M", "1000", "M", "3.0", "0.5", "200", "61.1"]
    assert first.split() == ["stem", "Conv2d", "1×64×112×112", "+1", *numbers]
    assert second.split() == ["head", "Conv2d", *numbers]
    assert total.split() == ["total", *numbers]


def test_layers_have_times_where_they_were_taken():
    head, layer, total = drawn(profile_table(made(), by="layer"))
    assert head.split()[0] == "layer"
    assert head.split()[-1] == "ms"
    assert layer.split()[-1] == "1.50"
    assert total.split()[-1] == "–"


def test_the_summary_names_conventions_times_and_what_is_missing():
    text = summary(made())
    assert "net on (1, 3, 224, 224) float32: 9.41 k parameters" in text
    assert "118 M forward, 1000 M backward" in text
    assert "235 M forward, counted exactly; 236 M as 2 × multiply-adds" in text
    assert "latency: 12.3 ms median, 12 to 13.1 quartiles (7 runs, cpu, 2 threads)" in text
    assert "not counted: aten.topk (3×)" in text
    assert text.endswith("note: a note")


def test_what_is_not_known_is_not_claimed():
    unknown = row("net", backward_multiply_adds=None, training_bytes=None)
    text = as_text(made(total=unknown, stages=(unknown,), uncounted={}, notes=(), latency=None))
    assert "backward pass" not in text
    assert "not counted" not in text
    assert "latency" not in text
    assert text.count("–") == 4  # two columns, in the row and in the total


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (999_499, "999 k"), (999_500, "1e+03 k"), (4_089_184_256, "4.09 G")],
)
def test_numbers_have_three_figures(value, text):
    shown = drawn(profile_table(made(stages=(row(parameters=value),))))[1]
    expected = "1000 k" if text == "1e+03 k" else text
    assert f" {expected} " in shown


def test_models_side_by_side():
    other = made(name="small", latency=None, uncounted={}, scores={"map (test)": 0.5})
    lines = drawn(comparison_table([made(), other]))
    assert lines[0].split() == ["net", "small"]
    cells = {line.split("  ")[0]: line.split() for line in lines[1:]}
    assert cells["parameters"][-4:] == ["9.41", "k", "9.41", "k"]
    assert cells["latency, median ms"][-2:] == ["12.3", "–"]
    assert cells["map (test)"][-2:] == ["–", "0.500"]
    assert cells["operations not counted"][-2:] == ["3", "0"]
    assert not any("latency" in line for line in drawn(comparison_table([other, other])))
