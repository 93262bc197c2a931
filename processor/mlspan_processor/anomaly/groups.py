"""Stage 6: what incidents remember of one model version and its series, and how that goes through JSON."""

from dataclasses import dataclass, field
from typing import Any

from mlspan_processor.anomaly.findings import Finding, Incident, finding_of, incident_of


@dataclass(slots=True)
class Track:
    """One series: its last looks, and its part in the incident."""

    looks: list[int] = field(default_factory=list)
    finding: Finding | None = None
    since_ns: int = 0
    # End of the last window that was judged bad.
    seen_ns: int | None = None
    quiet: int = 0
    member: bool = False
    recovered: bool = False

    @property
    def bad(self) -> bool:
        """Whether the last look that judged it found it bad."""
        return self.finding is not None and self.quiet == 0


@dataclass(slots=True)
class Group:
    """One model version."""

    model: str
    version: str
    last_ns: int | None = None
    tracks: dict[tuple[str, str], Track] = field(default_factory=dict)
    incident: Incident | None = None
    # Looks that are left of the cool-down; None before the first closing.
    cooling: int | None = None


def state_of(group: Group) -> dict[str, Any]:
    """As JSON takes it."""
    return {
        "model": group.model,
        "version": group.version,
        "last_ns": group.last_ns,
        "cooling": group.cooling,
        "incident": None if group.incident is None else group.incident.as_dict(),
        "tracks": [
            {
                "looks": track.looks,
                "finding": None if track.finding is None else track.finding.as_dict(),
                "since_ns": track.since_ns,
                "seen_ns": track.seen_ns,
                "quiet": track.quiet,
                "member": track.member,
                "recovered": track.recovered,
            }
            for track in group.tracks.values()
        ],
    }


def group_of(state: dict[str, Any]) -> Group:
    """The group that `state_of` described."""
    group = Group(state["model"], state["version"], state["last_ns"])
    group.cooling = state["cooling"]
    group.incident = None if state["incident"] is None else incident_of(state["incident"])
    for one in state["tracks"]:
        track = Track(**{**one, "finding": finding_of(one["finding"])})
        if track.finding is not None:
            group.tracks[track.finding.key] = track
    return group
