"""How a diagnosis reads."""

from __future__ import annotations

import json
from pathlib import Path

from clearsight.cli import show_doctor
from clearsight.doctor.diagnosis import Diagnosis
from clearsight.types import Finding


def diagnosis() -> Diagnosis:
    cause = Finding(
        id="learning-rate-too-high",
        severity="warning",
        where="run",
        explanation="The loss blew up.",
        remedy={"optimizer.lr": 0.001},
        source="somebody 2020",
    )
    effect = Finding(
        id="dead-units", severity="warning", where="conv1", explanation="[90 %] are dead.", because=cause.id
    )
    boxes = [
        Finding(id="box-empty", severity="error", where=f"{i}.xml", explanation="empty", action="dropped")
        for i in range(5)
    ]
    return Diagnosis(
        subject="cells",
        findings=[cause, effect, *boxes],
        verdict="It diverged.",
        notes=("no validation",),
        passed=("leak",),
        silent={"overfitting": "a validation loss"},
    )


def test_everything_is_said_once(capsys) -> None:
    show_doctor.diagnosis(diagnosis())
    text = capsys.readouterr().out
    assert text.startswith("cells: It diverged.")
    assert "F01 warning learning-rate-too-high" in text
    assert "remedy: optimizer.lr=0.001" in text
    assert "source: somebody 2020" in text
    assert "explained by learning-rate-too-high" in text
    assert "[90 %] are dead." in text  # no markup
    assert text.count("done about it: dropped") == 3
    assert "and 2 more box-empty" in text
    assert "note: no validation" in text
    assert "looked for and not found: leak" in text
    assert "not judged: overfitting" in text
    assert "clearsight apply" not in text


def test_a_remedy_can_be_applied_where_there_is_a_recipe(tmp_path: Path, capsys) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    show_doctor.diagnosis(diagnosis(), run=tmp_path)
    assert "F01 writes a recipe with its remedy" in capsys.readouterr().out.replace("\n", " ")


def test_json(capsys) -> None:
    show_doctor.diagnosis(diagnosis(), json=True)
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 7
