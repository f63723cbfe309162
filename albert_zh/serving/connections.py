"""Below HTTP requests: the socket, time limits of connections, a shutdown that drains.

uvicorn bounds neither the time nor the size of a request's head, nor the time of its
body; its connections do here.
"""

import asyncio
import contextlib
import errno
import json
import signal
import socket
import threading
import time
from typing import NamedTuple

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from albert_zh.base.errors import UserError

MAX_HEAD_BYTES = 1 << 16
_PIECE_BYTES = 1 << 13
BACKLOG = 2048

_REASONS = {
    errno.EADDRINUSE: "in use by another process; give another --port",
    errno.EACCES: "not permitted; give a --port above 1023",
    errno.EADDRNOTAVAIL: "no address of this machine; give another --host",
}


class Settings(NamedTuple):
    """Time limits in seconds.

    Attributes:
      timeout_seconds: for a client to send a request, to send the next one over the
        same connection, and to take a response.
      drain_seconds: for running requests to end after SIGTERM.
    """

    timeout_seconds: float = 30.0
    drain_seconds: float = 30.0


def bind(host, port):
    """Takes a port; who connects before `serve` waits for it.

    Args:
      host: name or address of this machine; "" for all.
      port: int; 0 for any free one.

    Returns:
      A socket.

    Raises:
      UserError: the port cannot be had.
    """
    with _naming(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Ports of connections that have ended may be taken again at once.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # At once: two sockets can be bound to one port before one of them listens.
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener


@contextlib.contextmanager
def _naming(host, port):
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason = _REASONS.get(getattr(error, "errno", None)) or str(error)
        raise UserError("{}:{}: {}".format(host, port, reason)) from error


def address_of(listener):
    """Returns the http:// address that a socket listens at."""
    host, port = listener.getsockname()[:2]
    return "http://{}:{}/".format("[{}]".format(host) if ":" in host else host, port)


def serve(app, listener, settings, on_ready=lambda server: None):
    """Serves until SIGTERM or SIGINT, then answers the running requests and returns.

    Outside the main thread no signal is handled.

    Args:
      app: ASGI application.
      listener: socket from `bind`; closed at the end.
      settings: `Settings`.
      on_ready: function that is called when requests are answered; its argument is
        the server, whose `should_exit = True` ends it, too.

    Returns:
      When `drain_seconds` are over, as of `time.monotonic`.
    """
    config = uvicorn.Config(
        app,
        http=_connection_class(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        # Integers by their types; 0 would close every connection.
        timeout_keep_alive=max(1, round(settings.timeout_seconds)),
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = _Server(config, on_ready)
    server.run(sockets=[listener])
    return server.stopped_at + settings.drain_seconds


class _Server(uvicorn.Server):
    """uvicorn's server, which returns after SIGTERM instead of raising it again.

    Attributes:
      stopped_at: when the shutdown began, as of `time.monotonic`.
    """

    def __init__(self, config, on_ready):
        super().__init__(config)
        self._on_ready = on_ready
        self.stopped_at = time.monotonic()

    async def shutdown(self, sockets=None):
        self.stopped_at = time.monotonic()
        await super().shutdown(sockets=sockets)

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_event_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.handle_exit, number, None)
        self._on_ready(self)

    def install_signal_handlers(self):
        """Up to uvicorn 0.28: `startup` does it."""

    @contextlib.contextmanager
    def capture_signals(self):
        """From uvicorn 0.29 on: `startup` does it."""
        yield


def _connection_class(settings):
    """Returns the class of connections with these time limits."""
    return type(
        "Connection", (_Connection,), {"timeout_seconds": settings.timeout_seconds}
    )


class _Connection(HttpToolsProtocol):
    """A connection whose client may stall neither in the head nor in the body.

    Attributes:
      timeout_seconds: class attribute of `_connection_class`.
    """

    timeout_seconds = Settings().timeout_seconds
    _timer = None
    _is_in_head = False
    _head_bytes = 0

    def connection_made(self, transport):
        super().connection_made(JoiningTransport(transport, self.loop))
        self.parser = _Parser(self.parser, self)
        self._start_timer()

    def connection_lost(self, exc):
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data):
        # In pieces: of many requests at once, few bytes count for the last one's head.
        for begin in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            self._piece_received(data[begin : begin + _PIECE_BYTES])

    def _piece_received(self, data):
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "Request Header Fields Too Large", "header too large")
        elif self.cycle is None or self.cycle.response_complete:
            # Such as empty lines, which belong to no request.
            self._start_timer()

    def send_400_response(self, msg):
        """uvicorn's answer to what is no HTTP."""
        self._refuse(400, "Bad Request", msg)

    def on_message_begin(self):
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        self._start_timer()

    def on_headers_complete(self):
        if self.parser.will_read_again():
            return
        super().on_headers_complete()
        self._is_in_head = False

    def on_message_complete(self):
        if self.parser.will_read_again():
            return
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self):
        # Now: in the next turn of the loop, who has closed their half may be left.
        self.transport.send()
        super().on_response_complete()
        if self.transport.is_closing():
            # It closes when the client has taken the response, which may be never.
            self.loop.call_later(self.timeout_seconds, self.transport.abort)

    def timeout_keep_alive_handler(self):
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _start_timer(self):
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.timeout_seconds, self._on_timeout)

    def _stop_timer(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self):
        self._timer = None
        if self._is_working():
            self._start_timer()
            return
        self._refuse(408, "Request Timeout", "the request did not arrive in time")

    def _is_working(self):
        """Whether a complete request is being answered, before one that is not."""
        cycle = self.cycle
        is_answering = cycle and not cycle.response_complete and not cycle.more_body
        return bool(self.pipeline or is_answering)

    def _refuse(self, code, phrase, message):
        """Ends the connection, with a response if none is under way."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not (
            self.cycle.response_started and not self.cycle.response_complete
        ):
            content = json.dumps({"error": message})
            head = "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\n"
            head += "content-length: {}\r\nconnection: close\r\n\r\n"
            head = head.format(code, phrase, len(content))
            self.transport.write((head + content).encode("ascii"))
        self.transport.close()


class JoiningTransport:
    """A transport that sends at once what is written at one time.

    uvicorn writes the head of a response and its body one after the other, which takes
    two system calls, and wakes the client twice.
    """

    def __init__(self, transport, loop):
        self._transport = transport
        self._loop = loop
        self._written = []

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, data):
        if not self._written:
            self._loop.call_soon(self.send)
        self._written.append(data)

    def close(self):
        self.send()
        self._transport.close()

    def get_write_buffer_size(self):
        return self._transport.get_write_buffer_size() + sum(map(len, self._written))

    def send(self):
        """Sends what has been written."""
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written = []


class _Parser:
    """httptools' parser, for a server that ignores the header Upgrade.

    Clients that would like HTTP/2 send it with any request (`Upgrade: h2c`), and take
    an answer in HTTP/1.1. httptools takes what follows such a head, which is the body,
    for another protocol. So the head is read a second time, without that header.
    """

    def __init__(self, parser, connection):
        self._parser = parser
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._parser, name)

    def will_read_again(self):
        """Whether the head that has been read is not the one to answer."""
        # CONNECT asks for another protocol by itself.
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def feed_data(self, data):
        # A view: many requests may come at once, and each would copy the rest.
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self.will_read_again():
                    raise
                rest = rest[upgrade.args[0] :]
            self._parser.feed_data(self._head_without_upgrade())

    def _head_without_upgrade(self):
        connection, parser = self._connection, self._parser
        version = parser.get_http_version().encode("ascii")
        lines = [b" ".join([parser.get_method(), connection.url, b"HTTP/" + version])]
        for name, value in connection.headers:
            if name not in (b"upgrade", b"http2-settings"):
                lines.append(name + b": " + value)
        return b"\r\n".join(lines + [b"", b""])
