"""Stage 6, part 8: one bad window is no alarm: what counts as found, subject by subject.

In: each subject's findings, or that it is fine, whenever it is judged; subjects are judged at different times. Out: the
findings that hold now. A finding counts when it is certain by itself or the second of the last three looks at the
subject; a subject is fine after two looks without. Memory: three truth values and a finding a subject, at most
`MAX_SUBJECTS` a model version.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from mlspan_processor.anomaly.findings import Finding, finding_of

MAX_SUBJECTS: Final = 500
LOOKS: Final = 3
BAD: Final = 2
"""So many of the last LOOKS."""
FINE: Final = 2
"""Looks without a finding, one after the other."""
Subject = tuple[str, str]
"""The series and its segment."""


class Persistence:
    """What is found of one model version."""

    def __init__(self) -> None:
        self._looks: dict[Subject, deque[bool]] = {}
        self._found: dict[Subject, Finding] = {}

    def see(self, subject: Subject, finding: Finding | None) -> None:
        """One look at a subject; None where it is fine."""
        looks = self._looks.get(subject)
        if looks is None:
            if finding is None or len(self._looks) >= MAX_SUBJECTS:
                return
            looks = self._looks[subject] = deque(maxlen=LOOKS)
        looks.append(finding is not None)
        if finding is not None:
            if finding.certain or sum(looks) >= BAD or subject in self._found:
                self._found[subject] = finding
        elif list(looks)[-FINE:] == [False] * FINE:
            self._found.pop(subject, None)
        if not any(looks) and subject not in self._found:
            del self._looks[subject]

    def clear(self, subjects: Iterable[Subject]) -> None:
        """Subjects that are judged no longer."""
        for subject in subjects:
            self._looks.pop(subject, None)
            self._found.pop(subject, None)

    def subjects(self) -> list[Subject]:
        """Every subject that was bad lately."""
        return list(self._looks)

    def findings(self) -> list[Finding]:
        """What holds now."""
        return list(self._found.values())

    def to_dict(self) -> list[dict[str, Any]]:
        """Everything, as JSON takes it."""
        return [
            {
                "subject": list(subject),
                "looks": list(looks),
                "finding": self._found[subject].as_dict() if subject in self._found else None,
            }
            for subject, looks in self._looks.items()
        ]

    @classmethod
    def from_dict(cls, state: Iterable[dict[str, Any]]) -> "Persistence":
        """What `to_dict` described."""
        one = cls()
        for entry in state:
            series, segment = entry["subject"]
            one._looks[series, segment] = deque(map(bool, entry["looks"]), maxlen=LOOKS)
            if entry["finding"] is not None:
                one._found[series, segment] = finding_of(entry["finding"])
        return one
