"""Writes the tables of docs/semantic-conventions.md from the registry of names, that of docs/instrumentation.md from
the settings, that of docs/operations.md from the processor's own metrics, and docs/configuration.md from its models.

    python docs/generate.py          write the tables between their markers, and the whole of docs/configuration.md
    python docs/generate.py --check  exit with 1 when they are out of date

Reads instrumentation/mlspan/semconv/registry.yaml, mlspan.config and mlspan_processor.config. Text outside of the
markers is left as it is.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import cleandoc
from pathlib import Path
from typing import Any

import yaml

from mlspan.config import OPERATIONS, Settings
from mlspan_processor.config.tables import configuration_document, metrics_table

ROOT = Path(__file__).parents[1]
REGISTRY = ROOT / "instrumentation" / "mlspan" / "semconv" / "registry.yaml"
PAGE = ROOT / "docs" / "semantic-conventions.md"
SETTINGS_PAGE = ROOT / "docs" / "instrumentation.md"
OPERATIONS_PAGE = ROOT / "docs" / "operations.md"
CONFIGURATION_PAGE = ROOT / "docs" / "configuration.md"

_SECTION = re.compile(r"(<!-- begin (?P<name>[a-z ]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)

Group = Mapping[str, Any]


def load() -> list[Group]:
    """The registry's groups."""
    groups: list[Group] = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))["groups"]
    return groups


def attributes(groups: Sequence[Group]) -> str:
    """One table for each group of attributes."""
    parts = []
    for group in _of_type(groups, "attribute_group"):
        rows = [(f"`{entry['id']}`", _type(entry), _brief(entry), _examples(entry)) for entry in group["attributes"]]
        table = _table(("attribute", "type", "meaning", "examples"), rows)
        parts.append(f"### {group['display_name']}\n\n{group['brief']}\n\n{table}")
    return "\n\n".join(parts)


def spans(groups: Sequence[Group]) -> str:
    """One table for each kind of span."""
    return "\n\n".join(
        f"### `{group['id'].removeprefix('span.')}`\n\n{group['brief']} Kind {group['span_kind'].upper()}.\n\n"
        + _references(group)
        for group in _of_type(groups, "span")
    )


def events(groups: Sequence[Group]) -> str:
    """One table for each log event."""
    return "\n\n".join(
        f"### `{group['name']}`\n\n{group['brief']}\n\n{_references(group)}" for group in _of_type(groups, "event")
    )


def metrics(groups: Sequence[Group]) -> str:
    """All metrics in one table."""
    rows = [
        (
            f"`{group['metric_name']}`",
            group["instrument"],
            f"`{group['unit']}`",
            group["brief"],
            ", ".join(f"`{reference['ref']}`" for reference in group["attributes"]),
        )
        for group in _of_type(groups, "metric")
    ]
    return _table(("metric", "instrument", "unit", "meaning", "attributes"), rows)


def settings(_: Sequence[Group]) -> str:
    """All settings of the application side in one table; their meaning stands in the docstring of `Settings`."""
    meanings = dict(re.findall(r"^ {4}(\w+): (.+)\.$", cleandoc(Settings.__doc__ or ""), re.MULTILINE))
    rows = [
        (
            f"`{one.name}`",
            f"`{one.metadata['variable']}`",
            _default(one.default),
            one.metadata["valid"],
            meanings[one.name],
        )
        for one in fields(Settings)
    ]
    return _table(("option", "variable", "default", "valid", "meaning"), rows)


Sections = Mapping[str, Callable[[Sequence[Group]], str]]

SECTIONS: Sections = {"attributes": attributes, "spans": spans, "events": events, "metrics": metrics}
PAGES: Mapping[Path, Callable[[str], str]] = {
    PAGE: lambda page: rendered(page, SECTIONS),
    SETTINGS_PAGE: lambda page: rendered(page, {"settings": settings}),
    OPERATIONS_PAGE: lambda page: rendered(page, {"own metrics": lambda _: metrics_table()}),
    CONFIGURATION_PAGE: lambda _: configuration_document(),
}
"""Each page as the code has it, from the page as it is."""


def rendered(page: str, sections: Sections = SECTIONS) -> str:
    """The page with all sections as the code has them.

    Raises:
        ValueError: a section's markers are missing.
    """
    groups = load()
    found = [match["name"] for match in _SECTION.finditer(page)]
    if sorted(found) != sorted(sections):
        raise ValueError(f"markers for {found}; there must be one pair for each of {list(sections)}")
    return _SECTION.sub(lambda match: f"{match[1]}\n{sections[match['name']](groups)}\n\n{match[3]}", page)


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages; the exit status."""
    status = 0
    for path, current in PAGES.items():
        page = path.read_text(encoding="utf-8")
        new = current(page)
        if "--check" not in arguments:
            path.write_text(new, encoding="utf-8")
        elif new != page:
            print(f"{path.relative_to(ROOT)} is out of date: run python docs/generate.py", file=sys.stderr)
            status = 1
    return status


def _of_type(groups: Sequence[Group], kind: str) -> list[Group]:
    return [group for group in groups if group["type"] == kind]


def _type(entry: Group) -> str:
    kind = entry["type"]
    return kind if isinstance(kind, str) else "string"


def _brief(entry: Group) -> str:
    kind = entry["type"]
    brief: str = entry["brief"]
    if isinstance(kind, str):
        return brief
    return brief + " One of: " + "; ".join(f"`{m['value']}` ({m['brief'].rstrip('.')})" for m in kind["members"]) + "."


def _examples(entry: Group) -> str:
    return "; ".join(f"`{str(example).replace(chr(39), chr(34))}`" for example in entry.get("examples", ()))


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    if value == OPERATIONS:
        return "all of them"
    if isinstance(value, bytes):
        value = value.decode()
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _references(group: Group) -> str:
    rows = []
    for reference in group["attributes"]:
        level = reference["requirement_level"]
        text = level if isinstance(level, str) else f"conditionally required: {level['conditionally_required']}"
        rows.append((f"`{reference['ref']}`", text.replace("opt_in", "opt-in")))
    return _table(("attribute", "requirement"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
