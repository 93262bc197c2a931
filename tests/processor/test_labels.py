"""Late labels: every order, every way of coming, duplicates and contradictions, bounds."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn import metrics

from mlspan_processor.identity import id_keys, row_keys
from mlspan_processor.labels import Label
from mlspan_processor.model_spans import ModelSpans, feedback_logs, feedback_spans, prediction_id
from mlspan_processor.records import Chunk
from tests.processor.helpers import Rig, gauge, key_of, normal_rows


def predicted(n: int = 40, seed: int = 0) -> tuple[Chunk, list[str], np.ndarray, np.ndarray]:
    """n one-row calls with default ids: chunk, ids, predicted classes, probabilities of the last class."""
    rng = np.random.default_rng(seed)
    spans, rows = ModelSpans(seed=seed), normal_rows(n, seed)
    p = rng.random(n).astype(np.float32)
    said = (p > 0.5).astype(int)
    ids = []
    for i in range(n):
        span = spans.add(rows[i : i + 1], [said[i]], np.array([[1 - p[i], p[i]]], np.float32))
        ids.append(prediction_id(span))
    return spans.chunk(), ids, said, p


def submit(rig: Rig, pairs: Sequence[tuple[str, str | float]], model: str | None = None) -> dict[str, object]:
    """Submit labels; the receipt as a dict."""
    receipt = rig.connector.submit_labels([Label(identity, label, model) for identity, label in pairs])
    assert receipt.durable is False
    return {name: getattr(receipt, name) for name in ("joined", "waiting", "duplicate", "conflicting", "rejected")}


def quality(rig: Rig) -> dict[str, float | None]:
    """Realised figures of fraud."""
    realised = rig.connector.report("fraud")["quality"]["realised"]
    return {name: figure["value"] for name, figure in realised.items()}


def test_default_ids_give_the_same_key_from_text_and_numbers() -> None:
    """A label's text and a span's ids meet; other texts are hashed, also those that look nearly alike."""
    rng = np.random.default_rng(0)
    raw = rng.bytes(24 * 50)
    traces = np.frombuffer(raw[: 16 * 50], "<u8").reshape(50, 2)
    spans = np.frombuffer(raw[16 * 50 :], "<u8")
    rows = rng.integers(0, 1 << 32, 50).astype(np.uint32)
    texts = [
        f"{raw[16 * i : 16 * i + 16].hex()}-{raw[800 + 8 * i : 808 + 8 * i].hex()}-{row}"
        for i, row in enumerate(rows.tolist())
    ]
    keys = row_keys(traces, spans, rows)
    assert id_keys(texts).tolist() == keys.tolist()
    assert id_keys([texts[0].upper()])[0] == keys[0]
    others = id_keys([texts[0] + "x", texts[0][1:], "order-1", "", "ä" * 500])
    assert len({*keys.tolist(), *others.tolist()}) == 55


@pytest.mark.parametrize("how", ["spans", "logs", "old logs", "submit"])
def test_labels_join_however_they_come(how: str) -> None:
    """Feedback spans, log events and submitted labels give scikit-learn's figures, with labels and coverage."""
    with Rig() as rig:
        chunk, ids, said, p = predicted()
        rig.send(chunk)
        truth = np.random.default_rng(1).integers(0, 2, 30)
        pairs = [(ids[i], ("no", "yes")[truth[i]]) for i in range(30)]
        if how == "submit":
            assert submit(rig, pairs)["joined"] == 30
        else:
            feedback = feedback_spans(pairs) if how == "spans" else feedback_logs(pairs, how == "old logs")
            rig.send(feedback)
            assert (rig.traces if how == "spans" else rig.logs).chunks[-1].items == 30
        figures = quality(rig)
        assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said[:30]))
        assert figures["f1"] == pytest.approx(metrics.f1_score(truth, said[:30]))
        assert figures["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, p[:30]), abs=0.01)
        points = rig.flush()
        assert gauge(points, "ml.quality.accuracy", ml_quality_kind="realised") == figures["accuracy"]
        assert gauge(points, "ml.quality.labels") == 30
        assert gauge(points, "ml.quality.coverage") == 0.75
        right = points[key_of("ml.quality.outcomes", ml_quality_outcome="correct")]
        wrong = points[key_of("ml.quality.outcomes", ml_quality_outcome="incorrect")]
        assert (right.as_int, wrong.as_int) == ((truth == said[:30]).sum(), (truth != said[:30]).sum())
        assert prediction_id_of(wrong.exemplars[0]) in {ids[i] for i in range(30) if truth[i] != said[i]}
        assert points["ml.feedback.labels", ("state", "joined")].as_int == 30


def prediction_id_of(exemplar: object) -> str:
    """The default id of the span that an exemplar points at."""
    return prediction_id(exemplar)  # type: ignore[arg-type]  # has the same two ids


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_of_portions(order: tuple[int, ...]) -> None:
    """Labels before, between and after their predictions give the same quality."""
    parts = [predicted(20, seed) for seed in range(3)]
    truth = np.random.default_rng(9).integers(0, 2, 60)
    with Rig() as rig:
        for step, part in enumerate(order):
            pairs = [(text, ("no", "yes")[truth[20 * part + i]]) for i, text in enumerate(parts[part][1])]
            if step == 1:
                rig.send(feedback_spans(pairs))
                rig.send(parts[part][0])
            else:
                rig.send(parts[part][0])
                rig.send(feedback_spans(pairs))
        said = np.concatenate([part[2] for part in parts])
        assert quality(rig)["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
        assert rig.counters()["labels_joined"] == 60


def test_feedback_and_prediction_in_one_request() -> None:
    """A label that is in the same batch as its prediction joins."""
    with Rig() as rig:
        chunk, ids, *_ = predicted(1)
        rig.connector.consume(Chunk(chunk.signal, chunk.data + feedback_spans([(ids[0], "yes")]).data, 2))
        rig.connector.drain()
        assert rig.counters()["labels_joined"] == 1


def test_repeated_and_contradicting_labels() -> None:
    """The same label again changes nothing; another one is counted and the first stays. Waiting labels likewise."""
    with Rig() as rig:
        chunk, ids, said, _ = predicted(2)
        right = [("no", "yes")[said[i]] for i in range(2)]
        wrong = [("yes", "no")[said[i]] for i in range(2)]
        assert submit(rig, [(ids[1], right[1])])["waiting"] == 1
        assert submit(rig, [(ids[1], right[1]), (ids[1], wrong[1])]) == {
            "joined": 0,
            "waiting": 0,
            "duplicate": 1,
            "conflicting": 1,
            "rejected": (),
        }
        rig.send(chunk)
        assert submit(rig, [(ids[0], right[0]), (ids[0], right[0]), (ids[0], wrong[0])]) == {
            "joined": 1,
            "waiting": 0,
            "duplicate": 1,
            "conflicting": 1,
            "rejected": (),
        }
        assert quality(rig)["accuracy"] == 1.0
        assert rig.connector.report("fraud")["quality"]["labels"] == 2


def test_users_own_ids_and_both_operations() -> None:
    """predict and predict_proba with one id are one row: whichever comes first, labelled before or after."""
    for first, label_at in itertools.product((0, 1), (0, 1, 2)):
        with Rig() as rig:
            spans, row = ModelSpans(), normal_rows(1, 0)
            steps = [
                lambda spans=spans, row=row: spans.add(row, [1], ids=["order-1"]),
                lambda spans=spans, row=row: spans.add(
                    row, None, np.array([[0.25, 0.75]], np.float32), operation="predict_proba", ids=["order-1"]
                ),
            ]
            for step in range(3):
                if step == label_at:
                    submit(rig, [("order-1", "yes")])
                if step < 2:
                    steps[first ^ step]()
                    rig.send(spans.chunk())
            figures = quality(rig)
            assert figures["accuracy"] == 1.0
            assert figures["brier"] == pytest.approx(0.0625)
            report = rig.connector.report("fraud")["quality"]
            assert (report["labels"], report["predicted_rows"], report["coverage"]) == (1, 1, 1.0)


def test_row_ids_of_a_batch() -> None:
    """Rows of one call are labelled by their number within the call, also when only some were captured."""
    with Rig() as rig:
        spans = ModelSpans()
        at = np.array([3, 50, 99], "<u4")
        span = spans.add(normal_rows(3, 0), [0, 1, 1], total_rows=100, indices=at)
        rig.send(spans.chunk())
        receipt = submit(
            rig, [(prediction_id(span, 50), "yes"), (prediction_id(span, 3), "yes"), (prediction_id(span), "no")]
        )
        assert (receipt["joined"], receipt["waiting"]) == (2, 0)
        assert rig.counters()["labels_not_captured"] == 1
        report = rig.connector.report("fraud")["quality"]
        assert report["realised"]["accuracy"]["value"] == 0.5
        assert report["predicted_rows"] == pytest.approx(100)
        assert report["coverage"] == pytest.approx(2 / 3)


def test_coverage_of_rows_that_stand_for_thirds() -> None:
    """Every row labelled is a coverage of exactly 1, whatever the weights, in whatever portions labels come."""
    with Rig() as rig:
        spans = ModelSpans()
        ids = []
        for call in range(50):
            span = spans.add(normal_rows(3, call), [0, 1, 1], total_rows=100 + call, indices=np.arange(3, dtype="<u4"))
            ids += [prediction_id(span, row) for row in range(3)]
        rig.send(spans.chunk())
        for at in range(0, 150, 7):
            submit(rig, [(text, "yes") for text in reversed(ids[at : at + 7])])
        quality = rig.connector.report("fraud")["quality"]
        assert (quality["labels"], quality["coverage"]) == (150, 1.0)
        assert quality["predicted_rows"] == pytest.approx(sum(range(100, 150)), abs=1e-6)


def test_versions_and_models_that_share_an_id() -> None:
    """Each version of a model takes the label; several models need a name."""
    with Rig() as rig:
        for model, version in (("fraud", "7"), ("fraud", "8"), ("churn", "1")):
            spans = ModelSpans(model=model, version=version, seed=hash((model, version)) & 0xFFFF)
            spans.add(normal_rows(1, 0), [1], ids=["order-1"])
            rig.send(spans.chunk())
        receipt = submit(rig, [("order-1", "yes")])
        assert receipt["rejected"] == ((0, "several models used this prediction id; name the model"),)
        assert submit(rig, [("order-1", "yes")], model="fraud")["joined"] == 1
        labels = {
            (one["name"], one["version"]): rig.connector.report(one["name"], one["version"])["quality"]["labels"]
            for one in rig.connector.status()["models"]
        }
        assert labels == {("fraud", "7"): 1, ("fraud", "8"): 1, ("churn", "1"): 0}
        assert submit(rig, [("order-1", "no")], model="other")["waiting"] == 1


def test_unknown_classes_and_numbers() -> None:
    """A class that the model does not know is wrong; integers and booleans find their class by text."""
    with Rig() as rig:
        spans = ModelSpans(classes=("0", "1"))
        ids = [prediction_id(spans.add(normal_rows(1, i), [1])) for i in range(4)]
        rig.send(spans.chunk())
        assert submit(rig, [(ids[0], 1.0), (ids[1], "1"), (ids[2], "2"), (ids[3], 0.0)])["joined"] == 4
        assert quality(rig)["accuracy"] == 0.5
        assert quality(rig)["recall"] == 1.0


def test_regression_labels() -> None:
    """Numbers join as numbers, numbers in text too; other text is refused."""
    with Rig() as rig:
        spans = ModelSpans(classes=(), task="regression")
        ids = [prediction_id(spans.add(normal_rows(1, i), [float(i)])) for i in range(3)]
        rig.send(spans.chunk())
        receipt = submit(rig, [(ids[0], 1.0), (ids[1], "3"), (ids[2], "much")])
        assert receipt["joined"] == 2
        assert receipt["rejected"] == ((2, 'label "much" is no number'),)
        assert quality(rig)["mae"] == pytest.approx(1.5)
        points = rig.flush()
        assert gauge(points, "ml.quality.mae", ml_quality_kind="realised") == pytest.approx(1.5)
        assert not [key for key in points if key[0] == "ml.quality.outcomes"]


def test_waiting_labels_expire() -> None:
    """A label whose prediction never comes is reported as expired, by time and by number."""
    with Rig(labels={"wait": "1m", "waiting_capacity": 3}) as rig:
        assert submit(rig, [(f"order-{i}", "yes") for i in range(5)])["waiting"] == 5
        assert rig.counters()["labels_expired"] == 2
        rig.clock.advance(61)
        rig.flush()
        assert rig.counters()["labels_expired"] == 5
        assert rig.connector.status()["labels"]["waiting_now"] == 0


def test_predictions_make_way_and_grow_old() -> None:
    """Beyond the capacity the oldest predictions go; older than retention they take no label."""
    with Rig(labels={"capacity": 10}, window={"retention": "1h"}) as rig:
        chunk, ids, *_ = predicted(25)
        rig.send(chunk)
        assert submit(rig, [(text, "yes") for text in ids]) == {
            "joined": 10,
            "waiting": 15,
            "duplicate": 0,
            "conflicting": 0,
            "rejected": (),
        }
        assert rig.counters()["predictions_evicted"] == 15
        chunk, ids, *_ = predicted(5, seed=1)
        rig.send(chunk)
        rig.clock.advance(3700)
        assert submit(rig, [(text, "yes") for text in ids])["waiting"] == 5


def test_late_labels_count_at_their_predictions_time() -> None:
    """A label that comes an hour later opens the pane of its prediction again."""
    with Rig() as rig:
        chunk, ids, *_ = predicted(10)
        rig.send(chunk)
        then = rig.clock.now
        rig.clock.advance(3600)
        submit(rig, [(text, "yes") for text in ids])
        now = rig.clock.now
        assert rig.connector.report("fraud", "7", then - 10**10, then + 10**10)["quality"]["labels"] == 10
        assert rig.connector.report("fraud", "7", now - 10**10, now)["quality"]["labels"] == 0


def test_unreadable_feedback_is_counted() -> None:
    """A feedback span without an id or label is forwarded and counted."""
    with Rig() as rig:
        assert len(rig.send(feedback_spans([("", "yes"), ("order-1", "")]))) == 2
        assert rig.counters()["feedback_unreadable"] == 2


def test_weighted_rows_weigh_in_quality() -> None:
    """A sampled row counts as many times as it stands for; `labels` stays the number of rows."""
    with Rig() as rig:
        spans = ModelSpans()
        ids = [
            prediction_id(spans.add(normal_rows(1, 0), [1], trace_state="ot=th:c")),
            prediction_id(spans.add(normal_rows(1, 1), [0])),
        ]
        rig.send(spans.chunk())
        submit(rig, [(ids[0], "yes"), (ids[1], "yes")])
        report = rig.connector.report("fraud")["quality"]
        assert report["realised"]["accuracy"]["value"] == pytest.approx(0.8)
        assert report["labels"] == 2
        low, high = report["accuracy_interval"]
        assert low < 0.8 < high
