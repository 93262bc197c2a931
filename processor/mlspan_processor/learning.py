"""Stage 5: a reference from the first rows of a model version that has no profile, then frozen.

In: blocks of rows as they come. Out: a Profile once there are enough. The first block's columns, kind of
answer and kind of score are the reference's; later blocks are matched by column name, those with other
columns are left out. Categories have no readable text, since spans carry only their hashes. Memory: the raw
rows until the profile is built, then nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, PREDICTION_NUMBER
from mlspan.profile import NO_PREDICTION, Profile, build_profile
from mlspan_processor.outputs import answers_of, outputs_of, unpacked
from mlspan_processor.rows import Block
from mlspan_processor.scopes import Schema

_PART_BYTES: Final = 512
"""What the arrays of one block take beside their content."""


class Learner:
    """Collects rows of one model version.

    Attributes:
        rows, nbytes: of what is collected.
    """

    _schema: Schema | None

    def __init__(self, rows: int) -> None:
        """`rows` is how many make a reference."""
        self._wanted = rows
        self._schema = None
        self._prediction_kind = PREDICTION_NONE
        # Of a multilabel model: its outputs; answers are then packed (outputs.py).
        self._outputs: tuple[str, ...] = ()
        self._score_kind = 0
        self._columns: list[NDArray[np.uint32]] = []
        self._predictions: list[NDArray[Any] | None] = []
        self._scores: list[NDArray[np.float32]] = []
        self._weights: list[NDArray[np.float64]] = []
        self.rows = 0
        self.nbytes = 0

    @property
    def complete(self) -> bool:
        """Whether there are enough rows."""
        return self.rows >= self._wanted

    def add(self, block: Block, weights: NDArray[np.float64], used: NDArray[np.bool_]) -> None:
        """Collect the used rows of a block."""
        columns = self._matched(block)
        count = int(used.sum())
        if columns is None or not count:
            return
        answers = self._answers(block)
        self._append(
            columns[:, used],
            None if answers is None else answers[used],
            self._last_scores(block)[used],
            weights[used],
        )

    def build(self, model: tuple[str, str]) -> Profile:
        """The reference of the rows so far."""
        assert self._schema is not None
        scores = np.concatenate(self._scores)
        nothing = self._nothing()
        predictions = [
            np.full(len(part), nothing) if known is None else known
            for part, known in zip(self._weights, self._predictions, strict=True)
        ]
        answers = np.concatenate(predictions)
        held = unpacked(answers, len(self._outputs)).T if self._outputs else ()
        return build_profile(
            np.ascontiguousarray(np.concatenate(self._columns, axis=1).T),
            self._schema.names,
            self._schema.types,
            predictions=None if self._outputs else answers,
            prediction_kind=self._prediction_kind,
            outputs=dict(zip(self._outputs, held, strict=True)),
            scores=scores if np.isfinite(scores).any() else None,
            score_kind=self._score_kind,
            weights=np.concatenate(self._weights),
            model_name=model[0],
            model_version=model[1],
            task=self._schema.task,
            classes=self._schema.classes,
            source=f"first {self.rows} rows",
        )

    def snapshot(self, first: int, until: int) -> dict[str, Any]:
        """The rows [first, until), in the order they came, and whose they are."""
        assert self._schema is not None
        self._join()
        answers = self._predictions[0]
        schema = self._schema
        return {
            "schema": [list(schema.model or ()), schema.task, schema.classes, schema.names, schema.types],
            "kinds": [self._prediction_kind, self._score_kind],
            "outputs": list(self._outputs),
            "columns": self._columns[0][:, first:until],
            "predictions": None if answers is None else answers[first:until],
            "scores": self._scores[0][first:until],
            "weights": self._weights[0][first:until],
        }

    def restore(self, fields: Mapping[str, Any]) -> None:
        """Take rows of an earlier process, after those that were taken before.

        Raises:
            KeyError, ValueError: fields are missing or do not fit.
        """
        model, task, classes, columns, types = fields["schema"]
        cells = np.asarray(fields["columns"], np.uint32)
        count = cells.shape[1]
        answers, scores, weights = fields["predictions"], fields["scores"], fields["weights"]
        if cells.shape[0] != len(columns) or not len(scores) == len(weights) == count:
            raise ValueError("columns of other lengths")
        if self._schema is None:
            self._schema = Schema(tuple(model) or None, task, tuple(classes), tuple(columns), tuple(types))
        elif self._schema.names != tuple(columns) or self._schema.types != tuple(types):
            raise ValueError("other columns")
        self._prediction_kind, self._score_kind = fields["kinds"]
        self._outputs = tuple(fields.get("outputs", ()))
        self._append(cells, None if answers is None else np.array(answers), np.array(scores), np.array(weights))

    def _join(self) -> None:
        """Make one part of all; rows without an answer get the one that says so."""
        if len(self._columns) < 2:
            return
        missing = self._nothing()
        answers = None
        if any(part is not None for part in self._predictions):
            answers = np.concatenate(
                [
                    np.full(len(weights), missing) if part is None else part
                    for weights, part in zip(self._weights, self._predictions, strict=True)
                ]
            )
        self._columns = [np.concatenate(self._columns, axis=1)]
        self._predictions = [answers]
        self._scores = [np.concatenate(self._scores)]
        self._weights = [np.concatenate(self._weights)]
        self.nbytes = self._columns[0].nbytes + 16 * self.rows + _PART_BYTES

    def _append(
        self,
        columns: NDArray[np.uint32],
        answers: NDArray[Any] | None,
        scores: NDArray[np.float32],
        weights: NDArray[np.float64],
    ) -> None:
        self._columns.append(columns)
        self._predictions.append(answers)
        self._scores.append(scores)
        self._weights.append(weights)
        self.rows += len(weights)
        self.nbytes += columns.nbytes + 16 * len(weights) + _PART_BYTES

    def _nothing(self) -> np.int32 | np.float32:
        """The answer of a row without one."""
        return np.int32(NO_PREDICTION) if self._prediction_kind == PREDICTION_CLASS else np.float32(np.nan)

    def _matched(self, block: Block) -> NDArray[np.uint32] | None:
        first = self._schema
        if first is None:
            self._schema = first = block.schema
        if block.schema is first or block.schema.names == first.names:
            return block.columns if block.schema.types == first.types else None
        where = {name: i for i, name in enumerate(block.schema.names)}
        if any(name not in where for name in first.names):
            return None
        order = [where[name] for name in first.names]
        if tuple(block.schema.types[i] for i in order) != first.types:
            return None
        return block.columns[order]

    def _answers(self, block: Block) -> NDArray[Any] | None:
        """(n_rows,) answers of the reference's kind, as indices of its classes; None for a block without any."""
        assert self._schema is not None
        outputs = outputs_of(block)
        if outputs and self._prediction_kind == PREDICTION_NONE:
            self._prediction_kind, self._outputs = PREDICTION_NUMBER, outputs
        if outputs or self._outputs:
            return answers_of(block)[0] if outputs == self._outputs else None
        kind = block.prediction_kind if block.predictions.shape[1] == 1 else PREDICTION_NONE
        if self._prediction_kind == PREDICTION_NONE:
            self._prediction_kind = kind
        if kind == PREDICTION_NONE or kind != self._prediction_kind:
            return None
        flat = block.predictions[:, 0]
        if kind == PREDICTION_CLASS:
            known = {text: i for i, text in enumerate(self._schema.classes)}
            classes = np.array([*(known.get(text, -1) for text in block.schema.classes), -1], np.int32)
            return classes[np.where((flat >= 0) & (flat < len(classes) - 1), flat, -1)]
        return np.ascontiguousarray(flat)

    def _last_scores(self, block: Block) -> NDArray[np.float32]:
        if not block.scores.shape[1] or block.schema.outputs:
            return np.full(block.n_rows, np.nan, np.float32)
        if not self._score_kind:
            self._score_kind = block.score_kind
        if block.score_kind != self._score_kind:
            return np.full(block.n_rows, np.nan, np.float32)
        return block.scores[:, -1]
