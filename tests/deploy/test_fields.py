"""Receptive fields by name, with data, as a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clearsight as cs
from clearsight.cli import main
from clearsight.data.dataset import Dataset
from clearsight.errors import ConfigError
from clearsight.types import Object, Record


@pytest.fixture
def data(tmp_path):
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((48, 64, 3), 60 * number + 20, dtype=np.uint8)).save(path)
        items = [Object(label=0, box=(0, 0, 60, 40)), Object(label=0, box=(1, 1, 9, 5))]
        records.append(Record(image=path, size=(48, 64), objects=items))
    return Dataset(records=records, classes=("x",), task="detection", root=Path(tmp_path), format="voc")


def test_levels_are_set_against_objects_of_the_scaled_images(data):
    found = cs.receptive_field("resnet18", data=data, size=128, levels=["c2", "c5"], images=2)
    assert found.fields.name == "resnet18"
    assert found.fields["c5"].size == (435, 435)
    rows = {row.level: row for row in found.objects.rows}
    # 60×40 of 48×64 is 120×80 of 96×128
    assert max(found.objects.sides) == 120
    assert (rows["c2"].size, rows["c2"].larger, rows["c5"].larger) == ((43, 43), 0.5, 0.0)
    assert rows["c2"].effective == found.effective[0].diameter
    assert "50 % of your objects are larger than the field at C2 (resnet18, 43 px)" in str(found)
    assert found.effective[0].images == 2
    assert [one["level"] for one in found.as_dict()["effective"]] == ["c2", "c5"]
    json.dumps(found.as_dict())


def test_without_data_and_images_only_theory():
    found = cs.receptive_field("resnet18", size=(96, 128))
    assert (found.effective, found.objects) == ((), None)
    assert found.fields.image == (96, 128)
    assert [one.name for one in found.fields.levels] == ["c2", "c3", "c4", "c5"]
    with pytest.raises(ConfigError, match="no level or layer 'c6'; there are c2, c3, c4, c5"):
        cs.receptive_field("resnet18", levels=["c6"])
    with pytest.raises(ConfigError, match="images: must be at least 0"):
        cs.receptive_field("resnet18", size=64, images=-1)


def test_the_command_writes_and_draws(tmp_path, capsys):
    kept, page = tmp_path / "new" / "f.json", tmp_path / "f.html"
    with pytest.raises(SystemExit) as stopped:
        main(["receptive-field", "resnet18", "--size", "64x96", "--level", "c2", "--images", "1", "--json", str(kept),
              "--plot", str(page)])  # fmt: skip
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "c2: effective field" in out
    assert [line.split()[-3:] for line in out.splitlines() if line.startswith("c5")] == [["435", "32", "0.5"]]
    assert json.loads(kept.read_text())["fields"]["image"] == [64, 96]
    assert page.is_file()
