"""Multilabel models from end to end: instrumented models, spans, late labels of several outputs, published figures."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from rich.console import Console
from sklearn import metrics
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlspan
from mlspan_processor.cli.report import show_model
from mlspan_processor.labels import Label, LabelReceipt
from mlspan_processor.model_spans import ModelSpans, feedback_logs, feedback_spans, prediction_id
from mlspan_processor.records import Chunk, Signal
from tests.instrumentation.conftest import Recorder
from tests.processor.helpers import Rig, gauge, key_of, normal_rows
from tests.processor.store.kept import as_killed, kept, save

NAMES = ("food", "music", "sport")
AVERAGES = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
DECIDED: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy_score,
    "hamming_loss": metrics.hamming_loss,
    **{name: partial(function, average="macro") for name, function in AVERAGES.items()},
    **{f"{name}_micro": partial(function, average="micro") for name, function in AVERAGES.items()},
}
Truth = NDArray[np.int64]


@pytest.fixture
def hooked() -> Iterator[Recorder]:
    """scikit-learn under hooks, spans kept."""
    recorder = Recorder()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        yield recorder
    finally:
        mlspan.uninstrument()


def scores_of(result: Any) -> NDArray[np.float64]:
    """(n, n_outputs) probabilities that each output holds, of whatever predict_proba returns."""
    return np.column_stack([part[:, 1] for part in result]) if isinstance(result, list) else np.asarray(result)


def sent(rig: Rig, recorder: Recorder) -> None:
    """Send what has been recorded; the processor's clock is the application's."""
    rig.clock.now = time.time_ns()
    spans = recorder.spans()
    rig.send(Chunk(Signal.TRACES, encode_spans(spans).SerializeToString(), len(spans)))


def predicted(
    n: int = 60, seed: int = 0, *, scores: bool = True, outputs: Sequence[str] = NAMES, version: str = "7"
) -> tuple[Chunk, list[str], Truth, NDArray[np.float32], Truth]:
    """n one-row calls: chunk, ids, predictions, probabilities, and a truth that mostly agrees."""
    rng = np.random.default_rng(seed)
    spans = ModelSpans(version=version, classes=(), task="multilabel", outputs=outputs, seed=seed)
    p = rng.random((n, len(outputs))).astype(np.float32)
    said = (p > 0.5).astype(np.int64)
    ids = [
        prediction_id(spans.add(row[None], said[i], p[i][None] if scores else None))
        for i, row in enumerate(normal_rows(n, seed))
    ]
    return spans.chunk(), ids, said, p, (rng.random(p.shape) < p).astype(np.int64)


def figures(rig: Rig, version: str | None = None) -> dict[str, Any]:
    """Realised figures of fraud."""
    return dict(rig.connector.report("fraud", version)["quality"]["realised"])


def values(rig: Rig) -> dict[str, float | None]:
    """The same as numbers."""
    return {name: figure["value"] for name, figure in figures(rig).items()}


def submit(rig: Rig, ids: Sequence[str], labels: Sequence[Any]) -> LabelReceipt:
    """Submit labels."""
    return rig.connector.submit_labels([Label(one, label) for one, label in zip(ids, labels, strict=True)])


def names_of(row: Sequence[int]) -> tuple[str, ...]:
    """The outputs that hold."""
    return tuple(name for name, holds in zip(NAMES, row, strict=True) if holds)


def expected(y: Truth, said: Truth) -> dict[str, float]:
    """scikit-learn's figures of decisions."""
    return {name: float(function(y, said)) for name, function in DECIDED.items()}


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "tree": lambda: DecisionTreeClassifier(max_depth=4, random_state=0),
    "neighbours": KNeighborsClassifier,
    "network": lambda: MLPClassifier((8,), max_iter=2000, tol=1e-2, random_state=0),
    "one versus rest": lambda: OneVsRestClassifier(LogisticRegression()),
    "multi-output": lambda: MultiOutputClassifier(LogisticRegression()),
    "chain": lambda: ClassifierChain(LogisticRegression()),
    "pipeline": lambda: make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_real_models_with_late_labels(hooked: Recorder, name: str, method: str) -> None:
    """Every published figure of an instrumented model is scikit-learn's on the rows whose labels came."""
    x, y = make_multilabel_classification(800, 6, n_classes=3, n_labels=2, random_state=1)
    model = mlspan.instrument_model(MODELS[name]().fit(x[:400], y[:400]), name="tags", version="1", classes=NAMES)
    hooked.spans()
    x, y = x[400:], y[400:]
    ids: list[str] = []
    answers = []
    for start in range(0, len(x), 40):
        with mlspan.prediction_context() as context:
            answers.append(getattr(model, method)(x[start : start + 40]))
        ids += context.ids
    p = np.concatenate([scores_of(one) for one in answers]) if method == "predict_proba" else None
    said = np.concatenate(answers).astype(int) if p is None else (p > 0.5).astype(int)
    with Rig() as rig:
        sent(rig, hooked)
        assert rig.connector.report("tags")["model"]["classes"] == list(NAMES)
        mlspan.feedback(ids[:350], y[:350])
        sent(rig, hooked)
        found = {k: v["value"] for k, v in rig.connector.report("tags")["quality"]["realised"].items()}
        assert {k: found[k] for k in DECIDED} == pytest.approx(expected(y[:350], said[:350]))
        points = {
            name: point.as_double
            for key, point in rig.flush().items()
            if ("ml.quality.kind", "realised") in key and (name := key[0].removeprefix("ml.quality.")) in found
        }
        assert points == {name: value for name, value in found.items() if value is not None}
        assert set(DECIDED) <= set(points)
        if p is not None:
            clipped = np.clip(p[:350], np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)
            each = [metrics.log_loss(y[:350, k], clipped[:, k]) for k in range(3)]
            assert points["roc_auc"] == pytest.approx(metrics.roc_auc_score(y[:350], p[:350]), abs=0.01)
            assert points["average_precision"] == pytest.approx(
                metrics.average_precision_score(y[:350], p[:350]), abs=0.01
            )
            assert points["log_loss"] == pytest.approx(np.mean(each), rel=1e-4)
            assert points["brier"] == pytest.approx(((p[:350] - y[:350]) ** 2).mean(), rel=1e-4)
            assert points["ece"] == pytest.approx(found["ece"])


@pytest.mark.parametrize("how", ["spans", "logs", "submit"])
@pytest.mark.parametrize("form", ["names", "truths", "text"])
def test_labels_join_however_they_come(how: str, form: str) -> None:
    """Names of the outputs that hold, a truth of each in order, or names with semicolons between them."""
    chunk, ids, said, _, y = predicted()
    forms: dict[str, Callable[[Any], Any]] = {
        "names": names_of,
        "truths": lambda row: tuple(map(bool, row)),
        "text": lambda row: ";".join(names_of(row)) or ";",
    }
    labels = [forms[form](row) for row in y[:50].tolist()]
    with Rig() as rig:
        rig.send(chunk)
        pairs = list(zip(ids[:50], labels, strict=True))
        if how == "submit":
            assert submit(rig, ids[:50], labels).joined == 50
        else:
            rig.send(feedback_spans(pairs) if how == "spans" else feedback_logs(pairs))
        found = values(rig)
        assert {name: found[name] for name in DECIDED} == pytest.approx(expected(y[:50], said[:50]))
        points = rig.flush()
        assert gauge(points, "ml.quality.hamming_loss", ml_quality_kind="realised") == found["hamming_loss"]
        assert gauge(points, "ml.quality.coverage") == pytest.approx(50 / 60)
        right = points[key_of("ml.quality.outcomes", ml_quality_outcome="correct")]
        assert right.as_int == (said[:50] == y[:50]).all(axis=1).sum()


def test_early_labels_duplicates_and_contradictions() -> None:
    """A label that comes first waits; the same one again changes nothing, whatever its form; another is counted."""
    chunk, ids, said, _, y = predicted()
    with Rig() as rig:
        assert submit(rig, ids, [names_of(row) for row in y.tolist()]).waiting == 60
        rig.send(chunk)
        found = values(rig)
        assert {name: found[name] for name in DECIDED} == pytest.approx(expected(y, said))
        again = submit(rig, ids, [tuple(map(bool, row)) for row in y.tolist()])
        assert (again.duplicate, again.conflicting) == (60, 0)
        assert submit(rig, ids, [tuple(not holds for holds in row) for row in y.tolist()]).conflicting == 60
        assert values(rig) == found


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (("food", "cars"), 'label names the output "cars"; must be some of "food", "music", "sport"'),
        ("food;cars", 'label names the output "cars"; must be some of "food", "music", "sport"'),
        ((True, False), 'label has 2 values; must have 3, one for each of the outputs "food", "music", "sport"'),
        (3.0, 'label "3" is one number; must say which of the outputs "food", "music", "sport" hold'),
        ((True,) * 60, "label is of 60 outputs; at most 53 are joined"),
        (("x" * 2000,), "label has a name longer than 1024 characters"),
    ],
)
def test_labels_that_do_not_fit_are_invalid(label: Any, reason: str) -> None:
    """The reason names the value and what is valid; the row goes on waiting for its label."""
    chunk, ids, _, _, y = predicted()
    with Rig() as rig:
        rig.send(chunk)
        receipt = submit(rig, ids[:1], [label])
        assert receipt.rejected == ((0, reason),)
        assert submit(rig, ids[:1], [names_of(y[0])]).joined == 1


def test_a_label_of_several_outputs_for_a_model_with_one() -> None:
    """It is invalid, and says so."""
    spans = ModelSpans()
    one = prediction_id(spans.add(normal_rows(1, 0), [1]))
    with Rig() as rig:
        rig.send(spans.chunk())
        [(_, reason)] = submit(rig, [one], [("yes",)]).rejected
        assert reason == "label ['yes'] is of several outputs; the model answers with one"


def test_an_output_that_never_holds() -> None:
    """Figures that need both sides average the other outputs; with none of them there is a reason."""
    chunk, ids, _, p, y = predicted(200)
    with Rig() as rig:
        rig.send(chunk)
        y[:, 0] = 0
        submit(rig, ids, [names_of(row) for row in y.tolist()])
        assert values(rig)["roc_auc"] == pytest.approx(metrics.roc_auc_score(y[:, 1:], p[:, 1:]), abs=0.01)
    with Rig() as rig:
        rig.send(chunk)
        submit(rig, ids, [()] * 200)
        found = figures(rig)
        assert (found["roc_auc"]["value"], found["recall_micro"]["value"]) == (None, None)
        assert found["roc_auc"]["reason"] == "undecidable, because there are labels of one class only"
        assert found["recall_micro"]["reason"] == "undecidable, because no label has any output"


def test_predictions_without_probabilities() -> None:
    """Decisions have their figures; those of probabilities have a reason."""
    chunk, ids, said, _, y = predicted(scores=False)
    with Rig() as rig:
        rig.send(chunk)
        submit(rig, ids, [names_of(row) for row in y.tolist()])
        assert values(rig)["f1_micro"] == pytest.approx(metrics.f1_score(y, said, average="micro"))
        assert figures(rig)["log_loss"]["reason"] == "undecidable, because there are no labelled probabilities"


def test_versions_and_other_outputs() -> None:
    """Each version has its own figures; rows of outputs with other names are not for the same labels."""
    with Rig() as rig:
        for version, seed in (("7", 0), ("8", 1)):
            chunk, ids, said, _, y = predicted(seed=seed, version=version)
            rig.send(chunk)
            submit(rig, ids, [names_of(row) for row in y.tolist()])
            found = figures(rig, version)
            assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(y, said))
        chunk, ids, *_ = predicted(seed=2, outputs=("a", "b", "c"))
        rig.send(chunk)
        assert submit(rig, ids[:1], [("a",)]).joined == 0
        assert rig.connector.report("fraud", "7")["quality"]["predicted_rows"] == 60


def test_too_many_outputs_are_not_joined() -> None:
    """Labels are for at most 53 outputs; the calls of a larger model are counted all the same."""
    names = tuple(f"y{k}" for k in range(60))
    chunk, ids, *_ = predicted(outputs=names)
    with Rig() as rig:
        rig.send(chunk)
        assert submit(rig, ids[:1], [("y0",)]).joined == 0
        report = rig.connector.report("fraud")
        assert (report["spans"], report["quality"]["predicted_rows"]) == (60, 0)


def test_many_outputs_have_no_figures_of_probabilities() -> None:
    """Of 40 outputs the decisions have their figures, the probabilities a reason."""
    names = tuple(f"y{k}" for k in range(40))
    chunk, ids, said, _, y = predicted(200, outputs=names)
    with Rig() as rig:
        rig.send(chunk)
        submit(rig, ids, [tuple(map(bool, row)) for row in y.tolist()])
        assert values(rig)["hamming_loss"] == pytest.approx(metrics.hamming_loss(y, said))
        assert figures(rig)["roc_auc"]["reason"] == (
            "undecidable, because probabilities of more than 32 outputs are not kept"
        )


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Figures, rows that wait for labels, labels that have joined and labels that wait are there again."""
    chunk, ids, said, _, y = predicted(100)
    later, later_ids, later_said, _, later_y = predicted(100, seed=1)
    labels = [names_of(row) for row in y.tolist()]
    with kept(tmp_path) as rig:
        rig.send(chunk)
        submit(rig, ids[:50], labels[:50])
        submit(rig, later_ids, [tuple(map(bool, row)) for row in later_y.tolist()])
        before = figures(rig)
        assert save(rig)
        submit(rig, ids[50:60], labels[50:60])
        killed = as_killed(tmp_path, tmp_path / "killed")
    with kept(killed) as rig:
        found = values(rig)
        assert {name: found[name] for name in DECIDED} == pytest.approx(expected(y[:60], said[:60]))
        assert set(found) == set(before)
        assert submit(rig, ids[:60], labels[:60]).duplicate == 60
        rig.send(later)
        submit(rig, ids[60:], labels[60:])
        found = values(rig)
        assert {name: found[name] for name in DECIDED} == pytest.approx(
            expected(np.concatenate([y, later_y]), np.concatenate([said, later_said]))
        )


def test_the_risk_has_risen() -> None:
    """When a model becomes worse, the test over all labels opens an incident of its Hamming loss, and only then."""
    rng = np.random.default_rng(5)
    with Rig(reference={"learn_rows": 400}) as rig:
        for step in range(12):
            spans = ModelSpans(classes=(), task="multilabel", outputs=NAMES, seed=step)
            spans.next_end = rig.clock.now
            p = rng.random((200, 3)).astype(np.float32)
            said = (p > 0.5).astype(np.int64)
            rows = normal_rows(200, step)
            ids = [prediction_id(spans.add(rows[i : i + 1], said[i], p[i][None])) for i in range(200)]
            wrong = rng.random(said.shape) < (0.1 if step < 6 else 0.4)
            rig.clock.advance(30)
            rig.send(spans.chunk())
            rig.clock.advance(30)
            submit(rig, ids, [names_of(row) for row in (said ^ wrong).tolist()])
            rig.flush()
            opened = rig.connector.incidents()["open"]
            if step < 6:
                assert opened == []
        told = [one for one in opened if "Hamming loss" in one["summary"]]
        assert told, opened


def test_segments_versions_and_the_report() -> None:
    """Each part of the rows has its figures, one that is worse is marked, versions are compared on micro F1; the report
    shows them, and why nothing is estimated."""
    rng = np.random.default_rng(2)
    settings: dict[str, Any] = {"reference": {"learn_rows": 300}, "window": {"min_labels": 200, "min_rows": 200}}
    with Rig(**settings, segments={"features": ["a"]}) as rig:
        for step in range(6):
            rig.clock.advance(30)
            chunks = []
            for version in ("7", "8"):
                spans = ModelSpans(
                    version=version, classes=(), task="multilabel", outputs=NAMES, seed=step * 9 + int(version)
                )
                spans.next_end = rig.clock.now
                p, rows = rng.random((200, 3)).astype(np.float32), normal_rows(200, step)
                said = (p > 0.5).astype(np.int64)
                ids = [prediction_id(spans.add(rows[i : i + 1], said[i], p[i][None])) for i in range(200)]
                share = np.where(rows[:, :1] > 0.7, 0.5, 0.05) if version == "8" else 0.05
                chunks.append((spans.chunk(), ids, said ^ (rng.random(said.shape) < share)))
            rig.clock.advance(30)
            for chunk, ids, truth in chunks:
                rig.send(chunk)
                submit(rig, ids, [names_of(row) for row in truth.tolist()])
            points = rig.flush()
        report = rig.connector.report("fraud", "8")
        worse = [one for one in report["judged"]["segments"] if one["worse"]]
        assert [one["value"].partition(" ")[0] for one in worse] == ["above"]
        assert set(worse[0]["worse"]) == {"accuracy", "f1", "f1_micro"}
        [compared] = report["versions"]
        assert (compared["baseline"], compared["verdict"], compared["metrics"][0]["metric"]) == (
            "7",
            "worse",
            "f1_micro",
        )
        assert any(key[0] == "ml.version.difference" and ("ml.quality.metric", "hamming_loss") in key for key in points)
        assert any(key[0] == "ml.segment.performance" and ("ml.quality.metric", "f1_micro") in key for key in points)
        assert rig.counters()["failed_blocks"] == 0
        text = io.StringIO()
        show_model(report, Console(file=text, width=200))
        assert "estimated performance: undecidable, because estimates are made for binary" in text.getvalue()
        assert "f1_micro realised" in text.getvalue()
