"""Stage 6, part 24: model versions that are gone while an incident of theirs is open.

In: at every tick which incidents are open, and which model versions there are. Out: the incidents that nothing will
ever close, with the reason. A version that was forgotten is gone at once; one that merely is not there, as after a
restart with an older store, once it has not been for `idle_ns`. Memory: a number and a text an open incident.
"""

from collections.abc import Collection, Iterable
from typing import Final

from mlspan_processor.anomaly.incidents import Incident

UNSEEN: Final = "the version is no longer seen"
Key = tuple[str, str]


class Gone:
    """Which versions are not there, since when, and why."""

    def __init__(self, idle_ns: int) -> None:
        self._idle = idle_ns
        self._since: dict[Key, int] = {}
        self._forgotten: dict[Key, str] = {}

    def forget(self, key: Key, why: str) -> None:
        """A version was forgotten."""
        self._forgotten[key] = why

    def at(self, now: int, incidents: Iterable[Incident], there: Collection[Key]) -> list[tuple[Key, str]]:
        """Versions to give up, and why; `incidents`: those that are open, `there`: the versions that are."""
        missing = [key for key in ((one.model, one.version) for one in incidents) if key not in there]
        # A clock that was set back is believed.
        self._since = {key: min(self._since.get(key, now), now) for key in missing}
        forgotten, self._forgotten = self._forgotten, {}
        return [
            (key, forgotten.get(key, UNSEEN))
            for key, since in self._since.items()
            if key in forgotten or now - since >= self._idle
        ]
