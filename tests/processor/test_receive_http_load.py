"""OTLP/HTTP: how many requests at once, and what senders that stall keep from others."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import urllib3

from mlspan_processor.records import Chunk
from mlspan_processor.testing import trace_request
from tests.processor.running import Running, running
from tests.processor.test_receive_http import behind, pool, post, status_of

__all__ = ["pool"]


class Waiting:
    """A consumer that lets no request go on before it is told."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()

    def consume(self, _: Chunk) -> None:
        """Wait."""
        self.entered.release()
        assert self.go_on.wait(20)


def stalled(one: Running, said: int = 100, sent: bytes = b"") -> socket.socket:
    """Begin a request whose body of `said` bytes does not come to its end; returns once it is being read."""
    host, port = one.http.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    client.sendall(
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % said
    )
    assert client.recv(100).startswith(b"HTTP/1.1 100")  # the handler has begun
    client.sendall(sent)
    return client


ONE_AT_ONCE = "receivers: {otlp: {protocols: {http: {max_concurrent_requests: 1, max_request_body_size: 1024}}}}"


def test_too_many_at_once_is_429(pool: urllib3.PoolManager) -> None:
    """Beyond max_concurrent_requests a request is asked to come again; those begun go on."""
    with running(ONE_AT_ONCE) as one:
        waiting = Waiting()
        behind(one, waiting)
        first: list[int] = []
        url = f"{one.http}/v1/traces"
        thread = threading.Thread(target=lambda: first.append(post(pool, url, trace_request()).status))
        thread.start()
        assert waiting.entered.acquire(timeout=20)
        response = post(pool, url, trace_request())
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert status_of(response).code == 8
        waiting.go_on.set()
        thread.join(20)
        assert first == [200]
        assert post(pool, url, trace_request()).status == 200


def test_who_stalls_keeps_no_other_out(pool: urllib3.PoolManager) -> None:
    """Senders whose bodies do not come count for nothing, up to ten for each request at once; then there is 429."""
    with running(ONE_AT_ONCE) as one, ExitStack() as clients:
        for _ in range(10):
            assert post(pool, f"{one.http}/v1/traces", trace_request()).status == 200
            clients.enter_context(stalled(one))
        response = post(pool, f"{one.http}/v1/traces", trace_request())
        assert (response.status, status_of(response).code) == (429, 8)
        assert pool.request("GET", f"{one.http}/v1/models").status == 200
        clients.close()
        assert at_last(lambda: post(pool, f"{one.http}/v1/traces", trace_request()).status == 200)


def test_bodies_that_are_being_sent_take_bounded_memory(pool: urllib3.PoolManager) -> None:
    """Together no more than max_concurrent_requests bodies of the largest size, given back afterwards."""
    with running(ONE_AT_ONCE) as one:
        with stalled(one, 1000, b"x" * 900):
            assert at_last(lambda: post(pool, f"{one.http}/v1/traces", b"x" * 800).status == 429)
        assert at_last(lambda: post(pool, f"{one.http}/v1/traces", b"x" * 800).status == 200)


def at_last(holds: Callable[[], bool]) -> bool:
    """Whether it holds within ten seconds."""
    until = time.monotonic() + 10
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
