"""Which models become ONNX files, what the files say of themselves, and the verbs that write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor

import clearsight as cs
from clearsight.cli import main
from clearsight.deploy.onnx import export_onnx
from clearsight.errors import ConfigError, NotFound, ShapeError
from clearsight.models import create_model
from clearsight.ops.selection import Selection


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    corner, light, snake = (create_model(name, num_classes=2) for name in ("cornernet", "light", "deep_snake"))
    place, soft = tmp_path / "x.onnx", Selection(nms="soft")
    with pytest.raises(ConfigError, match=r"CornerNet cannot be exported; these can: classifiers; segm.*faster_rcnn"):
        export_onnx(corner, place, size=(64, 96))
    with pytest.raises(ConfigError, match="soft suppression has no ONNX operator"):
        export_onnx(light, place, size=(64, 96), selection=soft)
    with pytest.raises(ConfigError, match=r"Deep Snake becomes two files; give a folder instead of .*x\.onnx"):
        export_onnx(snake, place, size=(64, 96))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [(1, 3, 32, 32), (2, 1, 32, 32), (2, 3, 32, 31)])
def test_examples_of_another_shape(wrong: tuple[int, ...], tmp_path: Path) -> None:
    model = create_model("unet", num_classes=2, width=4, depth=1)
    with pytest.raises(ShapeError, match=r"example: expected torch.uint8 \(2 or more, 3, 32, 32\), got"):
        export_onnx(model, tmp_path / "x.onnx", size=(32, 32), example=torch.zeros(wrong, dtype=torch.uint8))


def test_a_classifier(tmp_path: Path, photos: Callable[[int, tuple[int, int]], Tensor]) -> None:
    model, images = create_model("mobilenet_v1", num_classes=3).eval(), photos(3, (32, 48))
    path = export_onnx(model, tmp_path / "m.onnx", size=(32, 48), classes=("a", "b", "c"), example=images[:2])
    session = InferenceSession(str(path))
    expected = model.predict(images, torch.tensor([[32, 48]] * 3))  # pyright: ignore[reportCallIssue]
    for count in (1, 3):
        (found,) = session.run(None, {"images": images[:count].numpy()})
        truth = torch.stack([one.probs for one in expected[:count]])
        torch.testing.assert_close(torch.as_tensor(found), truth, rtol=1e-4, atol=1e-6)
    about = json.loads(session.get_modelmeta().custom_metadata_map["clearsight"])
    assert (about["task"], about["size"], about["classes"]) == ("classification", [32, 48], ["a", "b", "c"])
    assert about["normalisation"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert about["multiple"] is None
    assert "selection" not in about


def test_a_run_by_function_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = cs.train(
        "digits", "data.format=image_folder", f"data.root={folder_of_squares(tmp_path)}", "data.val=null",
        "data.size=[32, 32]", "trainer.epochs=1", "eval.bootstrap=0", out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    path = cs.export(run, tmp_path / "a.onnx")
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "b.onnx")])
    assert not stopped.value.code
    assert "b.onnx" in capsys.readouterr().out
    image = np.full((1, 3, 32, 32), 200, np.uint8)
    answers = [InferenceSession(str(tmp_path / name)).run(None, {"images": image})[0] for name in ("a.onnx", "b.onnx")]
    np.testing.assert_array_equal(*answers)
    (expected,) = run.model.eval().predict(torch.from_numpy(image), torch.tensor([[32, 32]]))  # pyright: ignore
    np.testing.assert_allclose(answers[0][0], expected.probs.numpy(), rtol=1e-4, atol=1e-6)
    assert path == tmp_path / "a.onnx"
    with pytest.raises(NotFound):
        cs.export(tmp_path / "none", tmp_path / "c.onnx")


def folder_of_squares(folder: Path) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for label, level in (("dark", 40), ("light", 220)):
            target = folder / "data" / split / label
            target.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (level + number,) * 3).save(target / f"{number}.png")
    return folder / "data"
