"""Stage 6: what goes into incidents and what comes out of them.

In: a Finding, one judgement that something is wrong. Out: a Change of an Incident. All of them are frozen, and each
goes to a JSON object and back (`as_dict`, and `…_of`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Kind = Literal[
    "realised",
    "estimated",
    "errors",
    "prediction_drift",
    "data_quality",
    "latency",
    "rate",
    "custom",
    "feature_drift",
]
# In order of importance: what costs the user first, the diagnosis last.
KINDS: Final[tuple[Kind, ...]] = (
    "realised",
    "estimated",
    "errors",
    "prediction_drift",
    "data_quality",
    "latency",
    "rate",
    "custom",
    "feature_drift",
)
Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
Exemplar = tuple[str, str]
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One judgement that something is wrong: a subject (a series) in one window.

    Attributes:
        subject: the series, such as "ml.quality.accuracy" or "ml.drift.psi age"; with model, version and segment its
            identity.
        kind: what sort of series it is.
        model, version, segment: whose; segment is "" for all rows.
        severity: info, warning or critical.
        value, expected, effect: now, before, and their difference in units that a person reads; None where unknown.
        p_value: None where the judgement has none.
        message: one sentence for a person.
        start_ns, end_ns: the window, event time.
        exemplars: (trace id, span id) in hex of requests in it.
        certain: one such finding is enough (anytime-valid tests, extreme values); else `Limits.persistence` applies.
    """

    subject: str
    kind: Kind
    model: str
    version: str
    segment: str = ""
    severity: Severity = "warning"
    value: float | None = None
    expected: float | None = None
    effect: float | None = None
    p_value: float | None = None
    message: str = ""
    start_ns: int = 0
    end_ns: int = 0
    exemplars: tuple[Exemplar, ...] = ()
    certain: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Which series it is among its model version's: (subject, segment)."""
        return self.subject, self.segment

    @property
    def rank(self) -> tuple[int, int, float, str, str]:
        """Sorts the most important first: kind, severity, p-value, name."""
        p = 1.0 if self.p_value is None else self.p_value
        return KINDS.index(self.kind), -SEVERITIES.index(self.severity), p, self.subject, self.segment

    def as_dict(self) -> State:
        """As JSON takes it."""
        return asdict(self)


def finding_of(state: Mapping[str, Any]) -> Finding:
    """The finding that `as_dict` described."""
    return Finding(**{**state, "exemplars": _pairs(state["exemplars"])})


@dataclass(frozen=True, slots=True)
class Subject:
    """One series of an incident.

    Attributes:
        finding: the last one.
        since_ns: start of the first window that was bad.
        recovered: whether it is fine by now.
    """

    finding: Finding
    since_ns: int
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """What went wrong with one version of a model, from its opening to its closing.

    Attributes:
        id: 32 hex digits, the same for the same findings on every machine and after every restart.
        opened_ns, updated_ns, closed_ns: event time; closed_ns is None while open.
        status: open or closed.
        severity: the worst so far.
        model, version: whose.
        subjects: most important first (KINDS, then severity, then p-value); bounded.
        exemplars: (trace id, span id), newest first; bounded.
        summary: one or two sentences.
    """

    id: str
    opened_ns: int
    updated_ns: int
    closed_ns: int | None
    status: Literal["open", "closed"]
    severity: Severity
    model: str
    version: str
    subjects: tuple[Subject, ...]
    exemplars: tuple[Exemplar, ...]
    summary: str

    def as_dict(self) -> State:
        """As JSON takes it."""
        return asdict(self)


def incident_of(state: Mapping[str, Any]) -> Incident:
    """The incident that `as_dict` described."""
    subjects = tuple(
        Subject(finding_of(one["finding"]), one["since_ns"], one["recovered"]) for one in state["subjects"]
    )
    return Incident(**{**state, "subjects": subjects, "exemplars": _pairs(state["exemplars"])})


@dataclass(frozen=True, slots=True)
class Change:
    """What a person is to be told.

    Attributes:
        kind: opened, updated or closed.
        incident: as it is now.
        why: of an update: "worse", "wider", "came back" or "still open"; of a closing: "recovered", or what else ended
            it; "" of an opening.
    """

    kind: Literal["opened", "updated", "closed"]
    incident: Incident
    why: str = ""


def _pairs(pairs: Any) -> tuple[Exemplar, ...]:
    return tuple((trace, span) for trace, span in pairs)


def summary_of(model: str, version: str, subjects: tuple[Subject, ...]) -> str:
    """One sentence on the most important subject, and how many more there are."""
    of = f"{model} {version}".strip()
    if not subjects:
        return of
    first = subjects[0].finding
    what = first.message or _in_words(first)
    where = f" ({first.segment})" if first.segment else ""
    more = len(subjects) - 1
    return f"{of}: {what}{where}" + (f"; and {more} more series" if more else "")


def _in_words(finding: Finding) -> str:
    if finding.value is None:
        return finding.subject
    said = f"{finding.subject} is {finding.value:.4g}"
    if finding.expected is not None:
        said += f", expected {finding.expected:.4g}"
    return said
