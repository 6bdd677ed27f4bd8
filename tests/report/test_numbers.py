import math

import pytest

from clearsight.report.numbers import count, duration, general, interval, percent, score


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (score, 0.58349, "0.583"),
        (score, math.nan, "–"),
        (percent, 0.456, "46 %"),
        (percent, 0.0712, "7.1 %"),
        (percent, 0.0, "0 %"),
        (percent, math.nan, "–"),
        (count, 12345, "12,345"),
        (count, math.nan, "–"),
        (general, 0.000123456, "0.0001235"),
        (general, 3.0, "3"),
        (general, 1e12, "1e+12"),
        (general, math.inf, "–"),
        (interval, (0.5561, 0.6094), "0.556 – 0.609"),
        (interval, (math.nan, 0.5), ""),
        (interval, None, ""),
        (duration, 41.6, "42 s"),
        (duration, 598, "9 min 58 s"),
        (duration, 600, "10 min"),
        (duration, 3599.8, "1 h"),
        (duration, 7500, "2 h 5 min"),
        (duration, None, ""),
        (duration, math.nan, ""),
    ],
)
def test_numbers_as_people_read_them(function, value, text):
    assert function(value) == text
