"""Stages 2 to 5 in order: what happens to a batch of requests. Everything that is remembered is reachable
from here.

In: parsed requests, labels, the time. Out: the same requests enriched in place, metrics, reports. Owned by
one thread, needs no lock, knows no clock. A failure inside a block of rows costs that block's statistics
only: it is logged once a kind and counted, and its spans still go on, without payload.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor import report, rows
from mlspan_processor.annotate import Options, annotate, drop_payload, drop_payloads
from mlspan_processor.batch import (
    Batch,
    add_answers,
    call_attributes,
    count_answers,
    count_durations,
    model_attributes,
)
from mlspan_processor.decode import Calls, Decoder, Feedback
from mlspan_processor.duplicates import RecentSpans, recent_keys
from mlspan_processor.flush import flush
from mlspan_processor.instruments import OVERFLOW, Attributes, Instruments
from mlspan_processor.judge import Judge
from mlspan_processor.judged_report import judged
from mlspan_processor.labels import Join, Label, LabelReceipt, Labels, Resolver
from mlspan_processor.lean import Request
from mlspan_processor.model import Model
from mlspan_processor.monitors.versions import compared
from mlspan_processor.outcomes import count_flagged, count_outcomes
from mlspan_processor.records import Chunk
from mlspan_processor.reference import ReferenceBook
from mlspan_processor.remember import predictions_of
from mlspan_processor.rows import Block
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store import Sections
from mlspan_processor.window import bound_panes

AHEAD_SECONDS: Final = 600.0
"""How far in the future a span may end and still count: clocks differ."""
LEARNING_BYTES: Final = 512 * 1024 * 1024
"""Raw rows of all models that are learning; beyond it, models learn later."""
PREDICTING: Final = frozenset(
    {"predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "fit_predict"}
)
"""Operations whose rows are predictions; those of fit or transform are not."""
_SECOND: Final = 1_000_000_000
_log = logging.getLogger(__name__)


class State:
    """All model versions and what is remembered of recent spans."""

    def __init__(self, settings: MlspanSettings, now: int) -> None:
        self.settings = settings
        self.started = now
        self.models: dict[tuple[str, str], Model] = {}
        self.instruments = Instruments()
        self.book = ReferenceBook(settings.reference.path, settings.reference.save_dir)
        self.book.rescan()
        self.recent = RecentSpans()
        self.labels = Labels(
            Resolver(
                lambda slot: self._slots[slot].name,
                lambda slot, label: self._slots[slot].value_of(label),
                lambda traces, spans: self.recent.seen(recent_keys(traces, spans)),
            ),
            settings.labels.capacity,
            int(settings.window.retention * _SECOND),
            settings.labels.waiting_capacity,
            int(settings.labels.wait * _SECOND),
        )
        self.labels.pending.name_segments([*settings.segments.features, *settings.segments.resource])
        self.counters: dict[str, int | float] = dict.fromkeys(
            (
                "spans",
                "duplicate_spans",
                "damaged_payloads",
                "late_rows",
                "rows_ahead_of_time",
                "feedback_unreadable",
                "model_overflow_spans",
                "failed_blocks",
                "learning_refused_rows",
                "unpublished_features",
            ),
            0,
        )
        self.sections = Sections()
        self.save: Callable[[int], bool] = lambda _: False
        """Write everything that has changed to disk at this time, now; False where that failed or nothing is kept."""
        # `save` is set later.
        self.judge = Judge(settings, self.sections, lambda at: self.save(at), self.book.sample)  # noqa: PLW0108
        self._decoder = Decoder()
        self._slots: dict[int, Model] = {}
        self._next_slot = 0
        self._warned: set[str] = set()
        self._options = Options(settings.keep_payload, settings.summary, settings.anomaly.threshold)

    # --- spans
    # ---------------------------------------------------------------------------------------------------

    def process(self, requests: Sequence[tuple[Request, bool]], now: int) -> None:
        """Count and enrich the spans of parsed requests (each with whether it mentions feedback), in
        place."""
        calls = Calls()
        try:
            for request, has_feedback in requests:
                self._decoder.collect(request, calls, has_feedback)
        except Exception as error:  # noqa: BLE001 one request's spans must not cost the others theirs
            if len(requests) > 1:
                for one in requests:
                    self.process([one], now)
                return
            self.counters["failed_blocks"] += 1
            self.warn_once(f"decode:{type(error).__name__}", "a request was left out of statistics", error)
            if not self.settings.keep_payload:
                drop_payloads(requests[0][0])
            return
        if len(calls):
            try:
                self._spans(calls, now)
            except Exception as error:  # noqa: BLE001 whatever happens, spans go on, and without payload
                self.counters["failed_blocks"] += 1
                self.warn_once(f"spans:{type(error).__name__}", "a batch was left out of statistics", error)
                self._drop_payloads(calls, range(len(calls)))
        self.counters["feedback_unreadable"] += calls.unreadable_feedback
        if calls.feedback:
            try:
                self.feedback(calls.feedback, now)
            except Exception as error:  # noqa: BLE001 the spans that carried them go on
                self.counters["failed_blocks"] += 1
                self.warn_once(f"feedback:{type(error).__name__}", "labels were left out", error)

    def feedback(self, feedback: Sequence[Feedback], now: int) -> LabelReceipt:
        """Take labels that came as spans or log records."""
        return self.submit([Label(one.prediction_id, one.label, one.model_name or None) for one in feedback], now)

    def submit(self, labels: Sequence[Label], now: int) -> LabelReceipt:
        """Take labels."""
        receipt, joins = self.labels.label(labels, now)
        for join in joins:
            self._joined(join, now)
        return receipt

    def _spans(self, calls: Calls, now: int) -> None:
        batch = Batch(calls, self.recent, now)
        self.counters["spans"] += len(calls)
        self.counters["duplicate_spans"] += len(calls) - int(batch.fresh.sum())
        count_durations(batch, self._seen(batch), self.instruments)
        blocks, damaged, empty = rows.read(calls)
        self.counters["damaged_payloads"] += len(damaged)
        self._bare(batch, {**calls.bare, **{call: (count, "") for call, count in empty.items()}})
        self._drop_payloads(calls, (*damaged, *empty))
        for block in blocks:
            try:
                self._block(batch, block)
            except Exception as error:  # noqa: BLE001 whatever a block does, its spans go on
                self.counters["failed_blocks"] += 1
                self.warn_once(f"block:{type(error).__name__}", "a block of rows was left out of statistics", error)
                self._drop_payloads(calls, block.call[block.firsts].tolist())

    def _drop_payloads(self, calls: Calls, which: Iterable[int]) -> None:
        """Take payloads that could not be used off their spans."""
        if not self.settings.keep_payload:
            for call in which:
                drop_payload(calls, call)

    def _seen(self, batch: Batch) -> list[Attributes]:
        """Note the calls at their models; the attributes that each kind of call is counted by."""
        kinds: list[Attributes] = []
        for index, (schema, operation, error) in enumerate(batch.calls.kinds):
            mine = batch.fresh & (batch.kind_of == index)
            key = schema.model or ("", "")
            predicts = operation in PREDICTING
            model = self._model(key, schema.task, batch.now) if predicts else self.models.get(key)
            if model is not None:
                model.spans += int(mine.sum())
                model.unknown_weight += int((mine & ~batch.known_weight).sum())
                kinds.append(call_attributes(model_attributes(key), operation, error))
            elif predicts:
                self.counters["model_overflow_spans"] += int(mine.sum())
                kinds.append(OVERFLOW)
            else:
                # Each fit of a search is a version of its own, which may never predict: its name is enough.
                kinds.append(call_attributes(model_attributes(key)[:1], operation, error))
        return kinds

    def _bare(self, batch: Batch, bare: dict[int, tuple[int, str]]) -> None:
        """Count the answers of calls without captured rows: (rows, predicted class) by call."""
        calls = batch.calls
        for call, (count, text) in bare.items():
            schema, operation, error = calls.kinds[calls.kind_of[call]]
            if not batch.fresh[call] or not count or error or operation not in PREDICTING:
                continue
            model = self.models.get(schema.model or ("", ""))
            weight = count * float(batch.weights[call])
            add_answers(model.key if model else None, text, weight, self.instruments)
            if model:
                model.rows += weight

    def _block(self, batch: Batch, block: Block) -> None:
        model = self.models.get(block.schema.model or ("", ""))
        weights = batch.weights[block.call] * block.stands_for
        fresh = batch.fresh[block.call]
        count_answers(block, weights * fresh, model.key if model else None, self.instruments)
        observed = None
        if model is not None:
            times = batch.ends[block.call]
            late = fresh & (times < batch.now - int(self.settings.window.retention * _SECOND))
            ahead = fresh & (times > batch.now + int(AHEAD_SECONDS * _SECOND))
            used = fresh & ~late & ~ahead
            model.late += int(late.sum())
            model.ahead += int(ahead.sum())
            self.counters["late_rows"] += int(late.sum())
            self.counters["rows_ahead_of_time"] += int(ahead.sum())
            model.rows += float(weights[fresh].sum())
            observed = model.observe(block, weights, times, used)
            if model.learner is not None:
                self._learn(model, block, weights, used)
            self._remember(model, batch, block, weights, times, used)
        reference = model.reference if model is not None else None
        judged = annotate(batch.calls, block, reference, observed, self._options)
        if model is not None and judged is not None:
            count_flagged(model, batch, block, judged, self.instruments)

    def _learn(self, model: Model, block: Block, weights: NDArray[np.float64], used: NDArray[np.bool_]) -> None:
        learning = sum(one.learner.nbytes for one in self.models.values() if one.learner is not None)
        if learning > LEARNING_BYTES:
            self.counters["learning_refused_rows"] += int(used.sum())
            return
        profile = model.learn(block, weights, used)
        if profile is not None:
            is_whole = model.given is None
            model.set_learnt(profile)
            if is_whole:
                self.book.save(profile)

    def _remember(
        self,
        model: Model,
        batch: Batch,
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
    ) -> None:
        """Keep the rows for their labels; those whose labels are here already join."""
        predictions = predictions_of(model, batch, block, weights, times, used)
        self.judge.rows(model, block, weights, times, used, predictions)
        if predictions is None:
            return
        found = self.labels.predict(predictions, batch.now)
        at = np.flatnonzero(used)[found.new]
        self.judge.placed(model, batch.calls, block, at, found.places, self.labels.pending)
        model.predicted(predictions.times[found.new], predictions.weights[found.new])
        for join in found.joins:
            self._joined(join, batch.now)
        for places, part in (
            (found.late_predictions, "update_predictions"),
            (found.late_scores, "update_scores"),
        ):
            if len(places):
                model.labelled(places, self.labels.pending, part)

    def _joined(self, join: Join, now: int) -> None:
        """Rows that have found their label: into the quality panes, and counted as right or wrong."""
        model = self._slots[join.slot]
        pending = self.labels.pending
        model.labelled(join.places, pending)
        count_outcomes(model, join.places, pending, self.instruments)
        self.judge.labels(model, join.places, pending, now)

    # --- counts
    # --------------------------------------------------------------------------------------------------

    def _model(self, key: tuple[str, str], task: str, now: int) -> Model | None:
        """The model version, new or known; None beyond the limit."""
        model = self.models.get(key)
        if model is None:
            if len(self.models) >= self.settings.max_models:
                return None
            model = Model(key[0], key[1], self._next_slot, self.settings)
            self._next_slot += 1
            self.models[key] = self._slots[model.slot] = model
            # Its reference may have been written a moment ago, by the fit that made it.
            self._reread()
            profile = self.book.find(*key)
            if profile is not None:
                model.set_reference(profile)
        model.task = model.task or task
        model.last_seen = now
        return model

    def _reread(self) -> None:
        """Take over references from files that have appeared or changed."""
        if self.book.rescan():
            for model in self.models.values():
                profile = self.book.find(*model.key)
                if profile is not None and model.given is not profile:
                    model.set_reference(profile)

    @property
    def next_slot(self) -> int:
        """The number of the next model version; none is given twice."""
        return self._next_slot

    def adopt(self, models: Iterable[Model], next_slot: int) -> None:
        """Take over the model versions of an earlier process, as many as there may be."""
        for model in models:
            if len(self.models) < self.settings.max_models:
                self.models[model.key] = self._slots[model.slot] = model
        self._next_slot = max([next_slot, *(slot + 1 for slot in self._slots)])

    # --- time
    # ----------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """What is due now and then: references from files, retention, idle models, the bound on panes."""
        self._reread()
        self.labels.expire(now)
        before = now - int(self.settings.window.retention * _SECOND)
        idle = now - int(self.settings.window.idle * _SECOND)
        for model in list(self.models.values()):
            model.drift.expire(before)
            model.quality.expire(before)
            if max(model.last_seen, self.started) < idle:  # the time that the processor was away does not count
                self._forget(model)
        bound_panes(list(self.models.values()), self.settings.window.max_bytes)

    def flush(self, now: int) -> list[Chunk]:
        """What is to be told of incidents, and the metrics of this interval."""
        return flush(self, now)

    def report(self, name: str, model_version: str | None, start: int | None, end: int | None) -> dict[str, Any]:
        """A model version's report; of the one seen last when no version is given.

        Raises:
            KeyError: no such model.
        """
        found = [
            model for model in self.models.values() if model.name == name and model_version in (None, model.version)
        ]
        if not found:
            raise KeyError(name)
        model = max(found, key=lambda one: (one.last_seen, one.rows))
        return {
            **report.report(model, start, end),
            "judged": judged(model, self.judge.watch(model.key)),
            "versions": compared(model, self.models.values()),
            "incidents": self.judge.report(model.key),
        }

    def status(self) -> dict[str, Any]:
        """All models and counters."""
        return {
            "models": [report.status(model) for model in self.models.values()],
            "incidents": self.judge.report(),
            "labels": {
                **self.labels.all_counts,
                "pending_predictions": self.labels.pending.size,
                "waiting_now": self.labels.waiting,
            },
            "counters": dict(self.all_counters()),
        }

    def all_counters(self) -> dict[str, int | float]:
        """Every counter by name."""
        pending = self.labels.pending
        return {
            **self.counters,
            **self.judge.counters,
            **self.judge.notifier.counters(),
            "models": len(self.models),
            "predictions_evicted": pending.evicted,
            "prediction_ids_repeated": pending.repeated,
            "unreadable_profiles": self.book.unreadable,
            **{f"labels_{state}": count for state, count in self.labels.counts.items()},
        }

    def warn_once(self, kind: str, message: str, error: BaseException) -> None:
        """Log a failure the first time that one of its kind happens."""
        if kind not in self._warned and len(self._warned) < 1000:
            self._warned.add(kind)
            _log.error("%s: %s: %s", message, type(error).__name__, error, exc_info=error)

    def _forget(self, model: Model) -> None:
        del self.models[model.key]
        del self._slots[model.slot]
        self.labels.pending.forget(model.slot)
        self.judge.forget(model)
        self.instruments.forget(model_attributes(model.key))
