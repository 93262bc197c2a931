"""Stages 2 to 5 in order: what happens to a batch of requests. Everything that is remembered is reachable
from here.

In: parsed requests, labels, the time. Out: the same requests enriched in place, metrics, reports. Owned by
one thread, needs no lock, knows no clock. A failure inside a block of rows costs that block's statistics
only: it is logged once a kind and counted, and its spans still go on, without payload.
"""

import logging
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS
from mlspan.semconv import attributes as names
from mlspan.semconv import metrics as semconv
from mlspan_processor import enrich, report, rows
from mlspan_processor.decode import PAYLOAD, Calls, Decoder, Feedback
from mlspan_processor.duplicates import RecentSpans, span_keys
from mlspan_processor.identity import id_keys, row_keys
from mlspan_processor.instruments import MAX_CLASSES, OVERFLOW, Attributes, Exemplar, Instruments
from mlspan_processor.labels import Join, Label, LabelReceipt, Labels, Resolver
from mlspan_processor.lean import Request
from mlspan_processor.metrics import LABEL_STATE, Points, add_instruments, add_model
from mlspan_processor.model import Model
from mlspan_processor.pending import Predictions
from mlspan_processor.records import Chunk
from mlspan_processor.reference import ReferenceBook
from mlspan_processor.rows import Block
from mlspan_processor.settings import MlspanSettings

AHEAD_SECONDS: Final = 600.0
"""How far in the future a span may end and still count: clocks differ."""
LEARNING_BYTES: Final = 512 * 1024 * 1024
"""Raw rows of all models that are learning; beyond it, models learn later."""
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
            Resolver(lambda slot: self._slots[slot].name, lambda slot, label: self._slots[slot].value_of(label)),
            settings.labels.capacity,
            int(settings.window.retention * _SECOND),
            settings.labels.waiting_capacity,
            int(settings.labels.wait * _SECOND),
        )
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
        self._decoder = Decoder()
        self._slots: dict[int, Model] = {}
        self._next_slot = 0
        self._warned: set[str] = set()
        self._version = _version()

    # --- spans
    # ---------------------------------------------------------------------------------------------------

    def process(self, requests: Sequence[tuple[Request, bool]], now: int) -> None:
        """Count and enrich the spans of parsed requests (each with whether it mentions feedback), in
        place."""
        calls = Calls()
        for request, has_feedback in requests:
            self._decoder.collect(request, calls, has_feedback)
        if len(calls):
            self._spans(calls, now)
        self.counters["feedback_unreadable"] += calls.unreadable_feedback
        if calls.feedback:
            self.feedback(calls.feedback, now)

    def feedback(self, feedback: Sequence[Feedback], now: int) -> LabelReceipt:
        """Take labels that came as spans or log records."""
        return self.submit([Label(one.prediction_id, one.label, one.model_name or None) for one in feedback], now)

    def submit(self, labels: Sequence[Label], now: int) -> LabelReceipt:
        """Take labels."""
        receipt, joins = self.labels.label(labels, now)
        for join in joins:
            self._joined(join)
        return receipt

    def _spans(self, calls: Calls, now: int) -> None:
        batch = _Batch(calls, self.recent, now)
        self.counters["spans"] += len(calls)
        self.counters["duplicate_spans"] += len(calls) - int(batch.fresh.sum())
        self._durations(batch)
        blocks, damaged, empty = rows.read(calls)
        self.counters["damaged_payloads"] += len(damaged)
        self._bare(batch, empty)
        for call in (*damaged, *empty):
            _drop_payload(calls, call, self.settings.keep_payload)
        for block in blocks:
            try:
                self._block(batch, block)
            except Exception as error:  # noqa: BLE001 whatever a block does, its spans go on
                self.counters["failed_blocks"] += 1
                self.warn_once(f"block:{type(error).__name__}", "a block of rows was left out of statistics", error)
                for call in block.call[block.firsts].tolist():
                    _drop_payload(calls, call, self.settings.keep_payload)

    def _block(self, batch: "_Batch", block: Block) -> None:
        calls = batch.calls
        model = self._model(block.schema.model or ("", ""), block.schema.task, batch.now)
        weights = batch.weights[block.call] * block.stands_for
        times = batch.ends[block.call]
        fresh = batch.fresh[block.call]
        observed = None
        if model is None:
            self._count_answers(block, weights * fresh, None)
        else:
            late = fresh & (times < batch.now - int(self.settings.window.retention * _SECOND))
            ahead = fresh & (times > batch.now + int(AHEAD_SECONDS * _SECOND))
            used = fresh & ~late & ~ahead
            for name, mask in (("late", late), ("ahead", ahead)):
                count = int(mask.sum())
                setattr(model, name, getattr(model, name) + count)
                self.counters["late_rows" if name == "late" else "rows_ahead_of_time"] += count
            model.rows += float(weights[fresh].sum())
            self._count_answers(block, weights * fresh, model)
            observed = model.observe(block, weights, times, used)
            if observed is None:
                self._learn(model, block, weights, used)
            self._remember(model, batch, block, weights, times, used)
        self._enrich(calls, block, model, observed, batch)

    def _learn(self, model: Model, block: Block, weights: NDArray[np.float64], used: NDArray[np.bool_]) -> None:
        learning = sum(one.learner.nbytes for one in self.models.values() if one.learner is not None)
        if learning > LEARNING_BYTES:
            self.counters["learning_refused_rows"] += int(used.sum())
            return
        profile = model.learn(block, weights, used)
        if profile is not None:
            model.set_reference(profile)
            self.book.save(profile)

    def _remember(
        self,
        model: Model,
        batch: "_Batch",
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
    ) -> None:
        """Keep the rows for their labels."""
        answers = model.answers(block)
        if answers is None or not used.any():
            return
        predictions, scores, kind = answers
        at = np.flatnonzero(used)
        traces, spans = batch.traces[block.call[at]], batch.span_numbers[block.call[at]]
        keys = row_keys(traces, spans, block.number[at])
        named = np.zeros(len(at), bool)
        ids = block.ids
        if batch.calls.ids and not ids and block.n_rows == len(block.firsts):
            mine = {call: row for row, call in enumerate(block.call.tolist()) if call in batch.calls.ids}
            ids = {row: batch.calls.ids[call] for call, row in mine.items()}
        if ids:
            position = {row: i for i, row in enumerate(at.tolist())}
            chosen = [(position[row], text) for row, text in ids.items() if row in position]
            where = [i for i, _ in chosen]
            keys[where] = id_keys([text for _, text in chosen])
            named[where] = True
        remembered = Predictions(
            model.slot,
            keys,
            named,
            times[at],
            predictions[at],
            None if scores is None else scores[at],
            kind,
            weights[at],
            traces,
            spans,
        )
        new, joins, late_predictions, late_scores = self.labels.predict(remembered, batch.now)
        model.predicted(times[at[new]], weights[at[new]])
        for join in joins:
            self._joined(join)
        for join, part in ((late_predictions, "update_predictions"), (late_scores, "update_scores")):
            if len(join.places):
                model.labelled(join.places, self.labels.pending, part)

    def _joined(self, join: Join) -> None:
        """Rows that have found their label: into the quality panes, and counted as right or wrong."""
        model = self._slots[join.slot]
        pending = self.labels.pending
        model.labelled(join.places, pending)
        columns = pending.columns
        predictions, labels = columns["prediction"][join.places], columns["label"][join.places]
        if not model.classes:
            return
        known = ~np.isnan(predictions)
        right = predictions == labels
        for outcome, mask in (("correct", known & right), ("incorrect", known & ~right)):
            places = join.places[mask]
            if not len(places):
                continue
            count = self.instruments.count(
                semconv.ML_QUALITY_OUTCOMES.name,
                (*_who(model.key), (names.ML_QUALITY_OUTCOME, outcome)),
            )
            count.value += float(columns["weight"][places].sum())
            place = int(places[-1])
            trace = b"".join(int(columns[half][place]).to_bytes(8, "little") for half in ("trace_0", "trace_1"))
            span = int(columns["span"][place]).to_bytes(8, "little")
            count.exemplar = Exemplar(1.0, int(columns["time"][place]), trace, span)

    def _enrich(
        self,
        calls: Calls,
        block: Block,
        model: Model | None,
        observed: Any,
        batch: "_Batch",
    ) -> None:
        """Put summary and anomaly score in the payload's place."""
        keep = self.settings.keep_payload
        reference = model.reference if model is not None and observed is not None else None
        costs = observed.costs if observed is not None else None
        order = block.call[block.firsts].tolist()
        texts = enrich.summaries(block, reference, costs) if self.settings.summary else None
        extras: list[tuple[bytes, ...]] | None = None
        if model is not None and reference is not None and reference.profile.anomaly is not None:
            scores = enrich.anomaly_scores(reference.profile.anomaly, observed.sums, block.firsts)
            flags = scores >= self.settings.anomaly.threshold
            plain = enrich.FLAG[False]
            extras = [(score, plain) for score in enrich.score_attributes(scores)]
            for i in np.flatnonzero(flags).tolist():
                most = _most_unusual(block, observed.sums, i)
                top = enrich.features_attribute(
                    reference, reference.binding(block.schema).features, _costs_of(reference, block, most)
                )
                extras[i] = (extras[i][0], enrich.FLAG[True], top)
            self._anomalies(model, batch, block, scores, flags)
        positions = calls.positions
        spans = calls.spans
        for i, call in enumerate(order):
            attributes = spans[call].attributes
            if texts is None:
                if not keep:
                    del attributes[positions.get(call, -1)]
            elif keep:
                attributes.append(texts[i])
            else:
                attributes[positions.get(call, -1) if positions else -1] = texts[i]
            if extras is not None:
                attributes.extend(extras[i])

    def _anomalies(
        self,
        model: Model,
        batch: "_Batch",
        block: Block,
        scores: NDArray[np.float64],
        flags: NDArray[np.bool_],
    ) -> None:
        flagged = block.call[block.firsts[flags]]
        flagged = flagged[batch.fresh[flagged]]
        if len(flagged):
            count = self.instruments.count(semconv.ML_ANOMALY_COUNT.name, _who(model.key))
            count.value += float(batch.weights[flagged].sum())
            call = int(flagged[-1])
            score = float(scores[np.flatnonzero(block.call[block.firsts] == call)[0]])
            count.exemplar = Exemplar(
                score, int(batch.ends[call]), batch.calls.trace_ids[call], batch.calls.span_ids[call]
            )

    # --- counts
    # --------------------------------------------------------------------------------------------------

    def _durations(self, batch: "_Batch") -> None:
        calls = batch.calls
        kinds: list[Attributes] = []
        kind_of = np.array(calls.kind_of, np.intp)
        unknown = ~batch.known_weight
        for index, (schema, operation, error) in enumerate(calls.kinds):
            key = schema.model or ("", "")
            mine = batch.fresh & (kind_of == index)
            model = self._model(key, schema.task, batch.now)
            if model is None:
                kinds.append(OVERFLOW)
                self.counters["model_overflow_spans"] += int(mine.sum())
                continue
            model.spans += int(mine.sum())
            model.unknown_weight += int((mine & unknown).sum())
            kinds.append(_call_attributes(key, operation, error))
        at = np.flatnonzero(batch.fresh)
        seconds = np.maximum(batch.ends[at] - batch.starts[at], 0) / _SECOND
        self.instruments.observe_durations(
            kinds,
            kind_of[at],
            seconds,
            batch.weights[at],
            batch.ends[at],
            [calls.trace_ids[i] for i in at.tolist()] if len(at) < len(calls) else calls.trace_ids,
            [calls.span_ids[i] for i in at.tolist()] if len(at) < len(calls) else calls.span_ids,
        )

    def _bare(self, batch: "_Batch", empty: dict[int, int]) -> None:
        """Count the answers of calls without captured rows."""
        calls = batch.calls
        bare = {**calls.bare, **{call: (count, "") for call, count in empty.items()}}
        for call, (count, text) in bare.items():
            if not batch.fresh[call] or not count:
                continue
            schema, _, error = calls.kinds[calls.kind_of[call]]
            key = schema.model or ("", "")
            model = self.models.get(key)
            weight = count * float(batch.weights[call])
            if not error:
                self._add_answers(key if model else None, text, weight)
            if model:
                model.rows += weight

    def _count_answers(self, block: Block, weights: NDArray[np.float64], model: Model | None) -> None:
        """ml.prediction.count by class."""
        key = model.key if model is not None else None
        if block.prediction_kind != PREDICTION_CLASS or block.predictions.shape[1] != 1:
            self._add_answers(key, "", float(weights.sum()))
            return
        classes = block.schema.classes
        flat = block.predictions[:, 0]
        inside = np.where((flat >= 0) & (flat < len(classes)), flat, len(classes))
        counts = np.bincount(inside, weights, len(classes) + 1)
        for index in np.flatnonzero(counts).tolist():
            text = classes[index] if index < min(len(classes), MAX_CLASSES) else names_other(index, classes)
            self._add_answers(key, text, float(counts[index]))

    def _add_answers(self, key: tuple[str, str] | None, text: str, weight: float) -> None:
        attributes: Attributes = OVERFLOW
        if key is not None:
            attributes = (*_who(key), (names.ML_PREDICTION_CLASS, text)) if text else _who(key)
        self.instruments.count(semconv.ML_PREDICTION_COUNT.name, attributes).value += weight

    def _model(self, key: tuple[str, str], task: str, now: int) -> Model | None:
        """The model version, new or known; None beyond the limit."""
        model = self.models.get(key)
        if model is None:
            if len(self.models) >= self.settings.max_models:
                return None
            model = Model(key[0], key[1], self._next_slot, self.settings)
            self._next_slot += 1
            self.models[key] = self._slots[model.slot] = model
            profile = self.book.find(*key)
            if profile is not None:
                model.set_reference(profile)
        model.task = model.task or task
        model.last_seen = now
        return model

    # --- time
    # ----------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """What is due now and then: references from files, retention, idle models, the bound on panes."""
        if self.book.rescan():
            for model in self.models.values():
                profile = self.book.find(*model.key)
                if profile is not None and (model.reference is None or model.reference.profile is not profile):
                    model.set_reference(profile)
        self.labels.expire(now)
        before = now - int(self.settings.window.retention * _SECOND)
        idle = now - int(self.settings.window.idle * _SECOND)
        for model in list(self.models.values()):
            model.drift.expire(before)
            model.quality.expire(before)
            if model.last_seen < idle:
                self._forget(model)
        self._bound_panes()

    def flush(self, now: int) -> list[Chunk]:
        """The metrics of this interval."""
        for state, total in self.labels.counts.items():
            self.instruments.count(semconv.ML_FEEDBACK_LABELS.name, ((LABEL_STATE, state),)).value = total
        points = Points(self.started, now, self._version)
        add_instruments(points, self.instruments)
        skipped = 0
        for model in self.models.values():
            try:
                skipped += add_model(points, model, self.settings.max_features)
            except Exception as error:  # noqa: BLE001 one model's figures must not cost the others theirs
                self.counters["failed_blocks"] += 1
                self.warn_once(f"flush:{type(error).__name__}", f"no metrics of {model.key}", error)
        self.counters["unpublished_features"] = skipped
        self.instruments.end_interval()
        return points.chunks()

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
        return report.report(max(found, key=lambda model: model.last_seen), start, end)

    def status(self) -> dict[str, Any]:
        """All models and counters."""
        return {
            "models": [report.status(model) for model in self.models.values()],
            "labels": {
                **self.labels.counts,
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
        self.instruments.forget(_who(model.key))

    def _bound_panes(self) -> None:
        sizes = {key: model.drift.nbytes + model.quality.nbytes for key, model in self.models.items()}
        total = sum(sizes.values())
        for key in sorted(sizes, key=lambda one: -sizes[one]):
            if total <= self.settings.window.max_bytes:
                break
            model = self.models[key]
            model.drift.coarsen(len(model.drift) // 2)
            model.quality.coarsen(len(model.quality) // 2)
            total += model.drift.nbytes + model.quality.nbytes - sizes[key]


class _Batch:
    """A Calls with what is known of its spans as arrays."""

    def __init__(self, calls: Calls, recent: RecentSpans, now: int) -> None:
        n = len(calls)
        self.calls = calls
        self.now = now
        self.starts = np.array(calls.starts, np.uint64).astype(np.int64)
        self.ends = np.array(calls.ends, np.uint64).astype(np.int64)
        self.weights = np.ones(n)
        self.known_weight = np.zeros(n, bool)
        if calls.weights:
            at = list(calls.weights)
            self.weights[at] = list(calls.weights.values())
            self.known_weight[at] = True
        self.traces, self.span_numbers = span_keys(calls.trace_ids, calls.span_ids)
        self.fresh = recent.fresh(self.traces[:, 1] ^ self.span_numbers)


def names_other(index: int, classes: tuple[str, ...]) -> str:
    """The class text of predictions beyond the first MAX_CLASSES classes, or of none of them."""
    return "" if index >= len(classes) else "_OTHER"


def _who(key: tuple[str, str]) -> Attributes:
    return (names.ML_MODEL_NAME, key[0]), (names.ML_MODEL_VERSION, key[1])


def _call_attributes(key: tuple[str, str], operation: str, error: str) -> Attributes:
    attributes: Attributes = (*_who(key), (names.ML_OPERATION_NAME, operation))
    return (*attributes, (names.ERROR_TYPE, error)) if error else attributes


def _most_unusual(block: Block, sums: NDArray[np.float32], call: int) -> int:
    """The row of a call (by its place in `firsts`) that costs most."""
    start = int(block.firsts[call])
    end = int(block.firsts[call + 1]) if call + 1 < len(block.firsts) else block.n_rows
    return start + int(sums[start:end].argmax())


def _costs_of(reference: Any, block: Block, row: int) -> NDArray[np.float32]:
    costs: NDArray[np.float32] = reference.costs[reference.cells(block, slice(row, row + 1))[:, 0]]
    return costs


def _drop_payload(calls: Calls, call: int, keep: bool) -> None:
    """Take a payload that could not be used off its span."""
    if not keep:
        attributes = calls.spans[call].attributes
        kept = [raw for raw in attributes if not raw.startswith(PAYLOAD)]
        del attributes[:]
        attributes.extend(kept)


def _version() -> str:
    try:
        return version("mlspan")
    except PackageNotFoundError:  # run from a source tree
        return "0"
