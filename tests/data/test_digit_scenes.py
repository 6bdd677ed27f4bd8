from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data import digit_scenes as module
from clearsight.data.dataset import Dataset
from clearsight.data.digit_rendering import digit_images
from clearsight.data.digit_scenes import CLASSES, cache_folder, digit_pools, read_digit_scenes, write_digit_scenes
from clearsight.data.splits import find_leaks
from clearsight.errors import DataError, RangeError
from clearsight.ops.masks import mask_to_box, rle_to_mask
from clearsight.ops.outlines import polygons_to_mask


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_splits_classes_and_files(digit_scenes: Dataset) -> None:
    assert digit_scenes.splits == {"train": 28, "val": 6, "test": 6}
    assert digit_scenes.classes == CLASSES
    assert digit_scenes.task == "instance"
    assert digit_scenes.format == "digit_scenes"
    assert digit_scenes.findings == []
    assert all(count > 5 for count in digit_scenes.counts().values())
    for record in digit_scenes.records:
        assert record.image.is_file()
        assert record.size == (128, 128)
        assert len(record.objects) >= 3


def test_no_digit_is_in_two_splits(digit_scenes: Dataset) -> None:
    used = {
        split: {item.attributes["digit"] for record in digit_scenes.split(split).records for item in record.objects}
        for split in ("train", "val", "test")
    }
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]
    pools = digit_pools(5)
    assert all(digits <= set(pools[split].tolist()) for split, digits in used.items())
    assert find_leaks(digit_scenes) == []


def test_every_class_of_digits_is_cut_alike() -> None:
    pools = digit_pools(0)
    assert sorted(np.concatenate(list(pools.values())).tolist()) == list(range(1797))
    labels = digit_images()[1]
    for split, share in module.SPLITS.items():
        counts = np.bincount(labels[pools[split]], minlength=10) / np.bincount(labels)
        assert counts == pytest.approx([share] * 10, abs=0.01)
    assert digit_pools(1)["train"].tolist() != pools["train"].tolist()


def test_all_labels_say_the_same(digit_scenes: Dataset) -> None:
    for record in digit_scenes.records:
        instances = np.asarray(Image.open(record.instance_map))
        semantic = np.asarray(Image.open(record.semantic))
        assert instances.shape == semantic.shape == (128, 128)
        drawn = np.zeros((128, 128), dtype=int)
        for number, item in enumerate(record.objects):
            mask = rle_to_mask(item.rle) if item.rle else polygons_to_mask(item.polygons, (128, 128))
            assert np.array_equal(mask, instances == number + 1)
            assert item.box == mask_to_box(mask)
            assert digit_images()[1][item.attributes["digit"]] == item.label
            drawn[mask] = item.label + 1
        assert np.array_equal(drawn, semantic)
    shapes = [bool(item.rle) for record in digit_scenes.records for item in record.objects]
    assert 0.1 < np.mean(shapes) < 0.9  # 0, 6, 8 and 9 have holes, others have none


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    one = write_digit_scenes(tmp_path / "a", scenes=6, seed=3)
    two = write_digit_scenes(tmp_path / "b", scenes=6, seed=3)
    other = write_digit_scenes(tmp_path / "c", scenes=6, seed=4)
    assert contents(one) == contents(two)
    assert contents(one) != contents(other)
    assert len(contents(one)) == 3 * 6 + 3 + 1


def test_a_complete_folder_is_reused(tmp_path: Path) -> None:
    out = write_digit_scenes(tmp_path / "a", scenes=4, seed=0)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert write_digit_scenes(out, scenes=4, seed=0) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    (out / "images" / "train_00000.png").unlink()
    write_digit_scenes(out, scenes=4, seed=0)
    assert (out / "images" / "train_00000.png").is_file()
    write_digit_scenes(out, scenes=4, seed=1)
    assert json.loads((out / "scenes.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_stopped_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt

    write = module._write_scene
    monkeypatch.setattr(module, "_write_scene", lambda *args: (stop(*args), write(*args))[1])
    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(tmp_path / "a", scenes=4, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="photos: exists and does not hold digit-scenes"):
        write_digit_scenes(tmp_path / "photos", scenes=3, seed=0)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "precious"
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file"):
        write_digit_scenes(tmp_path / "file" / "below", scenes=3, seed=0)


@pytest.mark.parametrize("options", [{"scenes": 2}, {"scenes": 3, "size": (40, 128)}])
def test_too_little_is_refused(tmp_path: Path, options: dict) -> None:
    with pytest.raises(RangeError, match="expected at least 3 scenes of 48×48"):
        write_digit_scenes(tmp_path / "a", seed=0, **options)


def test_the_cache_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    dataset = read_digit_scenes(scenes=3, seed=0, size=(64, 64))
    assert dataset.root.parent == tmp_path / "here"
    assert dataset.splits == {"train": 1, "val": 1, "test": 1}
    monkeypatch.delenv("CLEARSIGHT_CACHE")
    assert "clearsight" in cache_folder().parts[-1] or "clearsight" in cache_folder().parts[-2]
