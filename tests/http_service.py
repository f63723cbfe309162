"""A service in a thread of the tests' process, and clients for it."""

import contextlib
import http.client
import json
import queue
import socket
import threading
import time

from albert_zh.serving import batching, connections
from albert_zh.serving import http as serving_http

TIMEOUT_SECONDS = 30
# What `fake_predictor.FakePredictor` is asked, and what it answers.
PREDICT = "/v1/models/fake:predict"
GOOD = {"text_a": "你好", "text_b": "你好"}
ANSWER = {"label": "1", "probabilities": {"0": 0.0, "1": 1.0}}


class RunningService:
    """A service that answers.

    Attributes:
      service: `serving_http.Service`.
      port: on 127.0.0.1.
      server: uvicorn's.
      thread: ends after `stop`.
      deadline: function that returns what `connections.serve` did, after the end.
    """

    def __init__(self, service, port, server, thread, deadline):
        self.service, self.port = service, port
        self.server, self.thread, self.deadline = server, thread, deadline

    def stop(self):
        """Begins the shutdown."""
        self.server.should_exit = True

    def connect(self):
        """Returns an open `http.client.HTTPConnection`."""
        return http.client.HTTPConnection("127.0.0.1", self.port, TIMEOUT_SECONDS)

    def request(self, method, path, body=None, **headers):
        """Returns (status, headers, body) of one request."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def post(self, body, verb="predict"):
        """Posts a value as JSON, or bytes as they are; returns (status, value)."""
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode("utf-8")
        path = "/v1/models/{}:{}".format(self.service.name, verb)
        status, _, content = self.request("POST", path, body)
        return status, json.loads(content.decode("utf-8"))

    def post_ascii(self, value):
        """Posts a value whose texts may hold what UTF-8 cannot."""
        return self.post(json.dumps(value).encode("ascii"))

    def raw(self):
        """Returns an open socket."""
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)


@contextlib.contextmanager
def running(predictor, limits=None, batches=None, times=None):
    """Runs a service of a predictor; yields `RunningService`.

    Args:
      predictor: what `albert_zh.load` returns, or a stand-in.
      limits: `serving_http.Limits`.
      batches: `batching.Settings`.
      times: `connections.Settings`.
    """
    listener = connections.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    batches = batches or batching.Settings(max_latency_ms=1)
    limits = limits or serving_http.Limits()
    service = serving_http.Service(predictor, "fake", limits, batches)
    app = serving_http.build_app(service)
    servers, deadlines = queue.Queue(), queue.Queue()
    times = times or connections.Settings()
    thread = threading.Thread(
        target=lambda: deadlines.put(
            connections.serve(app, listener, times, servers.put)
        )
    )
    thread.start()
    server = servers.get(timeout=TIMEOUT_SECONDS)
    try:
        yield RunningService(service, port, server, thread, deadlines.get_nowait)
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_SECONDS)
        service.close(time.monotonic() + TIMEOUT_SECONDS)


def wait_until(condition):
    """Returns when the condition holds, tried again and again."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)
