"""Stage 5: a reference from the first rows of a model version that has no profile, then frozen.

In: blocks of rows as they come. Out: a Profile once there are enough. The first block's columns, kind of
answer and kind of score are the reference's; later blocks are matched by column name, those with other
columns are left out. Categories have no readable text, since spans carry only their hashes. Memory: the raw
rows until the profile is built, then nothing.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE
from mlspan.profile import NO_PREDICTION, Profile, build_profile
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
        self._columns.append(columns[:, used])
        self.nbytes += self._columns[-1].nbytes + 16 * count + _PART_BYTES
        answers = self._answers(block)
        self._predictions.append(None if answers is None else answers[used])
        self._scores.append(self._last_scores(block)[used])
        self._weights.append(weights[used])
        self.rows += count

    def build(self, model: tuple[str, str]) -> Profile:
        """The reference of the rows so far."""
        assert self._schema is not None
        scores = np.concatenate(self._scores)
        nothing = np.int32(NO_PREDICTION) if self._prediction_kind == PREDICTION_CLASS else np.float32(np.nan)
        predictions = [
            np.full(len(part), nothing) if known is None else known
            for part, known in zip(self._weights, self._predictions, strict=True)
        ]
        return build_profile(
            np.ascontiguousarray(np.concatenate(self._columns, axis=1).T),
            self._schema.names,
            self._schema.types,
            predictions=np.concatenate(predictions),
            prediction_kind=self._prediction_kind,
            scores=scores if np.isfinite(scores).any() else None,
            score_kind=self._score_kind,
            weights=np.concatenate(self._weights),
            model_name=model[0],
            model_version=model[1],
            task=self._schema.task,
            classes=self._schema.classes,
            source=f"first {self.rows} rows",
        )

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
        if not block.scores.shape[1]:
            return np.full(block.n_rows, np.nan, np.float32)
        if not self._score_kind:
            self._score_kind = block.score_kind
        if block.score_kind != self._score_kind:
            return np.full(block.n_rows, np.nan, np.float32)
        return block.scores[:, -1]
