"""The servers written in Go: Jaeger, the OpenTelemetry Collector and telemetrygen, built from their modules.

Each function builds into `work` and leaves its program at `work/<name>`. Nothing is taken from a web site:
modules come through the Go proxy that `go env GOPROXY` names.
"""

import hashlib
import json
import shutil
from pathlib import Path

from .tools import GO, InstallError, capture, require, run

JAEGER_MODULE = "github.com/jaegertracing/jaeger"
JAEGER_VERSION = "v1.76.0"
"""Jaeger's v2 tags are no valid module versions; this one's `cmd/jaeger` is the v2 program, 2.13."""

COLLECTOR_VERSION = "v0.159.0"
TELEMETRYGEN_VERSION = "v0.161.0"
CORE = "go.opentelemetry.io/collector"
CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
SMALL = ("-trimpath", "-ldflags=-s -w")

COMPONENTS: dict[str, tuple[str, ...]] = {
    "receivers": (f"{CORE}/receiver/otlpreceiver",),
    "processors": (
        f"{CORE}/processor/batchprocessor",
        f"{CORE}/processor/memorylimiterprocessor",
        f"{CONTRIB}/processor/probabilisticsamplerprocessor",
        f"{CONTRIB}/processor/tailsamplingprocessor",
    ),
    "exporters": (
        f"{CORE}/exporter/otlpexporter",
        f"{CORE}/exporter/otlphttpexporter",
        f"{CORE}/exporter/debugexporter",
        f"{CORE}/exporter/nopexporter",
        f"{CONTRIB}/exporter/fileexporter",
    ),
    "connectors": (f"{CONTRIB}/connector/spanmetricsconnector",),
    "extensions": (
        f"{CONTRIB}/extension/storage/filestorage",
        f"{CONTRIB}/extension/healthcheckextension",
    ),
}
"""What the collector can do; every one is had at COLLECTOR_VERSION."""


def jaeger(work: Path) -> None:
    """Build Jaeger.

    `go install` refuses the module because its go.mod has a `replace`, so a module of our own requires it,
    repeats the `replace`, and borrows its go.sum (some old checksums cannot be looked up any more).
    """
    what = "build Jaeger, which is written in Go"
    go = require(GO, what)
    source = work / "source"
    source.mkdir()
    found = json.loads(
        capture([go, "mod", "download", "-json", f"{JAEGER_MODULE}@{JAEGER_VERSION}"], cwd=source, what="jaeger")
    )
    if "Dir" not in found:
        raise InstallError(f"jaeger: the Go module {JAEGER_MODULE}@{JAEGER_VERSION} was not had: {found.get('Error')}")
    shutil.copyfile(Path(found["Dir"]) / "go.sum", source / "go.sum")
    (source / "go.sum").chmod(0o644)
    (source / "go.mod").write_text(
        "module servers/jaeger\n\n"
        "go 1.25.0\n\n"
        f"require {JAEGER_MODULE} {JAEGER_VERSION}\n\n"
        "replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0\n"
    )
    (source / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{JAEGER_MODULE}/cmd/jaeger"\n')
    command = [go, "build", "-mod=mod", *SMALL, "-o", str(work / "jaeger"), f"{JAEGER_MODULE}/cmd/jaeger"]
    run(command, cwd=source, log=work / "build.log", what="jaeger")


def otelcol(work: Path) -> None:
    """Build a collector with COMPONENTS by OpenTelemetry's own builder."""
    go = require(GO, "build the OpenTelemetry Collector, which is written in Go")
    log = work / "build.log"
    (work / "manifest.yaml").write_text(manifest("source"))
    install = [go, "install", f"{CORE}/cmd/builder@{COLLECTOR_VERSION}"]
    run(install, cwd=work, log=log, what="otelcol (its builder)", env={"GOBIN": str(work / "bin")})
    build = [str(work / "bin" / "builder"), "--config=manifest.yaml", "--ldflags=-s -w"]
    run(build, cwd=work, log=log, what="otelcol")
    (work / "source" / "otelcol").rename(work / "otelcol")
    shutil.rmtree(work / "bin")


def telemetrygen(work: Path) -> None:
    """Build telemetrygen, the collector project's own OTLP client."""
    go = require(GO, "build telemetrygen, which is written in Go")
    command = [go, "install", *SMALL, f"{CONTRIB}/cmd/telemetrygen@{TELEMETRYGEN_VERSION}"]
    run(command, cwd=work, log=work / "build.log", what="telemetrygen", env={"GOBIN": str(work)})


def manifest(output: str) -> str:
    """Return the builder's manifest, its sources to be written to the folder `output`."""
    lines = [
        "dist:",
        "  name: otelcol",
        "  description: the collector that mlspan is tested with",
        f"  version: {COLLECTOR_VERSION.removeprefix('v')}",
        f"  output_path: ./{output}",
    ]
    for kind, modules in COMPONENTS.items():
        lines += [f"{kind}:", *(f"  - gomod: {module} {COLLECTOR_VERSION}" for module in modules)]
    return "\n".join(lines) + "\n"


def collector_stamp() -> str:
    """Return the version and a short hash of the manifest: another list of components is another build."""
    return f"{COLLECTOR_VERSION.removeprefix('v')}-{hashlib.sha256(manifest('source').encode()).hexdigest()[:8]}"
