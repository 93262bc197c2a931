"""Stage 6, in order: what goes out at every flush: judgement, the events of incidents, metrics.

In: the state, at a tick of its thread. Out: chunks: log records and spans of incidents, then metrics. A failure in one
model version's figures costs these only, one in judgement the events of this tick.
"""

from typing import TYPE_CHECKING, Final

from mlspan.semconv import metrics as semconv
from mlspan_processor.events import Event, chunks_of
from mlspan_processor.judged_metrics import add_incidents, add_versions, add_watch
from mlspan_processor.metrics import LABEL_STATE, Points, add_instruments, add_model, own_version
from mlspan_processor.records import Chunk

if TYPE_CHECKING:
    from mlspan_processor.state import State

_VERSION: Final = own_version()


def flush(state: "State", now: int) -> list[Chunk]:
    """Judge, and write down this interval."""
    for name, total in state.labels.counts.items():
        state.instruments.count(semconv.ML_FEEDBACK_LABELS.name, ((LABEL_STATE, name),)).value = total
    events: list[Event] = []
    try:
        events = state.judge.tick(state.models, state.instruments, now)
    except Exception as error:  # noqa: BLE001 metrics go out without judgement
        _failed(state, "judge", "nothing was judged", error)
    points = Points(state.started, now, _VERSION)
    add_instruments(points, state.instruments)
    skipped = 0
    most = state.settings.max_features
    for model in state.models.values():
        try:
            skipped += add_model(points, model, most)
            watch = state.judge.watch(model.key)
            if watch is not None:
                add_watch(points, model, watch, most)
                add_versions(points, model, state.models.values())
        except Exception as error:  # noqa: BLE001 one model's figures must not cost the others theirs
            _failed(state, "flush", f"no metrics of {model.key}", error)
    state.counters["unpublished_features"] = skipped
    try:
        add_incidents(points, state.judge)
    except Exception as error:  # noqa: BLE001 the other metrics go out without
        _failed(state, "incidents", "no metrics of incidents", error)
    state.instruments.end_interval()
    return [*chunks_of(events, now, _VERSION), *points.chunks()]


def _failed(state: "State", kind: str, message: str, error: Exception) -> None:
    state.counters["failed_blocks"] += 1
    state.warn_once(f"{kind}:{type(error).__name__}", message, error)
