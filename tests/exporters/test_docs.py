"""docs/exporters.md: its tables of settings are those of the code, and its examples are valid.

`MLSPAN_UPDATE_GOLDEN=1 pytest tests/exporters/test_docs.py` writes the tables anew.
"""

import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlspan_exporters.settings import duration_seconds, duration_text

PAGE = Path(__file__).parents[2] / "docs" / "exporters.md"
FOUND = {entry.name: entry.load() for entry in entry_points(group="mlspan_exporter")}
BLOCK = r"(<!-- settings: {name} -->\n).*?(<!-- end -->)"


def table(model: type[BaseModel]) -> str:
    """Return the settings of a model as a table, nested ones with a dot."""
    rows = "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in settings(model, ""))
    return f"| setting | default | meaning |\n| --- | --- | --- |\n{rows}"


def settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and description of each setting."""
    for name, info in model.model_fields.items():
        inner = nested(info)
        if inner is None:
            yield f"{prefix}{name}", default_text(info), (info.description or "").replace("|", "\\|")
        else:
            if info.default is None:
                yield f"{prefix}{name}", "", info.description or ""
            yield from settings(inner, f"{prefix}{name}.")


def nested(info: FieldInfo) -> type[BaseModel] | None:
    """Return the block of settings that a field holds."""
    kinds = (info.annotation, *get_args(info.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def default_text(info: FieldInfo) -> str:
    """Return a default as it is written in YAML."""
    if info.is_required():
        return "*needed*"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", {}):
        return ""
    if any(getattr(item, "func", None) is duration_seconds for item in info.metadata):
        return f"`{duration_text(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


@pytest.mark.parametrize("name", sorted(FOUND))
def test_settings_are_documented_as_they_are(name: str) -> None:
    """The page has each exporter's settings with defaults and meaning."""
    text = PAGE.read_text()
    pattern = re.compile(BLOCK.format(name=name), re.DOTALL)
    current = pattern.sub(lambda found: f"{found[1]}{table(FOUND[name].Config)}{found[2]}", text)
    if os.environ.get("MLSPAN_UPDATE_GOLDEN"):
        PAGE.write_text(current)
    assert f"<!-- settings: {name} -->" in text
    assert PAGE.read_text() == current


def test_examples_are_valid() -> None:
    """Each exporter in the page's examples has valid settings."""
    blocks: list[Any] = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    ]
    seen = set()
    for block in blocks:
        for name, given in block.get("exporters", {}).items():
            FOUND[name.partition("/")[0]].Config.model_validate(given)
            seen.add(name.partition("/")[0])
    assert seen == set(FOUND)
