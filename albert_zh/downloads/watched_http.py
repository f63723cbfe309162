"""HTTP sessions that a server can neither stall nor use to exhaust the memory.

The timeouts of `requests` limit a single read. A server that sends one byte at a time,
in headers or content, never exceeds them, and lines of the protocol may have any
length. So a second thread shuts down connections that are too slow, and the length of
lines is limited.
"""

import contextlib
import http.client
import io
import socket
import threading

import requests
import requests.adapters

_MAX_LINE_BYTES = 2**16


class Watch:
    """Watches the connections of a session during a `with` block.

    Attributes:
      session: `requests.Session`.
      has_fired: bool, whether its connections were shut down. A read then raises an
        error or, with some transfer encodings, ends as if the content were complete.
    """

    def __init__(self, seconds, least_bytes):
        """Sets the lowest speed: `least_bytes` in `seconds`.

        Args:
          seconds: float.
          least_bytes: int.
        """
        self.has_fired = False
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(self))
        self._seconds, self._least_bytes = seconds, least_bytes
        self._num_bytes = 0
        self._sockets = []
        self._has_news = threading.Event()
        self._has_ended = False
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._has_ended = True
        self._has_news.set()
        self._thread.join()
        self.session.close()
        for copy in self._sockets:
            copy.close()

    def count(self, num_bytes):
        """Counts received bytes of content."""
        self._num_bytes += num_bytes
        if self._num_bytes >= self._least_bytes:
            self._num_bytes = 0
            self._has_news.set()

    def add(self, connection):
        """Starts to watch a socket."""
        # A copy stays open when TLS takes over the socket.
        self._sockets.append(connection.dup())
        if self.has_fired:
            self._shut_down()

    def _wait(self):
        while self._has_news.wait(self._seconds):
            self._has_news.clear()
            if self._has_ended:
                return
        self.has_fired = True
        self._shut_down()

    def _shut_down(self):
        for copy in list(self._sockets):
            with contextlib.suppress(OSError):  # closed by the server
                copy.shutdown(socket.SHUT_RDWR)


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes watched connections, direct or through a proxy."""

    def __init__(self, watch):
        self._watch = watch
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        _watch_pools(self.poolmanager, self._watch)

    def proxy_manager_for(self, proxy, **kwargs):
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _watch_pools(manager, self._watch)
        return manager


def _watch_pools(manager, watch):
    """Makes a `urllib3.PoolManager` use watched connections."""
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool, watch)
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _watched_pool(pool, watch):
    """Returns a subclass of a `urllib3.HTTPConnectionPool`."""

    class Connection(pool.ConnectionCls):
        response_class = _Response

        def _new_conn(self):
            connection = super()._new_conn()
            watch.add(connection)
            return connection

    class Pool(pool):
        ConnectionCls = Connection

    return Pool


class _Response(http.client.HTTPResponse):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fp = _BoundedReader(self.fp.detach())


class _BoundedReader(io.BufferedReader):
    """Refuses unlimited reads, which older versions of urllib3 attempt.

    They accept any length of a chunk that the server gives, even a negative one, in a
    line of any length.
    """

    def readline(self, size=-1):
        line = super().readline(
            _MAX_LINE_BYTES + 1 if size is None or size < 0 else size
        )
        if len(line) > _MAX_LINE_BYTES:
            raise http.client.LineTooLong("answer")
        return line

    def read(self, size=-1):
        if size is None or size < 0:
            raise http.client.HTTPException("a length below 0")
        return super().read(size)
