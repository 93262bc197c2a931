"""``mlspan validate`` and ``mlspan components``: the configuration explained, and what it can name."""

import argparse
import sys

from mlspan_processor.cli.console import fail, say
from mlspan_processor.config import Components, Configuration, Kind, load
from mlspan_processor.config.components import ComponentLoadError
from mlspan_processor.errors import ConfigError
from mlspan_processor.monitors.defaults import with_defaults
from mlspan_processor.monitors.explain import sentence
from mlspan_processor.records import Signal
from mlspan_processor.settings import MlspanSettings


def validate(options: argparse.Namespace) -> int:
    """Check; print the pipelines, or every problem."""
    try:
        configuration = load(options.config, options.settings)
    except ConfigError as error:
        return fail(str(error))
    for warning in configuration.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    say("the configuration is valid\n")
    say(describe(configuration))
    return 0


def describe(configuration: Configuration) -> str:
    """Return the pipelines as text, and where everything listens."""
    width = max(map(len, configuration.pipelines))
    lines = []
    for name, spec in configuration.pipelines.items():
        stages = [", ".join(spec.receivers), *spec.processors, ", ".join(spec.exporters)]
        lines.append(f"  {name:<{width}}  {' → '.join(stages)}")
    listening = [
        f"  {endpoint:<21}  {component.type.kind.word} {component.id}"
        for component in configuration.components.values()
        for _, endpoint in component.type.listens(component.settings)
    ]
    return "\n".join(["pipelines:", *lines, "listens on:", *listening, *monitors(configuration)])


def monitors(configuration: Configuration) -> list[str]:
    """Return a line for each monitor and each target of the configuration's connectors."""
    lines = []
    for component in configuration.of(Kind.CONNECTOR):
        settings = component.settings
        if not isinstance(settings, MlspanSettings):
            continue
        targets = settings.notify.targets
        running = with_defaults(settings.monitors, settings.default_monitors)
        lines.append(
            f'monitors of connector "{component.id}":' if running else f'connector "{component.id}": no monitors'
        )
        lines += [
            f"  {one.name}: {sentence(one, settings.window.min_rows, settings.window.min_labels, tuple(targets))}"
            for one in running
        ]
        lines += [
            f"  {name} is told from severity {one.min_severity} on: {', '.join(one.changes)}"
            for name, one in targets.items()
        ]
    return lines


def components(_: argparse.Namespace) -> int:
    """List every component type; one that cannot be imported is listed with the reason."""
    available = Components()
    for kind in Kind:
        say(f"{kind.value}:")
        for name in available.names(kind):
            try:
                one = available.get(kind, name)
            except ComponentLoadError as error:
                say(f"  {name:<16} {error}")
                continue
            signals = ", ".join(signal.value for signal in Signal if signal in one.consumes | one.produces)
            say(f"  {name:<16} {one.summary}{f' [{signals}]' if signals else ''}")
    return 0
