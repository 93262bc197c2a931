"""State that survives, part 7: model versions: who they are, their profiles, their panes, the rows they learn from.

Written: what has changed since the last commit: panes that were added to, counts of models that were called, a profile
once. Read: the same models, with the same numbers (slots), so that predictions find them again. A profile file that was
changed while the processor was away takes the place of the one before; drift panes against the old one are then
dropped, as they are while it runs.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from mlspan.profile import Profile, from_json, to_json
from mlspan_processor.learning import Learner
from mlspan_processor.model import Model
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store.codec import CodecError, fields_of, fill, pack, unpack
from mlspan_processor.store.database import Database
from mlspan_processor.store.segments import Segments, Span
from mlspan_processor.store.work import Work
from mlspan_processor.window import Pane, Panes

PANES: Final = ("drift", "quality")
"""Attributes of Model that are Panes whose statistics fields_of and fill understand."""
_DELETES: Final = (
    "DELETE FROM model WHERE slot = ?",
    "DELETE FROM profile WHERE slot = ?",
    "DELETE FROM pane WHERE slot = ?",
    "DELETE FROM learning WHERE slot = ?",
)
Find = Callable[[str, str], Profile | None]
_NEXT_SLOT: Final = "next_slot"
_GIVEN: Final = "given"
_COUNTED: Final = "counted"


class _Kept:
    """What is on disk of one model version."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.profiles: dict[str, Profile] = {}
        self.panes: dict[str, Panes[Any]] = {}
        self.starts: dict[str, set[int]] = {}
        self.learner: Learner | None = None
        self.learnt = Segments()

    def learns(self, learner: Learner | None, learnt: Segments) -> None:
        """What is on disk is of this learner."""
        self.learner, self.learnt = learner, learnt


class ModelStore:
    """Model versions on disk."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self.next_slot = 0
        self.unreadable: list[tuple[str, Exception]] = []

    def add_work(self, models: Iterable[Model], next_slot: int, work: Work) -> None:
        """What has changed; `next_slot` is the number of the next model version."""
        if next_slot != self.next_slot:
            work.add("REPLACE INTO meta VALUES (?, ?)", _NEXT_SLOT, next_slot)
            work.then(partial(setattr, self, "next_slot", next_slot))
        slots = set()
        for model in models:
            slots.add(model.slot)
            kept = self._kept.setdefault(model.slot, _Kept())
            self._add_fields(model, kept, work)
            self._add_profiles(model, kept, work)
            for name in PANES:
                self._add_panes(model, name, kept, work)
            self._add_learner(model, kept, work)
        for slot in self._kept.keys() - slots:
            for statement in _DELETES:
                work.add(statement, slot)
            work.then(partial(self._kept.pop, slot, None))

    def _add_fields(self, model: Model, kept: _Kept, work: Work) -> None:
        fields = {"name": model.name, "version": model.version, **model.snapshot()}
        if fields != kept.fields:
            work.add("REPLACE INTO model VALUES (?, ?)", model.slot, pack(fields))
            work.then(partial(setattr, kept, "fields", fields))

    def _add_profiles(self, model: Model, kept: _Kept, work: Work) -> None:
        profiles: dict[str, Profile] = {}
        if model.given is not None:
            profiles[_GIVEN] = model.given
        if model.reference is not None and model.reference.profile is not model.given:
            profiles[_COUNTED] = model.reference.profile
        for part in (_GIVEN, _COUNTED):
            now = profiles.get(part)
            if now is kept.profiles.get(part):
                continue
            if now is None:
                work.add("DELETE FROM profile WHERE slot = ? AND part = ?", model.slot, part)
            else:
                work.add("REPLACE INTO profile VALUES (?, ?, ?)", model.slot, part, to_json(now).encode())
        work.then(partial(setattr, kept, "profiles", profiles))

    def _add_panes(self, model: Model, name: str, kept: _Kept, work: Work) -> None:
        panes: Panes[Any] = getattr(model, name)
        saved = kept.starts.get(name, set())
        if kept.panes.get(name) is not panes:
            if saved:
                work.add("DELETE FROM pane WHERE slot = ? AND kind = ?", model.slot, name)
            saved = set()
        elif not panes.dirty and len(panes) == len(saved):
            return
        present = set(panes.starts)
        for start in saved - present:
            work.add("DELETE FROM pane WHERE slot = ? AND kind = ? AND start = ?", model.slot, name, start)
        failed = set()
        for pane in panes:
            if pane.start in saved and pane.start not in panes.dirty:
                continue
            try:
                data = pack(fields_of(pane.stats))
            except CodecError as error:
                failed.add(pane.start)
                work.unwritable.append((f"{name} of {model.key}", error))
                continue
            work.add("REPLACE INTO pane VALUES (?, ?, ?, ?, ?)", model.slot, name, pane.start, pane.end, data)

        def note() -> None:
            kept.panes[name], kept.starts[name] = panes, present - failed
            panes.dirty.clear()

        work.then(note)

    def _add_learner(self, model: Model, kept: _Kept, work: Work) -> None:
        learner, learnt = model.learner, kept.learnt
        if learner is not kept.learner or learner is None:
            if learnt.spans:
                work.add("DELETE FROM learning WHERE slot = ?", model.slot)
                learnt = Segments()
            work.then(partial(kept.learns, learner, learnt))
        if learner is None or learner.rows == learnt.until:
            return
        plan = learnt.plan(0, learner.rows)
        for first in plan.replaced:
            work.add("DELETE FROM learning WHERE slot = ? AND first = ?", model.slot, first)
        for span in plan.spans:
            data = pack(learner.snapshot(*span))
            work.add("REPLACE INTO learning VALUES (?, ?, ?, ?)", model.slot, *span, data)
        work.then(partial(learnt.written, plan))

    def restore(self, database: Database, settings: MlspanSettings, find: Find) -> list[Model]:
        """The model versions on disk, those seen last first.

        Args:
            database: the file.
            settings: of models.
            find: the profile from a file by name and version, or None.
        """
        for (self.next_slot,) in database.rows("SELECT value FROM meta WHERE key = ?", _NEXT_SLOT):
            pass
        profiles: dict[int, dict[str, str]] = {}
        for slot, part, data in database.rows("SELECT slot, part, data FROM profile"):
            profiles.setdefault(slot, {})[part] = data.decode()
        models = {}
        for slot, data in database.rows("SELECT slot, data FROM model"):
            try:
                fields = unpack(data)
                models[slot] = self._model(slot, fields, profiles.get(slot, {}), settings, find)
            except (CodecError, KeyError, TypeError, ValueError) as error:
                self.unreadable.append((f"model version {slot}", error))
                self._kept.setdefault(slot, _Kept())  # to be deleted with the next save
        self._read_panes(database, models)
        self._read_learners(database, models)
        return sorted(models.values(), key=lambda model: -model.last_seen)

    def _model(
        self, slot: int, fields: Mapping[str, Any], texts: Mapping[str, str], settings: MlspanSettings, find: Find
    ) -> Model:
        model = Model(fields["name"], fields["version"], slot, settings)
        kept = self._kept[slot] = _Kept()
        kept.fields = dict(fields)
        given = self._profile(texts.get(_GIVEN), model)
        counted = self._profile(texts.get(_COUNTED), model) or given
        file = find(*model.key)
        if file is not None and (given is None or texts[_GIVEN] != to_json(file)):
            model.restore(fields, None, None)
            # It has changed meanwhile: panes against the old one are of no use.
            model.set_reference(file)
            kept.panes = {name: getattr(model, name) for name in PANES if name != "drift"}
            kept.starts = {"drift": {0}}
            return model
        if file is not None:
            given, counted = file, file if counted is given else counted
        model.restore(fields, given, counted)
        if given is not None:
            kept.profiles[_GIVEN] = given
        if counted is not None and counted is not given:
            kept.profiles[_COUNTED] = counted
        kept.panes = {name: getattr(model, name) for name in PANES}
        return model

    def _profile(self, text: str | None, model: Model) -> Profile | None:
        try:
            return None if text is None else from_json(text)
        except ValueError as error:
            self.unreadable.append((f"a reference of {model.key}", error))
            return None

    def _read_panes(self, database: Database, models: Mapping[int, Model]) -> None:
        found: dict[tuple[int, str], list[Pane[Any]]] = {}
        for slot, kind, start, until, data in database.rows("SELECT slot, kind, start, until, data FROM pane"):
            model = models.get(slot)
            if model is None or kind not in PANES or self._kept[slot].panes.get(kind) is not getattr(model, kind):
                continue
            self._kept[slot].starts.setdefault(kind, set()).add(start)
            try:
                stats = getattr(model, kind).empty()
                fill(stats, unpack(data))
            except (CodecError, KeyError, TypeError, ValueError, AttributeError) as error:
                self.unreadable.append((f"{kind} of {model.key}", error))
                continue
            found.setdefault((slot, kind), []).append(Pane(start, until, stats))
        for (slot, kind), panes in found.items():
            getattr(models[slot], kind).restore(panes)

    def _read_learners(self, database: Database, models: Mapping[int, Model]) -> None:
        for slot, first, until, data in database.rows(
            "SELECT slot, first, until, data FROM learning ORDER BY slot, first"
        ):
            model = models.get(slot)
            kept = self._kept.get(slot)
            if model is None or kept is None:
                continue
            learner = model.learner
            kept.learnt.spans.append(Span(first, until))
            kept.learnt.until = until
            if learner is None or learner.rows != first:
                continue
            try:
                learner.restore(unpack(data))
                kept.learner = learner
            except (CodecError, KeyError, TypeError, ValueError) as error:
                self.unreadable.append((f"what {model.key} learns from", error))
