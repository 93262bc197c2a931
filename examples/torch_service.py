"""A small web service with a PyTorch model: one span a request, and the model's span below it, without a line for it.

    opentelemetry-instrument --traces_exporter console --metrics_exporter none --logs_exporter none \\
        python examples/torch_service.py --requests 3

asks itself three times and ends; without ``--requests`` it serves ``POST /predict`` with four numbers as JSON on
port 8080 (``--port``). With ``mlspan run`` in another terminal and ``--traces_exporter otlp`` the spans go there.
"""

import argparse
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from opentelemetry import trace
from torch import nn

import mlspan

NAMES = ("temperature", "pressure", "vibration", "age")
CLASSES = ("fine", "worn", "broken")


def train() -> nn.Module:
    """A model of machines: three classes from four numbers. Steps of training are no spans."""
    torch.manual_seed(0)
    x = torch.randn(600, 4)
    y = (x[:, 2] + x[:, 3] > 0.5).long() + (x[:, 0] > 1).long()
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    loss = nn.CrossEntropyLoss()
    for _ in range(60):
        optimiser.zero_grad()
        loss(model(x), y).backward()
        optimiser.step()
    return model.eval()


class Handler(BaseHTTPRequestHandler):
    """Answers ``POST /predict``."""

    model: nn.Module

    def do_POST(self) -> None:
        """One prediction."""
        with trace.get_tracer("torch_service").start_as_current_span("POST /predict", kind=trace.SpanKind.SERVER):
            row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with torch.inference_mode():
                probabilities = self.model(torch.tensor([row], dtype=torch.float32)).softmax(-1)[0]
            best = int(probabilities.argmax())
            body = json.dumps({"state": CLASSES[best], "probability": round(probabilities[best].item(), 3)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        """No line for each request."""


def main() -> None:
    """Train, serve, and with ``--requests`` ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--requests", type=int, default=0)
    arguments = parser.parse_args()
    model = train()
    # Optional: a name and version of one's own; that the outputs are logits, and what their classes are called.
    mlspan.instrument_model(model, name="machine-state", version="1", feature_names=NAMES, classes=CLASSES)
    Handler.model = model
    server = ThreadingHTTPServer(("127.0.0.1", 0 if arguments.requests else arguments.port), Handler)
    if not arguments.requests:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for at in range(arguments.requests):
        row = json.dumps([0.1 * at, -0.2, 0.9 * at, 0.3]).encode()
        address = f"http://127.0.0.1:{server.server_port}/predict"
        with urllib.request.urlopen(urllib.request.Request(address, data=row), timeout=30) as answer:
            print(answer.read().decode())
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
