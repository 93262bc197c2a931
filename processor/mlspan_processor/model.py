"""Stage 4, part 4: everything that is known of one model version.

In: blocks of rows with weights and times, joined labels. Out: costs for enrichment, panes of drift and
quality, and windows over them. Owned by the state thread. Memory: at most `max_panes` panes of each kind; a
learner's raw rows while it learns.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_NONE, SCORE_PROBABILITY
from mlspan.profile import Profile
from mlspan_processor.cells import CellCounts, Reference
from mlspan_processor.drift import Drift, Table, measure
from mlspan_processor.label_texts import class_text, class_texts
from mlspan_processor.learning import Learner
from mlspan_processor.outputs import Label, answers_of, outputs_of, truth_of, unpacked_batch
from mlspan_processor.pending import Pending
from mlspan_processor.quality import KINDS
from mlspan_processor.quality.base import MAX_CLASSES, MAX_SCORED_CLASSES
from mlspan_processor.quality.losses import uneven
from mlspan_processor.rows import Block
from mlspan_processor.scopes import Schema
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.window import OPEN_END, Pane, Panes

_VALUES_AT_ONCE: Final = 4_000_000
_UNLABELLED_TASKS: Final = frozenset({"clustering", "transformation", "outlier_detection", "multilabel"})
_MULTILABEL: Final = "multilabel"
_SHOWN: Final = 10
_NANOSECONDS: Final = 1_000_000_000
_KEPT: Final = (
    "task", "declared", "last_seen", "spans", "unknown_weight", "rows", "late", "ahead", "unknown_features",
    "retyped_features",
)  # fmt: skip


class Observed:
    """What a block's rows look like against the reference.

    Attributes:
        sums: (n_rows,) costs of the rows.
        costs: (n_bound_features, n_calls) float32 of each call's first row.
    """

    __slots__ = ("costs", "sums")

    def __init__(self, sums: NDArray[np.float32], costs: NDArray[np.float32]) -> None:
        self.sums = sums
        self.costs = costs


class Model:
    """One model version.

    Attributes:
        name, version, slot: who it is.
        task: as its scope says.
        classes: texts of its classes, then those that only labels had; of a multilabel model its outputs' names.
        declared: how many of them the model itself knows.
        reference: what is normal, or None while it learns.
        given: the profile from a file, or the whole one that was learnt; None until then.
        learner: collects the first rows, or None.
        drift, quality: panes.
        last_seen: nanoseconds since the epoch of the last span's arrival.
        spans, unknown_weight: spans, and those without a sampling weight.
        rows: weighted rows of calls.
        late, ahead: captured rows too old or too far in the future for statistics.
        unknown_features, retyped_features: of the newest schema, against the reference.
    """

    def __init__(self, name: str, version: str, slot: int, settings: MlspanSettings) -> None:
        self.name = name
        self.version = version
        self.slot = slot
        self.task = ""
        self.classes: list[str] = []
        self.declared = 0
        self.reference: Reference | None = None
        self._learn_rows = settings.reference.learn_rows
        self.given: Profile | None = None
        self.learner: Learner | None = Learner(self._learn_rows)
        self.last_seen = 0
        self.spans = self.unknown_weight = self.late = self.ahead = 0
        self.rows = 0.0
        self.unknown_features = self.retyped_features = 0
        self._settings = settings.window
        self._width = int(settings.window.pane * _NANOSECONDS)
        self._index: dict[str, int] = {}
        # Weak: a scope that is no longer seen must not live on here.
        self._maps: WeakKeyDictionary[Schema, NDArray[np.float64]] = WeakKeyDictionary()
        self._kind = ""
        self.drift: Panes[CellCounts] = Panes(self._no_cells, self._width, self._settings.max_panes)
        self.quality: Panes[Any] = Panes(self._no_labels, self._width, self._settings.max_panes)

    @property
    def key(self) -> tuple[str, str]:
        """(name, version)."""
        return self.name, self.version

    @property
    def nbytes(self) -> int:
        """Bytes of panes and learner."""
        return self.drift.nbytes + self.quality.nbytes + (self.learner.nbytes if self.learner else 0)

    def set_reference(self, profile: Profile) -> None:
        """Count against this profile from now on; drift panes of another reference are dropped, quality
        stays."""
        self.given = profile
        self._count_against(profile)
        # A profile of the features alone (from a fit) leaves what the model answers to be learnt.
        self.learner = Learner(self._learn_rows) if profile.prediction is None and not profile.outputs else None

    def set_learnt(self, profile: Profile) -> None:
        """Count against what was learnt; of a profile that was given, only the answers were missing."""
        given = self.given
        if given is not None:
            profile = replace(
                given,
                classes=profile.classes or given.classes,
                prediction=profile.prediction,
                outputs=profile.outputs,
                score=profile.score,
                score_kind=profile.score_kind,
            )
        self.given = given or profile
        before = self.reference if given is not None else None
        panes = list(self.drift)
        self._count_against(profile)
        self.learner = None
        if before is not None and self.reference is not None:
            # The features are the same, and so are the rows that were counted against them.
            kept, n_cells = before.n_input_cells, self.reference.layout.n_cells
            self.drift.restore(Pane(pane.start, pane.end, pane.stats.widened(n_cells, kept)) for pane in panes)

    def _count_against(self, profile: Profile) -> None:
        self.reference = Reference(profile)
        self.drift = Panes(self._no_cells, self._width, self._settings.max_panes)

    def snapshot(self) -> dict[str, Any]:
        """Who it is and its counts, as plain values; not its profiles, panes and learner."""
        return {
            **{name: getattr(self, name) for name in _KEPT},
            "classes": list(self.classes),
            "kind": self._kind,
            "learns": self.learner is not None,
        }

    def restore(self, fields: Mapping[str, Any], given: Profile | None, counted: Profile | None) -> None:
        """Take over from an earlier process.

        Args:
            fields: its `snapshot`.
            given, counted: the profile that it was given, and the one that it counted against; None while it learnt.
        """
        for name in _KEPT:
            setattr(self, name, fields.get(name, getattr(self, name)))
        self.classes = list(fields["classes"])
        self._index = {text: i for i, text in enumerate(self.classes)}
        self._kind = fields["kind"]
        self.given = given
        if counted is not None:
            self._count_against(counted)
        self.learner = Learner(self._learn_rows) if fields["learns"] else None

    def learn(self, block: Block, weights: NDArray[np.float64], used: NDArray[np.bool_]) -> Profile | None:
        """Add rows to the learner; the profile once it has enough."""
        if self.learner is None:
            return None
        self.learner.add(block, weights, used)
        if not self.learner.complete:
            return None
        # Should building fail, learning begins anew: rows must not pile up.
        complete, self.learner = self.learner, Learner(self._learn_rows)
        return complete.build(self.key)

    def observe(
        self,
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
    ) -> Observed | None:
        """Cost every row and count the used ones into their panes; None without a reference.

        Args:
            block: rows.
            weights: (n_rows,) how many rows each stands for.
            times: (n_rows,) nanoseconds since the epoch.
            used: (n_rows,) False for duplicates and rows out of time.
        """
        reference = self.reference
        if reference is None:
            return None
        binding = reference.binding(block.schema)
        self.unknown_features, self.retyped_features = binding.unknown, binding.retyped
        n = block.n_rows
        sums = np.empty(n, np.float32)
        first_costs = []
        step = max(1, _VALUES_AT_ONCE // max(1, len(binding.features)))
        panes = times // self._width
        whole = bool(used.all())
        answers = [extra for extra in reference.answer_cells(block) if extra is not None]
        numeric = [i for i, index in enumerate(binding.features) if reference.features[index].codes is None]
        inputs = np.array([binding.features[i] for i in numeric], np.intp)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            cells = reference.cells(block, rows)
            costs = reference.costs[cells]
            values = block.columns[binding.columns[numeric], rows].view(np.float32)
            reference.add_distances(costs, numeric, inputs, values)
            sums[rows] = costs.sum(axis=0)
            left, right = np.searchsorted(block.firsts, [rows.start, rows.stop])
            every = right - left == rows.stop - rows.start
            first_costs.append(costs if every else costs[:, block.firsts[left:right] - start])
            for pane in np.unique(panes[rows]).tolist():
                chosen = used[rows] & (panes[rows] == pane)
                if not chosen.any():
                    continue
                at = slice(None) if whole and chosen.all() else chosen
                stats = self.drift.at(pane * self._width)
                w = weights[rows][at]
                stats.add_rows(w)
                if len(cells):
                    stats.add_cells(cells[:, at], w)
                    stats.add_moments(inputs, values[:, at], w)
                for extra in answers:
                    stats.add_cells(extra[rows][at], w)
        return Observed(sums, np.concatenate(first_costs, axis=1))

    def answers(self, block: Block) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, int] | None:
        """What a label can be compared with: predictions (n_rows,), scores (n_rows, width) or None, their
        kind. Of a multilabel model predictions are packed (outputs.py).

        None for rows that labels are not for: several numbers, clusters, outliers.
        """
        kind = self._kind_of(block)
        if not kind:
            return None
        self._kind = self._kind or kind
        if kind != self._kind:
            return None
        n = block.n_rows
        if kind == _MULTILABEL:
            self._declare(block.schema.outputs)
            # Another process may call the outputs by other names: its rows are not for the same labels.
            return answers_of(block) if tuple(self.classes) == block.schema.outputs else None
        if kind == "regression":
            return block.predictions[:, 0].astype(np.float64), None, SCORE_NONE
        self._declare(block.schema.classes)
        predictions = np.full(n, np.nan)
        if block.prediction_kind == PREDICTION_CLASS and block.predictions.shape[1] == 1:
            mapped = self._class_map(block.schema)
            flat = block.predictions[:, 0]
            predictions = mapped[np.where((flat >= 0) & (flat < len(mapped) - 1), flat, -1)]
        scores = self._class_scores(block)
        return predictions, scores, block.score_kind if scores is not None else SCORE_NONE

    @property
    def kind(self) -> str:
        """Of its quality: a key of KINDS, "" until the first answer."""
        return self._kind

    def value_of(self, label: Label) -> float | str:
        """A label as class index, number or packed outputs; or why it is none for this model."""
        if self._kind == _MULTILABEL:
            return truth_of(label, self.classes)
        if isinstance(label, tuple):
            return f"label {list(label)[:_SHOWN]} is of several outputs; the model answers with one"
        if self._kind == "regression":
            try:
                value = float(label)
            except ValueError:
                value = np.nan
            return value if np.isfinite(value) else f'label "{label}" is no number'
        if isinstance(label, str) and label in self._index:
            return float(self._index[label])
        for text in class_texts(label):
            if text in self._index:
                return float(self._index[text])
        return float(self._new_class(class_text(label)))

    def predicted(self, times: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Count rows that a label could be for."""
        panes = times // self._width
        for pane in np.unique(panes).tolist():
            self.quality.at(pane * self._width).predicted += float(weights[panes == pane].sum())

    def labelled(self, places: NDArray[np.intp], pending: Pending, part: str = "update") -> None:
        """Add labelled rows to the panes of their predictions' time.

        Args:
            places: (n_rows,) of the rows in the pending ring.
            pending: the ring.
            part: the method of Quality to call: all of a row, or only what came late.
        """
        columns = pending.columns
        panes = columns["time"][places] // self._width
        for pane in np.unique(panes).tolist():
            at = places[panes == pane]
            for kind in np.unique(columns["score_kind"][at]).tolist():
                batch = pending.labelled(at[columns["score_kind"][at] == kind], kind or SCORE_PROBABILITY)
                if self._kind == _MULTILABEL:
                    batch = unpacked_batch(batch, self.declared)
                getattr(self.quality.at(pane * self._width), part)(batch)

    def drift_window(self, start: int | None = None, end: int | None = None) -> tuple[CellCounts, int, int]:
        """Counts of a window, its start and end: the trailing one, or all panes that overlap [start, end)."""
        if start is None and end is None:
            enough = float(self._settings.min_rows)
            return self.drift.trailing(lambda stats: stats.rows >= enough)
        first, last = start or 0, end or OPEN_END
        return self.drift.sum(first, last), first, last

    def quality_window(self, start: int | None = None, end: int | None = None) -> tuple[Any, int, int]:
        """Labelled rows of a window, its start and end, likewise."""
        if start is None and end is None:
            enough = self._settings.min_labels
            return self.quality.trailing(lambda stats: bool(stats.rows >= enough))
        first, last = start or 0, end or OPEN_END
        return self.quality.sum(first, last), first, last

    def measure(self, counts: CellCounts) -> Drift | None:
        """Drift of a window; None without a reference or rows."""
        if self.reference is None or counts.rows <= 0:
            return None
        weights = self.reference.profile.weights
        ratio = weights.total / weights.squares if weights.squares else 1.0
        return measure(Table.of(self.reference.layout, counts.counts, counts.effective_ratio, ratio))

    def _no_cells(self) -> CellCounts:
        assert self.reference is not None
        return CellCounts(self.reference.layout.n_cells, self.reference.n_inputs)

    def _no_labels(self) -> Any:
        return KINDS[self._kind or "classification"](self.declared)

    def _kind_of(self, block: Block) -> str:
        if block.schema.outputs:
            return _MULTILABEL if outputs_of(block) else ""
        if block.schema.task in _UNLABELLED_TASKS or block.predictions.shape[1] > 1:
            return ""
        if block.prediction_kind == PREDICTION_NUMBER:
            return "regression"
        answered = block.prediction_kind == PREDICTION_CLASS or block.scores.shape[1]
        # Without its classes' texts a prediction cannot be compared with a label.
        return "classification" if answered and block.schema.classes else ""

    def _declare(self, classes: tuple[str, ...]) -> None:
        if self.declared or not classes:
            return
        self.classes = list(classes)
        self.declared = len(classes)
        self._index = {text: i for i, text in enumerate(classes)}

    def _new_class(self, text: str) -> int:
        """The index of a class that the model does not know; beyond MAX_CLASSES they share one."""
        if len(self.classes) >= MAX_CLASSES:
            return MAX_CLASSES
        self._index[text] = len(self.classes)
        self.classes.append(text)
        return self._index[text]

    def _class_map(self, schema: Schema) -> NDArray[np.float64]:
        """(n_classes + 1,) the model's class index of each of the schema's; the last for an unknown class."""
        known = self._maps.get(schema)
        if known is None:
            if len(self._maps) >= MAX_CLASSES:
                self._maps.clear()
            indices = []
            for text in schema.classes:
                index = self._index.get(text)
                indices.append(self._new_class(text) if index is None else index)
            known = self._maps[schema] = np.minimum(np.array([*indices, MAX_CLASSES], np.float64), MAX_CLASSES)
        return known

    def _class_scores(self, block: Block) -> NDArray[np.float32] | None:
        """Scores in the order of the model's own classes; width 1 for two classes; None where they do not
        fit."""
        width = block.scores.shape[1]
        classes = block.schema.classes
        if not width or self.declared > MAX_SCORED_CLASSES or set(classes) != set(self.classes[: self.declared]):
            return None
        if self.declared == 2:
            last = classes.index(self.classes[1])
            if width == 2:
                own = block.scores[:, last : last + 1]
                # The other column goes: pairs that are no probabilities go with it.
                bad = uneven(block.scores) if block.score_kind == SCORE_PROBABILITY else np.zeros(len(own), bool)
                return np.where(bad[:, None], np.float32(np.nan), own) if bad.any() else own
            return block.scores if width == 1 and last == 1 else None
        if width != self.declared:
            return None
        return block.scores[:, [classes.index(text) for text in self.classes[: self.declared]]]
