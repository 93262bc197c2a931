"""One event for what goes wrong together: it opens, is updated, closes."""

import json
from collections.abc import Sequence

import pytest

from mlspan_processor.anomaly.findings import finding_of, incident_of
from mlspan_processor.anomaly.incidents import KINDS, Change, Finding, Incidents, Kind, Limits, Severity

MINUTE = 60 * 10**9
AT_ONCE = Limits(persistence=(1, 1), recovery=2, cool_down=5)


def _finding(
    minute: int,
    subject: str = "accuracy",
    *,
    kind: Kind = "realised",
    severity: Severity = "warning",
    version: str = "7",
    certain: bool = False,
) -> Finding:
    return Finding(
        subject=subject,
        kind=kind,
        model="fraud",
        version=version,
        severity=severity,
        value=0.8,
        expected=0.9,
        effect=-0.1,
        start_ns=(minute - 1) * MINUTE,
        end_ns=minute * MINUTE,
        exemplars=((f"{minute:032x}", f"{minute:016x}"),),
        certain=certain,
    )


def _run(incidents: Incidents, bad: Sequence[int], until: int, first: int = 1) -> list[tuple[int, str, str]]:
    """(minute, kind of change, why) with a finding in each of the `bad` minutes."""
    told: list[tuple[int, str, str]] = []
    for minute in range(first, until + 1):
        changes = incidents.step(minute * MINUTE, [_finding(minute)] * (minute in bad), [("fraud", "7")])
        told += [(minute, change.kind, change.why) for change in changes]
    return told


def test_it_opens_updates_and_closes() -> None:
    """Two of three looks open it, three fine ones close it, once each."""
    told = _run(Incidents(), bad=range(10, 20), until=40)
    assert told == [(11, "opened", ""), (22, "closed", "recovered")]


@pytest.mark.parametrize(("bad", "opens"), [([5], None), ([5, 7], 7), ([5, 8], None), ([5, 6], 6)])
def test_persistence(bad: list[int], opens: int | None) -> None:
    """A lone finding opens nothing; two of three looks do."""
    told = _run(Incidents(), bad, until=10)
    assert [minute for minute, kind, _ in told if kind == "opened"] == ([] if opens is None else [opens])


def test_a_certain_finding_opens_at_once() -> None:
    """What is certain needs no second look."""
    changes = Incidents().step(MINUTE, [_finding(1, certain=True)])
    assert [change.kind for change in changes] == ["opened"]


def test_what_comes_back_soon_is_the_same_incident() -> None:
    """Within the cool-down it is told as an update of the same id, after it as another."""
    told = _run(Incidents(AT_ONCE), bad=[1, 5, 30], until=40)
    assert told == [
        (1, "opened", ""),
        (3, "closed", "recovered"),
        (5, "updated", "came back"),
        (7, "closed", "recovered"),
        (30, "opened", ""),
        (32, "closed", "recovered"),
    ]
    flapping = _run(Incidents(AT_ONCE), bad=range(1, 40, 4), until=40)
    # The cool-down counts from the first closing: what flaps for ever is not one incident for ever.
    assert 3 <= sum(kind == "opened" for _, kind, _ in flapping) <= 7


def test_without_a_cool_down_each_is_its_own() -> None:
    """cool_down=0: closed is over."""
    told = _run(Incidents(Limits(persistence=(1, 1), recovery=1, cool_down=0)), bad=[1, 3], until=4)
    assert [kind for _, kind, _ in told] == ["opened", "closed", "opened", "closed"]


def test_many_series_of_a_model_are_one_incident() -> None:
    """Subjects are merged, the most important first, recovered ones last; another version has its own."""
    incidents = Incidents(AT_ONCE)
    findings = [
        _finding(1, "psi age", kind="feature_drift", severity="critical"),
        _finding(1, "estimated accuracy", kind="estimated"),
        _finding(1, "accuracy"),
        _finding(1, "accuracy", version="8"),
    ]
    changes = incidents.step(MINUTE, findings)
    assert [(change.kind, change.incident.version) for change in changes] == [("opened", "7"), ("opened", "8")]
    incident = changes[0].incident
    assert [one.finding.subject for one in incident.subjects] == ["accuracy", "estimated accuracy", "psi age"]
    assert incident.severity == "critical"
    assert incident.summary == "fraud 7: accuracy is 0.8, expected 0.9; and 2 more series"
    assert len(incidents.open) == 2
    for minute in (2, 3, 4):
        incidents.step(minute * MINUTE, [_finding(minute, "psi age", kind="feature_drift")], [("fraud", "7")])
    (change,) = incidents.step(5 * MINUTE, [_finding(5, "new", severity="critical")], [("fraud", "7")])
    assert [one.finding.subject for one in change.incident.subjects if not one.recovered] == ["new", "psi age"]


def test_updates_are_rare() -> None:
    """Worse and wider are told at once, still open only every so often."""
    incidents = Incidents(Limits(persistence=(1, 1), update_every_ns=10 * MINUTE))
    told: list[tuple[int, str]] = []
    for minute in range(1, 31):
        findings = [_finding(minute, severity="critical" if minute >= 5 else "warning")]
        findings += [_finding(minute, "recall")] * (minute >= 8)
        told += [(minute, change.why) for change in incidents.step(minute * MINUTE, findings)]
    assert told == [(1, ""), (5, "worse"), (8, "wider"), (18, "still open"), (28, "still open")]


def test_the_same_judgement_twice_changes_nothing() -> None:
    """Neither the same look nor the same window in a later look counts again."""
    incidents = Incidents()
    incidents.step(MINUTE, [_finding(1)])
    state = json.dumps(incidents.to_dict())
    assert incidents.step(MINUTE, [_finding(1)]) == []
    assert json.dumps(incidents.to_dict()) == state
    assert incidents.step(2 * MINUTE, [_finding(1)]) == []
    assert [change.kind for change in incidents.step(3 * MINUTE, [_finding(3)])] == ["opened"]
    # A window that lasts longer than the looks: as long as nothing new was judged, nothing recovers.
    for minute in range(4, 20):
        assert incidents.step(minute * MINUTE, [_finding(3)]) == []
    assert len(incidents.open) == 1


def test_what_was_not_looked_at_stays() -> None:
    """Looks at other models close nothing here."""
    incidents = Incidents(AT_ONCE)
    incidents.step(MINUTE, [_finding(1)])
    for minute in range(2, 20):
        assert incidents.step(minute * MINUTE, [], [("other", "1")]) == []
    assert len(incidents.open) == 1


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_restored_and_replayed_nothing_opens_twice(cut: int) -> None:
    """From a snapshot at any moment, replaying all looks gives what followed it, with the same ids."""
    bad = [*range(5, 9), 14, 15, *range(30, 33)]

    def looks(incidents: Incidents, first: int, until: int) -> list[Change]:
        changes = []
        for minute in range(first, until + 1):
            changes += incidents.step(minute * MINUTE, [_finding(minute)] * (minute in bad), [("fraud", "7")])
        return changes

    limits = Limits(recovery=2, cool_down=8)
    whole = Incidents(limits)
    before = looks(whole, 1, cut)
    snapshot = json.loads(json.dumps(whole.to_dict()))
    after = looks(whole, cut + 1, 40)
    restored = Incidents.from_dict(snapshot, limits)
    assert looks(restored, 1, 40) == after
    opened = [change.incident.id for change in before + after if change.kind == "opened"]
    assert len(opened) == len(set(opened)) == 2
    assert restored.to_dict() == whole.to_dict()


def test_ids_depend_on_the_findings_alone() -> None:
    """Two processors give one incident the same id."""
    a, b = (Incidents(AT_ONCE).step(MINUTE, [_finding(1)])[0].incident.id for _ in range(2))
    assert a == b
    assert len(a) == 32
    assert Incidents(AT_ONCE).step(MINUTE, [_finding(1, version="8")])[0].incident.id != a


def test_a_clock_that_was_set_back_far_is_believed() -> None:
    """Minutes back are a repetition; days back are the time that it is."""
    incidents = Incidents(AT_ONCE)
    days = 3 * 24 * 60
    _run(incidents, bad=[], until=days + 1, first=days)
    incidents.step((days + 2) * MINUTE, [_finding(days + 2)])
    assert incidents.step((days + 1) * MINUTE, [_finding(days + 1, "other")]) == []
    assert _run(incidents, bad=[5], until=7, first=4) == [(7, "closed", "recovered")]


def test_a_clock_that_is_known_to_be_set_back() -> None:
    """An hour back, too, where nothing is replayed: what is found then is told, and what is fine closes."""
    incidents = Incidents(AT_ONCE)
    assert [kind for _, kind, _ in _run(incidents, bad=[101], until=101, first=100)] == ["opened"]
    incidents.set_back(40 * MINUTE)
    [change] = incidents.step(40 * MINUTE, [_finding(40, severity="critical")])
    assert (change.why, change.incident.updated_ns) == ("worse", 40 * MINUTE)
    assert _run(incidents, bad=[], until=45, first=41) == [(42, "closed", "recovered")]


def test_a_closing_says_what_is_fine_without_recovery() -> None:
    """A level that was taken for normal is told as that."""
    incidents = Incidents(AT_ONCE)
    incidents.step(MINUTE, [_finding(1)])
    usual = {("fraud", "7"): {("accuracy", ""): "taken as the new normal", ("other", ""): "never part of it"}}
    incidents.step(2 * MINUTE, [], [("fraud", "7")], usual)
    [change] = incidents.step(3 * MINUTE, [], [("fraud", "7")], usual)
    assert (change.kind, change.why) == ("closed", "accuracy taken as the new normal")


def test_a_version_that_is_given_up_closes() -> None:
    """With the reason, once; if it comes back, that is another incident."""
    incidents = Incidents(AT_ONCE)
    incidents.step(MINUTE, [_finding(1)])
    change = incidents.end("fraud", "7", 2 * MINUTE, "no calls")
    assert change is not None
    assert (change.kind, change.why, change.incident.closed_ns) == ("closed", "no calls", 2 * MINUTE)
    assert incidents.open == []
    assert incidents.end("fraud", "7", 3 * MINUTE, "no calls") is None
    assert [one.kind for one in incidents.step(4 * MINUTE, [_finding(4)])] == ["opened"]


def test_everything_is_bounded() -> None:
    """Subjects, exemplars, series and model versions; what is dropped is counted."""
    limits = Limits(persistence=(1, 1), subjects=3, exemplars=4, tracked=5, groups=2)
    incidents = Incidents(limits)
    findings = [_finding(1, f"s{i}") for i in range(9)]
    (change,) = incidents.step(MINUTE, findings)
    assert len(change.incident.subjects) == 3
    assert incidents.dropped == 4
    for minute in range(2, 12):
        incidents.step(minute * MINUTE, [_finding(minute, "s0", severity="critical" if minute > 5 else "warning")])
    assert len(incidents.open[0].exemplars) <= 4
    incidents.step(20 * MINUTE, [_finding(20, version=str(v)) for v in range(4)])
    assert len(incidents.open) == 2


def test_closed_incidents_are_forgotten_after_the_cool_down() -> None:
    """Of what is long over only the time of the last look is kept, so that a repetition is known for one."""
    incidents = Incidents(AT_ONCE)
    _run(incidents, bad=[1], until=40)
    (group,) = incidents.to_dict()["groups"]
    assert group["last_ns"] == 40 * MINUTE
    assert (group["incident"], group["tracks"]) == (None, [])


def test_findings_and_incidents_go_through_json() -> None:
    """What is read back equals what was written."""
    finding = _finding(3, certain=True)
    assert finding_of(json.loads(json.dumps(finding.as_dict()))) == finding
    incident = Incidents().step(MINUTE, [finding])[0].incident
    assert incident_of(json.loads(json.dumps(incident.as_dict()))) == incident


def test_kinds_are_in_order_of_importance() -> None:
    """Realised performance first, feature drift last."""
    order = ["realised", "estimated", "prediction_drift", "data_quality", "feature_drift"]
    assert [kind for kind in KINDS if kind in order] == order
