"""Stage 5: a reference profile from a table, for ``mlspan reference build``.

Reads Parquet or CSV in batches, with pyarrow. Out: a Profile whose cells are those that the application's
capture would send for the same values (its own column rules and keyed hashes are used), with readable
category texts, and evaluated performance where labels and predictions are given. Distributions rest on a
uniform sample of at most 200,000 rows (Efraimidis & Spirakis' random keys, 2006; the same file gives the same
sample), performance on all rows. Memory: the sample, one batch, and 16 MB of score histograms.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, Categories, TextCodes, encode, text_of, to_float32
from mlspan.inputs.arrow import arrow_values
from mlspan.payload import (
    PREDICTION_CLASS,
    PREDICTION_NONE,
    PREDICTION_NUMBER,
    SCORE_NONE,
    SCORE_PROBABILITY,
)
from mlspan.profile import NO_PREDICTION, Profile, build_profile
from mlspan_processor.quality import Classification, Labelled, Regression
from mlspan_processor.reference_sample import MAX_ROWS as SAMPLE_ROWS
from mlspan_processor.sample import Sample, Task
from mlspan_processor.tables import Table

MAX_ROWS: Final = 200_000
MAX_CLASSES: Final = 1_000
MAX_TEXTS: Final = 10_000
"""Category texts remembered of one column."""
_CLASS_TYPES: Final = ("bool", "string", "large_string", "string_view", "dictionary", "int", "uint")

Progress = Callable[[int, int | None], None]
"""Called with the rows read so far and the rows in all, or None where the file does not say."""


class Built(NamedTuple):
    """A profile, and the labelled rows that estimates are fitted on, or None without labels."""

    profile: Profile
    sample: Sample | None


def build_reference(data: Path, **options: Any) -> Profile:
    """The profile of `build`, which see."""
    return build(data, **options).profile


def build(
    data: Path,
    *,
    features: Sequence[str] | None = None,
    label: str | None = None,
    prediction: str | None = None,
    probabilities: Sequence[str] = (),
    model: str = "",
    version: str = "",
    hash_key: bytes = b"mlspan",
    progress: Progress | None = None,
) -> Built:
    """Build a profile from a table.

    Args:
        data: a ``.parquet`` file, or a ``.csv`` file (which may be compressed).
        features: columns that are the model's input; None for all that have no other role.
        label, prediction: columns of the true and the predicted class or number.
        probabilities: columns of the class probabilities, in the order of the classes (sorted); one column is
            that of
            the last of two classes.
        model, version: for which model version; an empty version is for all of them.
        hash_key: of the application (OTEL_INSTRUMENTATION_ML_HASH_KEY).
        progress: called after every batch.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table, has no rows, lacks a column, or the columns do not fit their roles.
    """
    table = Table(data)
    roles = [name for name in (label, prediction, *probabilities) if name]
    if features is None:
        features = [name for name in table.names if name not in roles]
    table.check([*features, *roles])
    answers = _Answers(table, label, prediction, probabilities)
    sample = _Sample(table, features, hash_key)
    done = 0
    for batch in table.batches([*features, *roles]):
        answers.add(batch)
        sample.add(batch, answers)
        done += batch.num_rows
        if progress is not None:
            progress(done, table.rows)
    if not done:
        raise ValueError(f'"{data}" has no rows')
    return Built(sample.profile(answers, model, version, f"file {data.name}, {done} rows"), sample.labelled(answers))


class _Answers:
    """What the model said and what was true: classes, performance, and the values for the profile."""

    def __init__(self, table: Table, label: str | None, prediction: str | None, probabilities: Sequence[str]) -> None:
        self._label, self._prediction, self._probabilities = label, prediction, tuple(probabilities)
        roles = [name for name in (label, prediction) if name]
        self.classes: tuple[str, ...] = ()
        self.is_classifier = bool(roles) and all(table.types[name].startswith(_CLASS_TYPES) for name in roles)
        if probabilities and not self.is_classifier:
            raise ValueError("probabilities need a label or prediction column of classes (text, integer or boolean)")
        if self.is_classifier:
            self.classes = _classes(table, roles)
            if probabilities and len(probabilities) not in {1, len(self.classes)}:
                raise ValueError(f"{len(probabilities)} probability columns for {len(self.classes)} classes")
            if len(probabilities) == 1 and len(self.classes) != 2:
                raise ValueError(f"one probability column needs two classes, not {len(self.classes)}")
        self._index = {text: i for i, text in enumerate(self.classes)}
        self._quality: Classification | Regression = (
            Classification(len(self.classes)) if self.is_classifier else Regression()
        )
        self.kind = PREDICTION_NONE
        if roles:
            self.kind = PREDICTION_CLASS if self.is_classifier else PREDICTION_NUMBER

    @property
    def score_kind(self) -> int:
        """Of the probabilities."""
        return SCORE_PROBABILITY if self._probabilities else SCORE_NONE

    def add(self, batch: Any) -> None:
        """Evaluate a batch."""
        if not self._label or not (self._prediction or self._probabilities):
            return
        labels = self._values(batch, self._label)
        scores = self.scores(batch)
        if self._prediction:
            predictions = self._values(batch, self._prediction)
        else:
            assert scores is not None
            best = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0.5)
            predictions = best.astype(np.float64)
        if scores is not None and len(self.classes) == 2 and scores.shape[1] == 2:
            scores = scores[:, 1:]
        self._quality.update(Labelled(labels, predictions, scores, self.score_kind, np.ones(len(labels))))

    @property
    def predicts(self) -> bool:
        """Whether there is a column of predictions."""
        return self._prediction is not None

    def labels(self, batch: Any) -> NDArray[np.float64] | None:
        """(n_rows,) labels as class indices or numbers, or None."""
        return self._values(batch, self._label) if self._label else None

    def of_sample(self, batch: Any) -> NDArray[Any] | None:
        """Predictions, or labels where there are none, for the profile: class indices or numbers."""
        name = self._prediction or self._label
        if name is None:
            return None
        values = self._values(batch, name)
        if self.is_classifier:
            return np.where(np.isnan(values), NO_PREDICTION, values).astype(np.int32)
        return values.astype(np.float32)

    def scores(self, batch: Any) -> NDArray[np.float32] | None:
        """(n_rows, n_columns) probabilities, or None."""
        if not self._probabilities:
            return None
        return np.column_stack([_numbers(batch.column(name)) for name in self._probabilities])

    def performance(self) -> dict[str, float]:
        """Evaluated figures by name."""
        figures = self._quality.figures() if self._quality.rows else {}
        return {name: figure.value for name, figure in figures.items() if figure.value is not None}

    def _values(self, batch: Any, name: str) -> NDArray[np.float64]:
        if not self.is_classifier:
            return _numbers(batch.column(name)).astype(np.float64)
        column = batch.column(name)
        encoded = column if str(column.type).startswith("dictionary") else column.dictionary_encode()
        texts = [None if value is None else text_of(value) for value in encoded.dictionary.to_pylist()]
        table = np.array([np.nan, *(self._index.get(text or "", np.nan) for text in texts)], np.float64)
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.asarray(table[codes + 1])


class _Sample:
    """A uniform sample of the rows, encoded as the application would."""

    def __init__(self, table: Table, features: Sequence[str], hash_key: bytes) -> None:
        self._features = tuple(features)
        self._types = [table.types[name] for name in features]
        self._codes = [_ReadableCodes(hash_key) for _ in features]
        self._found: list[str | None] = [None] * len(features)
        self._random = np.random.default_rng(0)
        self._limit = 1.0
        self._keys = np.zeros(0)
        self._cells = np.zeros((len(features), 0), np.uint32)
        self._predictions: NDArray[Any] | None = None
        self._scores: NDArray[np.float32] | None = None
        self._labels: NDArray[np.float64] | None = None

    def add(self, batch: Any, answers: _Answers) -> None:
        """Draw from a batch; only rows that are drawn are encoded."""
        keys = self._random.random(batch.num_rows)
        drawn = np.flatnonzero(keys < self._limit)
        if not len(drawn):
            return
        rows = batch.take(drawn)
        cells = np.empty((len(self._features), len(drawn)), np.uint32)
        for j, name in enumerate(self._features):
            cells[j] = self._encode(j, rows.column(name))
        self._keys = np.concatenate([self._keys, keys[drawn]])
        self._cells = np.concatenate([self._cells, cells], axis=1)
        self._predictions = _appended(self._predictions, answers.of_sample(rows))
        self._scores = _appended(self._scores, answers.scores(rows))
        self._labels = _appended(self._labels, answers.labels(rows))
        if len(self._keys) > MAX_ROWS:
            kept = np.sort(np.argpartition(self._keys, MAX_ROWS)[:MAX_ROWS])
            self._keys, self._cells = self._keys[kept], self._cells[:, kept]
            self._limit = float(self._keys.max())
            self._predictions = None if self._predictions is None else self._predictions[kept]
            self._scores = None if self._scores is None else self._scores[kept]
            self._labels = None if self._labels is None else self._labels[kept]

    def labelled(self, answers: _Answers) -> Sample | None:
        """The labelled rows, or a uniform part of them; None without labels, or without anything to compare."""
        if self._labels is None or not (answers.predicts or self._scores is not None):
            return None
        known = np.flatnonzero(np.isfinite(self._labels))
        if len(known) > SAMPLE_ROWS:
            known = np.sort(self._random.choice(known, SAMPLE_ROWS, replace=False))
        if not len(known):
            return None
        used = [j for j, kind in enumerate(self._found) if kind is not None]
        scores = None if self._scores is None else self._scores[known].astype(np.float64)
        if scores is not None and len(answers.classes) == 2:
            scores = scores[:, -1:]
        predictions = np.full(len(known), np.nan)
        if answers.predicts and self._predictions is not None:
            predictions = self._predictions[known].astype(np.float64)
            if answers.is_classifier:
                predictions[predictions == NO_PREDICTION] = np.nan
        elif scores is not None:
            predictions = (scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0.5).astype(np.float64)
        task: Task = "regression"
        if answers.is_classifier:
            task = "binary" if len(answers.classes) == 2 else "multiclass"
        return Sample(
            task,
            tuple(self._features[j] for j in used),
            tuple(str(self._found[j]) for j in used),
            self._cells[used][:, known],
            answers.classes,
            predictions,
            self._labels[known],
            scores,
            np.ones(len(known)),
        )

    def profile(self, answers: _Answers, model: str, version: str, source: str) -> Profile:
        """The profile of the sample."""
        used = [j for j, kind in enumerate(self._found) if kind is not None]
        kinds = [str(self._found[j]) for j in used]
        task = {PREDICTION_CLASS: "classification", PREDICTION_NUMBER: "regression"}.get(answers.kind, "")
        return build_profile(
            np.ascontiguousarray(self._cells[used].T),
            [self._features[j] for j in used],
            kinds,
            predictions=self._predictions,
            prediction_kind=answers.kind,
            scores=self._scores,
            score_kind=answers.score_kind,
            labels={self._features[j]: self._codes[j].texts for j in used if self._found[j] == CATEGORICAL},
            model_name=model,
            model_version=version,
            task=task,
            classes=answers.classes,
            source=source,
            performance=answers.performance(),
        )

    def _encode(self, j: int, column: Any) -> NDArray[np.uint32]:
        known = self._found[j]
        kind = self._types[j]
        if kind.startswith("dictionary"):
            positions = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            encoded = encode(Categories(positions, column.dictionary.to_pylist()), self._codes[j])
        else:
            values, named = arrow_values(column, None)
            if named in {NUMERIC, BOOLEAN}:
                encoded = str(named), to_float32(np.asarray(values))
            else:
                text = kind.startswith(("string", "large_string", "binary"))
                encoded = encode(values, self._codes[j], CATEGORICAL if text else known)
        if encoded is None:
            if known is not None:
                raise ValueError(f'column "{self._features[j]}" holds values that cannot be captured')
            return np.zeros(len(column), np.uint32)
        self._found[j] = encoded[0]
        return np.ascontiguousarray(encoded[1]).view(np.uint32)


class _ReadableCodes(TextCodes):
    """Codes that remember their texts."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.texts: dict[int, str] = {}

    def __missing__(self, value: object) -> int:
        code = super().__missing__(value)
        if isinstance(value, str) and len(self.texts) < MAX_TEXTS:
            self.texts.setdefault(code, value)
        return code


def _classes(table: Table, roles: Sequence[str]) -> tuple[str, ...]:
    """The classes as the model sorts them: numbers by value, texts by code point."""
    found: set[Any] = set()
    for batch in table.batches(list(roles)):
        for name in roles:
            column = batch.column(name)
            values = column.dictionary if str(column.type).startswith("dictionary") else column.unique()
            found.update(value for value in values.to_pylist() if value is not None)
        if len(found) > MAX_CLASSES:
            raise ValueError(
                f"{' and '.join(roles)} hold more than {MAX_CLASSES} different values:"
                " too many for classes (numbers of a regression must be floating-point)"
            )
    same = len({type(value) for value in found}) <= 1
    return tuple(text_of(value) for value in sorted(found, key=None if same else text_of))


def _numbers(column: Any) -> NDArray[np.float32]:
    values, _ = arrow_values(column, None)
    encoded = encode(values, TextCodes(b""))
    if encoded is None or encoded[0] == CATEGORICAL:
        raise ValueError("a column of numbers holds something else")
    return np.asarray(encoded[1], np.float32)


def _appended(known: NDArray[Any] | None, more: NDArray[Any] | None) -> NDArray[Any] | None:
    return more if known is None or more is None else np.concatenate([known, more])
