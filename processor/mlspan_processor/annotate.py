"""Stage 3, part 2: writes what enrich.py has made onto the spans, in the payload's place.

In: the calls of a batch, a block of their rows, what the rows look like against the reference. Out: the
    spans, changed in
place: payload off (or kept), summary, score, flag and, when flagged, the most unusual features on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor import enrich
from mlspan_processor.cells import Reference
from mlspan_processor.decode import PAYLOAD, Calls
from mlspan_processor.lean import Request, key_first
from mlspan_processor.model import Observed
from mlspan_processor.rows import Block


class Options(NamedTuple):
    """What forwarded spans get."""

    keep_payload: bool
    summary: bool
    threshold: float


class Judged(NamedTuple):
    """Anomaly scores (n_calls,) of a block's calls and which of them are flagged."""

    scores: NDArray[np.float64]
    flags: NDArray[np.bool_]


def annotate(
    calls: Calls, block: Block, reference: Reference | None, observed: Observed | None, options: Options
) -> Judged | None:
    """Enrich the spans of a block; None without a reference."""
    known = reference if observed is not None else None
    costs = observed.costs if observed is not None else None
    texts = enrich.summaries(block, known, costs) if options.summary else None
    judged = None
    extras: list[tuple[bytes, ...]] | None = None
    if known is not None and observed is not None and known.profile.anomaly is not None:
        scores = enrich.anomaly_scores(known.profile.anomaly, observed.sums, block.firsts)
        judged = Judged(scores, scores >= options.threshold)
        plain = enrich.FLAG[False]
        extras = [(score, plain) for score in enrich.score_attributes(scores)]
        for i in np.flatnonzero(judged.flags).tolist():
            top = _top_features(known, block, _most_unusual(block, observed.sums, i))
            extras[i] = (extras[i][0], enrich.FLAG[True], top)
    _write(calls, block, texts, extras, options.keep_payload)
    return judged


def drop_payload(calls: Calls, call: int) -> None:
    """Take a payload that could not be used off its span."""
    attributes = calls.spans[call].attributes
    kept = [raw for raw in attributes if not raw.startswith(PAYLOAD)]
    del attributes[:]
    attributes.extend(kept)


def drop_payloads(request: Request) -> None:
    """Take every payload off a request's spans, which could not be looked into."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                kept = [raw for raw in span.attributes if not key_first(raw).startswith(PAYLOAD)]
                if len(kept) < len(span.attributes):
                    del span.attributes[:]
                    span.attributes.extend(kept)


def _write(
    calls: Calls,
    block: Block,
    texts: list[bytes] | None,
    extras: list[tuple[bytes, ...]] | None,
    keep: bool,
) -> None:
    spans, positions = calls.spans, calls.positions
    for i, call in enumerate(block.call[block.firsts].tolist()):
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


def _top_features(reference: Reference, block: Block, row: int) -> bytes:
    costs = reference.costs[reference.cells(block, slice(row, row + 1))[:, 0]]
    return enrich.features_attribute(reference, reference.binding(block.schema).features, costs)


def _most_unusual(block: Block, sums: NDArray[np.float32], call: int) -> int:
    """The row of a call (by its place in `firsts`) that costs most."""
    start = int(block.firsts[call])
    end = int(block.firsts[call + 1]) if call + 1 < len(block.firsts) else block.n_rows
    return start + int(sums[start:end].argmax())
