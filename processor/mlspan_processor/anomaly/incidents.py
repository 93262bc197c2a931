"""Stage 6: findings to incidents: one event for what goes wrong together, which opens, is updated and closes.

In: the findings of one look (a moment at which windows were judged). Out: changes that a person is to be told. All
series of one model version share one incident: it opens when a finding persists (`persistence`; certain ones at once),
is updated when it gets worse or wider, or is still there after `update_every_ns`, and closes when each of its series
has been fine for `recovery` looks. What returns within `cool_down` looks after the first closing continues the incident
instead of opening another. Counted in looks, since a series that is judged once a day recovers in days.

A look is an event-time moment: one that is not later than the last is a repetition and changes nothing, and so is a
finding whose window a series has been judged on before; hence nothing opens twice when findings are replayed after a
restart, and ids depend on nothing but the findings. A time more than `CLOCK_BACK_NS` behind is a clock that was set
back, and believed. A drift from a fixed reference stays open until the reference or the data change; a series that is
judged by its own history is re-baselined by its detector, and recovers. Memory: bounded by `Limits`.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Self

from mlspan_processor.anomaly.findings import (
    KINDS,
    SEVERITIES,
    Change,
    Finding,
    Incident,
    Kind,
    Severity,
    Subject,
    summary_of,
)
from mlspan_processor.anomaly.groups import Group, Track, group_of, state_of

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Change",
    "Finding",
    "Incident",
    "Incidents",
    "Kind",
    "Limits",
    "Severity",
    "Subject",
]

CLOCK_BACK_NS: Final = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """When findings become an incident, and when it ends.

    Attributes:
        persistence: (k, m): findings count when k of a series' last m looks had one.
        recovery: looks without a finding after which a series is fine again.
        cool_down: looks after the first closing in which new findings continue the incident.
        update_every_ns: at most one "still open" in this time; worse, wider and came back are told at once.
        subjects, exemplars: at most this many of each in an incident, the most important and the newest.
        groups: model versions remembered that ever had a finding; beyond it what is not open and was looked at longest
            ago is forgotten, and counted.
        tracked: series remembered a model version; findings on others are dropped, and counted.
    """

    persistence: tuple[int, int] = (2, 3)
    recovery: int = 3
    cool_down: int = 100
    update_every_ns: int = 6 * 3600 * 10**9
    subjects: int = 50
    exemplars: int = 10
    groups: int = 1000
    tracked: int = 1000


class Incidents:
    """Keeps what is open or cooling down."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.dropped = 0
        self._groups: dict[tuple[str, str], Group] = {}

    @property
    def open(self) -> list[Incident]:
        """Incidents that are open, oldest first."""
        found = [g.incident for g in self._groups.values() if g.incident is not None and g.incident.status == "open"]
        return sorted(found, key=lambda incident: (incident.opened_ns, incident.id))

    def step(
        self,
        now_ns: int,
        judgements: Sequence[Finding],
        looked: Collection[tuple[str, str]] | None = None,
        usual: Mapping[tuple[str, str], Mapping[tuple[str, str], str]] = MappingProxyType({}),
    ) -> list[Change]:
        """One look.

        `judgements`: everything that is wrong at this moment; a series without one is fine. `looked`: the (model,
        version) that were judged now, None for all that are known; the others stay as they are. `usual`: by (model,
        version) the series that are fine for another reason than recovery, and that reason.
        """
        by_group: dict[tuple[str, str], list[Finding]] = {}
        for finding in judgements:
            by_group.setdefault((finding.model, finding.version), []).append(finding)
        changes = []
        for key in sorted(set(self._groups if looked is None else looked) | set(by_group)):
            if key not in self._groups:
                if key not in by_group:
                    continue
                self._groups[key] = Group(*key)
            group = self._groups[key]
            if group.last_ns is not None and group.last_ns - CLOCK_BACK_NS <= now_ns <= group.last_ns:
                continue
            if group.last_ns is not None and now_ns < group.last_ns:
                _set_back(group, now_ns)
            change = self._look(group, now_ns, by_group.get(key, []), usual.get(key, {}))
            group.last_ns = now_ns
            if change is not None:
                changes.append(change)
        self._forget()
        return changes

    def set_back(self, now_ns: int) -> None:
        """The time that it is: looks from here on are no repetitions, though the last ones were later."""
        for group in self._groups.values():
            if group.last_ns is not None and now_ns < group.last_ns:
                _set_back(group, now_ns)

    def end(self, model: str, version: str, now_ns: int, why: str) -> Change | None:
        """Nothing of a model version will be judged any more: close its incident, and forget the rest."""
        group = self._groups.pop((model, version), None)
        return self._close(group, now_ns, why) if group is not None and _is_open(group) else None

    def _look(
        self, group: Group, now_ns: int, findings: Iterable[Finding], usual: Mapping[tuple[str, str], str]
    ) -> Change | None:
        self._mark(group, findings)
        k, m = self.limits.persistence
        persistent = {
            name: track
            for name, track in group.tracks.items()
            if track.bad and track.finding and (track.member or track.finding.certain or sum(track.looks[-m:]) >= k)
        }
        incident = group.incident
        if incident is None:
            return self._open(group, now_ns, persistent) if persistent else None
        wider = [name for name, track in persistent.items() if not track.member]
        for name, track in persistent.items():
            group.tracks[name].member, track.recovered = True, False
        if incident.status == "closed":
            if persistent:
                return self._tell(group, now_ns, "came back")
            group.cooling = (group.cooling or 0) - 1
            if group.cooling <= 0:
                self._end(group)
            return None
        if all(track.recovered for track in group.tracks.values() if track.member):
            told = [
                f"{name[0]} {why}" for name, why in usual.items() if name in group.tracks and group.tracks[name].member
            ]
            return self._close(group, now_ns, "; ".join(told) or "recovered")
        if group.cooling is not None:
            group.cooling = max(group.cooling - 1, 0)
        severity = self._severity(group)
        if SEVERITIES.index(severity) > SEVERITIES.index(incident.severity):
            return self._tell(group, now_ns, "worse")
        if wider:
            return self._tell(group, now_ns, "wider")
        if now_ns - incident.updated_ns >= self.limits.update_every_ns and persistent:
            return self._tell(group, now_ns, "still open")
        return None

    def _mark(self, group: Group, findings: Iterable[Finding]) -> None:
        """One more look for each series of the group; those that are long fine are forgotten."""
        new: dict[tuple[str, str], Finding] = {}
        repeated: set[tuple[str, str]] = set()
        for finding in sorted(findings, key=lambda one: one.rank):
            known = group.tracks.get(finding.key)
            if known is None or known.seen_ns is None or finding.end_ns > known.seen_ns:
                # The most important comes first, and stays where a series has two.
                new.setdefault(finding.key, finding)
            else:
                repeated.add(finding.key)
        for name, finding in new.items():
            if name not in group.tracks:
                if len(group.tracks) >= self.limits.tracked:
                    self.dropped += 1
                    continue
                group.tracks[name] = Track()
            track = group.tracks[name]
            if not track.member and not any(track.looks):
                track.since_ns = finding.start_ns
            track.finding, track.seen_ns, track.quiet = finding, finding.end_ns, 0
        kept = max(self.limits.persistence[1], self.limits.recovery)
        for name, track in list(group.tracks.items()):
            # Nothing new was judged: neither one bad look more, nor a fine one.
            if name in repeated and name not in new:
                continue
            track.looks = [*track.looks, int(name in new)][-kept:]
            if name not in new:
                track.quiet += 1
                track.recovered = track.member and track.quiet >= self.limits.recovery
                if not track.member and not any(track.looks):
                    del group.tracks[name]

    def _open(self, group: Group, now_ns: int, persistent: dict[tuple[str, str], Track]) -> Change:
        for track in persistent.values():
            track.member = True
        first = min(persistent, key=lambda name: (persistent[name].since_ns, name))
        identity = "\0".join((group.model, group.version, *first, str(persistent[first].since_ns)))
        group.incident = Incident(
            id=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            opened_ns=now_ns,
            updated_ns=now_ns,
            closed_ns=None,
            status="open",
            severity="info",
            model=group.model,
            version=group.version,
            subjects=(),
            exemplars=(),
            summary="",
        )
        self._tell(group, now_ns, "")
        return Change("opened", group.incident)

    def _tell(self, group: Group, now_ns: int, why: str) -> Change:
        """Bring the incident up to date, as an update."""
        assert group.incident is not None
        subjects = self._subjects(group)
        exemplars = dict.fromkeys(pair for one in subjects if not one.recovered for pair in one.finding.exemplars)
        exemplars.update(dict.fromkeys(group.incident.exemplars))
        group.incident = replace(
            group.incident,
            updated_ns=now_ns,
            closed_ns=None,
            status="open",
            severity=self._severity(group),
            subjects=subjects,
            exemplars=tuple(islice(exemplars, self.limits.exemplars)),
            summary=summary_of(group.model, group.version, subjects),
        )
        return Change("updated", group.incident, why)

    def _close(self, group: Group, now_ns: int, why: str) -> Change:
        assert group.incident is not None
        group.incident = replace(
            group.incident, updated_ns=now_ns, closed_ns=now_ns, status="closed", subjects=self._subjects(group)
        )
        change = Change("closed", group.incident, why)
        if group.cooling is None:
            group.cooling = self.limits.cool_down
        if group.cooling <= 0:
            self._end(group)
        return change

    def _end(self, group: Group) -> None:
        """The incident is over: what comes now is another."""
        group.incident = group.cooling = None
        group.tracks = {name: track for name, track in group.tracks.items() if any(track.looks)}
        for track in group.tracks.values():
            track.member = track.recovered = False

    def _subjects(self, group: Group) -> tuple[Subject, ...]:
        members = [track for track in group.tracks.values() if track.member and track.finding is not None]
        found = [Subject(track.finding, track.since_ns, track.recovered) for track in members if track.finding]
        found.sort(key=lambda one: (one.recovered, one.finding.rank))
        return tuple(found[: self.limits.subjects])

    def _severity(self, group: Group) -> Severity:
        assert group.incident is not None
        said = [track.finding.severity for track in group.tracks.values() if track.member and track.finding]
        return max((group.incident.severity, *said), key=SEVERITIES.index)

    def _forget(self) -> None:
        """Keep to the bound: first what has nothing open, then what was looked at longest ago."""
        excess = len(self._groups) - self.limits.groups
        if excess > 0:
            order = sorted(
                self._groups, key=lambda key: (_is_open(self._groups[key]), self._groups[key].last_ns or 0, key)
            )
            for key in order[:excess]:
                del self._groups[key]
            self.dropped += excess

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {"dropped": self.dropped, "groups": [state_of(group) for group in self._groups.values()]}

    @classmethod
    def from_dict(cls, state: dict[str, Any], limits: Limits = Limits()) -> Self:
        """The incidents that `to_dict` described."""
        incidents = cls(limits)
        incidents.dropped = state["dropped"]
        for one in state["groups"]:
            group = group_of(one)
            incidents._groups[group.model, group.version] = group
        return incidents


def _set_back(group: Group, now_ns: int) -> None:
    """The clock was set back: windows that were seen are no measure of those to come."""
    group.last_ns = now_ns - 1
    for track in group.tracks.values():
        track.seen_ns = None
    if group.incident is not None:
        group.incident = replace(group.incident, updated_ns=min(group.incident.updated_ns, now_ns))


def _is_open(group: Group) -> bool:
    return group.incident is not None and group.incident.status == "open"
