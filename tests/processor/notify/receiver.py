"""An HTTP server that remembers what is posted to it, and answers as told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from mlspan_processor.events import Event

INCIDENT = "ab" * 16
TRACE = "0af7651916cd43dd8448eb211c80319c"
START = 1_700_000_000_000_000_000


class Receiver:
    """What came, in order.

    Attributes:
        url: where it listens.
        posts: (path, headers, document).
        answers: statuses to answer with, one a request; 200 when there are none left.
    """

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[int] = []
        self.arrived = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner.arrived:
                    status = owner.answers.pop(0) if owner.answers else 200
                    if status == 200:
                        owner.posts.append((self.path, dict(self.headers), body))
                    owner.arrived.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def wait_for(self, posts: int) -> list[Any]:
        """The documents, once so many have come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.posts) >= posts, 20)
            return [body for _, _, body in self.posts]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A server on a free port."""
    one = Receiver()
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()


def event(**changes: Any) -> Event:
    """An incident of fraud@7 that has just opened."""
    known: dict[str, Any] = {
        "id": INCIDENT,
        "change": "opened",
        "severity": "critical",
        "model": "fraud",
        "version": "7",
        "summary": "accuracy fell from 0.93 to 0.86",
        "details": ("accuracy 0.86, expected 0.93 (-0.07)", "drift of <age>: effect 0.4"),
        "why": "accuracy is worse",
        "subject": "accuracy",
        "subjects": ("accuracy", "drift age"),
        "value": 0.86,
        "expected": 0.93,
        "effect": -0.07,
        "p_value": None,
        "segment": "",
        "features": ("age",),
        "monitors": ("performance",),
        "since_ns": START,
        "opened_ns": START + 60 * 10**9,
        "updated_ns": START + 60 * 10**9,
        "closed_ns": None,
        "exemplars": ((TRACE, "b7ad6b7169203331"), (TRACE, "00f067aa0ba902b7")),
    }
    return Event(**{**known, **changes})
