"""Below HTTP requests: clients that stall, packets, upgrades, shutdown, addresses."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from albert_zh.base.errors import UserError
from albert_zh.serving import connections
from tests.http_service import (
    ANSWER,
    GOOD,
    PREDICT,
    TIMEOUT_SECONDS,
    running,
    wait_until,
)

HEAD = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
# Where a client stalls -> what it has sent.
STALLED = {
    "nothing": b"",
    "line": b"POST /v1/mod",
    "head": HEAD[:6] + b" HTTP/1.1\r\nHost: a\r\n",
    "body": HEAD % PREDICT[1:].encode() + b"{",
    "body of a 404": HEAD % b"nowhere" + b"{",
    "next": HEALTH,
    "empty": HEALTH + b"\r\n",
    "next head": HEALTH + HEALTH[:8],
}


@pytest.mark.parametrize("place", STALLED)
def test_clients_that_stall_are_timed_out(predictor, place):
    sent = STALLED[place]
    times = connections.Settings(timeout_seconds=0.2)
    with running(predictor, times=times) as service, service.raw() as raw:
        raw.sendall(sent)
        received = b"".join(iter(lambda: raw.recv(10000), b""))
        complete = sent.count(b"/healthz") + sent.count(b"/nowhere")
        assert len(received.split(b"HTTP/1.1 ")) - 1 >= complete
        if not complete:
            assert received.startswith(b"HTTP/1.1 408 ")


UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("place", ["one packet", "body later", "byte by byte"])
def test_clients_that_would_like_http_2_are_answered(service, place, is_chunked):
    body = json.dumps({"instances": [GOOD]}).encode()
    framing = "Content-Length: {}".format(len(body))
    if is_chunked:
        framing = "Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            5,
            body[:5],
            len(body) - 5,
            body[5:],
        )
    head = "POST {} HTTP/1.1\r\nHost: a\r\n{}{}\r\n\r\n"
    head = head.format(PREDICT, UPGRADE, framing).encode()
    packets = {
        "one packet": [head + body],
        "body later": [head, body],
        "byte by byte": [bytes([byte]) for byte in head + body],
    }[place]
    with service.raw() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Twice, since the connection stays open.
        for _ in range(2):
            for packet in packets:
                raw.sendall(packet)
                time.sleep(0.05 if place == "body later" else 0)
            response = http.client.HTTPResponse(raw, method="POST")
            response.begin()
            answer = json.loads(response.read().decode())
            assert (response.status, answer) == (200, {"predictions": [ANSWER]})


def test_many_requests_that_would_like_http_2_come_at_once(service):
    body = json.dumps({"instances": [GOOD]}).encode()
    head = "POST {} HTTP/1.1\r\nHost: a\r\n{}Content-Length: {}\r\n\r\n"
    post = head.format(PREDICT, UPGRADE, len(body)).encode() + body
    get = "GET /healthz HTTP/1.1\r\nHost: a\r\n{}\r\n".format(UPGRADE).encode()
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with service.raw() as raw:
        raw.sendall((post + get) * 100 + last)
        received = b"".join(iter(lambda: raw.recv(100000), b""))
    assert received.count(b"HTTP/1.1 ") == received.count(b"HTTP/1.1 200 ") == 201
    assert received.count(b"predictions") == 100


def test_who_would_like_http_2_may_not_stall(predictor):
    times = connections.Settings(timeout_seconds=0.2)
    with running(predictor, times=times) as service, service.raw() as raw:
        head = "POST {} HTTP/1.1\r\nHost: a\r\n{}Content-Length: 9\r\n\r\n{{"
        raw.sendall(head.format(PREDICT, UPGRADE).encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_response_is_sent_at_once():
    """Its head and its body are one packet; what follows later is another."""

    async def write():
        sent = []

        class Transport:
            def write(self, data):
                sent.append(bytes(data))

            def close(self):
                sent.append("closed")

            def get_write_buffer_size(self):
                return 100

            def is_closing(self):
                return False

        loop = asyncio.get_event_loop()
        transport = connections.JoiningTransport(Transport(), loop)
        assert not transport.is_closing()
        transport.write(b"head")
        transport.write(bytearray(b" body"))
        assert transport.get_write_buffer_size() == 100 + len("head body")
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 100
        transport.write(b"last")
        transport.close()
        await asyncio.sleep(0)
        return sent

    assert asyncio.run(write()) == [b"head body", b"last", "closed"]


@pytest.mark.parametrize("request_line", ["GET /healthz", "GET /v1/models", "PUT /"])
def test_a_client_that_has_sent_all_is_answered(service, request_line):
    """As it closes its half of the connection, it is not taken to have left."""
    for _ in range(20):
        with contextlib.closing(service.raw()) as raw:
            raw.sendall(request_line.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            raw.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: raw.recv(1 << 16), b""))
        assert received.startswith(b"HTTP/1.1 ") and received.endswith(b"}")


def test_a_slow_answer_is_no_stalled_client(predictor):
    times = connections.Settings(timeout_seconds=0.05)
    with running(predictor, times=times) as service, service.raw() as raw:
        predictor.gate.clear()
        body = json.dumps({"instances": [GOOD]}).encode()
        head = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"
        raw.sendall(head.format(PREDICT, len(body)).encode() + body + b"GET /he")
        assert predictor.started.acquire(timeout=TIMEOUT_SECONDS)
        # Another client is timed out meanwhile, twice.
        for _ in range(2):
            with service.raw() as other:
                assert other.recv(100).startswith(b"HTTP/1.1 408 ")
        predictor.gate.set()
        assert raw.recv(10000).startswith(b"HTTP/1.1 200 ")


def test_endless_headers_are_refused(service):
    with service.raw() as raw:
        with contextlib.suppress(OSError):
            raw.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200000)
        with contextlib.suppress(ConnectionError):
            assert b" 431 " in raw.recv(100)
    assert service.request("GET", "/healthz")[0] == 200


def test_many_small_heads_at_once_are_not_a_large_one(service):
    number = 2000
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 100 + b"\r\n\r\n"
    with service.raw() as raw:
        sender = threading.Thread(target=raw.sendall, args=(head * number,))
        sender.start()
        answers = b""
        while answers.count(b"HTTP/1.1 200 ") < number:
            received = raw.recv(1 << 16)
            assert received, answers[-200:]
            answers += received
        sender.join()


def test_a_client_that_takes_no_answer_is_dropped(predictor):
    predictor.judge = lambda *texts: "a" * 10**6
    times = connections.Settings(timeout_seconds=0.2)
    with running(predictor, times=times) as service:
        body = json.dumps({"instances": [GOOD] * 50}).encode()
        head = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{}\r\n"
        for more in ("", "Connection: close\r\n"):
            with service.raw() as raw:
                raw.sendall(head.format(PREDICT, len(body), more).encode() + body)
                wait_until(lambda: service.server.server_state.connections)
                wait_until(lambda: not service.server.server_state.connections)
        assert service.request("GET", "/healthz")[0] == 200


def test_shutdown_answers_running_requests(predictor):
    with running(predictor) as service, contextlib.closing(service.connect()) as idle:
        idle.request("GET", "/healthz")
        assert idle.getresponse().read()
        predictor.gate.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as callers:
            answer = callers.submit(service.post, {"instances": [GOOD]})
            assert predictor.started.acquire(timeout=TIMEOUT_SECONDS)
            service.stop()
            # Closed: no request runs there.
            assert idle.sock.recv(1000) == b""
            with pytest.raises(ConnectionError):
                service.request("GET", "/healthz")
            assert service.thread.is_alive()
            predictor.gate.set()
            assert answer.result() == (200, {"predictions": [ANSWER]})
        service.thread.join(TIMEOUT_SECONDS)
        assert not service.thread.is_alive()


def test_shutdown_waits_no_longer_than_it_should(predictor):
    times = connections.Settings(drain_seconds=1)
    with running(predictor, times=times) as service, service.raw() as raw:
        predictor.gate.clear()
        raw.sendall(b"POST /v1/models/fake:predict HTTP/1.1\r\nHost: a\r\nContent-")
        with contextlib.closing(service.connect()) as connection:
            connection.request("POST", PREDICT, json.dumps({"instances": [GOOD]}))
            assert predictor.started.acquire(timeout=TIMEOUT_SECONDS)
            begun = time.monotonic()
            service.stop()
            service.thread.join(TIMEOUT_SECONDS)
            assert not service.thread.is_alive()
            # Its time is up: nothing more is waited for.
            assert begun + 1 <= service.deadline() <= time.monotonic()
        predictor.gate.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", ""])
def test_hosts(host):
    try:
        listener = connections.bind(host, 0)
    except UserError:
        pytest.skip("this machine has no such address")
    with listener:
        address = connections.address_of(listener)
        port = listener.getsockname()[1]
        name = {"": "", "::1": "[::1]"}.get(host, "127.0.0.1")
        assert address.startswith("http://" + name)
        assert address.endswith(":{}/".format(port))
