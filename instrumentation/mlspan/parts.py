"""The parts of an estimator, by the names that its user knows: steps, transformers, members of an ensemble.

Reads an estimator's attributes, fitted or not; changes nothing. Guarantee: never raises; objects that are no
estimators, and private attributes, are left out. Source of the names: scikit-learn's composition classes (`Pipeline`,
`ColumnTransformer`, `FeatureUnion`, the voting, stacking and search classes).
"""

from collections.abc import Iterator
from typing import Any, Final

from mlspan.identity import read
from mlspan.steps import Part

MAX_PARTS: Final = 64
"""Parts of one object that have a name of their own."""
_TABLES: Final = ("steps", "transformers_", "transformers", "transformer_list", "estimators")
"""Lists of (name, estimator, …), as users give them."""


def parts_of(model: object) -> list[Part]:
    """Names and objects; an object that is there under several names has the first."""
    found: dict[int, Part] = {}
    try:
        for name, part in _all(model):
            if id(part) not in found:
                found[id(part)] = (name, part)
                if len(found) >= MAX_PARTS:
                    break
    except Exception:  # noqa: BLE001 - the attributes are the user's: what was found must do
        return list(found.values())
    return list(found.values())


def _all(model: object) -> Iterator[Part]:
    own = read(model, "__dict__")
    if not isinstance(own, dict):
        return
    for table in _TABLES:
        value = own.get(table)
        if isinstance(value, list):
            for item in value:
                if isinstance(item, tuple) and len(item) in {2, 3} and isinstance(item[0], str) and _is_part(item[1]):
                    yield item[0], item[1]
    fitted = own.get("named_estimators_")
    if isinstance(fitted, dict):
        for name, part in list(fitted.items()):
            if _is_part(part):
                yield str(name), part
    for name, value in list(own.items()):
        if name.startswith("_") or name in _TABLES:
            continue
        if _is_part(value):
            yield name, value
        elif isinstance(value, list) or (type(value).__name__ == "ndarray" and value.dtype.kind == "O"):
            yield from _members(name, value)


def _members(name: str, values: Any) -> Iterator[Part]:
    flat = values if isinstance(values, list) else values.flat
    for at, value in enumerate(flat):
        if at >= MAX_PARTS:
            return
        if _is_part(value):
            yield f"{name}[{at}]", value
        elif _is_part(read(value, "estimator")):  # of a calibrated classifier's folds
            yield f"{name}[{at}]", value.estimator
        elif at == 0:
            return


def _is_part(value: object) -> bool:
    kind = type(value)
    return not isinstance(value, type) and (hasattr(kind, "fit") or hasattr(kind, "predict"))
