"""An HTTP server on loopback that fails the ways real networks and servers do."""

import http.server
import itertools
import re
import socketserver
import threading
from typing import Mapping, NamedTuple, Optional


class Answer(NamedTuple):
    """How one request is answered.

    Attributes:
      body: bytes of the whole file.
      etag: its ETag header, with the quotes; None for none.
      last_modified: its Last-Modified header; None for none.
      status: where it is not 200, only it and the body are sent.
      headers: further headers.
      announced: the Content-Length, where it is not the truth.
      cut: the connection ends after this many bytes of the body sent; None never.
      stall: as `cut`, but then nothing more comes, and no end either.
      knows_range: whether it sends a part where one is asked for.
      knows_if_range: whether it first looks if the file is still the same.
      range_limit: sends at most this many bytes where a part is asked for.
      range_shift: sends the range that begins this much later than asked for.
    """

    body: bytes = b""
    etag: Optional[str] = '"first"'
    last_modified: Optional[str] = None
    status: int = 200
    headers: Mapping[str, str] = {}
    announced: Optional[int] = None
    cut: Optional[int] = None
    stall: Optional[int] = None
    knows_range: bool = True
    knows_if_range: bool = True
    range_limit: Optional[int] = None
    range_shift: int = 0


class FaultServer:
    """Serves `answers`, a dict path -> list of `Answer`, of which the last repeats.

    Attributes:
      url: the server's address, without a slash at its end.
      answers: what it serves; a path that is not there is answered with 404.
      requests: list of (path, headers) of the requests, in their order.
    """

    def __init__(self):
        self.answers = {}
        self.requests = []
        self._closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), self._handler_class()
        )
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:{}".format(self._server.server_port)
        self._thread = threading.Thread(
            # The seconds between two looks whether to shut down.
            target=self._server.serve_forever,
            args=[0.01],
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self):
        """The requested paths, in their order."""
        return [path for path, _ in self.requests]

    def _next_answer(self, path):
        answers = self.answers.get(path)
        if not answers:
            return Answer(b"no such file", status=404)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler_class(server):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.requests.append((self.path, dict(self.headers)))
                self._send(server._next_answer(self.path))

            def log_message(self, *unused):
                pass

            def _send(self, answer):
                body, headers = answer.body, dict(answer.headers)
                status = answer.status
                if answer.etag:
                    headers["ETag"] = answer.etag
                if answer.last_modified:
                    headers["Last-Modified"] = answer.last_modified
                start = self._range_start(answer)
                if status == 200 and start is not None:
                    start += answer.range_shift
                    if start >= len(body):
                        status, body = 416, b""
                    else:
                        status, body = 206, body[start:][: answer.range_limit]
                        headers["Content-Range"] = "bytes {}-{}/{}".format(
                            start, start + len(body) - 1, len(answer.body)
                        )
                self.send_response(status)
                headers.setdefault("Content-Length", len(body))
                if answer.announced is not None:
                    headers["Content-Length"] = answer.announced
                headers["Connection"] = "close"
                for name, value in headers.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.close_connection = True
                ends = [end for end in (answer.cut, answer.stall) if end is not None]
                self.wfile.write(body[: min(ends + [len(body)])])
                self.wfile.flush()
                if answer.stall is not None:
                    server._closing.wait()

            def _range_start(self, answer):
                """Where the part begins that is to be sent; None for the whole."""
                asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
                if not asked or not answer.knows_range:
                    return None
                condition = self.headers.get("If-Range")
                current = (answer.etag, answer.last_modified)
                if answer.knows_if_range and condition and condition not in current:
                    return None
                return int(asked.group(1))

        return Handler


class RawServer:
    """Answers every request with the same bytes, which need not be HTTP.

    Attributes:
      url: the server's address, without a slash at its end.
    """

    def __init__(self, content, pause=None):
        """Says what is sent.

        Args:
          content: bytes.
          pause: seconds between two bytes of the last line of `content`, which is
            then sent again and again without an end; None to send it once and close.
        """
        closing = self._closing = threading.Event()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                end = len(content) if pause is None else content.rfind(b"\n") + 1
                try:
                    self.wfile.write(content[:end])
                    for byte in itertools.cycle(content[end:]):
                        self.wfile.write(bytes([byte]))
                        if closing.wait(pause):
                            return
                except OSError:  # the client has closed it
                    return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:{}".format(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
