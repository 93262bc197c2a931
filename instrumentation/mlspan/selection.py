"""Stage 2, capture: which columns leave the process, by the user's patterns and the bound on their number.

Decided once for each set of columns and kept: at most 256 selections with 64 schemas each, for each of the last 8
settings objects (a process has one).
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, TextCodes
from mlspan.inputs import Indices

if TYPE_CHECKING:
    from mlspan.config import Settings

MAX_SELECTIONS: Final = 256
MAX_SCHEMAS: Final = 64
MAX_SELECTORS: Final = 8
MAX_NAME_CHARACTERS: Final = 256
MAX_COLUMNS: Final = 0xFFFF
"""The payload counts rows and columns in 16 bits."""


class Selection:
    """The selected columns of inputs with the same column names.

    Attributes:
        names: of the selected columns, made distinct.
        positions: theirs in the input, or None for the first ones.
        width: how many.
        known: the type found so far for each column of Python objects.
        plan: what a source left there for the next single row.
        is_whole: whether all columns are selected, and there are any.
        source: the names the selection was made from.
    """

    __slots__ = (
        *(
            "_numeric",
            "_schemas",
            "boolean",
            "is_whole",
            "known",
            "names",
            "numeric",
            "plan",
            "positions",
            "source",
            "width",
        ),
    )

    def __init__(
        self, names: tuple[str, ...], positions: Indices | None, source: tuple[str, ...] | None = None
    ) -> None:
        self.names = names
        self.positions = positions
        self.source = source
        self.width = len(names)
        self.known: list[str | None] = [None] * len(names)
        self.numeric = Schema(names, (NUMERIC,) * len(names))
        self.boolean = Schema(names, (BOOLEAN,) * len(names))
        self._schemas: dict[tuple[str | None, ...], Schema] = {}
        self._numeric: set[int] = set()
        self.is_whole = False
        self.plan: Any = None

    def schema(self, types: Sequence[str | None]) -> Schema:
        """The schema of the selected columns with these types; columns of type None are left out."""
        key = tuple(types)
        schema = self._schemas.get(key)
        if schema is None:
            settled = self._settled(key)
            schema = self._schemas.get(settled)
            if schema is None:
                kept = [(name, kind) for name, kind in zip(self.names, settled, strict=True) if kind is not None]
                schema = Schema(tuple(name for name, _ in kept), tuple(kind for _, kind in kept))
            if len(self._schemas) >= MAX_SCHEMAS:
                self._schemas.clear()
            self._schemas[key] = self._schemas[settled] = schema
        return schema

    def _settled(self, types: tuple[str | None, ...]) -> tuple[str | None, ...]:
        """The types; a column that was numeric once stays so where all its values are booleans."""
        settled = list(types)
        for slot, found in enumerate(types):
            if found == CATEGORICAL:  # and stays so where a value is missing and the dtype says nothing
                self.known[slot] = found
            elif found == NUMERIC and slot not in self._numeric:
                self._numeric.add(slot)
                # They may hold the column as a boolean one.
                self._schemas.clear()
                self.plan = None
            elif found == BOOLEAN and slot in self._numeric:
                settled[slot] = NUMERIC
        return tuple(settled)


class Selector:
    """Everything about capture that follows from the settings, prepared once.

    Attributes:
        content: whether anything but counts is captured.
        hook: the user's content hook, or None.
        direct: content without a hook.
        codes: the codes of texts under the settings' hash key.
    """

    __slots__ = (
        "_allow", "_deny", "_last", "_max_columns", "_selections", "codes", "content", "direct", "hook", "max_bytes",
        "max_rows", "settings",
    )  # fmt: skip

    def __init__(self, settings: "Settings", codes: TextCodes | None = None) -> None:
        self.settings = settings
        self.content = settings.capture_content
        self.hook: Callable[..., Any] | None = settings.capture_hook
        self.direct = self.content and self.hook is None
        self.codes = TextCodes(settings.hash_key) if codes is None else codes
        self.max_rows = max(1, min(settings.max_rows, MAX_COLUMNS))
        self.max_bytes = settings.max_bytes
        self._max_columns = max(0, min(settings.max_columns, MAX_COLUMNS))
        self._allow = _pattern(settings.allow)
        self._deny = _pattern(settings.deny)
        self._selections: dict[Any, Selection] = {}
        # A tuple of names is hashed anew at each look; most calls bring the one of the call before.
        self._last: tuple[tuple[str, ...], Selection] = ((), self._choose((), 0))

    def select(self, names: tuple[str, ...] | None, columns: int) -> Selection:
        """The selection for an input of `columns` columns with these names (None, or of another number: x0, x1, …)."""
        last, selection = self._last
        if names is last and names is not None and len(names) == columns:
            return selection
        if names is None or len(names) != columns:
            names = None
        found = self._selections.get(columns if names is None else names)
        if found is None:
            found = self._choose(names, columns)
            if len(self._selections) >= MAX_SELECTIONS:
                self._selections.clear()
            self._selections[columns if names is None else names] = found
        if names is not None:
            self._last = names, found
        return found

    def all_of(self, names: tuple[str, ...]) -> Selection:
        """The selection of all these columns, whatever the patterns say: the content hook has chosen them."""
        selection = self._selections.get((None, names))
        if selection is None:
            if len(self._selections) >= MAX_SELECTIONS:
                self._selections.clear()
            selection = self._selections[None, names] = Selection(names, None)
        return selection

    def _choose(self, names: tuple[str, ...] | None, columns: int) -> Selection:
        chosen: list[int] = []
        for at in range(columns):
            if len(chosen) == self._max_columns:
                break
            if self._allowed(f"x{at}" if names is None else names[at]):
                chosen.append(at)
        picked = [f"x{at}" if names is None else names[at] for at in chosen]
        first = chosen == list(range(len(chosen)))
        selection = Selection(distinct(picked), None if first else np.array(chosen, np.intp), names)
        selection.is_whole = 0 < len(chosen) == columns
        return selection

    def _allowed(self, name: str) -> bool:
        if self._allow is not None and self._allow.match(name) is None:
            return False
        return self._deny is None or self._deny.match(name) is None


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names cut to 256 characters, repeated ones told apart.

    >>> distinct(["a", "b", "a"])
    ('a', 'b', 'a.1')
    """
    taken: set[str] = set()
    result = []
    for name in names:
        name = candidate = name[:MAX_NAME_CHARACTERS]  # noqa: PLW2901 - the cut name replaces the long one
        repeat = 0
        while candidate in taken:
            repeat += 1
            candidate = f"{name}.{repeat}"
        taken.add(candidate)
        result.append(candidate)
    return tuple(result)


_selectors: dict[int, Selector] = {}


def selector_of(settings: "Settings") -> Selector:
    """The selector of these settings, made once."""
    selector = _selectors.get(id(settings))
    if selector is None or selector.settings is not settings:
        if len(_selectors) >= MAX_SELECTORS:
            _selectors.clear()
        selector = _selectors[id(settings)] = Selector(settings)
    return selector


def _pattern(globs: Sequence[str]) -> re.Pattern[str] | None:
    """One expression for all shell patterns, case-sensitive; None for none."""
    return re.compile("|".join(map(translate, globs))) if globs else None
