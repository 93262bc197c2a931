"""Stage 1, which model it is: what is constant about each live model between two fits, and the tracers for it.

Reads a model object, gives its `Entry` and the `State` behind it. Guarantee: nothing is written to the model and no
model is kept alive; a fit that the hooks see, also of a part within, makes the next call look again. Memory: an entry
per live model that was called, at most MAX_SCHEMAS tracers, then one for all others.
"""

import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Tracer, TracerProvider

import mlspan
from mlspan import identity
from mlspan.capture import ANSWER_BYTES, Classes, Schema, classes_of
from mlspan.config import MAX_SCHEMAS, Settings
from mlspan.fingerprint import fingerprint
from mlspan.guard import guarded, warn_once
from mlspan.semconv import attributes as names
from mlspan.slow import Latencies

SCOPE: Final = "mlspan"
FINGERPRINT_PREFIX: Final = "fp-"
MAX_CHANGES: Final = 2
"""Times that a model under a sampler may have other columns than its call before, until that is taken as usual."""


class Registration:
    """What the user told about one model object with `instrument_model`."""

    __slots__ = ("classes", "feature_names", "input", "model", "name", "output", "steps", "task", "version")

    def __init__(
        self,
        model: "weakref.ref[object]",
        name: str | None,
        version: str | None,
        feature_names: tuple[str, ...] | None,
        task: str | None,
        classes: tuple[str, ...] | None,
        output: str | None,
        input: str | None,  # noqa: A002 - the user's word for it
        steps: int | None,
    ) -> None:
        self.model = model
        self.name = name
        self.version = version
        self.feature_names = feature_names
        self.task = task
        self.classes = classes
        self.output = output
        self.input = input
        self.steps = steps

    def told(self) -> tuple[Any, ...]:
        """What `register` takes behind the model."""
        told = (self.name, self.version, self.feature_names, self.task, self.classes, self.output, self.input)
        return *told, self.steps


_registrations: dict[int, Registration] = {}


def register(
    model: object,
    name: str | None = None,
    version: str | None = None,
    feature_names: tuple[str, ...] | None = None,
    task: str | None = None,
    classes: tuple[str, ...] | None = None,
    output: str | None = None,
    input: str | None = None,  # noqa: A002 - the user's word for it
    steps: int | None = None,
) -> None:
    """Remember what the user says about this object, for as long as it lives.

    Raises:
        TypeError: the object takes no weak reference.
    """
    key = id(model)
    reference = weakref.ref(model, _remover(_registrations, key))
    _registrations[key] = Registration(reference, name, version, feature_names, task, classes, output, input, steps)


def registration(model: object) -> Registration | None:
    """What the user said about this object, or None."""
    found = _registrations.get(id(model))
    return found if found is not None and found.model() is model else None


def registered_models() -> list[object]:
    """The live models that the user said something about."""
    return [model for told in list(_registrations.values()) if (model := told.model()) is not None]


class State:
    """A model between two fits.

    Attributes:
        targets: `id` of the model and of the estimators that answer for it.
        members: the estimators that it holds; of a torch module or a booster none.
        answer_bytes: what the answers to a row took of the last payload.
        answers: what is known of the form of a torch module's output.
        details: how many of its next calls are captured in detail.
        latencies: how long its calls take; None: not watched.
        starts: operation -> the attributes its span starts with.
        titles: operation -> the name of its span.
    """

    __slots__ = (
        *(
            "answer_bytes",
            "answers",
            "classes",
            "details",
            "feature_names",
            "latencies",
            "members",
            "name",
            "scope",
            "starts",
            "targets",
            "titles",
            "tracers",
        ),
        "version",
    )

    def __init__(self, name: str, version: str | None, scope: dict[str, Any]) -> None:
        self.name = name
        self.version = version
        self.scope = scope
        self.classes: Classes | None = None
        self.members: identity.Members = ()
        self.answer_bytes = ANSWER_BYTES
        self.answers: Any = None
        self.details = 0
        self.latencies: Latencies | None = None
        self.feature_names: tuple[str, ...] | None = None
        self.targets: frozenset[int] = frozenset()
        self.tracers: dict[Schema | None, Tracer] = {}
        self.titles: dict[str, str] = {}
        self.starts: dict[str, dict[str, Any]] = {}

    def start(self, operation: str) -> dict[str, Any]:
        """The attributes that the span of this operation starts with; `titles` has its name after this."""
        start: dict[str, Any] = {names.ML_OPERATION_NAME: operation, names.ML_MODEL_NAME: self.name}
        if self.version is not None:
            start[names.ML_MODEL_VERSION] = self.version
        self.titles[operation] = f"{operation} {self.name}"
        self.starts[operation] = start
        return start


class Entry:
    """One live model object.

    Attributes:
        fitted: for calls that use the model; None after a fit, until the next call.
        fitting: for calls that change it: no version yet, no classes.
        schema: of the last recorded call that carried rows.
        last: state, schema and operation of the last span, with its tracer, name and first attributes.
        is_sampled: a sampler refused a span of this model, so it is asked before the input is read.
        changes: how often the columns were others than the last call's where it was asked first.
        generation: fits that were noticed.
        steps: levels of child spans for its parts.
    """

    __slots__ = (
        *("changes", "fitted", "fitting", "generation", "is_sampled", "last", "model", "parts", "schema", "steps"),
    )

    def __init__(self, model: "Callable[[], object]", steps: int = 0) -> None:
        self.model = model
        self.steps = steps
        self.fitted: State | None = None
        self.fitting: State | None = None
        self.parts: tuple[int, ...] = ()
        self.schema: Schema | None = None
        self.last: tuple[State, Schema | None, str, Tracer, str, dict[str, Any]] | None = None
        self.is_sampled = False
        self.changes = 0
        self.generation = 0

    def refused(self) -> None:
        """A sampler refused a span of this model."""
        self.is_sampled = self.changes <= MAX_CHANGES

    def change(self, schema: Schema | None) -> None:
        """A call had other columns than were expected; a model for which that is usual is read first from then on."""
        self.schema = schema
        self.changes += 1
        if self.changes > MAX_CHANGES:
            self.is_sampled = False

    def forget(self) -> None:
        """Look again at the model at its next call."""
        self.generation += 1
        self.fitted = None


class Models:
    """All entries of one instrumentation.

    Args:
        settings: the user's.
        tracer_provider: where tracers come from; None: the global one.
    """

    def __init__(self, settings: Settings, tracer_provider: TracerProvider | None) -> None:
        self.entries: dict[int, Entry] = {}
        self._settings = settings
        self._tracer_provider = tracer_provider
        self._containers: dict[int, set[int]] = {}
        # By what the scope says. The provider keeps them all, too, so that none can be given back.
        self._tracers: dict[object, Tracer] = {}
        self._lock = threading.Lock()
        # Taken also by the end of a model's life, which may come in the middle of anything.
        self._holding = threading.RLock()
        self.overflow: Tracer | None = None
        self.clock: Callable[[], float] = monotonic

    def after_fork(self) -> None:
        """In a new process: another thread may have held the locks."""
        self._lock = threading.Lock()
        self._holding = threading.RLock()

    def add(self, model: object) -> Entry:
        """A new entry for this object; a model that takes no weak reference gets a new one each time."""
        key = id(model)
        told = registration(model)
        steps = self._settings.capture_steps if told is None or told.steps is None else told.steps
        try:
            reference = weakref.ref(model, self._remover(key))
        except TypeError:
            return Entry(lambda: model, steps)
        entry = Entry(reference, steps)
        self.entries[key] = entry
        return entry

    def fitted(self, entry: Entry, model: object) -> State:
        """Who the fitted model is; looks at the whole model, once per fit."""
        generation = entry.generation
        told = registration(model)
        version = (told and told.version) or self._settings.model_version
        state = self.describe(model, version or _fingerprint(model))
        if told is not None and told.classes and told.task is None and state.scope[names.ML_MODEL_TASK] == "other":
            state.scope[names.ML_MODEL_TASK] = "classification"
        if self._settings.capture_content:
            state.classes = _classes(model, state.scope[names.ML_MODEL_TASK], told.classes if told else None)
        if state.feature_names is None:
            state.feature_names = identity.feature_names(model)
        state.members = identity.members(model)
        state.targets = frozenset(map(id, identity.delegates(model)))
        if version is None:
            self._hold(id(model), entry, identity.parts(model))
        # Of a model that was fitted meanwhile this may be half old, half new: good for this one call.
        if entry.generation == generation:
            entry.fitted = state
        return state

    def fitting(self, entry: Entry, model: object) -> State:
        """Who the model is while it is fitted: without a version, unless the user gave one."""
        told = registration(model)
        state = entry.fitting = self.describe(model, (told and told.version) or self._settings.model_version)
        return state

    def forget(self, model: object) -> None:
        """The model was fitted: look again at it, and at the models that hold it, at their next call."""
        key = id(model)
        for one in (key, *self._containers.get(key, ())):
            entry = self.entries.get(one)
            if entry is not None:
                entry.forget()

    def fitted_now(self, model: object) -> State | None:
        """Who the model is after a fit that has just ended; kept for its next call."""
        entry = self.entries.get(id(model))
        if entry is None or entry.model() is not model:
            return None
        return entry.fitted or self.fitted(entry, model)

    def reset(self, model: object) -> None:
        """The user said something new about the model."""
        entry = self.entries.pop(id(model), None)
        if entry is not None:
            self._hold(id(model), entry, ())

    def tracer(self, state: State, schema: Schema | None) -> Tracer:
        """The tracer whose scope describes this model and these columns; `overflow` when there are too many."""
        tracer = state.tracers.get(schema)
        if tracer is not None:
            return tracer
        scope = dict(state.scope)
        if schema is not None:
            scope[names.ML_FEATURE_NAMES] = schema.names
            scope[names.ML_FEATURE_TYPES] = schema.types
        if state.classes is not None and state.classes.labels:
            scope[names.ML_PREDICTION_CLASSES] = state.classes.labels
        if state.classes is not None and state.classes.names:
            scope[names.ML_PREDICTION_OUTPUTS] = state.classes.names
        key = tuple(scope.items())
        with self._lock:
            tracer = self._tracers.get(key)
            if tracer is None and len(self._tracers) < MAX_SCHEMAS:
                tracer = self._tracers[key] = self._get_tracer(scope)
            if tracer is None:
                warn_once(
                    "emit: schemas",
                    "more than %d model versions and sets of columns: calls of further ones carry no rows. "
                    "Models that are fitted again and again need a version of yours "
                    "(OTEL_INSTRUMENTATION_ML_MODEL_VERSION or instrument_model)",
                    MAX_SCHEMAS,
                )
                if self.overflow is None:
                    self.overflow = self._get_tracer(None)
                return self.overflow
        state.tracers[schema] = tracer
        return tracer

    def _get_tracer(self, scope: dict[str, Any] | None) -> Tracer:
        return trace.get_tracer(SCOPE, mlspan.__version__, self._tracer_provider, names.SCHEMA_URL, scope)

    def describe(self, model: object, version: str | None) -> State:
        """A new state of this model; looks at its class only."""
        told = registration(model)
        name = (told and told.name) or self._settings.model_name or identity.default_name(model)
        scope: dict[str, Any] = {names.ML_MODEL_NAME: name}
        if version is not None:
            scope[names.ML_MODEL_VERSION] = version
        scope[names.ML_MODEL_CLASS] = identity.class_name(model)
        scope[names.ML_MODEL_TASK] = (told and told.task) or identity.task(model)
        library, library_version = identity.framework(model)
        scope[names.ML_FRAMEWORK_NAME] = library
        if library_version is not None:
            scope[names.ML_FRAMEWORK_VERSION] = library_version
        state = State(name, version, scope)
        state.feature_names = None if told is None else told.feature_names
        if self._settings.capture_slow:
            state.latencies = Latencies(self.clock)
        return state

    def _hold(self, key: int, entry: Entry, parts: tuple[int, ...]) -> None:
        """Note what the model is made of now, in place of what it was made of before."""
        with self._holding:
            for part in entry.parts:
                holders = self._containers.get(part)
                if holders is not None:
                    holders.discard(key)
                    if not holders:
                        del self._containers[part]
            entry.parts = parts
            for part in parts:
                self._containers.setdefault(part, set()).add(key)

    def _remover(self, key: int) -> Callable[["weakref.ref[object]"], None]:
        owner = weakref.ref(self)

        def remove(reference: "weakref.ref[object]") -> None:
            models = owner()
            entry = models and models.entries.get(key)
            if models is not None and entry and entry.model is reference:
                del models.entries[key]
                models._hold(key, entry, ())

        return remove


def _remover(table: dict[int, Registration], key: int) -> Callable[["weakref.ref[object]"], None]:
    def remove(reference: "weakref.ref[object]") -> None:
        found = table.get(key)
        if found is not None and found.model is reference:
            del table[key]

    return remove


@guarded("fingerprint", None)
def _fingerprint(model: object) -> str | None:
    return FINGERPRINT_PREFIX + fingerprint(model)


@guarded("classes", None)
def _classes(model: object, task: str, outputs: tuple[str, ...] | None) -> Classes | None:
    return classes_of(model, task, outputs)
