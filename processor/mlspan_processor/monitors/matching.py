"""Stage 6, part 18: which monitor is for which model version and window; what tells references and findings apart."""

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from mlspan_processor.anomaly.findings import SEVERITIES, Finding
from mlspan_processor.cells import Reference
from mlspan_processor.model import Model
from mlspan_processor.monitors.metrics import RATES
from mlspan_processor.monitors.settings import DEFAULT_DURATION, Monitor

_SECOND: Final = 1_000_000_000


def call_durations(monitors: tuple[Monitor, ...]) -> list[int]:
    """Lengths of the windows of calls that monitors ask for, nanoseconds."""
    return list(dict.fromkeys(filter(None, map(call_duration, monitors))))


def call_duration(monitor: Monitor) -> int:
    """Length of a monitor's windows of calls, nanoseconds; 0 for other metrics."""
    if monitor.metric not in RATES:
        return 0
    window = monitor.window
    seconds = window.duration if window is not None and window.duration else DEFAULT_DURATION
    return int(seconds * _SECOND)


def is_for(monitor: Monitor, model: Model) -> bool:
    """Whether a monitor watches a model version."""
    names = (model.name, f"{model.name}@{model.version}")
    return any(fnmatchcase(name, pattern) for pattern in monitor.models for name in names)


def mark(reference: Reference) -> str:
    """Tells one reference from another."""
    profile = reference.profile
    return f"{profile.source} {profile.rows:.6g} {len(profile.features)} {reference.layout.n_cells}"


def rank(finding: Finding) -> int:
    """How severe a finding is."""
    return SEVERITIES.index(finding.severity)


def renamed(finding: Finding | None, key: tuple[str, str]) -> Finding | None:
    """The finding of this series and segment."""
    if finding is None or (finding.subject, finding.segment) == key:
        return finding
    return replace(finding, subject=key[0], segment=key[1])


def suffix_of(monitor: Monitor, monitors: tuple[Monitor, ...]) -> str:
    """What tells the series of two monitors of one metric apart; the first of them has the metric's name alone."""
    same = [one for one in monitors if (one.metric, one.kind) == (monitor.metric, monitor.kind)]
    return f" ({monitor.name})" if same[0] is not monitor else ""
