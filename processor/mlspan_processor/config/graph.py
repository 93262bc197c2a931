"""Configuration step 6: references, signals, connectors, cycles and ports.

Reads the pipelines as written, adds a problem for each thing that cannot run; what comes back is the wiring.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlspan_processor.config import schema
from mlspan_processor.config.components import ComponentType, Kind
from mlspan_processor.errors import Problem, hint, quoted
from mlspan_processor.records import Signal

_ANY_HOST = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SIGNALS = tuple(signal.value for signal in Signal)


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """One pipeline: its signal and the ids of its parts."""

    signal: Signal
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]


Ids = Mapping[Kind, frozenset[str]]
Types = Mapping[tuple[Kind, str], ComponentType]


def check_pipelines(
    service: schema.Service, ids: Ids, types: Types, problems: list[Problem]
) -> dict[str, PipelineSpec]:
    """Return the wiring by pipeline id; `ids` are configured, `types` have valid settings."""
    specs: dict[str, PipelineSpec] = {}
    for name, pipeline in service.pipelines.items():
        path = f"service::pipelines::{name}"
        signal, slash, rest = name.partition("/")
        if signal not in _SIGNALS or (slash and not rest):
            problems.append(
                Problem(
                    path,
                    f'"{name}" is no pipeline id, which is a signal or "signal/name"'
                    f"{hint(signal, _SIGNALS, 'signals')}",
                )
            )
            continue
        spec = PipelineSpec(
            Signal(signal), tuple(pipeline.receivers), tuple(pipeline.processors), tuple(pipeline.exporters)
        )
        specs[name] = spec
        _check_references(path, spec, ids, types, problems)
    _check_connectors(specs, ids[Kind.CONNECTOR], problems)
    _check_cycles(specs, ids[Kind.CONNECTOR], problems)
    return specs


def _check_references(path: str, spec: PipelineSpec, ids: Ids, types: Types, problems: list[Problem]) -> None:
    roles = (
        ("receivers", spec.receivers, (Kind.RECEIVER, Kind.CONNECTOR), "produces"),
        ("processors", spec.processors, (Kind.PROCESSOR,), "consumes"),
        ("exporters", spec.exporters, (Kind.EXPORTER, Kind.CONNECTOR), "consumes"),
    )
    for role, names, kinds, direction in roles:
        problems.extend(
            Problem(f"{path}::{role}", f'"{name}" stands there {count} times; once is enough')
            for name, count in Counter(names).items()
            if count > 1
        )
        valid = set[str]().union(*(ids[kind] for kind in kinds))
        for name in dict.fromkeys(names):
            if name not in valid:
                elsewhere = [kind.value for kind in Kind if name in ids[kind]]
                note = f' (it stands under "{elsewhere[0]}")' if elsewhere else ""
                problems.append(
                    Problem(
                        f"{path}::{role}",
                        f'references {role[:-1]} "{name}", which is not configured{note}{hint(name, valid, role)}',
                    )
                )
                continue
            for kind in kinds:
                one = types.get((kind, name))
                supported: frozenset[Signal] = getattr(one, direction) if one else frozenset(Signal)
                if spec.signal not in supported:
                    problems.append(
                        Problem(
                            f"{path}::{role}",
                            f'{kind.word} "{name}" does not {direction[:-1]} {spec.signal.value};'
                            f" it {direction} {quoted(signal.value for signal in supported)}",
                        )
                    )


def _check_connectors(specs: Mapping[str, PipelineSpec], connectors: frozenset[str], problems: list[Problem]) -> None:
    for name in sorted(connectors):
        feeding = [pipeline for pipeline, spec in specs.items() if name in spec.exporters]
        fed = [pipeline for pipeline, spec in specs.items() if name in spec.receivers]
        if feeding and not fed:
            problems.append(
                Problem(
                    f"connectors::{name}",
                    f"used as an exporter in {quoted(feeding)}, but no pipeline has it as a receiver",
                )
            )
        elif fed and not feeding:
            problems.append(
                Problem(
                    f"connectors::{name}",
                    f"used as a receiver in {quoted(fed)}, but no pipeline has it as an exporter",
                )
            )


def _check_cycles(specs: Mapping[str, PipelineSpec], connectors: frozenset[str], problems: list[Problem]) -> None:
    """Report one cycle: data would go round for ever."""
    following = {
        name: [
            other
            for connector in spec.exporters
            if connector in connectors
            for other, target in specs.items()
            if connector in target.receivers
        ]
        for name, spec in specs.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str] | None:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return None
        for other in following[name]:
            found = walk(other, [*trail, name])
            if found:
                return found
        done.add(name)
        return None

    for name in specs:
        cycle = walk(name, [])
        if cycle:
            problems.append(Problem("service::pipelines", f"the pipelines go in a circle: {' → '.join(cycle)}"))
            return


def check_loops(
    listening: Sequence[tuple[str, str]], sending: Sequence[tuple[str, str]], problems: list[Problem]
) -> None:
    """Report exporters that send to a receiver of this process; both are (key, endpoint)."""
    own = {split: key for key, endpoint in listening if (split := _local(endpoint)) is not None}
    for key, endpoint in sending:
        place = _local(endpoint.partition("://")[2] or endpoint)
        if place in own:
            problems.append(Problem(key, f'"{endpoint}" is {own[place]} of this process: data would go round for ever'))


def _local(endpoint: str) -> int | None:
    """Return the port of an endpoint on this machine; None for any other."""
    try:
        host, port = schema.split_endpoint(endpoint.partition("/")[0])
    except ValueError:
        return None
    return port if port and host in _ANY_HOST | _LOOPBACK else None


def check_ports(endpoints: Sequence[tuple[str, str]], problems: list[Problem]) -> None:
    """Report two parts that would listen on the same port; `endpoints` are (key, "host:port")."""
    taken: list[tuple[str, str, int]] = []
    for key, endpoint in endpoints:
        try:
            host, port = schema.split_endpoint(endpoint)
        except ValueError:
            continue  # an exporter's own spelling; its start will say what is wrong
        for other, other_host, other_port in taken:
            same_host = host == other_host or host in _ANY_HOST or other_host in _ANY_HOST
            if port and port == other_port and same_host:
                problems.append(Problem(key, f'"{endpoint}" is already taken by {other}'))
                break
        taken.append((key, host, port))
