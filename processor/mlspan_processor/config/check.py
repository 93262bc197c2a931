"""Configuration step 5: a dictionary in, a checked Configuration out, or every problem at once.

Guarantee: a Configuration that comes back can be built; what can still fail is the world (a port in use, a
missing file).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from mlspan_processor.config import schema
from mlspan_processor.config.components import DEPRECATED, ComponentLoadError, Components, ComponentType, Kind
from mlspan_processor.config.explain import keys_of, shown, validate
from mlspan_processor.config.graph import PipelineSpec, check_loops, check_pipelines, check_ports
from mlspan_processor.errors import ConfigError, Problem, hint

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}(/[^\s/].*)?")
_SERVICE = "service"
_QUEUE_KEYS = tuple(schema.Queued.model_fields)


@dataclass(frozen=True, slots=True)
class Component:
    """One configured component.

    Attributes:
        id: "type" or "type/name".
        type: what it is.
        settings: validated instance of the type's model.
        queue: the queue's settings; None for what has no queue.
    """

    id: str
    type: ComponentType
    settings: BaseModel
    queue: schema.Queued | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration that holds together.

    Attributes:
        components: by kind and id, those that the service uses.
        pipelines: by id, in the order written.
        service: the service section.
        warnings: what is odd but runs, each one sentence.
    """

    components: Mapping[tuple[Kind, str], Component]
    pipelines: Mapping[str, PipelineSpec]
    service: schema.Service
    warnings: tuple[str, ...] = field(default=())

    def of(self, kind: Kind) -> list[Component]:
        """Return the used components of a kind, in the order written."""
        return [component for (one, _), component in self.components.items() if one is kind]


def check(document: Mapping[str, Any], components: Components | None = None) -> Configuration:
    """Return the Configuration that `document` describes.

    Raises:
        ConfigError: with every problem found.
    """
    components = components or Components()
    problems: list[Problem] = []
    warnings: list[str] = []
    sections = {kind.value: kind for kind in Kind}
    problems.extend(
        Problem(str(key), f'unknown section "{key}"{hint(str(key), [*sections, _SERVICE], "sections")}')
        for key in document
        if key not in sections and key != _SERVICE
    )
    defined = {kind: _section(kind, document.get(kind.value), problems) for kind in Kind}
    built: dict[tuple[Kind, str], Component] = {}
    for kind, entries in defined.items():
        for name, data in entries.items():
            component = _component(kind, name, data, components, problems, warnings)
            if component is not None:
                built[kind, name] = component

    service = _service(document, problems)
    if service is None:
        raise ConfigError(problems)
    ids = {kind: frozenset(entries) for kind, entries in defined.items()}
    pipelines = check_pipelines(service, ids, {key: one.type for key, one in built.items()}, problems)
    problems.extend(
        Problem(
            "service::extensions",
            f'references extension "{name}", which is not configured{hint(name, ids[Kind.EXTENSION], "extensions")}',
        )
        for name in service.extensions
        if name not in ids[Kind.EXTENSION]
    )
    used = _used(service)
    warnings.extend(
        f'{kind.word} "{name}" is configured but not used'
        for kind, names in ids.items()
        for name in names
        if (kind, name) not in used
    )
    running = {key: one for key, one in built.items() if key in used}
    listening = [
        (f"{kind.value}::{name}::{key}", endpoint)
        for (kind, name), one in running.items()
        for key, endpoint in one.type.listens(one.settings)
    ]
    check_ports(listening + _telemetry_endpoints(service), problems)
    sending = [
        (f"exporters::{name}::endpoint", str(getattr(one.settings, "endpoint", "")))
        for (kind, name), one in running.items()
        if kind is Kind.EXPORTER and one.type.queued
    ]
    check_loops([one for one in listening if one[0].startswith("receivers::")], sending, problems)
    if problems:
        raise ConfigError(problems)
    return Configuration(running, pipelines, service, tuple(warnings))


def _section(kind: Kind, data: Any, problems: list[Problem]) -> dict[str, Any]:
    """Return the section's entries whose ids can be read."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        problems.append(Problem(kind.value, f"expected a map of {kind.word} ids, got {shown(data)}"))
        return {}
    entries = {}
    for name, value in data.items():
        if isinstance(name, str) and _ID.fullmatch(name):
            entries[name] = value
        else:
            problems.append(
                Problem(f"{kind.value}::{name}", f'"{name}" is no component id; an id is "type" or "type/name"')
            )
    return entries


def _component(
    kind: Kind, name: str, data: Any, components: Components, problems: list[Problem], warnings: list[str]
) -> Component | None:
    path = f"{kind.value}::{name}"
    type_name = name.partition("/")[0]
    if not components.accepts(kind, type_name):
        valid = components.names(kind)
        problems.append(Problem(path, f'unknown {kind.word} type "{type_name}"{hint(type_name, valid, "types")}'))
        return None
    try:
        component_type = components.get(kind, type_name)
    except ComponentLoadError as error:
        problems.append(Problem(path, str(error)))
        return None
    if component_type.name != type_name:
        warnings.append(f'exporter "{name}": the type "{type_name}" is deprecated; it is now "{DEPRECATED[type_name]}"')
    data = {} if data is None else data
    if not isinstance(data, dict):
        problems.append(Problem(path, f"expected a map of keys, got {shown(data, path)}"))
        return None
    queue: schema.Queued | None = None
    count = len(problems)
    extra: tuple[str, ...] = ()
    if component_type.queued:
        # One map in the file, two models: the queue's keys are the processor's, the rest is the exporter's.
        extra = tuple(key for key in _QUEUE_KEYS if key not in keys_of(component_type.config))
        queue = validate(schema.Queued, {key: data[key] for key in extra if key in data}, path, problems)
        data = {key: value for key, value in data.items() if key not in extra}
    settings = validate(component_type.config, data, path, problems, extra)
    if len(problems) > count or settings is None:
        return None
    return Component(name, component_type, settings, queue)


def _service(document: Mapping[str, Any], problems: list[Problem]) -> schema.Service | None:
    if _SERVICE not in document:
        problems.append(Problem(_SERVICE, 'required, but missing: it names what runs, "service::pipelines"'))
        return None
    return validate(schema.Service, document[_SERVICE], _SERVICE, problems)


def _used(service: schema.Service) -> set[tuple[Kind, str]]:
    used = {(Kind.EXTENSION, name) for name in service.extensions}
    for pipeline in service.pipelines.values():
        used.update((kind, name) for name in pipeline.receivers for kind in (Kind.RECEIVER, Kind.CONNECTOR))
        used.update((Kind.PROCESSOR, name) for name in pipeline.processors)
        used.update((kind, name) for name in pipeline.exporters for kind in (Kind.EXPORTER, Kind.CONNECTOR))
    return used


def _telemetry_endpoints(service: schema.Service) -> list[tuple[str, str]]:
    metrics = service.telemetry.metrics
    if metrics.level == "none":
        return []
    return [
        (
            f"service::telemetry::metrics::readers::{index}::pull::exporter::prometheus",
            f"{one.host}:{one.port}",
        )
        for index, one in enumerate(reader.pull.exporter.prometheus for reader in metrics.readers)
    ]
