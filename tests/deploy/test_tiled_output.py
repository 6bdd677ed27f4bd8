import subprocess
import sys

import numpy as np
import pytest
import tifffile

from clearsight.deploy.tiled_output import check_output, write_bands
from clearsight.errors import ConfigError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (300, 520), (700, 100, 3)])
@pytest.mark.parametrize("rows", [1000, 100, 256])
def test_bands_of_any_height_become_one_tiled_file(tmp_path, shape, rows):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.tif"
    path.write_text("an older file")
    write_bands(path, (array[top : top + rows] for top in range(0, shape[0], rows)), shape, np.dtype(np.uint8))
    np.testing.assert_array_equal(tifffile.imread(path), array)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        assert tif.is_bigtiff
        assert (page.is_tiled, page.tilelength, page.tilewidth) == (True, 256, 256)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    assert [one.name for one in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_work_that_ends_early_leaves_nothing(tmp_path, error):
    def bands():
        yield np.zeros((300, 300), np.uint8)
        assert len(list(tmp_path.iterdir())) == 1
        raise error

    with pytest.raises(error):
        write_bands(tmp_path / "a.tif", bands(), (900, 300), np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from clearsight.deploy.tiled_output import write_bands
from clearsight.errors import ConfigError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
bands = (np.random.default_rng(i).integers(0, 256, (256, 512), dtype=np.uint8) for i in range(9))
try:
    write_bands(Path(sys.argv[1]), bands, (9 * 256, 512), np.dtype(np.uint8))
except ConfigError as err:
    print(err)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_said_by_the_name_of_the_file(tmp_path):
    path = tmp_path / "result.tif"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: the result cannot be written: ")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    image = tmp_path / "image.tif"
    image.write_text("x")
    (tmp_path / "folder.tif").mkdir()
    for path, source, says in (
        (tmp_path / "a.png", image, "written as TIFF"),
        (tmp_path / "folder.tif", image, "is a folder"),
        (image, str(image), "is the image itself"),
        (image / "a.tif", image, "cannot be written"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_output(path, source)
    check_output(tmp_path / "new" / "a.tiff", image)
    assert (tmp_path / "new").is_dir()
