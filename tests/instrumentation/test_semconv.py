"""Names on the wire: registry, constants and documentation agree, and the registry has OpenTelemetry's shape."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own
import pytest
import yaml

from mlspan.semconv import attributes, events, metrics

ROOT = Path(__file__).parents[2]
REGISTRY = yaml.safe_load((ROOT / "instrumentation/mlspan/semconv/registry.yaml").read_text())
GROUPS: list[dict[str, Any]] = REGISTRY["groups"]
DEFINED = {entry["id"]: entry for group in GROUPS for entry in group["attributes"] if "id" in entry}
FOREIGN = {"error.type"}

_STABILITY = {"enum": ["development", "alpha", "beta", "release_candidate", "stable"]}
_TEXT = {"type": "string", "minLength": 1}
_MEMBER = {
    "type": "object",
    "required": ["id", "value", "stability"],
    "properties": {"id": _TEXT, "value": {}, "brief": _TEXT, "stability": _STABILITY},
    "additionalProperties": False,
}
_DEFINITION = {
    "type": "object",
    "required": ["id", "type", "brief", "stability"],
    "properties": {
        "id": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"},
        "type": {
            "oneOf": [
                {
                    "enum": [kind + many for kind in ("string", "int", "double", "boolean") for many in ("", "[]")]
                    + ["any"]
                },
                {
                    "type": "object",
                    "required": ["members"],
                    "properties": {"members": {"type": "array", "items": _MEMBER}},
                },
            ]
        },
        "brief": _TEXT,
        "note": _TEXT,
        "examples": {"type": "array", "minItems": 1},
        "stability": _STABILITY,
    },
    "additionalProperties": False,
}
_LEVEL = {
    "oneOf": [
        {"enum": ["required", "recommended", "opt_in"]},
        {"type": "object", "required": ["conditionally_required"], "maxProperties": 1},
        {"type": "object", "required": ["recommended"], "maxProperties": 1},
    ]
}
_REFERENCE = {
    "type": "object",
    "required": ["ref"],
    "properties": {"ref": _TEXT, "requirement_level": _LEVEL, "brief": _TEXT, "note": _TEXT},
    "additionalProperties": False,
}


def _group(kind: str, attribute: Any, **own: Any) -> dict[str, Any]:
    properties = {
        "id": _TEXT, "type": {"const": kind}, "brief": _TEXT, "note": _TEXT, "stability": _STABILITY,
        "display_name": _TEXT, "attributes": {"type": "array", "items": attribute}, **own,
    }  # fmt: skip
    required = ["id", "type", "brief", *own] + ([] if kind == "attribute_group" else ["stability"])
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


# After semconv.schema.json of OpenTelemetry's build tools and weaver, as far as it is used here.
SCHEMA = {
    "type": "object",
    "required": ["groups"],
    "properties": {
        "schema_url": {"type": "string", "pattern": r"^https://.+/\d+\.\d+\.\d+$"},
        "groups": {
            "type": "array",
            "items": {
                "oneOf": [
                    _group("attribute_group", _DEFINITION),
                    _group(
                        "span", _REFERENCE, span_kind={"enum": ["internal", "client", "server", "producer", "consumer"]}
                    ),
                    _group("event", _REFERENCE, name=_TEXT),
                    _group(
                        "metric",
                        _REFERENCE,
                        metric_name=_TEXT,
                        instrument={"enum": ["counter", "gauge", "histogram", "updowncounter"]},
                        unit=_TEXT,
                    ),
                ]
            },
        },
    },
    "additionalProperties": False,
}


def test_registry_has_the_shape_of_opentelemetrys() -> None:
    """OpenTelemetry's own tools could read the registry."""
    jsonschema.validate(REGISTRY, SCHEMA)


def test_ids_are_distinct_and_references_defined() -> None:
    """No group or attribute is defined twice, and every reference has its definition."""
    ids = [group["id"] for group in GROUPS]
    assert len(set(ids)) == len(ids)
    definitions = [entry["id"] for group in GROUPS for entry in group["attributes"] if "id" in entry]
    assert len(set(definitions)) == len(definitions)
    references = {entry["ref"] for group in GROUPS for entry in group["attributes"] if "ref" in entry}
    assert references - FOREIGN <= set(definitions)


def test_no_name_is_also_a_namespace() -> None:
    """OpenTelemetry's naming rule, for attributes and metrics."""
    for names in (set(DEFINED), {group["metric_name"] for group in GROUPS if group["type"] == "metric"}):
        assert not [one for one in names for other in names if other.startswith(one + ".")]


def test_text_attributes_have_examples() -> None:
    """Every attribute of free text shows what it looks like."""
    assert not [name for name, entry in DEFINED.items() if entry["type"] == "string" and "examples" not in entry]


def _constants(module: ModuleType, kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, kind)}


def _documented(module: ModuleType) -> dict[str, str]:
    """Constant -> the text below it."""
    assert module.__file__ is not None
    text = Path(module.__file__).read_text()
    return dict(re.findall(r'^([A-Z_0-9]+): Final = .*?\n"""(.*?)"""', text, re.MULTILINE))


def test_attribute_constants() -> None:
    """Each attribute is one constant of the same name and meaning, and there are no others."""
    constants = _constants(attributes, str)
    assert constants.pop("SCHEMA_URL") == REGISTRY["schema_url"]
    assert set(constants.values()) == set(DEFINED) | FOREIGN
    texts = _documented(attributes)
    for constant, name in constants.items():
        assert constant == name.replace(".", "_").upper()
        if name in DEFINED:
            assert texts[constant] == DEFINED[name]["brief"]


def test_event_constants() -> None:
    """Each event is one constant."""
    defined = {group["name"]: group["brief"] for group in GROUPS if group["type"] == "event"}
    constants = _constants(events, str)
    assert {name: _documented(events)[constant] for constant, name in constants.items()} == defined


def test_metric_constants() -> None:
    """Each metric is one constant with the registry's instrument, unit and meaning."""
    defined = {
        group["metric_name"]: (group["metric_name"], group["instrument"], group["unit"], group["brief"])
        for group in GROUPS
        if group["type"] == "metric"
    }
    constants = _constants(metrics, metrics.Metric)
    assert {value.name: tuple(value) for value in constants.values()} == defined
    assert all(constant == value.name.replace(".", "_").upper() for constant, value in constants.items())


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_documentation_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of docs/semantic-conventions.md are those of the registry, with every name in them."""
    generate = _generator()
    assert generate.main(["--check"]) == 0, capsys.readouterr().err
    page = generate.PAGE.read_text()
    for name in (*DEFINED, *(group["metric_name"] for group in GROUPS if group["type"] == "metric")):
        assert f"`{name}`" in page
    for boundary in metrics.DURATION_BUCKETS:
        assert f"{boundary:g}" in page


def test_documentation_without_markers_is_refused() -> None:
    """A page that lost a marker is not silently left without its table."""
    with pytest.raises(ValueError, match="one pair for each"):
        _generator().rendered("# no markers")
