import base64
import io

import numpy as np
from PIL import Image

from clearsight.report.pictures import embed


def noise(side, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_a_picture_is_embedded_whole():
    gradient = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    (one,) = embed([(gradient, "a caption")], budget=10**7)
    assert one.caption == "a caption"
    assert (one.width, one.height) == (300, 200)
    back = decoded(one.uri)
    assert back.size == (300, 200)
    assert np.abs(np.asarray(back).astype(int) - np.asarray(gradient)).mean() < 4


def test_pictures_shrink_until_they_fit():
    pictures = [(noise(970, seed), str(seed)) for seed in range(2)]
    large = embed(pictures, budget=10**9)
    assert large[0].width == 960
    small = embed(pictures, budget=sum(len(p.uri) for p in large) // 3)
    assert sum(len(p.uri) for p in small) <= sum(len(p.uri) for p in large) // 3
    assert 240 < small[0].width < 960
    assert embed(pictures, budget=10)[0].width == 240


def test_small_pictures_are_not_enlarged_and_the_given_one_is_not_changed():
    picture = noise(1000)
    assert embed([(picture, "")], budget=1)[0].width == 240
    assert picture.size == (1000, 1000)
    assert embed([(noise(50), "")], budget=10**7)[0].width == 50
    assert embed([], budget=10**7) == []
