"""Configuration step 4: a pydantic error becomes a problem that names key, value and what is valid."""

import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mlspan_processor.errors import Problem, hint

_SECRET = re.compile(r"token|password|secret|authorization|api_?key|headers|::notify::.*::url", re.IGNORECASE)
_MAX_SHOWN = 60
_MESSAGES = {
    "too_short": "must not be empty",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "string_type": "expected text; a number needs quotes to be text",
}
"""Kinds of errors whose text pydantic writes for programmers."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model: type[ModelT], data: Any, path: str, problems: list[Problem], extra_keys: Sequence[str] = ()
) -> ModelT | None:
    """Return the validated model, or None after adding every problem found.

    Args:
        model: what the section should be.
        data: what the file says.
        path: the section's key, "exporters::zipkin".
        problems: grows by one for each error.
        extra_keys: keys that are valid here beside the model's own; they only feed the messages.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(_problem(model, detail, path, extra_keys) for detail in error.errors())
        return None


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys as they are written in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def shown(value: object, path: str = "") -> str:
    """Return a value as a message shows it: quoted, shortened, secrets hidden."""
    if _SECRET.search(path):
        return '"***"'
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'"{text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."}"'


def _problem(model: type[BaseModel], detail: Any, path: str, extra_keys: Sequence[str]) -> Problem:
    location = [part for part in detail["loc"] if part != "[key]"]
    key = "::".join([path, *(str(part) for part in location)])
    kind, value, message = detail["type"], detail["input"], str(detail["msg"])
    if kind == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        valid = [*(keys_of(parent) if parent else ()), *(extra_keys if len(location) == 1 else ())]
        return Problem(key, f'unknown key "{location[-1]}"{hint(str(location[-1]), valid, "keys")}')
    if kind == "missing":
        parent = _model_at(model, location[:-1])
        field = parent.model_fields.get(str(location[-1])) if parent else None
        what = f". {field.description}" if field and field.description else ""
        return Problem(key, f"required, but missing{what}")
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return Problem(key, f"{shown(value, key)} is not valid{hint(str(value), valid, 'values')}")
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return Problem(key, f"expected a map of keys, got {shown(value, key)}")
    if kind == "list_type":
        return Problem(key, f"expected a list, got {shown(value, key)}")
    message = _MESSAGES.get(kind) or message.removeprefix("Value error, ")
    if message[:2].istitle():
        message = message[0].lower() + message[1:]
    if isinstance(value, dict | list | None):
        return Problem(key, message)
    return Problem(key, f"{shown(value, key)} is not valid: {message}")


def _model_at(model: type[BaseModel], location: Sequence[object]) -> type[BaseModel] | None:
    """Follow keys and indices through the annotations to the model that stands there."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part)) or next(
                (one for one in current.model_fields.values() if one.alias == part), None
            )
            current = _inner(field.annotation) if field else None
        else:
            # An index into a list or a key of a map: its values' type is the last argument.
            arguments = get_args(current)
            current = _inner(arguments[-1]) if arguments else None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _inner(annotation: Any) -> Any:
    """Take Annotated and Optional off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return next((_inner(one) for one in get_args(annotation) if one is not type(None)), None)
    return annotation
