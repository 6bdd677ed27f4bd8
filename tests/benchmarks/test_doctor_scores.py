"""What the doctor's benchmark makes of its runs: which faults count, what is right, and the peers' rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

import doctor_peer_rules
import doctor_scores
from doctor_peer_rules import Epoch, Seen
from doctor_setup import Setup, patched, recipe_of, resolved


def finding(name: str, *, severity: str = "warning", step: int = 0, kind: str = "", remedy=None) -> dict:
    return {"id": name, "kind": kind, "severity": severity, "step": step, "where": "", "because": "",
            "remedy": remedy or {}}  # fmt: skip


def run(key: str, kind: str, score: float, *findings: dict, faults=(), accepted=(), **more) -> dict:
    own = resolved(Setup(data="digits", net="mlp")).as_dict()
    return {
        "key": key, "kind": kind, "part": "report", "of": "", "own": own, "setup": own, "score": score, "onset": 0,
        "faults": [list(fault) for fault in faults], "accepted": [list(accepted)] if faults else [], "spots": [],
        "proven": False, "slow": False, "findings": list(findings), "nonfinite": None, "steps": 240, "peers": {},
        "train_seconds": 1.0,
    } | more  # fmt: skip


def known(*rows: dict) -> dict[str, dict]:
    twin = run("report-twin-digits-mlp-0", "twin", 0.95)
    return {row["key"]: row for row in (twin, *rows)}


def test_interval_of_a_share():
    assert doctor_scores.wilson(0, 200) == pytest.approx((0.0, 0.0188), abs=1e-3)
    assert doctor_scores.wilson(10, 20) == pytest.approx((0.299, 0.701), abs=1e-3)  # Brown, Cai and DasGupta 2001
    assert doctor_scores.wilson(0, 0) == (0.0, 1.0)


def test_fault_that_costs_nothing_is_a_sound_run():
    rows = known(
        run("costly", "fault", 0.90, faults=[("rate-high", 10.0)], accepted=["learning-rate-too-high"]),
        run("cheap", "fault", 0.94, finding("overfitting"), faults=[("rate-high", 10.0)], accepted=["x"]),
        run("silent", "fault", 0.95, faults=[("validation-leak", 0.1)], accepted=["leak"], proven=True),
        run("sound", "clean", 0.80),
        run("stuck", "clean", 0.30),
    )
    sides = doctor_scores.sides_of(rows, "report")
    assert [row["key"] for row in sides.faulty] == ["costly", "silent"]
    assert [row["key"] for row in sides.clean] == ["cheap", "sound"]
    assert [row["key"] for row in sides.spoiled] == ["stuck"]
    scores = doctor_scores.score(rows, "report")
    assert (scores.told.false.hits, scores.told.false.runs) == (1, 2)
    assert scores.false_ids == {"overfitting": 1}
    assert scores.told.alarms.hits == 0


def test_slow_fault_counts_by_its_pace():
    slow = {"faults": [("slow-loader", 0.05)], "accepted": ["loader-bound"], "slow": True}
    rows = known(
        run("slow", "fault", 0.95, train_seconds=1.3, **slow),
        run("quick", "fault", 0.95, train_seconds=1.1, **slow),
    )
    assert [row["key"] for row in doctor_scores.sides_of(rows, "report").faulty] == ["slow"]


def test_right_cause_is_looked_for_among_the_first_grave_findings():
    given = {"faults": [("rate-high", 10.0)], "accepted": ["learning-rate-too-high", "non-finite:overflow"]}
    right, wrong = finding("learning-rate-too-high", step=24), finding("dead-units", step=12)
    rows = known(
        run("first", "fault", 0.1, finding("plateau", severity="info"), right, wrong, **given),
        run("second", "fault", 0.1, wrong, wrong, right, **given),
        run("kind", "fault", 0.1, finding("non-finite", kind="overflow", step=120), **given),
        run("other kind", "fault", 0.1, finding("non-finite", kind="input"), **given),
        run("only told", "fault", 0.1, finding("learning-rate-too-high", severity="info"), **given),
    )
    scores = doctor_scores.score(rows, "report")
    assert (scores.told.alarms.hits, scores.told.first.hits, scores.told.three.hits, scores.told.alarms.runs) == (
        4,
        2,
        3,
        5,
    )
    assert sorted(scores.delays)[:3] == [0.1, 0.1, 0.5]
    assert scores.precise.share == 0.5
    assert scores.first_ids["rate-high"] == {"learning-rate-too-high": 1, "dead-units": 1, "non-finite": 2, "–": 1}


def test_alarm_before_the_fault_is_none():
    early = finding("learning-rate-too-high", step=50)
    late = finding("wrong-sign", step=108)
    given = {"faults": [("sign-turns", 1.0)], "accepted": ["wrong-sign"], "onset": 96}
    rows = known(run("before", "fault", 0.1, early, **given), run("after", "fault", 0.1, early, late, **given))
    scores = doctor_scores.score(rows, "report")
    assert (scores.told.alarms.hits, scores.told.first.hits) == (1, 1)
    assert min(scores.delays) == pytest.approx(12 / 240)


def test_spot_must_be_exact_and_at_its_step():
    given = {"faults": [("nan-log", 0.5)], "accepted": ["non-finite"], "proven": True, "onset": 96,
             "spots": [["3.1", "forward", "log"]]}  # fmt: skip
    exact = {"module": "3.1", "direction": "forward", "operation": "log"}
    rows = known(
        run("exact", "fault", 0.0, nonfinite=exact, **given | {"steps": 95}),
        run("late", "fault", 0.0, nonfinite=exact, **given | {"steps": 97}),
        run("module", "fault", 0.0, nonfinite=exact | {"module": "3"}, **given | {"steps": 95}),
        run("none", "fault", 0.0, **given | {"steps": 95}),
        run("anomaly-exact", "anomaly", 0.0, anomaly="Function 'LogBackward0' returned nan values"),
    )
    scores = doctor_scores.score(rows, "report")
    assert (scores.spots.hits, scores.spots.runs) == (1, 4)
    assert (scores.told.alarms.runs, scores.others.alarms.runs) == (4, 0)
    assert scores.peers["torch.autograd.detect_anomaly"][0].alarms.hits == 1


def test_data_are_looked_at_once_for_the_runs_that_share_them():
    clean = [run(f"sound {number}", "clean", 0.9) for number in range(2)]
    look = run(doctor_scores.data_key(clean[0]), "data", 0.0, finding("leak"))
    other = run("other seed", "clean", 0.9, own=clean[0]["own"] | {"seed": 1})
    scores = doctor_scores.score(known(*clean, look, other), "report")
    assert (scores.told.false.hits, scores.told.false.runs) == (2, 3)


def test_remedy_has_to_win_back_four_fifths():
    given = {"faults": [("rate-high", 100.0)], "accepted": ["learning-rate-too-high"]}
    rows = known(
        run("run", "fault", 0.15, **given),
        run("remedy-a", "remedy", 0.80, of="run", **given),
        run("remedy-b", "remedy", 0.75, of="run", **given),
    )
    remedies = doctor_scores.score(rows, "report").remedies
    assert (remedies.hits, remedies.runs) == (1, 2)


def test_peer_is_held_against_ours_on_the_same_runs():
    given = {"faults": [("label-noise", 0.3)], "accepted": ["label-error"]}
    lab = {"cleanlab": {"alarm": True, "ids": ["label-error"]}}
    rows = known(
        run("data", "fault", 0.5, peers=lab, **given),
        run("other", "fault", 0.5, finding("label-error"), **given),
        run("look", "data", 0.0, finding("leak"), peers={"cleanlab": {"alarm": False, "ids": []}}),
        run("sound", "clean", 0.9, peers={"UMLAUT": {"alarm": True, "ids": ["leak"]}}),
    )
    peers = doctor_scores.score(rows, "report").peers
    theirs, ours = peers["cleanlab"]
    assert [(one.first.hits, one.first.runs, one.false.hits, one.false.runs) for one in (theirs, ours)] == [
        (1, 1, 0, 1),
        (0, 1, 1, 1),
    ]
    assert peers["always alarming"][0].false.share == 1.0
    assert peers["always alarming"][0].first.hits == 2


# ------------------------------------------------------------------------------------------------ remedies
def test_patch_of_the_recipe_comes_before_words():
    setup = resolved(Setup(data="digits", net="mlp", lr=5.0, shuffle=False))
    assert recipe_of(setup)["optimizer"]["lr"] == 5.0
    lower = patched(setup, finding("learning-rate-too-high", remedy={"optimizer.lr": 0.5}))
    assert lower is not None
    assert (lower.lr, lower.shuffle) == (0.5, False)
    shuffled = patched(setup, finding("unshuffled"))
    assert shuffled is not None
    assert (shuffled.lr, shuffled.shuffle) == (5.0, True)


def test_advice_that_is_no_knob_or_changes_nothing_is_no_remedy():
    setup = resolved(Setup(data="digits", net="mlp"))
    assert patched(setup, finding("wrong-sign")) is None
    assert patched(setup, finding("unshuffled")) is None
    assert patched(setup, finding("tiny-batch-norm", remedy={"loader.drop_last": True})) is None


# ------------------------------------------------------------------------------------------------ peers
def seen(epochs: int = 20, **changes) -> Seen:
    """A training that goes well and that no peer has reason to complain of."""
    measured = [
        Epoch(step=10 * n, loss=2.0 * 0.8**n, accuracy=1 - 0.7 * 0.8**n, val_loss=2.0 * 0.8**n * 1.05,
              val_accuracy=0.94 - 0.7 * 0.8**n, grad_norm=[1.0, 1.0], grad_mean=[0.01, 0.01], weight_std=[0.1, 0.1],
              update=[0.1, 0.1], zeros=[0.5], dead=[0.0])
        for n in range(1, epochs + 1)
    ]  # fmt: skip
    losses = [2.3 * 0.98**step for step in range(10 * epochs)]
    given = {"lr": 0.01, "low": -1.0, "high": 1.0, "mean": [0.0], "losses": losses, "epochs": measured, "step": 200}
    return Seen(**{**given, **changes})


def test_peers_are_silent_where_nothing_is():
    told = doctor_peer_rules.judge(seen())
    assert list(told) == list(doctor_peer_rules.PEERS)
    assert [name for name, one in told.items() if one["alarm"]] == []


def with_epochs(**changes) -> Seen:
    given = seen()
    given.epochs = [replace(epoch, **changes) for epoch in given.epochs]
    return given


@pytest.mark.parametrize(
    ("rule", "given", "told"),
    [
        (doctor_peer_rules.umlaut, seen(lr=0.05), "learning-rate-too-high"),
        (doctor_peer_rules.umlaut, seen(high=2.5), "input-not-normalised"),
        (doctor_peer_rules.sagemaker, seen(counts=[100, 5]), "class-imbalance"),
        (doctor_peer_rules.sagemaker, with_epochs(dead=[0.6]), "dead-units"),
        (doctor_peer_rules.sagemaker, with_epochs(grad_mean=[1e-8, 1.0]), "vanishing-gradient"),
        (doctor_peer_rules.autotrainer, with_epochs(grad_norm=[1e-6, 1.0], val_accuracy=0.2), "vanishing-gradient"),
        (doctor_peer_rules.autotrainer, with_epochs(grad_zeros=0.8, val_accuracy=0.2), "dead-units"),
        (doctor_peer_rules.deepdiagnosis, with_epochs(zeros=[0.75]), "dead-units"),
        (doctor_peer_rules.deepdiagnosis, with_epochs(loss=1.5), "learning-rate-too-low"),
        (doctor_peer_rules.lightning, with_epochs(val_loss=1.0), "overfitting"),
        (doctor_peer_rules.lightning, seen(losses=[1.0] * 20 + [3.5]), "loss-spike"),
        (doctor_peer_rules.lightning, seen(losses=[1.0, float("nan")]), "non-finite"),
    ],
)
def test_each_threshold_of_a_peer(rule, given, told):
    assert told in [name for name, _ in rule(given)]


def test_thresholds_are_not_crossed_just_inside():
    assert doctor_peer_rules.umlaut(seen(lr=0.0099)) == []
    assert doctor_peer_rules.lightning(seen(losses=[1.0] * 20 + [2.9])) == []
    assert doctor_peer_rules.deepdiagnosis(with_epochs(zeros=[0.69])) == []
    assert doctor_peer_rules.sagemaker(seen(counts=[100, 10])) == []
