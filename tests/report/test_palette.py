import pytest

from clearsight.errors import RangeError
from clearsight.report.palette import class_color, edge_of, readable_on, to_hex


def test_a_class_always_has_its_colour_and_the_first_fourteen_differ():
    colors = [class_color(i) for i in range(14)]
    assert colors == [class_color(i) for i in range(14)]
    assert len(set(colors)) == 14
    assert to_hex(class_color(0)) == "#0072b2"
    assert all(0 <= v <= 255 for i in range(200) for v in class_color(i))
    with pytest.raises(RangeError, match="from 0, got -1"):
        class_color(-1)


def contrast(a, b):
    """WCAG 2, written anew from its text."""

    def luminance(color):
        parts = [v / 255 for v in color]
        parts = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("index", range(30))
def test_text_on_a_class_colour_can_be_read(index):
    color = class_color(index)
    assert contrast(color, readable_on(color)) >= 4.5
    assert contrast(color, edge_of(color)) >= 1.6
