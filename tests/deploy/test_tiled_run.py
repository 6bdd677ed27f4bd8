import io
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from clearsight.data import progress_bar
from clearsight.data.normalisation import fixed_statistics
from clearsight.deploy import tiled_run
from clearsight.deploy.tiled_run import Tiling, predict_tiled
from clearsight.errors import ConfigError, DataError, NotFound
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.unet import UNet
from clearsight.nn.input import InputNorm


class Pixelwise(nn.Module):
    """A 1×1 convolution: nothing depends on neighbours."""

    def __init__(self, channels=3, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        return self.conv(x)


class Corner(nn.Module):
    """Two classes; the odds rise from the window's first pixel to its last: tiles contradict each other."""

    def forward(self, x):
        odds = torch.linspace(-3, 3, x.shape[3]).expand(x.shape[2:])
        return torch.stack([odds, -odds]).expand(len(x), 2, *x.shape[2:])


class Doubled(InputNorm):
    """The same in float64."""

    def forward(self, images):
        return super().forward(images.double() / self.scale)


def segmenter(net, classes=3, channels=3, scale=255.0):
    torch.manual_seed(0)
    statistics = fixed_statistics("unit", channels=channels, scale=scale)
    return Segmenter(net, statistics=statistics, loss=SemanticLoss(classes)).eval()


def valid_unet(depth, norm="batch"):
    torch.manual_seed(depth)
    net = UNet(3, 3, width=4, depth=depth, padding="valid", norm=norm)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    return net


def picture(height, width, channels=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def whole(model, image):
    with torch.no_grad():
        return model(torch.from_numpy(image).permute(2, 0, 1)[None]).float().softmax(1)[0].numpy()


# ------------------------------------------------------------------------------------------------ exact
@pytest.mark.parametrize("size", [(1, 1), (5, 211), (97, 131), (64, 64), (120, 2), (100, 203)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_valid_unet_in_tiles_is_the_whole_to_1e_6(depth, size):
    model = segmenter(valid_unet(depth))
    model.input_norm = Doubled(fixed_statistics("unit", channels=3))  # what differs in float32 is rounding, by 1e-6
    model.net.double()
    image = picture(*size)
    tiling = Tiling(tile=(15 * 2**depth + 3, 13 * 2**depth - 4), batch_size=3)
    found = predict_tiled(model, image, tiling=tiling, probabilities=True)
    expected = whole(model, image)
    assert found.mode == "exact"
    assert found.windows > 1 or max(size) <= 2**depth
    np.testing.assert_allclose(found.probs, expected, atol=1e-6, rtol=0)
    labels = predict_tiled(model, image, tiling=tiling).labels
    np.testing.assert_array_equal(labels, expected.argmax(0))


def test_a_valid_unet_in_float32_too():
    torch.manual_seed(0)
    model = segmenter(UNet(3, 2, width=4, depth=4, padding="valid", norm=None), classes=2)
    image = picture(150, 170)
    found = predict_tiled(model, image, tiling=Tiling(tile=(300, 300)), probabilities=True)
    assert found.windows == 4
    np.testing.assert_allclose(found.probs, whole(model, image), atol=1e-6, rtol=0)


def test_blending_a_valid_unet_is_not_exact_so_that_the_tests_above_say_something():
    model = segmenter(valid_unet(2))
    image = picture(97, 131)
    found = predict_tiled(model, image, tiling=Tiling(tile=(64, 64), overlap=16, mode="blend"), probabilities=True)
    assert found.mode == "blend"
    assert np.abs(found.probs - whole(model, image)).max() > 1e-3


def test_exact_is_refused_where_it_would_not_be():
    for net, says in (
        (Pixelwise(), "it is no U-Net of padding: valid"),
        (UNet(3, 3, width=4, depth=1), "it is no U-Net of padding: valid"),
        *(
            (UNet(3, 3, width=4, depth=1, padding="valid", norm=norm), "its norm is over the whole window")
            for norm in ("instance", "layer", "group")
        ),
    ):
        model = segmenter(net)
        with pytest.raises(ConfigError, match=says):
            predict_tiled(model, picture(40, 40), tiling=Tiling(mode="exact"))
        assert predict_tiled(model, picture(40, 40)).mode == "blend"


# ------------------------------------------------------------------------------------------------ blend
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (100, 131), (200, 30)])
def test_blending_what_agrees_changes_nothing(size):
    model = segmenter(Pixelwise())
    image = picture(*size)
    found = predict_tiled(model, image, tiling=Tiling(tile=(48, 40), overlap=16), probabilities=True)
    np.testing.assert_allclose(found.probs, whole(model, image), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.probs.sum(0), 1, atol=1e-6)
    assert found.labels is None


def test_a_seam_is_a_slope_where_tiles_contradict_each_other():
    model = segmenter(Corner(), classes=2)
    steps = {}
    for overlap in (0, 16, 32):
        image, tiling = picture(64, 128 - overlap), Tiling(tile=(64, 64), overlap=overlap)
        found = predict_tiled(model, image, tiling=tiling, probabilities=True)
        assert found.windows == 2
        steps[overlap] = np.abs(np.diff(found.probs[0], axis=1)).max()
    assert steps[0] > 0.9
    assert steps[16] < steps[0] / 4
    assert steps[32] < steps[16]


# ------------------------------------------------------------------------------------------------ files
@pytest.mark.parametrize("tile", [(64, 48), (40, 200)])
def test_streamed_from_file_to_file_is_the_same(tmp_path, tile):
    model = segmenter(valid_unet(1))
    image = picture(300, 270)
    source, out = tmp_path / "a.tif", tmp_path / "deep" / "labels.tif"
    tifffile.imwrite(source, image, tile=(64, 64), compression="zlib", photometric="rgb", metadata=None)
    for mode in ("exact", "blend"):
        tiling = Tiling(tile=tile, overlap=20, mode=mode)
        made = predict_tiled(model, source, tiling=tiling, out=out)
        assert (made.path, made.labels, made.size, made.mode) == (out, None, (300, 270), mode)
        np.testing.assert_array_equal(tifffile.imread(out), predict_tiled(model, image, tiling=tiling).labels)
        predict_tiled(model, source, tiling=tiling, out=out, probabilities=True)
        probs = predict_tiled(model, image, tiling=tiling, probabilities=True).probs
        np.testing.assert_allclose(tifffile.imread(out) / 255, probs.transpose(1, 2, 0), atol=0.5 / 255 + 1e-6)
    assert [one.name for one in out.parent.iterdir()] == ["labels.tif"]


def test_a_damaged_tile_stops_the_work_by_name_and_leaves_no_file(tmp_path):
    source, out, done = tmp_path / "a.tif", tmp_path / "labels.tif", []
    tifffile.imwrite(source, picture(320, 320), tile=(64, 64), compression="zlib", photometric="rgb", metadata=None)
    with tifffile.TiffFile(source) as tif:
        offset, count = (one[17] for one in (tif.pages.first.dataoffsets, tif.pages.first.databytecounts))
    with source.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    with pytest.raises(DataError, match=r"a.tif: tile \(row 3, column 2\)"):
        predict_tiled(
            segmenter(Pixelwise()), source, tiling=Tiling(tile=(64, 64), overlap=0, batch_size=5), out=out,
            progress=lambda *seen: done.append(seen),
        )  # fmt: skip
    assert done == [(5, 25), (10, 25), (15, 25)]
    assert [one.name for one in tmp_path.iterdir()] == ["a.tif"]


KILLED = """
import sys, time
import numpy as np
from test_tiled_run import Pixelwise, Tiling, picture, predict_tiled, segmenter
def told(done, total):
    print(done, flush=True)
    time.sleep(0.2)
predict_tiled(segmenter(Pixelwise()), picture(2048, 300), tiling=Tiling(tile=(300, 300), overlap=0, batch_size=1),
              out=sys.argv[1], progress=told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_process_that_is_killed_leaves_no_result(tmp_path):
    folder = __file__.rpartition("/")[0]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{KILLED}", str(tmp_path / "a.tif")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in iter(process.stdout.readline, ""):
            if line.strip() == "3":
                break
        assert len(list(tmp_path.iterdir())) == 1  # the hidden beginning
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert [one.name for one in tmp_path.iterdir()] == [f".a.tif.{process.pid}.part"]


# ------------------------------------------------------------------------------------------------ the rest
def test_sixteen_bits_are_brought_to_eight_and_back():
    shallow, deep = segmenter(Pixelwise()), segmenter(Pixelwise(), scale=65535.0)
    deep.load_state_dict(shallow.state_dict())
    image = picture(30, 40)
    wide = image.astype(np.uint16) * 257
    found = [
        predict_tiled(model, pixels, probabilities=True).probs for model in (shallow, deep) for pixels in (image, wide)
    ]
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], atol=1e-6)


def test_every_module_is_left_in_its_mode():
    model = segmenter(nn.Sequential(nn.Dropout(0.9), Pixelwise()))
    model.train()
    model.input_norm.eval()
    first, second = (predict_tiled(model, picture(40, 40), probabilities=True).probs for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (model.training, model.net.training, model.net[0].training, model.input_norm.training) == (
        True, True, True, False,
    )  # fmt: skip


def test_progress_is_told_and_drawn(monkeypatch):
    text, told = io.StringIO(), []
    monkeypatch.setattr(progress_bar, "Console", lambda stderr: Console(file=text, force_terminal=True))
    monkeypatch.setattr(tiled_run, "late_progress", partial(progress_bar.late_progress, after=-1))
    model, tiling = segmenter(Pixelwise()), Tiling(tile=(16, 16), overlap=0, batch_size=3)
    predict_tiled(model, picture(20, 64), tiling=tiling, progress=lambda *seen: told.append(seen))
    assert told == [(3, 8), (4, 8), (7, 8), (8, 8)]
    predict_tiled(model, picture(20, 64), tiling=tiling, quiet=True)
    assert text.getvalue() == ""
    predict_tiled(model, picture(20, 64), tiling=tiling)
    assert "predicting" in text.getvalue()
    assert "8/8" in text.getvalue()


def test_what_cannot_be_done_is_said(tmp_path):
    model = segmenter(Pixelwise())
    Image.fromarray(picture(30, 30)).save(tmp_path / "a.png")
    for image, options, error, says in (
        (tmp_path / "b.png", {}, NotFound, "no such file"),
        (np.zeros((9, 9, 5), np.uint8), {}, ValueError, "found 5 channels, the model takes 3"),
        (tmp_path / "a.png", {"out": tmp_path / "a.png"}, ConfigError, "written as TIFF"),
        (tmp_path / "a.png", {"tiling": Tiling(tile=(32, 64), overlap=32)}, ConfigError, "less than the tile's 32"),
    ):
        with pytest.raises(error, match=says):
            predict_tiled(model, image, **options)
    for classes in (1, 257):
        with pytest.raises(ConfigError, match=f"found {classes} classes, tiled prediction takes 2 to 256"):
            predict_tiled(segmenter(Pixelwise(classes=classes), classes=2), tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"100 pixels leave nothing .* give at least 204"):
        predict_tiled(segmenter(UNet(3, 3, width=2, padding="valid")), picture(9, 9), tiling=Tiling(tile=(100, 300)))
    for options, says in (
        ({"mode": "exakt"}, "did you mean 'exact'"),
        ({"overlap": -1}, "overlap: found -1"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"tile": (0, 5)}, "tile: found"),
    ):
        with pytest.raises(ConfigError, match=says):
            Tiling(**options)
