"""Batch: champion and challenger on the same metrics, for a CI gate.

In: the two versions' predictions with labels, in two files or in one with a version column. Out: a Gate. Where rows
have ids that both versions predicted (a shadow deployment, one test set), only these are compared, pairwise: the same
case's difference says more than two means. The challenger passes a metric when it is better or not worse by more
than the margin, and fails when it is worse, by the 95 % interval of the difference; else the rows do not tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import orjson
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Answered, Model
from mlspan_processor.analysis.answers import Answers, read_answers
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.every import once
from mlspan_processor.analysis.result import number
from mlspan_processor.analysis.roles import Columns, check, near, pairs_of, parse_outputs, roles_of
from mlspan_processor.analysis.source import Source, open_source
from mlspan_processor.analysis.task import answered, model_of
from mlspan_processor.sample import Sample
from mlspan_processor.versions import ComparedMetric, Verdict, compare

Outcome = Literal["pass", "fail", "undecided"]
_OUTCOMES: Final[Mapping[Verdict, Outcome]] = {
    "better": "pass",
    "equivalent": "pass",
    "worse": "fail",
    "undecidable": "undecided",
}


@dataclass(frozen=True, slots=True)
class GateMetric:
    """One metric of both.

    Attributes:
        champion, challenger: values; `difference` challenger - champion with its 95 % interval `low`, `high`.
        outcome: see Gate; for metrics that do not decide, too; `verdict` is that of the comparison.
        decides: whether the gate rests on it.
        reason: what the verdict rests on.
    """

    champion: float | None
    challenger: float | None
    difference: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    verdict: Verdict
    decides: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Gate:
    """The comparison.

    Attributes:
        outcome: pass where every deciding metric does, fail where one does, else undecided.
        why: one sentence.
        task, classes: as in Analysis.
        metrics: by name.
        rows, labels: of champion and challenger.
        paired: whether rows were compared case by case.
        notes: what a person should know.
    """

    outcome: Outcome
    why: str
    task: str
    classes: tuple[str, ...]
    metrics: Mapping[str, GateMetric]
    rows: tuple[int, int]
    labels: tuple[int, int]
    paired: bool
    margin: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON takes it."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "metrics"}
        metrics = {name: {key: getattr(one, key) for key in GateMetric.__slots__} for name, one in self.metrics.items()}
        return {**fields, "metrics": metrics}

    def to_json(self) -> str:
        """The comparison as strict JSON text."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2).decode()


def compare_versions(
    *,
    champion: Any,
    challenger: Any,
    data: Any = None,
    version: str | None = None,
    task: str | None = None,
    prediction: str | Sequence[str] | Mapping[str, str] | None = None,
    probability: str | Sequence[str] | Mapping[str, str] = (),
    label: str | Sequence[str] | Mapping[str, str] | None = None,
    id: str | None = None,  # noqa: A002  # the option's name
    metric: Sequence[str] = (),
    margin: float | None = None,
) -> Gate:
    """Compare two versions of a model.

    Args:
        champion, challenger: files or frames, as for `analyze`; with `data` the versions' names in it.
        data, version: one file with both, and its column of the version.
        task, prediction, probability, label, id: as for `analyze`.
        metric: names of the metrics that decide; empty for the task's first.
        margin: how much worse is still good enough, in the metrics' units; None: 0.02, or 5 % of the champion's error.

    Raises:
        OSError: a file cannot be read.
        AnalysisError: columns, options or files do not fit.
    """
    if margin is not None and not 0 <= margin < math.inf:
        raise AnalysisError(f"--margin {margin}: must be a number that is not negative")
    if not label and data is None and not _has_roles(champion):
        raise AnalysisError("--label COL: a comparison needs labels")
    if (data is None) != (version is None):
        raise AnalysisError("--data and --version belong together: one file, and its column of the version")
    sources = _sources(champion, challenger, data)
    known = [name for source in sources for name in source.schema.names]
    said, outputs_said = parse_outputs(prediction, known, "prediction")
    true, outputs_true = parse_outputs(label, known, "label")
    columns = Columns(
        prediction=said,
        predictions=outputs_said,
        probabilities=pairs_of(probability, known),
        label=true,
        labels=outputs_true,
        id=id or "",
        features=(),
        version=version or "",
    )
    check(columns, *sources)
    answers = [read_answers(source, roles_of(columns, source)) for source in dict.fromkeys(sources)]
    pairs = roles_of(columns, sources[0]).probabilities or roles_of(columns, sources[1]).probabilities
    model = model_of(task, answers[0], answers[-1], pairs)
    if model.task is None:
        raise AnalysisError("--prediction or --probability: there is nothing to compare")
    notes: list[str] = list(model.inferred)
    sides = []
    truths = [answered(one, model, source.name) for one, source in zip(answers, dict.fromkeys(sources), strict=True)]
    for truth in truths:
        notes += truth.notes
    for side, name in enumerate((champion, challenger)):
        which = side if data is None else 0
        rows = np.ones(answers[which].rows, bool) if data is None else _of_version(answers[which], str(name), version)
        if data is None:
            rows = once(answers[which], truths[which], sources[side].name, notes)
        used = np.flatnonzero(rows)
        if reason := truths[which].drop_invalid(sources[side].name if data is None else str(name), used):
            notes.append(f"{reason.removeprefix('undecidable, because ')}: none of them is used")
        sides.append((answers[which], truths[which], used))
    first, second, paired = _paired(sides, notes)
    samples = _sample(model, *first), _sample(model, *second)
    if paired:
        samples = samples[0], _with_labels(samples[1], samples[0])
    return _gate(samples, model, paired, tuple(metric), margin, notes)


def _has_roles(data: Any) -> bool:
    return str(data).endswith((".jsonl", ".ndjson", ".json", ".jsonl.gz"))


def _sources(champion: Any, challenger: Any, data: Any) -> tuple[Source, Source]:
    if data is not None:
        one = open_source(data, "data")
        return one, one
    return open_source(champion, "champion"), open_source(challenger, "challenger")


def _of_version(answers: Answers, name: str, column: str | None) -> NDArray[np.bool_]:
    assert answers.version is not None
    codes, texts = answers.version.coded()
    if name not in texts:
        raise AnalysisError(f'column "{column}" has no version "{name}"{near(name, texts)}')
    return np.asarray(codes == texts.index(name))


Side = tuple[Answers, Answered, NDArray[np.intp]]


def _paired(sides: list[Side], notes: list[str]) -> tuple[Side, Side, bool]:
    """Both sides' rows of the same cases in the same order, where they have ids in common."""
    (a, truth_a, rows_a), (b, truth_b, rows_b) = sides
    if a.ids is None or b.ids is None:
        return sides[0], sides[1], False
    texts = pc.cast(b.id_texts, "string")
    places = pc.index_in(pc.cast(a.id_texts, "string"), value_set=texts).fill_null(-1)
    table = np.append(places.to_numpy(zero_copy_only=False).astype(np.int64), -1)
    keys_a, keys_b = table[a.ids[rows_a]], b.ids[rows_b]
    # Of rows with one id the first counts.
    keys_a, first_a = np.unique(keys_a, return_index=True)
    keys_b, first_b = np.unique(keys_b, return_index=True)
    common, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    there = common >= 0
    if not there.any():
        notes.append("no id is in both: the versions are compared as separate rows")
        return sides[0], sides[1], False
    taken_a, taken_b = rows_a[first_a[at_a[there]]], rows_b[first_b[at_b[there]]]
    if len(taken_a) < max(len(rows_a), len(rows_b)):
        notes.append(f"compared case by case on the {len(taken_a):,} ids that both predicted; other rows are left out")
    return (a, truth_a, taken_a), (b, truth_b, taken_b), True


def _sample(model: Model, answers: Answers, truth: Answered, rows: NDArray[np.intp]) -> Sample:
    return Sample(
        task=model.task or "regression",
        names=(),
        types=(),
        cells=np.zeros((0, len(rows)), np.uint32),
        classes=model.classes,
        predictions=truth.predictions[rows],
        labels=truth.labels[rows],
        scores=None if truth.scores is None else truth.scores[rows].astype(np.float64),
        weights=np.ones(len(rows)) if answers.weights is None else answers.weights[rows],
        epsilon=truth.epsilon,
    )


def _with_labels(sample: Sample, other: Sample) -> Sample:
    """The sample with the other's labels where it has none: a case has one truth."""
    return replace(sample, labels=np.where(np.isnan(sample.labels), other.labels, sample.labels))


def _gate(
    samples: tuple[Sample, Sample],
    model: Model,
    paired: bool,
    named: tuple[str, ...],
    margin: float | None,
    notes: list[str],
) -> Gate:
    comparison = compare(*samples, margin=margin, primary=named, paired=paired)
    known = [one.metric for one in comparison.rows]
    for name in named:
        if name not in known:
            raise AnalysisError(f'--metric "{name}": no such metric{near(name, known)}')
    metrics = {one.metric: _metric(one, one.metric in comparison.primary) for one in comparison.rows}
    outcome = _OUTCOMES[comparison.verdict]
    told = {"pass": "is not worse", "fail": "is worse", "undecided": "cannot be told from a worse one"}[outcome]
    by = "" if margin is None else f" (margin {margin:g})"
    why = f"the challenger {told}{by}: {comparison.reason}"
    return Gate(
        outcome,
        why,
        model.task or "",
        model.classes,
        metrics,
        (len(samples[0]), len(samples[1])),
        comparison.labels,
        comparison.paired,
        margin,
        tuple(notes),
    )


def _metric(one: ComparedMetric, decides: bool) -> GateMetric:
    return GateMetric(
        number(one.a),
        number(one.b),
        number(one.difference),
        number(one.low),
        number(one.high),
        _OUTCOMES[one.verdict],
        one.verdict,
        decides,
        one.reason,
    )
