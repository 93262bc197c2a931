"""Stage 4, part 3: rows into a reference's cells, and what a drift pane keeps of them.

In: a Block of rows and the Reference of its model version. Out: each value's cell and cost (how unusual it
    is), counts of cells. Python work is per feature and batch, never per value. Features are matched by name:
    columns that the reference does not have are left alone (and counted), features that the columns lack have
    no data (which is not the same as missing values), a column that is numeric on one side and categorical on
    the other is left out (and counted).
Memory of a pane: 8 bytes a cell, 13 kB for 30 numeric features.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER
from mlspan.profile import CATEGORICAL, FeatureProfile, Profile, cell_costs, cells_of
from mlspan_processor.drift import Layout
from mlspan_processor.outputs import answers_of, outputs_of, unpacked
from mlspan_processor.rows import Block
from mlspan_processor.scopes import Schema

MAX_QUICK_CELLS: Final = 255
"""Cells of a numeric feature up to which its edges are counted rather than searched."""
MAX_DISTANCE_NATS: Final = 50.0
"""What a value's distance from the reference's range can add to its cost."""
_LARGEST: Final = float(np.finfo(np.float32).max)
_MAX_BINDINGS: Final = 256
_ROWS_AT_ONCE: Final = 1024


class Binding:
    """How one schema's columns fit a reference.

    Attributes:
        features: indices of the reference's features that the schema has.
        columns: (n_bound_features,) the schema's column of each of them.
        numeric: places among `features` of the numeric ones, whose features are `inputs`; `others`: of the
            rest.
        unknown: columns that the reference does not have.
        retyped: columns that changed between numeric and categorical.
        classes: (n_classes + 1,) the reference cell of each of the schema's classes; the last for an unknown
            class.
    """

    def __init__(self, profile: Profile, schema: Schema) -> None:
        where = {name: column for column, name in enumerate(schema.names)}
        self.features: list[int] = []
        columns: list[int] = []
        self.retyped = 0
        for index, feature in enumerate(profile.features):
            column = where.get(feature.name)
            if column is None:
                continue
            if (feature.type == CATEGORICAL) != (schema.types[column] == CATEGORICAL):
                self.retyped += 1
                continue
            self.features.append(index)
            columns.append(column)
        self.columns = np.array(columns, np.intp)
        quick = [len(profile.features[index].counts) <= MAX_QUICK_CELLS for index in self.features]
        numeric = [profile.features[index].codes is None for index in self.features]
        self.numeric = np.flatnonzero(np.array(numeric, bool) & np.array(quick, bool))
        self.others = [i for i, both in enumerate(zip(numeric, quick, strict=True)) if not all(both)]
        self.inputs = np.array(self.features, np.intp)[self.numeric]
        self.unknown = len(set(where) - {feature.name for feature in profile.features})
        cell = {text: i for i, text in enumerate(profile.classes)}
        unseen = len(profile.classes) + 1
        self.classes = np.array([*(cell.get(text, unseen) for text in schema.classes), unseen], np.intp)


class Reference:
    """A profile laid out for counting.

    Attributes:
        profile: the profile.
        layout: cells of its features, then of its answers: "prediction", or one for each of several outputs; "score".
        edges: (n_inputs, most) float32 of the numeric inputs, filled up with +inf.
        costs: (n_cells,) float32 how unusual each cell is.
        n_inputs: features that are inputs: the first ones of the layout.
        texts: readable categories by feature name and code, as UTF-8.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        extra = [feature for feature in (profile.prediction, *profile.outputs, profile.score) if feature is not None]
        self.features: tuple[FeatureProfile, ...] = (*profile.features, *extra)
        self.layout = Layout(self.features)
        self.n_inputs = len(profile.features)
        self.n_input_cells = int(self.layout.starts[self.n_inputs]) if extra else self.layout.n_cells
        edges = [self._edges(feature) for feature in profile.features]
        longest = max(map(len, edges), default=0)
        self.edges = np.full((len(edges), longest), np.inf, np.float32)
        for row, own in zip(self.edges, edges, strict=True):
            row[: len(own)] = own
        costs = [cell_costs(feature, profile.rows) for feature in profile.features]
        self.costs = np.concatenate([np.zeros(0), *costs]).astype(np.float32)
        self._lows, self._highs, self._reach = _ranges(profile.features)
        self.texts: dict[str, dict[int, bytes]] = {
            feature.name: {
                code: text.encode("utf-8", "replace")
                for code, text in zip(feature.codes.tolist(), feature.labels, strict=True)
                if text
            }
            for feature in profile.features
            if feature.codes is not None and feature.labels is not None
        }
        # Weak: a scope that is no longer seen must not live on here.
        self._bindings: WeakKeyDictionary[Schema, Binding] = WeakKeyDictionary()

    @staticmethod
    def _edges(feature: FeatureProfile) -> NDArray[np.float32]:
        usable = feature.edges is not None and len(feature.counts) <= MAX_QUICK_CELLS
        return feature.edges if usable and feature.edges is not None else np.zeros(0, np.float32)

    def binding(self, schema: Schema) -> Binding:
        """How the schema's columns fit, worked out once."""
        binding = self._bindings.get(schema)
        if binding is None:
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.clear()
            binding = self._bindings[schema] = Binding(self.profile, schema)
        return binding

    def cells(self, block: Block, rows: slice) -> NDArray[np.int32]:
        """The layout cell (n_bound_features, n_rows) of every value of the bound features."""
        binding = self.binding(block.schema)
        n = rows.stop - rows.start
        cells = np.empty((len(binding.features), n), np.int32)
        numeric = binding.numeric
        if len(numeric):
            edges = self.edges[binding.inputs][:, :, None]
            for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
                stop = min(start + _ROWS_AT_ONCE, rows.stop)
                values = block.columns[binding.columns[numeric], start:stop].view(np.float32)
                cells[numeric, start - rows.start : stop - rows.start] = _below(edges, values)
            # No edge lies below NaN; its cell is the last one.
            values = block.columns[binding.columns[numeric], rows].view(np.float32)
            unknown = np.isnan(values)
            if unknown.any():
                at = np.nonzero(unknown)
                cells[numeric[at[0]], at[1]] = (self.layout.missing - self.layout.starts)[binding.inputs[at[0]]]
        for i in binding.others:
            feature = self.features[binding.features[i]]
            bits = block.columns[binding.columns[i], rows]
            cells[i] = cells_of(feature, bits if feature.codes is not None else bits.view(np.float32))
        cells += self.layout.starts[binding.features].astype(np.int32)[:, None]
        return cells

    def add_distances(
        self, costs: NDArray[np.float32], places: list[int], inputs: NDArray[np.intp], values: NDArray[np.float32]
    ) -> None:
        """Add to the costs of values outside the reference's range how far outside they are, in place.

        The outer cells have no inner edge to tell a hair from a mile. Beyond its range a feature's tail is taken to
        fall off exponentially, on the scale of its outermost bin or of its standard deviation, whichever is wider.

        Args:
            costs: (n_bound_features, n_rows).
            places: places of the numeric features among the bound ones.
            inputs: (n_numeric,) the same ones' features.
            values: (n_numeric, n_rows) float32.
        """
        # An infinity of a feature without a range has no distance; one beyond float32's range is infinite.
        with np.errstate(invalid="ignore", over="ignore"):
            below, above = self._lows[inputs, None] - values, values - self._highs[inputs, None]
            for distance, side in ((below, 0), (above, 1)):
                which, rows = np.nonzero(distance > 0)
                if len(which):
                    nats = distance[which, rows] / self._reach[side][inputs[which]]
                    costs[np.array(places, np.intp)[which], rows] += np.minimum(nats, MAX_DISTANCE_NATS)

    def answer_cells(self, block: Block) -> list[NDArray[np.intp] | None]:
        """The layout cells (n_rows,) of each kind of answer, in the layout's order; None: the block has none of it."""
        found: list[NDArray[np.intp] | None] = []
        if self.profile.prediction is not None:
            found.append(self._prediction_cells(block))
        if self.profile.outputs:
            found += self._output_cells(block, self.n_inputs + len(found))
        if self.profile.score is not None:
            found.append(self._score_cells(block))
        return found

    def _output_cells(self, block: Block, first: int) -> list[NDArray[np.intp] | None]:
        outputs = outputs_of(block)
        if not outputs:
            return [None] * len(self.profile.outputs)
        held = unpacked(answers_of(block)[0], len(outputs))
        where = {f"prediction {name}": k for k, name in enumerate(outputs)}
        cells: list[NDArray[np.intp] | None] = [None] * len(self.profile.outputs)
        for i, feature in enumerate(self.profile.outputs):
            k = where.get(feature.name)
            if k is not None:
                start, missing = (int(ends[first + i]) for ends in (self.layout.starts, self.layout.missing))
                # The cells of "0" and of "1" come first.
                cells[i] = np.where(np.isnan(held[:, k]), missing, start + (held[:, k] > 0))
        return cells

    def _prediction_cells(self, block: Block) -> NDArray[np.intp] | None:
        """Of each single answer."""
        feature = self.profile.prediction
        if feature is None or block.predictions.shape[1] != 1:
            return None
        flat = block.predictions[:, 0]
        start = int(self.layout.starts[self.n_inputs])
        if feature.codes is not None and block.prediction_kind == PREDICTION_CLASS:
            classes = self.binding(block.schema).classes
            return start + classes[np.where((flat >= 0) & (flat < len(classes) - 1), flat, -1)]
        if feature.codes is None and block.prediction_kind == PREDICTION_NUMBER:
            return start + cells_of(feature, np.ascontiguousarray(flat))
        return None

    def _score_cells(self, block: Block) -> NDArray[np.intp] | None:
        """Of each last score."""
        feature = self.profile.score
        if feature is None or not block.scores.shape[1] or block.score_kind != self.profile.score_kind:
            return None
        return int(self.layout.starts[-1]) + cells_of(feature, np.ascontiguousarray(block.scores[:, -1]))


def _ranges(
    features: tuple[FeatureProfile, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Each feature's lowest and highest value, and the scale of its tail on either side; infinite for none."""
    lows, highs = np.full(len(features), -np.inf, np.float32), np.full(len(features), np.inf, np.float32)
    reach = np.full(len(features), np.inf, np.float32), np.full(len(features), np.inf, np.float32)
    for i, feature in enumerate(features):
        edges = feature.edges
        if edges is None or not (feature.std > 0 and len(edges) > 1):
            continue
        lows[i], highs[i] = feature.min, feature.max
        reach[0][i] = min(max(feature.std, float(edges[1]) - feature.min), _LARGEST)
        reach[1][i] = min(max(feature.std, feature.max - float(edges[-2])), _LARGEST)
    return lows, highs, reach


def _below(edges: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """How many edges (n_features, n_edges, 1) lie below each value (n_features, n_rows): `searchsorted(…,
    "left")`.

    Comparing with all 51 edges is two to six times quicker than a binary search, whose branches cannot be
    foreseen.
    """
    below = np.greater(values[:, None, :], edges).view(np.uint8)
    counts: NDArray[np.uint8] = np.add.reduce(below, axis=1, dtype=np.uint8)
    return counts


class CellCounts:
    """What a drift pane keeps of its rows.

    Attributes:
        counts: (n_cells,) weighted counts.
        finite, sums: (n_inputs,) weight of the finite values of each numeric input, and their weighted sum.
        rows, squares: Σw and Σw² of the rows.
    """

    __slots__ = ("counts", "finite", "rows", "squares", "sums")

    def __init__(self, n_cells: int, n_inputs: int) -> None:
        self.counts = np.zeros(n_cells)
        self.finite = np.zeros(n_inputs)
        self.sums = np.zeros(n_inputs)
        self.rows = 0.0
        self.squares = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes + self.finite.nbytes + self.sums.nbytes + 96

    @property
    def effective_ratio(self) -> float:
        """Kish's effective rows per weighted row: Σw / Σw²."""
        return self.rows / self.squares if self.squares else 1.0

    def add_cells(self, cells: NDArray[Any], weights: NDArray[np.float64]) -> None:
        """Count cells (n_features, n_rows) or (n_rows,)."""
        flat = cells.ravel()
        if (weights == 1.0).all():
            self.counts += np.bincount(flat, minlength=len(self.counts))
        else:
            repeated = np.broadcast_to(weights, cells.shape).ravel()
            self.counts += np.bincount(flat, repeated, len(self.counts))

    def add_moments(self, inputs: NDArray[np.intp], values: NDArray[np.float32], weights: NDArray[np.float64]) -> None:
        """Add numeric values (n_some_inputs, n_rows) of these inputs."""
        finite = np.isfinite(values)
        if finite.all():
            self.finite[inputs] += weights.sum()
            self.sums[inputs] += values @ weights
        else:
            self.finite[inputs] += finite @ weights
            self.sums[inputs] += np.where(finite, values, np.float32(0)) @ weights

    def add_rows(self, weights: NDArray[np.float64]) -> None:
        """Count rows."""
        self.rows += float(weights.sum())
        self.squares += float(weights @ weights)

    def widened(self, n_cells: int, kept: int) -> "CellCounts":
        """The same rows in a layout of more cells, of which the first `kept` mean what they meant; the others begin
        anew."""
        wide = CellCounts(n_cells, len(self.finite))
        wide.merge(self, kept)
        return wide

    def merge(self, other: "CellCounts", cells: int | None = None) -> None:
        """Add another's rows; of its cells only the first `cells`, where given."""
        self.counts[:cells] += other.counts[:cells]
        self.finite += other.finite
        self.sums += other.sums
        self.rows += other.rows
        self.squares += other.squares
