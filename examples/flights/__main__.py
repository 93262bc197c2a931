"""Replay a year of real flights through two services, a model and the processor, and show what mlspan made of it.

A scikit-learn pipeline is trained on January to March 2013. Two FastAPI services run under opentelemetry-instrument:
`flights` (the model) asks `weather` for its features on every request. April to December are replayed in order, faster
than real time; the truth about each flight arrives a day after its departure. At the end: realised performance by month
beside what the reference promised, the drifted features, and where to look next.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from examples.flights.processes import DemoError
from examples.flights.run import Options, run

EXAMPLES = """\
examples:
  make demo                                  nothing but this machine
  make servers                               in another terminal: Jaeger, Zipkin and Prometheus, then
  make demo ARGS="--jaeger --zipkin --prometheus --keep"
  make demo ARGS="--months 4 5"              only April and May
  make demo ARGS="--jaeger 10.0.0.5:4317"    a Jaeger elsewhere
"""


def _options(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--jaeger",
        nargs="?",
        const="auto",
        metavar="HOST:PORT",
        help="send traces to Jaeger's OTLP/gRPC port (default: look on this machine)",
    )
    parser.add_argument(
        "--zipkin",
        nargs="?",
        const="http://127.0.0.1:9411",
        metavar="URL",
        help="send traces to Zipkin (default: %(const)s)",
    )
    parser.add_argument(
        "--prometheus",
        nargs="?",
        const="http://127.0.0.1:9090",
        metavar="URL",
        help="a Prometheus that scrapes 127.0.0.1:9464 (default: %(const)s)",
    )
    parser.add_argument(
        "--months",
        nargs="+",
        type=int,
        default=list(range(4, 13)),
        choices=range(4, 13),
        metavar="M",
        help="months to replay (default: 4 to 12)",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=9464,
        metavar="PORT",
        help="where Prometheus can scrape (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        metavar="S",
        help="share of each month's days to replay, 0 < S <= 1 (default: all)",
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the model, the reference and the logs go (default: a temporary folder)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON too")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the final tables as an SVG picture too")
    parsed = parser.parse_args(arguments)
    if not 0 < parsed.share <= 1:
        parser.error(f"argument --share: {parsed.share} is not in (0, 1]")
    return Options(**vars(parsed))


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 on success, 1 when a part failed, 130 on Ctrl-C."""
    options = _options(arguments)
    console = Console(record=options.svg is not None, width=None if sys.stdout.isatty() else 110)
    # SIGTERM ends the demo as Ctrl-C does: through the context managers that stop its children.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
            asyncio.run(run(options, options.folder.resolve(), console))
        else:
            with tempfile.TemporaryDirectory(prefix="mlspan-demo-") as folder:
                asyncio.run(run(options, Path(folder), console))
    except DemoError as error:
        console.print(f"[red]The demo failed:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
