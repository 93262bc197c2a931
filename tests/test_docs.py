"""The documentation: links lead somewhere, configurations are valid, commands and code are what the program takes."""

import argparse
import ast
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import mlspan
from mlspan.config import OPERATIONS, Settings, load_settings
from mlspan.semconv import metrics
from mlspan_exporters.prometheus_names import metric_name
from mlspan_processor.cli.main import build_parser
from mlspan_processor.config import load

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "examples", "benchmarks") for page in (ROOT / folder).rglob("*.md")),
    ]
)
OF_THE_COLLECTOR = "service: # of the Collector"
"""Marks an example that is for the OpenTelemetry Collector itself."""
RUNNABLE = "<!-- doctest -->"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_VARIABLE = re.compile(r"OTEL_INSTRUMENTATION_ML_([A-Z_]+[A-Z])")


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str
    before: str


def blocks(*languages: str) -> list[Any]:
    """Fenced blocks of all pages in these languages, as parameters."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            before = text[: match.start()].rstrip().rpartition("\n")[2]
            if match[1] in languages:
                block = Block(page, line, match[1], match[2], before)
                found.append(pytest.param(block, id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands() -> list[Any]:
    """Every line of a shell block that calls mlspan, as parameters."""
    found = []
    for parameter in blocks("sh"):
        block: Block = parameter.values[0]
        lines = block.text.replace("\\\n", " ").splitlines()
        found += [pytest.param(line, id=f"{parameter.id}: {line}") for line in lines if line.startswith("mlspan ")]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = _FENCE.sub("", page.read_text("utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and a heading of it."""
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    """docs/README.md links each page of the folder once."""
    index = ROOT / "docs" / "README.md"
    linked = [target for target in _LINK.findall(index.read_text("utf-8")) if "/" not in target]
    assert sorted(linked) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page != index)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    """A YAML block can be read; one with a service is a whole configuration, without warnings."""
    content = yaml.safe_load(block.text)
    assert isinstance(content, dict)
    if "service" not in content or OF_THE_COLLECTOR in block.text:
        return
    file = tmp_path / "config.yaml"
    file.write_text(block.text, "utf-8")
    assert list(load([str(file)]).warnings) == []


def test_the_default_configuration_is_valid() -> None:
    """collector-config.yaml can be run as it is."""
    assert list(load([str(ROOT / "collector-config.yaml")]).warnings) == []


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    """The command line takes each command that a page shows; none is run."""
    arguments = shlex.split(line, comments=True)[1:]
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit:
        pytest.fail(f"not a command: {line}")
    assert options.run


def test_commands_within_text_exist() -> None:
    """What a page calls `mlspan …` in a sentence begins with a command that there is."""
    [subparsers] = [one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    unknown = [
        (page.name, word)
        for page in PAGES
        for word in re.findall(r"`mlspan ([a-z]+)", page.read_text("utf-8"))
        if word not in subparsers.choices
    ]
    assert unknown == []


@pytest.mark.parametrize("block", blocks("python"))
def test_python_is_python(block: Block) -> None:
    """A Python block can be compiled; one that is marked runs, and its own assertions hold."""
    compiled = compile(ast.parse(block.text), f"{block.page.name}:{block.line}", "exec")
    if block.before == RUNNABLE:
        try:
            exec(compiled, {"__name__": "documentation"})
        finally:
            mlspan.uninstrument()


def test_some_python_runs() -> None:
    """The marker is still where it was."""
    assert [block.values[0].page.name for block in blocks("python") if block.values[0].before == RUNNABLE] == [
        "instrumentation.md"
    ]


def test_variables_exist() -> None:
    """Every variable of ours that a page names is one of the settings'."""
    known = {name.metadata["variable"] for name in Settings.__dataclass_fields__.values()}
    named = {f"OTEL_INSTRUMENTATION_ML_{name}" for page in PAGES for name in _VARIABLE.findall(page.read_text("utf-8"))}
    assert named <= known


def test_the_declarative_example_holds_settings(caplog: pytest.LogCaptureFixture) -> None:
    """The configuration file of docs/instrumentation.md gives options that there are, with usable values."""
    [block] = [one.values[0] for one in blocks("yaml") if "mlspan_sklearn" in one.values[0].text]
    options = yaml.safe_load(block.text)["instrumentation/development"]["python"]["mlspan_sklearn"]
    settings = load_settings(options, {})
    assert (settings.model_name, settings.max_rows) == ("fraud-model", 256)
    assert not caplog.records


def test_every_operation_is_named() -> None:
    """docs/instrumentation.md names all methods that become spans."""
    page = (ROOT / "docs" / "instrumentation.md").read_text("utf-8")
    assert [name for name in OPERATIONS if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    "metric",
    [value for value in vars(metrics).values() if isinstance(value, metrics.Metric)],
    ids=lambda metric: metric.name,
)
def test_every_metric_is_explained(metric: metrics.Metric) -> None:
    """docs/metrics.md has a row for each metric, with its name in Prometheus."""
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` | `")]
    expected = metric_name(metric.name, metric.unit, metric.instrument)
    assert f"`{expected}{'_bucket' if metric.instrument == 'histogram' else ''}`" in row


@pytest.mark.parametrize("block", [*blocks("promql"), *blocks("yaml")])
def test_queries_name_series_that_there_are(block: Block) -> None:
    """Every series of ours in a query is what the exporter calls a metric."""
    known = set()
    for metric in vars(metrics).values():
        if isinstance(metric, metrics.Metric):
            name = metric_name(metric.name, metric.unit, metric.instrument)
            known |= {name} if metric.instrument != "histogram" else {f"{name}_{end}" for end in ("bucket", "count")}
    labels = {"ml_model_name", "ml_model_version", "ml_operation_name", "ml_prediction_class", "ml_feature_name"}
    labels |= {"ml_quality_kind", "ml_quality_outcome"}
    assert set(re.findall(r"\bml_[a-z0-9_]+", block.text)) <= known | labels
