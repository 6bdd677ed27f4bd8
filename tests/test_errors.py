"""The tree of errors: one root, and the built-in type that Python code would catch."""

from __future__ import annotations

import pickle

import pytest

from clearsight import errors
from clearsight.types import Finding

BUILT_IN = {
    "CheckpointError": RuntimeError,
    "ConfigError": ValueError,
    "DataError": ValueError,
    "MissingExtra": ImportError,
    "NonFiniteLoss": ArithmeticError,
    "NotFound": FileNotFoundError,
    "RangeError": ValueError,
    "ShapeError": ValueError,
    "WeightsError": ValueError,
}


def test_every_error_is_listed_here() -> None:
    assert set(BUILT_IN) == set(errors.__all__) - {"ClearsightError", "nearest"}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_caught_by_the_root_and_by_the_built_in(name: str) -> None:
    kind = getattr(errors, name)
    message = "labels.json: found 3, expected 4; fix it"
    for caught in (errors.ClearsightError, BUILT_IN[name]):
        with pytest.raises(caught) as raised:
            raise kind(message)
        assert str(raised.value) == message


def test_findings_survive_the_way_from_a_worker_process() -> None:
    finding = Finding(id="empty-file", severity="error", where="a.png", explanation="no bytes")
    error = pickle.loads(pickle.dumps(errors.DataError("one fault", [finding])))
    assert (str(error), error.findings) == ("one fault", (finding,))


def test_not_found_says_only_its_message() -> None:
    assert str(errors.NotFound()) == ""
    assert str(errors.NotFound("photos: no such folder")) == "photos: no such folder"
