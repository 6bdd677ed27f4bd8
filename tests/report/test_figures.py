from clearsight.report.figures import SERIES, hatched, named, series


def test_a_name_cannot_be_markup_for_plotly():
    assert named("<b>x</b> & <script>") == "&lt;b&gt;x&lt;/b&gt; &amp; &lt;script&gt;"
    assert named("x" * 60) == "x" * 39 + "…"
    assert named(7) == "7"


def test_lines_differ_in_colour_or_dash():
    looks = [series(i) for i in range(4 * SERIES)]
    assert len(set(looks)) == len(looks)
    assert all(a != b for a, b in zip([c for c, _ in looks], [c for c, _ in looks[1:]], strict=False))
    assert all(a != b for a, b in zip([d for _, d in looks[:8]], [d for _, d in looks[1:8]], strict=False))


def test_bars_are_hatched():
    assert hatched(1, "/")["pattern"]["shape"] == "/"
    assert hatched(1, "/")["color"] == "var(--series-2)"
