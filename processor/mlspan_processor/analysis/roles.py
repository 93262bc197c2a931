"""Batch, part 2: which column is what.

In: what the user named, and the columns that the two files have. Out: a Roles for each file, and the features. A name
that neither file has is an error with the nearest name that there is; a feature that only one of them has is none: the
result says so.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.source import Source

CODES: Final = b"mlspan.codes"
"""Key in the metadata of an Arrow field whose values are category codes already."""
_NAMELESS: Final = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
_SINGLE: Final = ("prediction", "label", "time", "id", "version")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the user named.

    Attributes:
        prediction, label, time, id: by role; "" for none.
        predictions, labels: (output, column) pairs of a model with several outputs.
        probabilities: (class, column) pairs; the class is "" where only the column was named.
        segments: to cut by.
        features: the model's inputs, or None for every column without another role.
        version: the column of the model's version, for a comparison within one file; "" for none.
    """

    prediction: str = ""
    probabilities: tuple[tuple[str, str], ...] = ()
    label: str = ""
    time: str = ""
    id: str = ""
    segments: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    version: str = ""
    predictions: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def named(self) -> dict[str, str]:
        """Column to the option that named it, features aside."""
        single = {
            "prediction": self.prediction,
            "label": self.label,
            "time": self.time,
            "id": self.id,
            "version": self.version,
        }
        found: dict[str, str] = {}
        pairs = [(name, role) for role, name in single.items() if name]
        several = {"probability": self.probabilities, "prediction": self.predictions, "label": self.labels}
        pairs += [(name, role) for role, named in several.items() for _, name in named]
        for name, role in pairs:
            if found.get(name) == role:
                raise AnalysisError(f'column "{name}" is named twice as {role}')
            if name in found:
                raise AnalysisError(f'column "{name}" cannot be both {found[name]} and {role}')
            found[name] = role
        for name in self.segments:
            found.setdefault(name, "segment")
        return found


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one file; "" and () where it has none for a role."""

    prediction: str
    label: str
    time: str
    id: str
    version: str
    probabilities: tuple[tuple[str, str], ...]
    segments: tuple[str, ...]
    predictions: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def answers(self) -> list[str]:
        """All columns with a role, each once."""
        single = [self.prediction, self.label, self.time, self.id, self.version]
        several = [name for _, name in (*self.probabilities, *self.predictions, *self.labels)]
        return list(dict.fromkeys(name for name in [*single, *several, *self.segments] if name))


def parse_probabilities(named: Sequence[str], known: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(class, column) pairs from "COL" or "CLASS=COL"; a column's own name may hold an equals sign.

    >>> parse_probabilities(["yes=p_yes"], ["p_yes"])
    (('yes', 'p_yes'),)
    """
    pairs = []
    for text in named:
        if text in known or "=" not in text:
            pairs.append(("", text))
        else:
            # The longest column name that fits: classes may hold an equals sign as well.
            cuts = [i for i, letter in enumerate(text) if letter == "="]
            at = next((i for i in cuts if text[i + 1 :] in known), cuts[0])
            pairs.append((text[:at], text[at + 1 :]))
    return tuple(pairs)


def pairs_of(named: str | Sequence[str] | Mapping[str, str], known: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name or "", column) pairs, in whatever form they were given."""
    if isinstance(named, Mapping):
        return tuple((str(name), column) for name, column in named.items())
    return parse_probabilities([named] if isinstance(named, str) else list(named), known)


def parse_outputs(
    named: str | Sequence[str] | Mapping[str, str] | None, known: Sequence[str], role: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The one column of a role, or the (output, column) pairs of several outputs.

    >>> parse_outputs("y", ["y"], "label"), parse_outputs(["a=y_a", "b=y_b"], ["y_a", "y_b"], "label")
    (('y', ()), ('', (('a', 'y_a'), ('b', 'y_b'))))

    Raises:
        AnalysisError: several columns, not each with the name of an output of its own.
    """
    if not named:
        return "", ()
    pairs = pairs_of(named, known)
    if len(pairs) == 1 and not pairs[0][0]:
        return pairs[0][1], ()
    names = [name for name, _ in pairs]
    if not all(names):
        raise AnalysisError(f"--{role} names several columns: name the output of each (--{role} NAME=COL)")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise AnalysisError(f'--{role} names the output "{repeated[0]}" twice')
    return "", pairs


def parse_features(named: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Columns from names, or from "COL,COL"; a column's own name may hold a comma.

    >>> parse_features(["a,b", "c"], ["a", "b", "c"])
    ('a', 'b', 'c')
    """
    found: list[str] = []
    for text in [named] if isinstance(named, str) else named:
        found += [text] if text in known else [one.strip() for one in text.split(",") if one.strip()]
    return tuple(found)


def roles_of(columns: Columns, source: Source) -> Roles:
    """The roles of one file's columns; what the source itself says stands where it says something."""
    if source.roles:
        own: Mapping[str, Any] = source.roles
        segments = tuple(name for name in columns.segments if name in source.schema.names)
        prediction, label, time, key, version = (own.get(role, "") for role in _SINGLE)
        pairs = [tuple(own.get(role, ())) for role in ("probabilities", "predictions", "labels")]
        return Roles(prediction, label, time, key, version, pairs[0], segments, pairs[1], pairs[2])
    names = set(source.schema.names)

    def there(name: str) -> str:
        return name if name in names else ""

    def all_there(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return pairs if all(name in names for _, name in pairs) else ()

    return Roles(
        there(columns.prediction),
        there(columns.label),
        there(columns.time),
        there(columns.id),
        there(columns.version),
        all_there(columns.probabilities),
        tuple(name for name in columns.segments if name in names),
        all_there(columns.predictions),
        all_there(columns.labels),
    )


def check(columns: Columns, reference: Source, current: Source) -> None:
    """Raise AnalysisError for a name that no file has, and for a file that lacks what it must have."""
    both = [*dict.fromkeys([*reference.schema.names, *current.schema.names])]
    for name, role in columns.named().items():
        if name not in both and not (reference.roles and current.roles):
            raise AnalysisError(f'--{role} "{name}": neither file has this column{near(name, both)}')
    for name in columns.features or ():
        if name not in reference.schema.names:
            raise AnalysisError(f'--features "{name}": {reference.name} has no such column{near(name, both)}')
    repeated = [name for name in columns.features or () if columns.features and columns.features.count(name) > 1]
    if repeated:
        raise AnalysisError(f'--features names "{repeated[0]}" twice')
    for name, role in columns.named().items():
        if role != "segment" and name in (columns.features or ()):
            raise AnalysisError(f'column "{name}" cannot be both {role} and a feature')
    if columns.time and columns.time not in current.schema.names and not current.roles:
        raise AnalysisError(f'--time "{columns.time}": {current.name} has no such column')


def features_of(columns: Columns, reference: Source, current: Source) -> tuple[str, ...]:
    """The features: those named, else every column of the reference without another role that can be one."""
    if columns.features is not None:
        return columns.features
    taken = {*columns.named(), *own_columns(reference), *own_columns(current)}
    fields = [field for field in reference.schema if field.name not in taken and not is_row_number(field.name)]
    return tuple(field.name for field in fields if type_of(field) is not None)


def is_row_number(name: str) -> bool:
    """Whether a column has no name of its own: the index that pandas writes beside the columns.

    >>> [is_row_number(name) for name in ("", "Unnamed: 0", "__index_level_0__", "index")]
    [True, True, True, False]
    """
    return _NAMELESS.fullmatch(name) is not None


def own_columns(source: Source) -> set[str]:
    """The columns that the source itself gives a role."""
    single = {name for name in source.roles.values() if isinstance(name, str)}
    several = ("probabilities", "predictions", "labels")
    return single | {name for role in several for _, name in source.roles.get(role, ())}


def type_of(field: Any) -> str | None:
    """The type of a feature with this Arrow field, None for what is not captured."""
    kind = field.type
    if CODES in (field.metadata or {}) or is_text(kind):
        return CATEGORICAL
    if pa.types.is_boolean(kind):
        return BOOLEAN
    if pa.types.is_nested(kind) or pa.types.is_time(kind):
        return None
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal, pa.types.is_null)
    return NUMERIC if any(test(kind) for test in known) else None


def is_text(kind: Any) -> bool:
    """Whether values of an Arrow type are categories."""
    if isinstance(kind, pa.DictionaryType):
        held = kind.value_type  # pandas.cut makes intervals, an extension type
        return not pa.types.is_nested(held) and not isinstance(held, pa.BaseExtensionType)
    return str(kind).startswith(("string", "large_string", "binary", "large_binary"))


def near(wrong: str, names: Sequence[str]) -> str:
    """What was perhaps meant, and what there is, for the end of a message."""
    alike: dict[str, str] = {}
    for name in names:
        alike.setdefault(name.casefold(), name)
    close = [alike[one] for one in difflib.get_close_matches(wrong.casefold(), alike, n=1, cutoff=0.5)]
    shown = ", ".join(f'"{name}"' for name in names[:30]) + (", …" if len(names) > 30 else "")
    return f'; did you mean "{close[0]}"?' if close else f"; there are {shown}"
