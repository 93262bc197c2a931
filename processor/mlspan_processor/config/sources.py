"""Configuration step 1: files, ``--set`` and environment in; one plain dictionary out.

The Collector's rules: several sources merge in order (maps merge, lists and scalars replace);
``${env:VAR}``, ``${env:VAR:-default}``, ``${VAR}`` and ``${file:path}`` are replaced, ``$$`` is a dollar
sign. A value that is one replacement and nothing else is read as YAML, so that ``${env:PORT}`` is a number;
a replacement inside text stays text. Source:
https://opentelemetry.io/docs/collector/configuration/#environment-variables.
"""

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mlspan_processor.errors import ConfigError, Problem

_REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_EXPANSIONS = 1_000
"""References that one configuration may hold, nested ones included."""
_MAX_DEPTH = 20
"""References within what references gave: a file that includes itself ends here."""

DEFAULT_NAME = "the embedded default"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, which PyYAML lets pass in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping; raise ConstructorError for a repeated key."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<":
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key "{key}" is written twice', key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def read(
    sources: Sequence[str] = (), settings: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the merged dictionary of all sources, with every reference replaced.

    Args:
        sources: paths, ``file:path``, ``env:VAR`` or ``yaml:text``; none means the embedded default.
        settings: ``key=value`` overrides; the key's parts are joined by "." or "::", the value is YAML.
        environ: the environment; by default the process's.

    Raises:
        ConfigError: listing every source, override and reference that cannot be read.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    merged: dict[str, Any] = {}
    for text, name in [_text(source, environ, problems) for source in sources] or [(default_text(), DEFAULT_NAME)]:
        document = _parse(text, name, problems)
        if document is not None:
            merged = merge(merged, document)
    for setting in settings:
        merged = merge(merged, _override(setting, problems))
    expanded = _Expander(environ, problems).value(merged, "")
    if problems:
        raise ConfigError(problems)
    return dict(expanded)


def default_text() -> str:
    """Return the YAML that runs when no file is given."""
    return resources.files("mlspan_processor.config").joinpath("default.yaml").read_text("utf-8")


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `top` laid over `base`: maps merge, everything else is replaced.

    >>> merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}})
    {'a': {'b': 1, 'c': [2]}}
    """
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _text(source: str, environ: Mapping[str, str], problems: list[Problem]) -> tuple[str, str]:
    """Return the source's text and its name for messages."""
    scheme, colon, rest = source.partition(":")
    # One letter before the colon is a Windows drive.
    if colon and len(scheme) > 1 and scheme in {"yaml", "env", "file"}:
        if scheme == "yaml":
            return _unflatten(rest), source
        if scheme == "env":
            if rest not in environ:
                problems.append(Problem("", f'the environment variable "{rest}" (from "--config {source}") is not set'))
            return environ.get(rest, ""), source
        source = rest
    try:
        return Path(source).read_text("utf-8"), source
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problems.append(Problem("", f'cannot read "{source}": {reason}'))
        return "", source


def _unflatten(text: str) -> str:
    """Turn the Collector's ``a::b::c: value`` of ``yaml:`` sources into nested YAML."""
    key, separator, value = text.partition(": ")
    parts = key.split("::")
    if len(parts) == 1 or "\n" in text:
        return text
    return "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts[:-1])) + (
        f"{'  ' * (len(parts) - 1)}{parts[-1]}{separator}{value}"
    )


def _parse(text: str, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except yaml.YAMLError as error:
        problems.append(Problem("", f'"{name}" is not YAML: {_yaml_reason(error)}'))
        return None
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.append(Problem("", f'"{name}" holds {_shown(document)}; a configuration is a map of sections'))
        return None
    return document


def _yaml_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        # ${env:X} unquoted inside { } is what people meet first.
        note = ' (inside { } a "${…}" needs quotes)' if "'{'" in str(error.problem) else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{note}"
    return str(error)


def _override(setting: str, problems: list[Problem]) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    parts = [part for part in re.split(r"::|\.", key.strip()) if part]
    if not equals or not parts:
        problems.append(Problem("", f'"--set {setting}" is not of the form key=value, exporters.debug.verbosity=basic'))
        return {}
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except yaml.YAMLError as error:
        problems.append(Problem("::".join(parts), f'the value of "--set {setting}" is not YAML: {_yaml_reason(error)}'))
        return {}
    result: Any = value
    for part in reversed(parts):
        result = {part: result}
    return dict(result)


class _Expander:
    """Replaces references; remembers how many, so that a file including itself ends with a message."""

    def __init__(self, environ: Mapping[str, str], problems: list[Problem]) -> None:
        self._environ = environ
        self._problems = problems
        self._left = _MAX_EXPANSIONS
        self._depth = 0

    def value(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: self.value(item, f"{path}::{key}" if path else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, f"{path}::{index}") for index, item in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            return self._string(value, path)
        return value

    def _string(self, text: str, path: str) -> Any:
        self._depth += 1
        try:
            return self._replaced(text, path)
        finally:
            self._depth -= 1

    def _replaced(self, text: str, path: str) -> Any:
        # What came out of a variable or a file may hold anything.
        if self._depth == 1 and "${" in _REFERENCE.sub("", text):
            message = (
                f'{_shown(text)} has a "${{" that is not closed, or a reference within another; "$${{" is no reference'
            )
            self._problems.append(Problem(path, message))
            return text
        whole = _REFERENCE.fullmatch(text)
        if whole and whole.group(1) is not None:
            found = self._lookup(whole.group(1), path)
            try:
                value = yaml.load(found, _Loader)  # noqa: S506  # _Loader is a SafeLoader
            except yaml.YAMLError:
                return found  # a secret may hold any character: what is not YAML is text
            if isinstance(value, dict | list | int | float | bool | None):
                return self.value(value, path)
            # Dates and the like stay the text that was written. "$$" in a secret is no escape.
            return self._string(found, path) if "${" in found else found
        return _REFERENCE.sub(lambda match: "$" if match.group(1) is None else self._lookup(match.group(1), path), text)

    def _lookup(self, reference: str, path: str) -> str:
        self._left -= 1
        if self._left < 0 or self._depth > _MAX_DEPTH:
            endless = Problem(path, f'"${{{reference}}}" is endless, or one of more than {_MAX_EXPANSIONS}')
            if endless not in self._problems:
                self._problems.append(endless)
            return ""
        scheme, colon, rest = reference.partition(":")
        if scheme == "file" and colon:
            try:
                return Path(rest).read_text("utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._problems.append(Problem(path, f'cannot read the file of "${{{reference}}}": {reason}'))
                return ""
        name = rest if scheme == "env" and colon else reference
        name, dash, default = name.partition(":-")
        if not _VARIABLE.fullmatch(name):
            self._problems.append(
                Problem(
                    path,
                    f'"${{{reference}}}" is no reference; valid are ${{env:NAME}}, ${{env:NAME:-default}},'
                    " ${NAME} and ${file:path}, and $$ for a dollar sign",
                )
            )
            return ""
        if name in self._environ:
            found = self._environ[name]
            return default if dash and not found else found
        if not dash:
            self._problems.append(
                Problem(
                    path,
                    f'the environment variable "{name}" is not set; "${{env:{name}:-…}}" has a default',
                )
            )
        return default


def _shown(value: object) -> str:
    text = str(value)
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'
