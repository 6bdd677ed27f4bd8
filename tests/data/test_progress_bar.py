import io

from rich.console import Console

from clearsight.data import progress_bar


def drawn(monkeypatch, *, after, quiet=False):
    text = io.StringIO()
    monkeypatch.setattr(progress_bar, "Console", lambda stderr: Console(file=text, force_terminal=True))
    with progress_bar.late_progress("reading", 3, quiet=quiet, after=after) as advance:
        for _ in range(3):
            advance()
    return text.getvalue()


def test_short_work_shows_nothing(monkeypatch):
    assert drawn(monkeypatch, after=60) == ""


def test_long_work_shows_a_bar(monkeypatch):
    assert "reading" in drawn(monkeypatch, after=-1)


def test_quiet_shows_nothing(monkeypatch):
    assert drawn(monkeypatch, after=-1, quiet=True) == ""
