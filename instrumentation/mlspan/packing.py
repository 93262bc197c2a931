"""Stage 3: the payload of one call, cut to what the span may carry.

Reads `Input` and `Output`, writes the bytes of ``ml.payload``. Guarantee: never raises; at most `max_bytes`, within the
process's byte budget: rows are dropped at random first (the remaining ones then stand for more), the payload last.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlspan.budget import ByteBudget
from mlspan.captured import Input, Output
from mlspan.columns import U4
from mlspan.guard import failed
from mlspan.payload import HEADER, encode
from mlspan.sampling import sample

if TYPE_CHECKING:
    from mlspan.config import Settings

_MAX_ROWS = 0xFFFF_FFFF


def pack(
    captured: Input,
    output: Output,
    settings: "Settings",
    limiter: ByteBudget,
    ids: Sequence[str] | None = None,
) -> bytes | None:
    """The payload of a call; to be asked for once per span, right before it ends.

    Args:
        captured: of the input.
        output: of the result.
        settings: for `max_bytes`.
        limiter: the process's byte budget, from which the payload's size is taken.
        ids: the user's id of each row of the call ("" for none); None, or of another length: no ids.

    Returns:
        The bytes, or None when there is nothing to send or no room for it.
    """
    cells = captured.cells
    if cells is None or captured.schema is None or not len(cells):
        return None
    try:
        data = _encode(captured, output, ids, None)
        room = min(settings.max_bytes, limiter.allowance())
        count = len(cells)
        while len(data) > room and count > 1:  # once, or a few times where ids differ in length
            fixed = HEADER.size + len(captured.schema.bits)
            row_bytes = (len(data) - fixed) / count + 4  # a row number more
            count = max(1, min(count - 1, int((room - fixed) / row_bytes)))
            data = _encode(captured, output, ids, sample(len(cells), count))
        if len(data) > settings.max_bytes or not limiter.take(len(data)):
            return None
    except Exception:  # noqa: BLE001 - the user's call goes on
        failed("pack")
        return None
    return data


def _encode(captured: Input, output: Output, ids: Sequence[str] | None, kept: Any) -> bytes:
    """The payload of all captured rows, or of those `kept`."""
    cells, indices = captured.cells, captured.indices
    predictions, scores = output.predictions, output.scores
    assert cells is not None
    assert captured.schema is not None
    if kept is not None:
        indices = kept.astype(U4) if indices is None else indices[kept]
        cells = cells[kept]
        predictions = None if predictions is None else predictions[kept]
        scores = None if scores is None else scores[kept]
    texts = None
    if ids is not None and len(ids) == captured.rows:
        texts = list(ids) if indices is None else [ids[at] for at in indices.tolist()]
    return encode(
        min(captured.rows, _MAX_ROWS),
        cells,
        captured.schema.bits,
        output.prediction_kind,
        predictions,
        output.score_kind,
        scores,
        indices,
        texts,
    )
