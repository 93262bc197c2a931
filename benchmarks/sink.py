"""An OTLP/gRPC sink of its own process: takes everything, parses nothing, prints its port and, at the end, a sum."""

import signal
from concurrent import futures
from threading import Event
from typing import Any

import grpc


class _Sink(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self) -> None:
        self.bytes = 0

    def service(self, _: Any) -> Any:
        """Any method: count the bytes, answer an empty message."""

        def take(data: bytes, _: Any) -> bytes:
            self.bytes += len(data)
            return b""

        return grpc.unary_unary_rpc_method_handler(take)


def main() -> None:
    """Serve until SIGTERM."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sink = _Sink()
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((sink,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    stop.wait()
    server.stop(2).wait()
    print(sink.bytes, flush=True)


if __name__ == "__main__":
    main()
