"""Which log a path leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearsight.doctor.run.read_log import read_log
from clearsight.errors import DataError, NotFound

TABLE = "step,loss\n1,2.0\n2,1.0\n"


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "anything.csv").write_text(TABLE)
    assert read_log(tmp_path / "anything.csv").record.origin == "csv"


def test_names_that_trainers_use_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n1,7.0\n")
    (tmp_path / "results.csv").write_text(TABLE)
    assert read_log(tmp_path).record.loss.values.tolist() == [2.0, 1.0]


def test_one_table_of_any_name_will_do_and_several_will_not(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(TABLE)
    assert len(read_log(tmp_path).record.loss) == 2
    (tmp_path / "other.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"2 CSV files \(mine.csv, other.csv\); name one"):
        read_log(tmp_path)


def test_a_folder_of_events(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "events")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert read_log(tmp_path).record.origin == "tensorboard"
    (file,) = (tmp_path / "events").iterdir()
    assert read_log(file).record.origin == "tensorboard"


def test_a_folder_with_a_recipe_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    assert read_log(str(tmp_path)).record.origin == "clearsight"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        read_log(tmp_path / "no")
    with pytest.raises(DataError, match="it is empty"):
        read_log(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"it has notes\.txt"):
        read_log(tmp_path)
