"""Batch: THE FLOW: two files in, windows judged one after the other, an Analysis out.

    open → which column is what → answers of all rows → task and classes → windows → the reference's features
         → each window's features, judged as they are complete → incidents over the windows

Memory: answers of all rows (8 to 40 bytes each; 24 an output of a multilabel model), at most 200,000 reference rows
with features, and the windows that are open at once: one, where the file is in the order of its windows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Answered, Model
from mlspan_processor.analysis.answers import Answers, read_answers
from mlspan_processor.analysis.encode import Encoder, Feature, comparable, in_range, schema_texts
from mlspan_processor.analysis.every import once, parse_every, plan
from mlspan_processor.analysis.incidents import incidents_of
from mlspan_processor.analysis.judging import Context, judge_window
from mlspan_processor.analysis.prepared import MAX_ROWS, prepare
from mlspan_processor.analysis.reading import cells_of_groups, chosen
from mlspan_processor.analysis.result import Analysis, Window, moment, number
from mlspan_processor.analysis.roles import (
    Columns,
    Roles,
    check,
    features_of,
    is_row_number,
    own_columns,
    pairs_of,
    parse_features,
    parse_outputs,
    roles_of,
)
from mlspan_processor.analysis.segmenting import segments_of
from mlspan_processor.analysis.source import Source, open_source
from mlspan_processor.analysis.task import answered, model_of
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.quality.names import because
from mlspan_processor.sample import Sample, Segment

SEED: Final = 0
DEFAULT_HASH_KEY: Final = b"mlspan"
Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the rows done and the rows in all."""


# What no float32, or no square of a double, can hold is infinite there: said by what cannot be computed of it.
@np.errstate(over="ignore", invalid="ignore")
def analyze(
    *,
    reference: Any,
    current: Any,
    task: str | None = None,
    prediction: str | Sequence[str] | Mapping[str, str] | None = None,
    probability: str | Sequence[str] | Mapping[str, str] = (),
    label: str | Sequence[str] | Mapping[str, str] | None = None,
    time: str | None = None,
    id: str | None = None,  # noqa: A002  # the option's name
    segment: str | Sequence[str] = (),
    features: str | Sequence[str] | None = None,
    every: str | None = None,
    hash_key: bytes = DEFAULT_HASH_KEY,
    progress: Progress | None = None,
) -> Analysis:
    """Judge the windows of a file against a reference, as the processor judges a stream.

    Args:
        reference, current: paths (.parquet, .csv, .tsv, also compressed; .jsonl of OTLP spans), pandas or polars
            frames, pyarrow tables, or mappings of column names to values.
        task: "binary", "multiclass", "multilabel" or "regression"; None infers it.
        prediction, label: columns of what the model said and what was true; for multilabel a mapping of outputs to
            columns of 0 and 1 (or "OUTPUT=COL" of each), or one column of lists of outputs.
        probability: "COL" or "CLASS=COL", one or several, or a mapping of classes (or outputs) to columns.
        time, id: columns of when a prediction was made, and of what names it.
        segment: columns to cut by.
        features: columns of the model's input; None for every column without another role.
        every: "1000rows" or "1d"; None for one window.
        hash_key: of the application's captured categories (OTEL_INSTRUMENTATION_ML_HASH_KEY), for OTLP.
        progress: called as rows are read.

    Raises:
        OSError: a file cannot be read.
        AnalysisError: a ValueError; columns, options or files do not fit, the message says how.
    """
    before = open_source(reference, "reference")
    now = open_source(current, "current", schema_texts(before))
    known = [*before.schema.names, *now.schema.names]
    said, outputs_said = parse_outputs(prediction, known, "prediction")
    true, outputs_true = parse_outputs(label, known, "label")
    columns = Columns(
        prediction=said,
        predictions=outputs_said,
        probabilities=pairs_of(probability, known),
        label=true,
        labels=outputs_true,
        time=time or "",
        id=id or "",
        segments=(segment,) if isinstance(segment, str) else tuple(segment),
        features=None if features is None else parse_features(features, known),
    )
    return _Run(columns, before, now, task, every, hash_key, progress).result()


class _Run:
    """One analysis."""

    def __init__(
        self,
        columns: Columns,
        before: Source,
        now: Source,
        task: str | None,
        every: str | None,
        hash_key: bytes,
        progress: Progress | None,
    ) -> None:
        self._every = parse_every(every)
        check(columns, before, now)
        self._before, self._now = before, now
        self._features = features_of(columns, before, now)
        self._roles = roles_of(columns, before), roles_of(columns, now)
        self._known: list[Feature] = comparable(self._features, before, now)
        self._encoder = Encoder([one for one in self._known if not one.reason], hash_key)
        self._progress = progress
        self._task = task
        self._custom = CustomMetrics.installed()
        self._notes = _notes(columns, before, now, self._features, self._roles)

    def result(self) -> Analysis:
        """Read, judge, gather."""
        notes = self._notes
        first = read_answers(self._before, self._roles[0], self._told("reading the reference", self._before))
        second = read_answers(self._now, self._roles[1], self._told("reading the answers", self._now))
        pairs = self._roles[0].probabilities or self._roles[1].probabilities
        model = model_of(self._task, first, second, pairs)
        truths = answered(first, model, self._before.name), answered(second, model, self._now.name)
        before_reason = truths[0].drop_invalid(self._before.name)
        kept = []
        for answers, truth, source in zip((first, second), truths, (self._before, self._now), strict=True):
            kept.append(once(answers, truth, source.name, notes))
            notes += truth.notes
            answers.ids = answers.id_texts = None  # of no further use, and large
        windows = plan(second, self._every, kept[1], self._now.name)
        notes += windows.notes
        segments = segments_of(first, second)

        groups = [_order(first, kept[0])]
        rows = groups[0]
        [drawn] = chosen(groups, len(self._encoder.names), SEED, MAX_ROWS)
        told = self._told("reading the reference's features", self._before)
        [(_, cells)] = cells_of_groups(self._before, self._encoder, [drawn], first.rows, told)
        self._known = in_range(self._known, self._encoder.names, cells)
        make = _Samples(model, self._encoder)
        prepared = prepare(
            make.sample(first, truths[0], segments[0], drawn, cells),
            make.sample(first, truths[0], segments[0], rows, None),
            self._encoder.texts,
            model.task is not None,
            self._custom,
        )
        context = self._context(model, truths, before_reason)
        spans = [window.rows for window in windows.windows]
        read = chosen(spans, len(self._encoder.names), SEED)
        found: list[Window | None] = [None] * len(spans)
        told = self._told("judging", self._now)
        for index, cells in cells_of_groups(self._now, self._encoder, read, second.rows, told):
            span = windows.windows[index]
            unused = truths[1].unused(span.rows)
            found[index] = judge_window(
                prepared,
                context,
                unused,
                make.sample(second, truths[1], segments[1], read[index], cells),
                make.sample(second, truths[1], segments[1], span.rows, None),
                moment(span.start, windows.timed),
                moment(span.end, windows.timed),
            )
        judged = tuple(window for window in found if window is not None)
        return Analysis(
            task=model.task,
            classes=model.classes,
            reference={
                "name": self._before.name,
                "rows": len(rows),
                "sampled_rows": len(drawn),
                "metrics": {name: _realised(one) for name, one in prepared.truth.realised.items()},
            },
            current={"name": self._now.name, "rows": sum(len(span.rows) for span in windows.windows)},
            windows=judged,
            incidents=incidents_of(judged, windows, self._now.name),
            inferred=model.inferred,
            notes=tuple(notes),
        )

    def _told(self, what: str, source: Source) -> Callable[[int], None] | None:
        if self._progress is None:
            return None
        progress, done = self._progress, 0

        def more(rows: int) -> None:
            nonlocal done
            done += rows
            progress(what, done, source.rows)

        return more

    def _context(self, model: Model, truths: tuple[Answered, Answered], invalid: str) -> Context:
        reason = truths[1].scores_reason or truths[0].scores_reason or invalid
        no_estimate = ""
        if model.task is not None and np.isnan(truths[0].labels).all():
            no_estimate = "undecidable, because the reference has no labels"
        elif model.task == "multilabel":
            no_estimate = "undecidable, because estimates are made for binary, multiclass and regression models"
        elif model.task in {"binary", "multiclass"} and reason:
            told = "there are no probabilities" if reason == "no probabilities" else reason.partition("because ")[2]
            no_estimate = f"undecidable, because {told}"
        return Context(tuple(self._known), model.task is not None, reason, no_estimate, self._custom)


class _Samples:
    """Makes Samples of rows of either file."""

    def __init__(self, model: Model, encoder: Encoder) -> None:
        self._model, self._encoder = model, encoder

    def sample(
        self,
        answers: Answers,
        truth: Answered,
        segments: Mapping[str, Segment],
        rows: NDArray[np.intp],
        cells: NDArray[np.uint32] | None,
    ) -> Sample:
        """These rows, with features (their cells) or without."""
        with_features = cells is not None
        return Sample(
            task=self._model.task or "regression",
            names=self._encoder.names if with_features else (),
            types=self._encoder.types if with_features else (),
            cells=cells if cells is not None else np.zeros((0, len(rows)), np.uint32),
            classes=self._model.classes,
            predictions=truth.predictions[rows],
            labels=truth.labels[rows],
            scores=None if truth.scores is None else truth.scores[rows].astype(np.float64),
            weights=np.ones(len(rows)) if answers.weights is None else answers.weights[rows],
            epsilon=truth.epsilon,
            times=None if answers.times is None else answers.times[rows],
            segments={name: Segment(one.codes[rows], one.labels) for name, one in segments.items()},
        )


def _notes(columns: Columns, before: Source, now: Source, used: Sequence[str], roles: tuple[Roles, Roles]) -> list[str]:
    """What a person should know of the columns: those that were left out."""
    notes = []
    if columns.features is None:
        taken = {*used, *columns.named(), *own_columns(before), *own_columns(now)}
        nameless = [name for name in before.schema.names if name not in taken and is_row_number(name)]
        if nameless:
            shown = ", ".join(f'"{name}"' for name in nameless)
            notes.append(f"columns without a name, as row numbers have none, are not looked at: {shown}")
        taken.update(nameless)
        extra = [name for name in now.schema.names if name not in taken and name not in before.schema.names]
        if extra:
            notes.append(f"{now.name} has columns that the reference lacks; not looked at: {', '.join(extra)}")
        strange = [f"{one.name} ({one.type})" for one in before.schema if one.name not in taken]
        if strange:
            notes.append(f"columns that hold neither numbers nor texts are not looked at: {', '.join(strange)}")
    for source, one in zip((before, now), roles, strict=True):
        wanted = {**columns.named()} if not source.roles else {}
        lacking = [name for name, role in wanted.items() if name not in source.schema.names and role != "version"]
        if lacking:
            notes.append(f"{source.name} lacks {', '.join(f'{name} ({wanted[name]})' for name in lacking)}")
        for role in ("probabilities", "predictions", "labels"):
            if getattr(columns, role) and not getattr(one, role):
                what = {"probabilities": "probability"}.get(role, role[:-1])
                notes.append(f"{source.name} lacks a {what} column: none of them is used there")
    return notes


def _order(answers: Answers, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The reference's rows, in the order of time where there is one: neighbours tell how much rows depend."""
    rows = np.flatnonzero(kept)
    if answers.times is not None:
        rows = rows[np.argsort(answers.times[rows], kind="stable")]
    return rows


def _realised(figure: Any) -> dict[str, Any]:
    value = number(figure.value)
    plain: dict[str, Any] = {
        "realised": value,
        "realised_low": number(figure.low),
        "realised_high": number(figure.high),
    }
    plain["labels"] = int(figure.labels)
    return plain if value is not None else {**plain, "reason": because(figure.reason)}
