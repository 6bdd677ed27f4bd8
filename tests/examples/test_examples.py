import subprocess
import sys

import pytest


@pytest.fixture
def example(repo_root, tmp_path, monkeypatch):
    """Runs a script as a user does, in an empty folder."""
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))

    def run(name, *arguments):
        command = [sys.executable, str(repo_root / "examples" / name), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_training_and_predicting(example, tmp_path):
    small = ["data.scenes=30", "data.size=[64,64]", "loader.workers=0", "trainer.epochs=1", "eval.bootstrap=0"]
    out = example("train_and_predict.py", *small)
    assert "AP50 0." in out
    assert "worst image: " in out
    assert (tmp_path / "runs" / "example" / "report.html").is_file()
    assert len(list((tmp_path / "runs" / "example" / "predictions").glob("*.jpg"))) == 1


@pytest.mark.real
def test_checking_and_converting(example, shared_data, tmp_path):
    out = example("check_and_convert.py", str(shared_data / "bccd"), "yolo")
    assert "364 usable images, voc" in out
    assert "BloodImage_00338.xml:158" in out
    assert len(list((tmp_path / "yolo").rglob("*.txt"))) >= 364


def test_every_example_is_run_here(repo_root):
    scripts = {path.name for path in (repo_root / "examples").glob("*.py")}
    assert scripts == {"check_and_convert.py", "train_and_predict.py"}
