"""Batch, part 5: which rows belong to which window.

In: the current file's times and ids, and ``--every``. Out: a Plan. Windows of a number of rows follow the order of the
file, or of time where there is a time column; a last one of fewer than half that many rows is joined to the one before.
Windows of a duration are intervals of event time that begin at multiples of it since 1970 (UTC); intervals without rows
are left out. Rows without a time, where there is a time column, are in no window, and neither are repetitions: of rows
with one id the first stays, with the first label that any of them has. Memory: 24 bytes a row.
"""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Answered, missing
from mlspan_processor.analysis.answers import NO_TIME, Answers
from mlspan_processor.analysis.errors import AnalysisError

MAX_WINDOWS: Final = 100_000
MAX_DAYS: Final = 36_500
"""Of a duration: starts and ends of windows stay within what a time can be."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EVERY: Final = re.compile(r"(\d{1,18})\s*(rows?|[smhdw])")


@dataclass(frozen=True, slots=True)
class Every:
    """How long a window is: so many rows, or so many nanoseconds; 0 for the other."""

    rows: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """One window.

    Attributes:
        start, end: nanoseconds since the epoch where there are times, else row numbers, the end not included.
        rows: (n,) row numbers in the file, in the order of time where there are times, else of the file.
    """

    start: int
    end: int
    rows: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All windows, whether they are in event time, and what was left out, for people."""

    windows: list[Span]
    timed: bool
    notes: list[str]


def parse_every(text: str | None) -> Every | None:
    """``1000rows`` or a duration, ``30m``, ``6h``, ``1d``, ``1w``; None for one window.

    >>> parse_every("1000rows").rows, parse_every("1d").ns
    (1000, 86400000000000)
    """
    if text is None:
        return None
    found = _EVERY.fullmatch(text.strip())
    if found is None or int(found[1]) < 1:
        raise AnalysisError(
            f'--every "{text}": must be a number of rows ("1000rows") or a duration ("30m", "6h", "1d")'
        )
    number, unit = int(found[1]), found[2]
    if unit.startswith("row"):
        return Every(rows=number)
    if number * _SECONDS[unit] > MAX_DAYS * _SECONDS["d"]:
        raise AnalysisError(f'--every "{text}": a duration must be at most a hundred years ("{MAX_DAYS}d")')
    return Every(ns=number * _SECONDS[unit] * 1_000_000_000)


def plan(answers: Answers, every: Every | None, kept: NDArray[np.bool_], name: str) -> Plan:
    """The windows of the rows that are kept.

    Raises:
        AnalysisError: a duration without times, no row left, or too many windows.
    """
    notes: list[str] = []
    times = answers.times
    if every is not None and every.ns and times is None:
        raise AnalysisError("--every with a duration needs the column of times: --time COL")
    rows = np.flatnonzero(kept)
    if times is not None:
        there = times[rows] != NO_TIME
        if not there.all():
            notes.append(f"{name}: rows without a time are in no window: {int((~there).sum()):,} of {len(kept):,}")
            rows = rows[there]
        rows = rows[np.argsort(times[rows], kind="stable")]
    if not len(rows):
        raise AnalysisError(f'no row of "{name}" can be analysed{"; none has a time" if times is not None else ""}')
    if every is not None and every.ns:
        assert times is not None
        buckets = times[rows] // every.ns
        cuts = np.flatnonzero(np.diff(buckets)) + 1
        _limit(len(cuts) + 1)
        parts = np.split(rows, cuts)
        starts = [int(times[part[0]] // every.ns) * every.ns for part in parts]
        return Plan([Span(at, at + every.ns, part) for at, part in zip(starts, parts, strict=True)], True, notes)
    size = every.rows if every is not None else len(rows)
    count = max(1, len(rows) // size + (len(rows) % size * 2 >= size))
    _limit(count)
    parts = [rows[i * size : (i + 1) * size if i + 1 < count else len(rows)] for i in range(count)]
    if times is None:
        ends = np.cumsum([len(part) for part in parts]).tolist()
        return Plan([Span(e - len(p), e, p) for e, p in zip(ends, parts, strict=True)], False, notes)
    return Plan([Span(int(times[part[0]]), int(times[part[-1]]), part) for part in parts], True, notes)


def once(answers: Answers, answered: Answered, name: str, notes: list[str]) -> NDArray[np.bool_]:
    """(n_rows,) False for repetitions of an id; the row that stays takes the first label that any of them has."""
    kept = np.ones(answers.rows, bool)
    ids = answers.ids
    if ids is None:
        return kept
    known = np.flatnonzero(ids >= 0)
    _, first, which, copies = np.unique(ids[known], return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(known):
        return kept
    kept[known] = False
    kept[known[first]] = True
    labels = answered.labels[known]
    labelled = np.flatnonzero(~missing(labels))
    groups, at = np.unique(which[labelled], return_index=True)
    taken = np.full((len(first), *labels.shape[1:]), np.nan)
    taken[groups] = labels[labelled[at]]
    differ = labels[labelled] != taken[which[labelled]]
    conflicting = int((differ if differ.ndim == 1 else differ.any(axis=1)).sum())
    if answered.strange is not None:
        strange = answered.strange[known]
        kept_strange = np.bincount(which, strange) > 0
        kept_strange[groups] = strange[labelled[at]]
        answered.strange[known[first]] = kept_strange
    answered.labels = answered.labels.copy()
    answered.labels[known[first]] = taken
    notes.append(
        f"{name}: of rows with one id the first stays: {int((copies - 1).sum()):,} repetitions left out"
        + (f", {conflicting:,} of them with another label than the first" if conflicting else "")
    )
    return kept


def _limit(count: int) -> None:
    if count > MAX_WINDOWS:
        raise AnalysisError(f"--every makes {count:,} windows; at most {MAX_WINDOWS:,} are analysed at once")
