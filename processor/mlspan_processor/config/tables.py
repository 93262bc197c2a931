"""docs/configuration.md and the metrics table of docs/operations.md, made from the models and the registry.

docs/generate.py writes both into their pages, and checks that they are current.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, PlainSerializer, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mlspan_processor.config import schema
from mlspan_processor.config.components import Components, ComponentType, Kind
from mlspan_processor.records import Signal
from mlspan_processor.telemetry import METRICS

INTRODUCTION = """\
# Configuration

<!-- Generated: python docs/generate.py -->

`mlspan run` reads the OpenTelemetry Collector's schema. Without `--config` it runs the default, which
[collector-config.yaml](../collector-config.yaml) shows with comments. `mlspan validate` checks a
configuration and shows its pipelines; `mlspan components` lists what can be named.

* **Ids** are `type` or `type/name`, so that one type can stand several times: `zipkin/eu`.
* **Pipelines** are named by their signal, `traces`, `metrics` or `logs`, or `signal/name`. A connector ends
  one pipeline (as an exporter) and begins others (as a receiver); it must do both.
* **Several files**: each `--config` is merged over those before it; maps merge, lists and values are
  replaced. Beside paths there are `env:NAME` and `yaml:exporters::debug::verbosity: basic`. `--set
  exporters.debug.verbosity=basic` comes last.
* **References**: `${env:NAME}`, `${env:NAME:-default}`, `${NAME}` and `${file:path}` are replaced, `$$` is a
  dollar sign. A variable that is not set and has no default is an error, and so is a reference that is not closed or
  stands within another. Inside `{ }` they need quotes.
* **Durations** are Go's: `500ms`, `10s`, `1m30s`. **Endpoints** to listen on are `host:port`; `0.0.0.0:4317`
  or `:4317` for every interface, `[::1]:4317` for IPv6.
* **Errors** fail the start, all at once; each names the key, the value and what would be valid. What is
  configured but not used is a warning.
* `otlp` and `otlphttp` are the deprecated names of the exporters `otlp_grpc` and `otlp_http`; they are
  accepted.
"""

_HEAD = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


class KeyRow(NamedTuple):
    """One key: dotted path, type in words, default as YAML, meaning."""

    key: str
    type: str
    default: str
    meaning: str


def configuration_document(components: Components | None = None) -> str:
    """Return docs/configuration.md."""
    components = components or Components()
    parts = [INTRODUCTION]
    for kind in Kind:
        parts.append(f"## {kind.value.capitalize()}\n")
        parts += [_component(components.get(kind, name)) for name in components.names(kind)]
        if kind is Kind.EXPORTER:
            parts.append(
                "### The queue of an exporter\n\nEvery exporter above that is said to have a queue takes these keys"
                f" beside its own. Each has one queue per signal.\n\n{_table(schema.Queued)}\n"
            )
    parts.append(f"## Service\n\n`service` says what runs.\n\n{_table(schema.Service)}\n")
    return "\n".join(parts)


def metrics_table() -> str:
    """Return the table of own metrics."""
    lines = ["| metric | type | unit | labels | description |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{row.name}` | {row.type} | `{row.unit}` | {', '.join(row.labels)} | {row.description} |" for row in METRICS
    ]
    return "\n".join(lines)


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[KeyRow]:
    """Return every key of a model, those of its sections with dots."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        section, many = _section(field.annotation)
        if section is None:
            yield KeyRow(key, _type(field.annotation, field), _default(field), meaning)
            continue
        default = "absent" if field.default is None else "required" if field.is_required() else ""
        yield KeyRow(key, f"{many}section", default, meaning)
        infix = {"": ".", "list of ": "[].", "map of ": ".*."}[many]
        yield from rows(section, key + infix)


def _component(one: ComponentType) -> str:
    parts = [f"### `{one.name}`\n\n{one.summary[:1].upper()}{one.summary[1:]}."]
    if one.kind is Kind.CONNECTOR:
        parts.append(f" Consumes {_signals(one.consumes)}; produces {_signals(one.produces)}.")
    elif one.kind is Kind.EXPORTER:
        parts.append(f" Takes {_signals(one.consumes)}. " + ("Has a queue." if one.queued else "Has no queue."))
    return "".join(parts) + f"\n\n{_table(one.config)}\n"


def _signals(signals: frozenset[Signal]) -> str:
    return ", ".join(one.value for one in Signal if one in signals)


def _table(model: type[BaseModel]) -> str:
    lines = [f"| `{row.key}` | {row.type} | {row.default} | {row.meaning} |" for row in rows(model)]
    return "\n".join([_HEAD, *lines]) if lines else "No settings."


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the model behind an annotation, if it is one, and whether it is a list or map of them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _section(arguments[0])
    if origin in {Union, types.UnionType}:
        return next((found for one in arguments if (found := _section(one))[0]), (None, ""))
    if origin in {list, tuple}:
        return _section(arguments[0])[0], "list of "
    if origin is dict:
        return _section(arguments[1])[0], "map of "
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation, "") if is_model else (None, "")


_WORDS: Mapping[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", SecretStr: "text"}


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    if field is not None and _serializer(field) is not None:
        return "duration"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return "duration" if any(isinstance(one, PlainSerializer) for one in arguments[1:]) else _type(arguments[0])
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin in {list, tuple, frozenset, set}:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map of {_type(arguments[1])}"
    return _WORDS.get(annotation, "path" if getattr(annotation, "__name__", "") == "Path" else "text")


def _serializer(field: FieldInfo) -> PlainSerializer | None:
    """Durations are the fields with a way to be written."""
    return next((one for one in field.metadata if isinstance(one, PlainSerializer)), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default: Any = field.get_default(call_default_factory=True, validated_data={})
    serializer = _serializer(field)
    if default is None or default is PydanticUndefined:
        return "absent"
    if serializer is not None:
        default = serializer.func(default)  # type: ignore[call-arg]  # ours take the value only
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list | tuple | dict | set | frozenset):
        return f"`{list(default) if not isinstance(default, dict) else default}`"
    return f"`{default}`" if default != "" else "empty"
