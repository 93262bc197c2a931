"""Judgement in the stream, end to end: quiet streams stay quiet, harm opens one incident, recovery closes it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from mlspan_processor.judge import Judge
from mlspan_processor.labels import Label
from mlspan_processor.model_spans import ModelSpans, prediction_id
from mlspan_processor.monitors.performance import Performance
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.records import Chunk
from tests.processor.helpers import Rig, points_of, spans_of, values_of
from tests.processor.notify.receiver import Receiver, receiver

COLUMNS = ("a", "b", "c", "d")
ROWS = 500
SETTINGS: dict[str, Any] = {"reference": {"learn_rows": 1000}, "window": {"min_rows": 500, "min_labels": 500}}


class Stream:
    """A classifier's calls with their labels, a pane of ten seconds at a time."""

    def __init__(self, rig: Rig, version: str = "7", seed: int = 0) -> None:
        self.rig = rig
        self.spans = ModelSpans(version=version, columns=COLUMNS, types=("numeric",) * 4, seed=seed)
        self.random = np.random.default_rng(seed)

    @property
    def judge(self) -> Judge:
        """The connector's."""
        return self.rig.connector._state.judge

    def send(self, shift: float = 0.0, wrong: float = 0.0, labels: bool = True, error: int = 0) -> None:
        """Calls of fifty rows; a share of the labels is turned round."""
        given = []
        for _ in range(ROWS // 50):
            rows = self.random.normal(shift, 1, (50, 4)).astype(np.float32)
            p = 1 / (1 + np.exp(-3 * rows[:, 0]))
            truth = (self.random.random(50) < p) ^ (self.random.random(50) < wrong)
            scores = np.stack([1 - p, p], axis=1).astype(np.float32)
            span = self.spans.add(rows, (p > 0.5).astype(int), scores, end=self.rig.clock.now)
            given += [Label(prediction_id(span, i), "yes" if one else "no", None) for i, one in enumerate(truth)]
        for _ in range(error):
            self.spans.add(None, error="ValueError", end=self.rig.clock.now)
        self.rig.send(self.spans.chunk())
        if labels:
            self.rig.connector.submit_labels(given)

    def pass_by(self, panes: int, **kind: Any) -> None:
        """Panes, each followed by a flush."""
        for _ in range(panes):
            self.send(**kind)
            self.rig.clock.advance(10)
            self.rig.connector.flush()
            self.settle()

    def settle(self) -> None:
        """Wait for what is fitted and estimated in the background."""
        deadline = time.monotonic() + 250
        while self.judge.busy:
            assert time.monotonic() < deadline
            time.sleep(0.002)
            self.rig.connector._ask(self.judge.catch_up)


def events_of(chunks: list[Chunk]) -> list[tuple[str, dict[str, Any]]]:
    """Names and attributes of all log events."""
    requests = [ExportLogsServiceRequest.FromString(chunk.data) for chunk in chunks]
    records = [record for one in requests for record in one.resource_logs[0].scope_logs[0].log_records]
    return [(record.event_name, values_of(record)) for record in records]


def value(points: dict[tuple[Any, ...], Any], name: str, **wanted: str) -> float:
    """Of the one point that has these attributes."""
    pairs = {(key.replace("_", "."), text) for key, text in wanted.items()}
    [point] = [point for key, point in points.items() if key[0] == name and pairs <= set(key[1:])]
    return float(point.as_double)


class Story:
    """A stream that was fine, did harm, and recovered; what came out in each part."""

    def __init__(self, rig: Rig, server: Receiver) -> None:
        stream = Stream(rig)
        self.stream, self.server = stream, server
        stream.pass_by(26)
        self.quiet = events_of(rig.logs.chunks)
        self.points = points_of(rig.metrics.chunks[-1:])
        self.report = rig.connector.report("fraud")
        stream.pass_by(8, shift=0.6, wrong=0.3)
        self.bad = events_of(rig.logs.chunks)
        self.bad_points = points_of(rig.metrics.chunks[-1:])
        self.bad_report = rig.connector.report("fraud")
        stream.pass_by(24)
        self.all = events_of(rig.logs.chunks)
        self.incident_spans = [
            span for chunk in rig.traces.chunks for span in spans_of(chunk) if "incident" in span.name
        ]
        self.end_points = points_of(rig.metrics.chunks[-1:])
        self.names = {key[0] for key in points_of(rig.metrics.chunks)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Performance, "design_effect", lambda *_: 4.0)
            self.wide_report = rig.connector.report("fraud")
            stream.pass_by(1)
            self.wide_points = points_of(rig.metrics.chunks[-1:])
        self.end_report = rig.connector.report("fraud")


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """The whole of it, once."""
    with receiver() as server:
        notify = {"webhook": {"w": {"url": server.url}}, "trace_url": "http://jaeger/trace/{trace_id}"}
        with Rig(**SETTINGS, notify=notify, segments={"features": ["a"], "resource": ["service.name"]}) as rig:
            yield Story(rig, server)


def test_a_quiet_stream_opens_nothing(story: Story) -> None:
    """Many windows of rows, labels and calls without drift: no event at all."""
    assert story.stream.judge.counters["judged_windows"] > 40
    assert story.stream.judge.counters["failed_judgements"] == 0
    assert story.quiet == []
    assert story.report["incidents"] == {"open": [], "closed": []}


def test_harm_opens_one_incident_that_says_what_matters_first(story: Story) -> None:
    """One opening, whatever else moved: realised performance first, then answers, then the features as diagnosis."""
    changes = [(name, event["ml.incident.status"]) for name, event in story.bad]
    assert changes.count(("ml.anomaly", "opened")) == 1
    assert {status for _, status in changes} <= {"opened", "updated"}
    _, last = story.bad[-1]
    assert last["ml.incident.subject"] == "accuracy"
    assert last["ml.incident.severity"] == "critical"
    assert last["ml.incident.effect"] < -0.1
    assert "prediction drift" in last["ml.monitor.names"]
    assert set(last["ml.anomaly.features"]) <= set(COLUMNS)
    assert last["ml.anomaly.features"]
    [opened] = story.bad_report["incidents"]["open"]
    assert opened["summary"].startswith("fraud 7: accuracy 0.")
    assert opened["exemplars"]


def test_recovery_closes_it_and_opens_no_other(story: Story) -> None:
    """The whole story is one id: opened, updated, closed."""
    statuses = [event["ml.incident.status"] for _, event in story.all]
    assert statuses[0] == "opened"
    assert statuses[-1] == "closed"
    assert statuses.count("opened") == statuses.count("closed") == 1
    assert len({event["ml.incident.id"] for _, event in story.all}) == 1
    assert story.stream.rig.connector.incidents()["open"] == []


def test_an_incident_is_a_trace_with_links(story: Story) -> None:
    """A span when it opens and its child when it closes."""
    opening, closing = story.incident_spans
    assert opening.name == closing.name == "incident fraud"
    assert closing.parent_span_id == opening.span_id
    assert opening.links


def test_open_incidents_are_a_metric(story: Story) -> None:
    """One while it lasts, none afterwards; the count stays."""

    def total(points: dict[tuple[Any, ...], Any], name: str) -> int:
        return sum(point.as_int for key, point in points.items() if key[0] == name)

    assert [total(one, "ml.incident.open") for one in (story.points, story.bad_points, story.end_points)] == [0, 1, 0]
    assert [total(one, "ml.incident.count") for one in (story.points, story.bad_points, story.end_points)] == [0, 1, 1]


def test_one_message_a_change(story: Story) -> None:
    """The webhook hears of every change once, with links and units."""
    bodies = story.server.wait_for(len(story.all))
    told = [(one["status"], one["id"]) for body in bodies for one in body["incidents"]]
    assert told == [(event["ml.incident.status"], event["ml.incident.id"]) for _, event in story.all]
    last = bodies[-1]["incidents"][0]
    assert all(trace.startswith("http://jaeger/trace/") for trace in last["traces"])
    assert any("in the reference" in line for line in last["details"])


def test_drift_bands_estimates_and_delays_are_published(story: Story) -> None:
    """Effect, threshold and flag of the last closed window; realised and estimated figures with their bands."""
    assert value(story.points, "ml.drift.drifted", ml_feature_name="a") == 0
    assert value(story.bad_points, "ml.drift.drifted", ml_feature_name="a") == 1
    assert value(story.bad_points, "ml.drift.p_adjusted", ml_feature_name="a") < 1e-6
    threshold = value(story.bad_points, "ml.drift.effect_threshold")
    assert value(story.bad_points, "ml.drift.effect", ml_feature_name="a") > threshold
    realised, estimated = (
        value(story.points, "ml.quality.accuracy", ml_quality_kind=kind) for kind in ("realised", "estimated")
    )
    assert realised == pytest.approx(estimated, abs=0.06)
    for kind in ("realised", "estimated"):
        low, high = (
            value(story.points, f"ml.quality.{end}", ml_quality_kind=kind, ml_quality_metric="accuracy")
            for end in ("low", "high")
        )
        assert low < value(story.points, "ml.quality.accuracy", ml_quality_kind=kind) < high
    assert value(story.points, "ml.quality.delay", ml_quality_quantile="0.5") <= 2
    assert value(
        story.points, "ml.segment.performance", ml_segment_value="shop", ml_quality_metric="accuracy"
    ) == pytest.approx(realised, abs=0.03)
    assert {"ml.segment.rows", "ml.segment.performance"} <= story.names


def test_an_estimate_does_not_move_because_labels_come(story: Story) -> None:
    """Harm that only labels show is in the realised figures alone; both stand in the report, window by window."""
    windows = story.bad_report["judged"]["performance"]["windows"]
    last = windows[-1]
    assert last["realised"]["accuracy"]["value"] < 0.75
    assert last["estimated"]["accuracy"]["value"] > 0.8
    assert last["estimated"]["accuracy"]["method"]
    assert last["labels"] == ROWS


def test_bands_are_as_wide_as_labels_are_worth(story: Story) -> None:
    """Where four labels tell as much as one, realised bands are twice as wide, in the report and as metrics."""

    def width(report: dict[str, Any]) -> float:
        one = report["judged"]["performance"]["windows"][-2]["realised"]["accuracy"]
        return float(one["high"] - one["low"])

    def published(points: Any) -> float:
        kind = {"ml_quality_kind": "realised", "ml_quality_metric": "accuracy"}
        return value(points, "ml.quality.high", **kind) - value(points, "ml.quality.low", **kind)

    assert width(story.wide_report) == pytest.approx(2 * width(story.end_report), rel=0.2)
    assert published(story.wide_points) == pytest.approx(2 * published(story.end_points), rel=0.2)


def test_the_report_has_verdicts(story: Story) -> None:
    """Which features drifted, with effect, p-value and a sentence; how the test of risk stands; segments."""
    drift = story.bad_report["judged"]["drift"]
    assert drift["drifted"] >= 4
    first = drift["features"][0]
    assert first["drifted"]
    assert "in the reference" in first["message"]
    assert first["p_adjusted"] < 1e-6
    assert story.report["judged"]["drift"]["drifted"] == 0
    [risk] = story.bad_report["judged"]["performance"]["risk"]
    assert risk["alarm"]
    assert risk["risk"] > risk["limit"]
    segments = {(one["segment"], one["value"]) for one in story.report["judged"]["segments"]}
    assert ("service.name", "shop") in segments
    assert len([one for one in segments if one[0] == "a"]) == 5


def test_a_restart_tells_nothing_twice(tmp_path: Path) -> None:
    """An incident that is open when the processor ends is open afterwards, is not opened again, and closes."""
    settings = {**SETTINGS, "notify": {}}
    told: list[str] = []
    clock = None
    for part in ({"wrong": 0.0}, {"wrong": 0.35}, {"wrong": 0.35}, {"wrong": 0.0}):
        rig = Rig(**settings)
        rig.connector.state_dir = tmp_path
        if clock is not None:
            rig.clock = clock
            rig.connector._clock = clock
        with rig:
            stream = Stream(rig, seed=len(told) + 10 * int(100 * part["wrong"]) + (clock.now % 97 if clock else 0))
            stream.pass_by(5 if part["wrong"] else 14, **part)
            told += [event["ml.incident.status"] for _, event in events_of(rig.logs.chunks)]
        clock = rig.clock
    assert told.count("opened") == 1
    assert told[-1] == "closed"


def test_errors_open_an_incident() -> None:
    """Calls that raise, far above their history; told as a share."""
    with Rig(**SETTINGS) as rig:
        stream = Stream(rig)
        for _ in range(130):
            rig.clock.advance(60)
            stream.spans.add(np.zeros((1, 4), np.float32), [1], end=rig.clock.now)
            for _ in range(30):
                stream.spans.add(None, [1], end=rig.clock.now)
            rig.send(stream.spans.chunk())
            rig.connector.flush()
        assert events_of(rig.logs.chunks) == []
        for _ in range(4):
            rig.clock.advance(61)
            for _ in range(30):
                stream.spans.add(None, error="ValueError", end=rig.clock.now)
            rig.send(stream.spans.chunk())
            rig.connector.flush()
        [event] = [one for _, one in events_of(rig.logs.chunks) if one["ml.incident.status"] == "opened"]
    assert event["ml.incident.subject"].startswith("errors")
    assert set(event["ml.monitor.names"]) <= {"errors", "failing"}
    assert event["ml.incident.value"] == 1.0
    assert event["ml.incident.summary"].startswith("fraud 7: calls that raise 100.0%")


def test_two_versions_are_compared() -> None:
    """Over the time that both have labels of, the one seen first being the baseline."""
    with Rig(**SETTINGS) as rig:
        old, new = Stream(rig), Stream(rig, version="8", seed=1)
        for _ in range(6):
            old.send()
            new.send(wrong=0.2)
            rig.clock.advance(10)
        rig.connector.flush()
        old.settle()
        [compared] = rig.connector.report("fraud", "8")["versions"]
        assert rig.connector.report("fraud", "7")["versions"] == []
        points = points_of(rig.metrics.chunks[-1:])
    assert compared["baseline"] == "7"
    assert compared["verdict"] == "worse"
    accuracy = next(row for row in compared["metrics"] if row["metric"] == "accuracy")
    assert accuracy["high"] < 0
    [difference] = [
        point.as_double
        for key, point in points.items()
        if key[0] == "ml.version.difference" and ("ml.quality.metric", "accuracy") in key
    ]
    assert difference == pytest.approx(accuracy["difference"])


def test_metrics_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are measured over closed windows of labels, published, and can be watched."""

    def cost(labels: Any, predictions: Any, scores: Any, weights: Any) -> float:
        return float(((labels != predictions) * weights).sum())

    monkeypatch.setattr(CustomMetrics, "installed", lambda: CustomMetrics({"cost": cost}))
    watched = {"name": "cost", "metric": "custom:cost", "method": "static", "threshold": {"above": 150}}
    with Rig(**SETTINGS, default_monitors=False, monitors=[watched]) as rig:
        stream = Stream(rig)
        stream.pass_by(5)
        assert events_of(rig.logs.chunks) == []
        stream.pass_by(5, wrong=0.5)
        [_, event] = events_of(rig.logs.chunks)[0]
        points = points_of(rig.metrics.chunks[-1:])
    assert event["ml.incident.subject"] == "custom:cost"
    assert event["ml.incident.value"] > 150
    assert any(key[0] == "ml.quality.custom" and ("ml.quality.metric", "cost") in key for key in points)
