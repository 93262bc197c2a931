"""Stage 1, what is normal for a model: an instrumented fit leaves a reference profile, when the user names a folder.

Reads the arguments of a finished ``fit`` of anything but a transformer, writes ``<folder>/<name>-<version>.json``: the
distributions of at most 100,000 sampled rows under the payload's own rules (types, codes, allow, deny, the content
hook), categories with their texts, and how well the model did in cross-validation, in a search, or in a later
``score``. Guarantee: does nothing without a folder, never raises, never changes what was passed; files appear whole
or not at all.
Memory: a path, figures and what its data are known again by (below 1 KiB) for each fitted model that lives.
"""

import json
import multiprocessing
import os
import re
import secrets
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from mlspan.answers import as_array
from mlspan.capture import Classes, read_cells
from mlspan.columns import MAX_CACHED_TEXT, TextCodes
from mlspan.dataset import Dataset, dataset_of
from mlspan.evaluation import (
    MACRO,
    METRICS,
    Evaluation,
    cross_validated,
    default_score,
    evaluation_of,
    fold_metrics,
    own_score,
    prediction_metrics,
    recipe,
    score_of_kind,
)
from mlspan.guard import guarded, warn_once
from mlspan.identity import delegates
from mlspan.identity import task as task_of
from mlspan.inputs import names_of, open_input
from mlspan.profile import CATEGORICAL, Profile, build_profile, from_json, to_json
from mlspan.sampling import sample
from mlspan.selection import Selector
from mlspan.semconv.attributes import ML_MODEL_TASK

if TYPE_CHECKING:
    from mlspan.config import Settings

MAX_ROWS: Final = 100_000
SOURCE: Final = "fit"
TRANSFORMATION: Final = "transformation"
OTHER: Final = "other"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._()+-]+")


class Identity(Protocol):
    """Who a fitted model is."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def version(self) -> str | None:
        """Its version."""

    @property
    def classes(self) -> Classes | None:
        """Its classes."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names that the user gave to its columns."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """Its scope attributes."""


@dataclass(slots=True)
class _Written:
    """A model's reference: where it lies, what was measured of this model, and what it was fitted on."""

    model: "weakref.ref[object]"
    path: Path
    recipe: str
    data: Dataset
    evaluation: Evaluation


class _ReadableCodes(TextCodes):
    """Codes that remember their texts: the user asked for a reference, which is there to be read."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.texts: dict[int, str] = {}

    def __missing__(self, value: object) -> int:
        code = super().__missing__(value)
        if type(value) is str:
            self.texts.setdefault(code, value[:MAX_CACHED_TEXT])
        return code


_written: dict[int, _Written] = {}
_lock = threading.RLock()
_evaluating = 0


@contextmanager
def evaluating() -> Iterator[None]:
    """While a cross-validation runs: the copies that it fits are not the user's model and leave no reference."""
    global _evaluating  # noqa: PLW0603 - folds run in other threads, where a context variable is lost
    with _lock:
        _evaluating += 1
    try:
        yield
    finally:
        with _lock:
            _evaluating -= 1


@guarded("reference: fit", None)
def after_fit(model: object, identity: Identity, X: object, settings: "Settings") -> Path | None:
    """Write the reference of a model whose outermost ``fit`` has just returned.

    Args:
        model: the fitted model.
        identity: who it is, version and classes included.
        X: what it was fitted on.
        settings: `reference_dir` and everything about capture.

    Returns:
        The file, or None when none was asked for or may be written, or the model only transforms.
    """
    if settings.reference_dir is None or not settings.capture_content or _evaluating or _is_worker():
        return None
    task = str(identity.scope.get(ML_MODEL_TASK, ""))
    if _only_transforms(model, task):
        return None
    key = id(model)
    with _lock:
        _written.pop(key, None)  # of an earlier fit
    source = open_input(X)
    codes = _ReadableCodes(settings.hash_key)
    selector = Selector(settings, codes)
    names = names_of(source, identity.feature_names)
    selection = selector.select(names, source.columns)
    indices = sample(source.rows, MAX_ROWS) if source.rows > MAX_ROWS else None
    found = read_cells(source, selection, selector, indices)
    if found is None or not source.rows:
        return None
    schema, cells, _ = found
    data, made = dataset_of(open_input(X)), recipe(model)
    evaluation = cross_validated(made, data)
    _note_search(model, evaluation, source.rows)
    classes = identity.classes.labels if identity.classes is not None else ()
    # The labels are not what the model answers: the processor learns that from its first answers.
    profile = build_profile(
        cells,
        schema.names,
        schema.types,
        labels={
            name: codes.texts for name, type_ in zip(schema.names, schema.types, strict=True) if type_ == CATEGORICAL
        },
        model_name=identity.name,
        model_version=identity.version or "",
        task=task,
        classes=classes,
        source=_source(evaluation),
        performance=evaluation.performance(len(classes)),
    )
    path = Path(settings.reference_dir) / f"{_safe(identity.name)}-{_safe(identity.version or 'unknown')}.json"
    try:
        _write(path, profile)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        warn_once("reference: folder", 'no reference profile is left in the folder "%s": %s', path.parent, reason)
        return None
    with _lock:
        for other, written in list(_written.items()):
            if written.path == path:  # the file is this model's now
                del _written[other]
        _written[key] = _Written(weakref.ref(model, _forgetter(key)), path, made, data, evaluation)
    return path


@guarded("reference: score", None)
def after_score(model: object, X: object, result: object, settings: "Settings") -> Path | None:
    """Note a ``score`` of a model that has a reference; one on its own training data is no promise and left out.

    Args:
        model: the model that was asked.
        X: the rows it was asked about.
        result: the score.
        settings: `reference_dir` and `capture_content`.

    Returns:
        The file that was updated, or None.
    """
    if settings.reference_dir is None or not settings.capture_content or _evaluating:
        return None
    written = _written.get(id(model))
    name = own_score(model)
    if written is None or written.model() is not model or name is None:
        return None
    source = open_input(X)
    if source.rows == written.data.rows and dataset_of(source).is_same(written.data):
        return None
    written.evaluation.add("score", fold_metrics({"score": [result]}, name), source.rows)
    return _update(written)


@guarded("reference: cross-validation", None)
def after_cross_validation(function: str, arguments: Mapping[str, Any], result: Any) -> None:
    """Note what ``cross_validate``, ``cross_val_score`` or ``cross_val_predict`` has returned.

    Args:
        function: its name.
        arguments: what it was called with, by parameter name.
        result: what it returned.
    """
    model, scoring = arguments["estimator"], arguments.get("scoring")
    data = dataset_of(open_input(arguments["X"]))
    name = default_score(model, scoring)
    metrics: dict[str, tuple[float, float]]
    if function == "cross_val_predict":
        labels = as_array(arguments.get("y"))
        values = as_array(result)
        if labels is None or values is None:
            return
        method = arguments.get("method", "predict")
        figures = prediction_metrics(labels, values, method, score_of_kind(model))
        metrics = {metric: (value, float("nan")) for metric, value in figures.items()}
    elif function == "cross_val_score":
        metrics = fold_metrics({"score": result}, name)
    else:
        scores = {key[5:]: value for key, value in result.items() if key.startswith("test_")}
        metrics = fold_metrics(scores, name)
    evaluation_of(model).add(function, metrics, data.rows, data)
    for written in _promised(recipe(model), data):
        written.evaluation.add(function, metrics, data.rows, data)
        _update(written)


def forget() -> None:
    """Drop what is known of written references; the files stay."""
    with _lock:
        _written.clear()


def _note_search(model: Any, evaluation: Evaluation, rows: int) -> None:
    """The best candidate's figures of a search (GridSearchCV and its like)."""
    table, best = getattr(model, "cv_results_", None), getattr(model, "best_index_", None)
    if not isinstance(table, Mapping) or best is None:
        return
    name = default_score(getattr(model, "estimator", model), getattr(model, "scoring", None))
    metrics = {}
    for key, values in table.items():
        if key.startswith("mean_test_"):
            asked = (name or "") if key == "mean_test_score" else key[10:]
            metric = (asked, 1.0) if asked in MACRO else METRICS.get(asked)
            if metric is not None:
                deviation = float(table[f"std_test_{key[10:]}"][best])
                metrics[metric[0]] = (metric[1] * float(values[best]), deviation)
    evaluation.add("search", metrics, rows)


def _promised(made: str, data: Dataset) -> list[_Written]:
    """The fitted models of this recipe that a cross-validation on these data tells about.

    Those that were fitted on them; else the one that was fitted last, while nothing else is known of it.
    """
    alike = [written for written in list(_written.values()) if written.recipe == made]
    same = [written for written in alike if written.data.is_same(data)]
    last = [at for at in alike[-1:] if at.data.has_columns_of(data) and at.evaluation.is_free_for(data)]
    return same or last


def _update(written: _Written) -> Path:
    """Write the model's reference again, with what is known of its performance now."""
    evaluation = written.evaluation
    profile = from_json(written.path.read_text(encoding="utf-8"))
    performance = evaluation.performance(len(profile.classes))
    _write(written.path, replace(profile, source=_source(evaluation), performance=performance))
    return written.path


def _source(evaluation: Evaluation) -> str:
    return ", ".join((SOURCE, *evaluation.sources))


def _write(path: Path, profile: Profile) -> None:
    """The file as a whole: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = to_json(profile)
    json.loads(text)  # a file that could not be read again would be worse than none
    draft = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _only_transforms(model: object, task: str) -> bool:
    """Whether the model gives no answers of its own: libraries fit such helpers anywhere, under the name of all."""
    # A pipeline of transformers, or a search over them, has no task: its last part tells.
    return task == TRANSFORMATION or (task == OTHER and task_of(delegates(model)[-1]) == TRANSFORMATION)


def _safe(text: str) -> str:
    """A text as a part of a file's name."""
    return _UNSAFE.sub("_", text).lstrip(".")[:120] or "_"


def _is_worker() -> bool:
    """Whether this is one of joblib's processes, which fit parts of a model that the user fits elsewhere."""
    return multiprocessing.current_process().name.startswith("LokyProcess")


def _forgetter(key: int) -> Any:
    def forget_model(reference: "weakref.ref[object]") -> None:
        found = _written.get(key)
        if found is not None and found.model is reference:
            _written.pop(key, None)

    return forget_model
