import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from clearsight.report import ReportContent, write_report

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would make of a page: elements, and scripts that would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        (self.scripts if self._script else self.text).append(data)

    def ids(self):
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_content):
    return write_report(tmp_path_factory.mktemp("report") / "report.html", make_content())


def test_one_file_with_every_section_below_eight_megabytes(written):
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert [p.name for p in written.parent.iterdir()] == ["report.html"]
    assert written.stat().st_size < 8_000_000
    for section in ("summary", "findings", "results", "worst", "training", "data", "recipe", "environment"):
        assert section in page.ids()
    assert len(page.ids()) == len(set(page.ids()))
    plots = json.loads(page.scripts[0])
    assert "<" not in page.scripts[0]  # nothing in it can end the element
    assert {plot["id"] for plot in plots} == {i for i in page.ids() if i.startswith("plot-")}
    assert len(plots) == 10
    assert text.count("plotly.js v") == 1
    words = " ".join(" ".join(page.text).split())
    assert "reaches mAP" in words
    assert words.count("How to read this.") == len(plots)
    assert "and 3 more" in words  # eight findings of a kind, five places listed
    assert "augment.mixup=0.5" in words
    assert "photos/bccd" in words


def test_nothing_in_the_page_points_outside(written):
    page = Page(written.read_text(encoding="utf-8"))
    for _, attrs in page.tags:
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "@import" not in written.read_text(encoding="utf-8").split("</style>")[0]


@pytest.mark.parametrize("kind", ["detection", "classification"])
def test_names_cannot_become_markup(tmp_path, make_content, kind):
    quiet = write_report(tmp_path / "a.html", make_content(kind, classes=("a", "b", "c"), name="plain"))
    classes = (EVIL, '"><img src=x onerror=alert(1)>', "</script><script>alert(2)</script>")
    loud = write_report(tmp_path / "b.html", make_content(kind, classes=classes, name=EVIL))
    before, after = Page(quiet.read_text(encoding="utf-8")), Page(loud.read_text(encoding="utf-8"))
    assert [tag for tag, _ in before.tags] == [tag for tag, _ in after.tags]
    assert [sorted(attrs) for _, attrs in before.tags] == [sorted(attrs) for _, attrs in after.tags]
    assert before.scripts[1:] == after.scripts[1:]
    json.loads(after.scripts[0])
    assert EVIL in "".join(after.text)  # shown as it is written


def test_a_report_of_nothing_is_still_a_page(tmp_path):
    out = write_report(tmp_path / "report.html", ReportContent(title="bare"))
    page = Page(out.read_text(encoding="utf-8"))
    assert "has not been scored yet" in "".join(page.text)
    assert "results" not in page.ids()
    assert out.stat().st_size < 60_000  # no plots, no plotly.js


def test_a_failed_write_leaves_the_old_report_and_no_debris(tmp_path, make_content, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("the old report")
    content = make_content()

    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(out, content)
    assert out.read_text() == "the old report"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# ------------------------------------------------------------------------------------------------ in a browser
@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium found: expected chromium or google-chrome on the PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """Open a page; gives it with the list of everything that went wrong or left the page."""
    contexts = []

    def go(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page, trouble = context.new_page(), []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else trouble.append(r.url))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-plots=true]", timeout=30_000)
        return page, trouble

    yield go
    for context in contexts:
        context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_drawn_without_errors_and_without_the_network(written, visit, scheme):
    page, trouble = visit(written, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    assert trouble == []
    assert page.locator(".canvas").count() == page.locator(".canvas .main-svg:first-child").count() == 10
    assert page.locator(".canvas .scatterlayer .trace").count() > 8
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")


@pytest.mark.browser
def test_a_phone_need_not_scroll_sideways(written, visit):
    page, trouble = visit(written, viewport={"width": 390, "height": 844})
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_tables_sort_and_pictures_enlarge(written, visit):
    page, _ = visit(written, viewport={"width": 1280, "height": 900})
    table = page.locator("table.sortable", has_text="Precision").first

    def column():
        return [float(text) for text in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]

    table.get_by_role("button", name="AP", exact=True).click()
    assert column() == sorted(column(), reverse=True)
    table.get_by_role("button", name="AP", exact=True).click()
    assert column() == sorted(column())
    page.locator(".zoom").first.click()
    assert page.locator("dialog[open] img").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


@pytest.mark.browser
def test_paper_is_light_and_plots_fit_it(written, visit):
    page, _ = visit(written, color_scheme="dark", viewport={"width": 700, "height": 900})
    dark = page.evaluate("document.querySelector('.ytick text').style.fill")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # comes while the page still has the screen's colours
    assert page.evaluate("document.querySelector('.ytick text').style.fill") != dark
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.evaluate("document.querySelector('details').open")


@pytest.mark.browser
def test_hostile_names_run_nothing(tmp_path, make_content, visit):
    classes = (EVIL, '"><img src=x onerror=alert(1)>', "</script><script>alert(2)</script>")
    out = write_report(tmp_path / "evil.html", make_content(classes=classes, name=EVIL))
    page, trouble = visit(out)
    assert trouble == []
    assert "<script>alert(1)</script>" in page.locator(".canvas .legendtext").first.text_content()
