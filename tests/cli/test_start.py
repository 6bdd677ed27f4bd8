import io

import pytest
from rich.console import Console

from clearsight.cli import start
from clearsight.errors import ConfigError, DataError


@pytest.fixture
def leave(monkeypatch, capsys):
    """Gives the exit code and what is said when a command ends with an error."""

    def run(error, *arguments):
        def app(*_, **__):
            if isinstance(error, BaseException):
                raise error
            return error

        monkeypatch.setattr(start, "app", app)
        with pytest.raises(SystemExit) as left:
            start.main(["recipes", *arguments])
        return left.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (ConfigError("a: found [b]"), 2, "error: a: found [b]\n"),
        (DataError("one\n  two"), 2, "error: one\n  two\n"),
        (OSError(28, "No space left on device", "runs/x"), 2, "error: runs/x: No space left on device\n"),
        (MemoryError(), 2, "error: out of memory; use less at once"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (130, 130, "stopped\n"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero (app, line"),
    ],
)
def test_every_end_has_its_code_and_its_words(leave, error, code, said):
    left, text = leave(error)
    assert left == code
    assert text.startswith(said)
    assert "Traceback" not in text


def test_a_fault_of_ours_says_so(leave):
    assert "it is a fault of clearsight" in leave(RuntimeError("x"))[1]


@pytest.mark.parametrize("arguments", [("--debug",), ("x", "--debug")])
def test_debug_shows_the_traceback(leave, arguments):
    with pytest.raises(ConfigError, match="x"):
        leave(ConfigError("x"), *arguments)


def test_debug_by_environment(leave, monkeypatch):
    monkeypatch.setenv("CLEARSIGHT_DEBUG", "1")
    with pytest.raises(ConfigError, match="x"):
        leave(ConfigError("x"))


def test_a_terminal_gets_a_panel(leave, monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(
        start, "Console", lambda stderr: Console(file=text, force_terminal=True, color_system=None, width=60)
    )
    leave(ConfigError("a: found [b]"))
    assert "╭─ error" in text.getvalue()
    assert "a: found [b]" in text.getvalue()
