"""The demo from beginning to end: train, start, replay, read the processor's report."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from examples.flights import data, show
from examples.flights.processes import DemoError, Processes, answers, listens, port, under_opentelemetry
from examples.flights.replay import Month, replay

PANE_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 60
FLUSH_SECONDS: Final = 5
SCRAPE_SECONDS: Final = 5
JAEGER_UI: Final = "http://127.0.0.1:16686"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; see ``python -m examples.flights --help``."""

    jaeger: str | None
    zipkin: str | None
    prometheus: str | None
    metrics_port: int
    months: list[int]
    share: float
    keep: bool
    folder: Path | None
    json: Path | None
    svg: Path | None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens, all on 127.0.0.1, except the backends."""

    grpc: str
    http: str
    metrics: str
    health: str
    flights: int
    weather: int
    jaeger: str | None
    zipkin: str | None


async def run(options: Options, folder: Path, console: Console) -> None:
    """Everything; raises DemoError when a part fails."""
    to = _addresses(options)
    with Processes(folder) as processes:
        with console.status("training on January to March ..."):
            scores = processes.run("train", _train(folder), _train_environment(folder))
        console.print(
            "trained on January to March; cross-validated there:",
            *scores.strip().splitlines(),
            sep="\n  ",
            highlight=False,
        )
        with console.status("starting the processor and two services ..."):
            _start(processes, folder, to)
        _tell(console, to)
        flights = _chosen(options)
        months = await _replay(flights, to, processes, console)
        reports = await _reports(months, to, processes, folder, console)
        if options.prometheus is not None:
            with console.status("waiting for the last scrape ..."):
                await asyncio.sleep(FLUSH_SECONDS + SCRAPE_SECONDS)
        incidents = httpx.get(f"http://{to.http}/v1/incidents", timeout=30).json()
        show.result(console, reports, incidents, to, options)
        if options.json is not None:
            options.json.write_text(json.dumps(reports, indent=1))
        if options.svg is not None:
            console.save_svg(str(options.svg), title="make demo")
        if options.keep:
            console.print("Everything still runs. Ctrl-C ends it.")
            await asyncio.Event().wait()


def _addresses(options: Options) -> Addresses:
    jaeger = options.jaeger
    if jaeger in (None, "auto"):
        # Ours may stand on 4317, so that a Jaeger there is looked for before our ports are chosen.
        found = [at for at in ("127.0.0.1:14317", "127.0.0.1:4317") if listens(at)] if answers(f"{JAEGER_UI}/") else []
        if not found and jaeger == "auto":
            raise DemoError(f"no Jaeger on this machine: nothing answers at {JAEGER_UI} and OTLP port 14317 or 4317")
        jaeger = found[0] if found else None
    elif jaeger is not None and not listens(jaeger):
        raise DemoError(f'no Jaeger at "{jaeger}": give host:port of its OTLP/gRPC receiver')
    if options.zipkin is not None and not answers(f"{options.zipkin}/health"):
        raise DemoError(f'no Zipkin at "{options.zipkin}": {options.zipkin}/health does not answer')
    if options.prometheus is not None and not answers(f"{options.prometheus}/-/ready"):
        raise DemoError(f'no Prometheus at "{options.prometheus}": {options.prometheus}/-/ready does not answer')
    at = {
        name: port(wanted)
        for name, wanted in (
            ("grpc", 4317),
            ("http", 4318),
            ("metrics", options.metrics_port),
            ("health", 13133),
        )
    }
    return Addresses(
        **{name: f"127.0.0.1:{number}" for name, number in at.items()},
        flights=port(8001),
        weather=port(8002),
        jaeger=jaeger,
        zipkin=options.zipkin,
    )


def _train(folder: Path) -> list[str]:
    return under_opentelemetry([sys.executable, "-m", "examples.flights.train", str(folder / "model.joblib")])


def _train_environment(folder: Path) -> dict[str, str]:
    return {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # Threads that wait for each other by spinning gain nothing on two busy cores.
        "OMP_NUM_THREADS": "1",
        "OTEL_INSTRUMENTATION_ML_MODEL_NAME": data.MODEL_NAME,
        "OTEL_INSTRUMENTATION_ML_MODEL_VERSION": data.MODEL_VERSION,
        "OTEL_INSTRUMENTATION_ML_REFERENCE_DIR": str(folder / "reference"),
    }


def _config(folder: Path, to: Addresses) -> dict[str, Any]:
    exporters: dict[str, Any] = {"prometheus": {"endpoint": to.metrics}}
    if to.jaeger is not None:
        exporters["otlp_grpc/jaeger"] = {"endpoint": to.jaeger, "tls": {"insecure": True}}
    if to.zipkin is not None:
        exporters["zipkin"] = {"endpoint": f"{to.zipkin}/api/v2/spans"}
    if len(exporters) == 1:
        # Without a backend the spans have no place to go; the statistics are made all the same.
        exporters["debug"] = {"verbosity": "basic"}
    traces = [name for name in exporters if name != "prometheus"]
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": to.grpc}, "http": {"endpoint": to.http}}}},
        "connectors": {
            "mlspan": {
                "window": {"pane": f"{PANE_SECONDS:g}s", "min_rows": 2000},
                "reference": {"path": str(folder / "reference")},
                "metrics_flush_interval": f"{FLUSH_SECONDS}s",
                # Every run is 2013 anew: nothing is to be there from the one before.
                "store": {"path": ""},
            }
        },
        "exporters": exporters,
        "extensions": {"health_check": {"endpoint": to.health}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "traces/in": {"receivers": ["otlp"], "exporters": ["mlspan"]},
                "traces": {"receivers": ["mlspan"], "exporters": traces},
                "metrics": {"receivers": ["mlspan"], "exporters": ["prometheus"]},
            },
        },
    }


def _start(processes: Processes, folder: Path, to: Addresses) -> None:
    config = folder / "collector-config.yaml"
    config.write_text(yaml.safe_dump(_config(folder, to), sort_keys=False))
    mlspan = [sys.executable, "-m", "mlspan_processor", "run", "--config", str(config)]
    processes.start("processor", mlspan, f"http://{to.health}/", {})
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{to.grpc}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "healthz",
        # One prediction at a time needs one thread; more would only get in each other's way.
        "OMP_NUM_THREADS": "1",
    }
    for name, number in (("weather", to.weather), ("flights", to.flights)):
        own = {"OTEL_SERVICE_NAME": name}
        if name == "flights":
            own |= {
                "FLIGHTS_MODEL": str(folder / "model.joblib"),
                "WEATHER_URL": f"http://127.0.0.1:{to.weather}",
                "OTEL_INSTRUMENTATION_ML_MODEL_NAME": data.MODEL_NAME,
                "OTEL_INSTRUMENTATION_ML_MODEL_VERSION": data.MODEL_VERSION,
            }
        service = f"examples.flights.{name}_service:app"
        command = under_opentelemetry(["uvicorn", service, "--port", str(number), "--log-level", "warning"])
        command[1] = str(Path(sys.executable).with_name("uvicorn"))
        processes.start(name, command, f"http://127.0.0.1:{number}/healthz", {**telemetry, **own})


def _tell(console: Console, to: Addresses) -> None:
    console.print(
        f"processor: OTLP on {to.grpc} (gRPC) and {to.http} (HTTP), metrics on http://{to.metrics}/metrics",
        highlight=False,
    )
    console.print(
        f"services:  flights on 127.0.0.1:{to.flights}, weather on 127.0.0.1:{to.weather},"
        " both under opentelemetry-instrument",
        highlight=False,
    )
    for name, at in (("Jaeger", to.jaeger), ("Zipkin", to.zipkin)):
        if at is not None:
            console.print(f"traces go to {name} at {at}", highlight=False)


def _chosen(options: Options) -> Any:
    flights = data.flights()
    days = flights["departure"].dt.day
    last = flights["departure"].dt.days_in_month
    return flights[flights["month"].isin(options.months) & (days <= (last * options.share).clip(lower=1))]


async def _replay(flights: Any, to: Addresses, processes: Processes, console: Console) -> list[Month]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("flights"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("replaying", total=len(flights))

        def progress(month: int, n: int) -> None:
            bar.update(task, advance=n, description=f"replaying {show.MONTHS[month]}")

        try:
            return await replay(flights, f"http://127.0.0.1:{to.flights}", f"http://{to.http}", PANE_SECONDS, progress)
        except* httpx.HTTPError as errors:
            processes.check()
            raise DemoError(f"a request failed: {errors.exceptions[0]!r}") from None


async def _reports(
    months: list[Month], to: Addresses, processes: Processes, folder: Path, console: Console
) -> list[dict[str, Any]]:
    """The processor's report on each month, once every prediction has reached it."""
    url = f"http://{to.http}/v1/models/{data.MODEL_NAME}"
    async with httpx.AsyncClient(timeout=30) as client:
        with console.status("waiting for the last spans and labels ..."):
            want, seen = sum(month.flights for month in months), -1.0
            for _ in range(SETTLE_SECONDS):
                answer = await client.get(url, params={"version": data.MODEL_VERSION})
                rows = answer.json()["rows"] if answer.status_code == 200 else 0
                if rows >= want or (rows == seen and rows > 0):
                    break
                seen = rows
                processes.check()
                await asyncio.sleep(2)
        out = []
        for month in months:
            query: dict[str, str | int] = {
                "version": data.MODEL_VERSION,
                "start": month.start_ns,
                "end": month.end_ns,
            }
            answer = await client.get(url, params=query)
            if answer.status_code != 200:
                raise DemoError(f"the processor has no report on {data.MODEL_NAME}: {answer.status_code} {answer.text}")
            out.append(
                {
                    "month": month.month,
                    "flights": month.flights,
                    "late": month.late,
                    "folder": str(folder),
                    **answer.json(),
                }
            )
        return out
