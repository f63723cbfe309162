"""The service over real HTTP, with a stand-in for the model."""

import concurrent.futures
import contextlib
import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.serving import batching
from albert_zh.serving.predictor import NotFinite
from tests.http_service import (
    ANSWER,
    GOOD,
    PREDICT,
    TIMEOUT_SECONDS,
    running,
    wait_until,
)


def test_predictions_come_in_the_order_of_the_instances(service):
    instances = [GOOD, {"text_a": "a", "text_b": "b"}, ["c", "c"]]
    status, body = service.post({"instances": instances})
    assert status == 200
    assert [answer["label"] for answer in body["predictions"]] == ["1", "0", "1"]
    assert body["predictions"][0] == ANSWER


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_the_address_may_name_the_version(predictor, version):
    predictor.has_mask_head = True
    predictor.words = lambda text: [[{"token": text, "probability": 1.0}]]
    bodies = {
        "predict": {"instances": [GOOD], "signature_name": "serving_default"},
        "tokenize": {"texts": ["a"]},
        "fill_mask": {"instances": ["a"]},
    }
    with running(predictor) as service:
        for verb, body in bodies.items():
            path = "/v1/models/fake{}:{}".format(version, verb)
            assert service.request("POST", path, json.dumps(body))[0] == 200


def test_a_model_without_words_for_masks_says_so(service):
    status, body = service.post({"instances": ["[MASK]"]}, "fill_mask")
    assert status == 404
    assert "the model has no MLM head" in body["error"]
    # Other addresses are told where the model is.
    status, body = service.post({"instances": ["[MASK]"]}, "fill_masks")
    assert status == 404 and "the model is at /v1/models/fake" in body["error"]


def test_status_is_that_of_tensorflow_serving(service):
    status, headers, body = service.request("GET", "/v1/models/fake")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body.decode()) == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


def test_metadata_has_what_a_client_needs(service):
    metadata = json.loads(
        service.request("GET", "/v1/models/fake/metadata")[2].decode()
    )
    assert metadata["model_spec"]["name"] == "fake"
    assert metadata["metadata"] == {
        "task_name": "pair",
        "kind": "classification",
        "labels": ["0", "1"],
        "fields": ["text_a", "text_b"],
        "max_seq_length": 32,
        "fill_mask": False,
        "max_body_bytes": 20000,
        "max_instances": 4,
        "max_text_chars": 100,
    }


def test_health_metrics_and_page(service):
    assert service.request("GET", "/healthz")[0] == 200
    assert service.request("HEAD", "/healthz")[::2] == (200, b"")
    status, headers, body = service.request("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert service.post({"instances": [GOOD]})[0] == 200
    status, headers, body = service.request("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain")
    assert b'albert_requests_total{code="200",verb="predict"}' in body
    assert b'albert_pending_instances{verb="predict"} 0.0' in body


def test_tokens(service):
    status, body = service.post({"texts": ["你好", "a"]}, "tokenize")
    assert status == 200
    assert [[token["token"] for token in text] for text in body["tokens"]] == [
        ["你", "好"],
        ["a"],
    ]


# What is wrong -> body, and the status and a part of the reason.
BAD = {
    "empty": (b"", 400, "body: "),
    "no JSON": (b"{", 400, "body: "),
    "not UTF-8": (b'{"instances": ["\xff"]}', 400, "not UTF-8"),
    "UTF-16": ('{"instances": []}'.encode("utf-16"), 400, "not UTF-8"),
    "no object": (b"[]", 400, "is not of type 'object'"),
    "no instances": (b"{}", 400, "'instances' is a required property"),
    "none": (b'{"instances": []}', 400, "body: instances: "),
    "a text": (b'{"instances": "a"}', 400, "body: instances: 'a' is not"),
    "columns": (b'{"inputs": {"text_a": []}}', 400, "body: "),
    "another key": (b'{"instances": [1], "a": 1}', 400, "'a' was unexpected"),
    "signature": (b'{"instances": [1], "signature_name": "x"}', 400, "signature_name"),
    "NaN": (b'{"instances": [NaN]}', 400, "NaN"),
    "infinite": (b'{"instances": [1e999]}', 400, "1e999"),
    "digits": (b'{"instances": [' + b"9" * 9999 + b"]}", 400, "9,999 digits"),
    "nested": (b"[" * 9999 + b"]" * 9999, 400, "nested too deeply"),
    "nested objects": (b'{"instances":' * 1500, 400, "body: "),
    "a key twice": (
        b'{"instances": [{"text_a": "a", "text_a": "b", "text_b": "b"}]}',
        400,
        "body: instances[0]: it holds the key 'text_a' twice",
    ),
    "half a pair": (rb'{"instances": [["a", "\ud800"]]}', 400, "half a surrogate"),
    "number": (b'{"instances": [1]}', 400, "instances[0]: expected text_a"),
    "null": (b'{"instances": [["a", "b"], null]}', 400, "instances[1]: expected"),
    "empty text": (b'{"instances": [["a", " "]]}', 400, "instances[0]: text_b"),
    "NUL": (rb'{"instances": [["a", "\u0000"]]}', 400, "instances[0]: text_b"),
    "long": ({"instances": [["a" * 33, "b"]]}, 400, "instances[0]: text_a: too long"),
    "too long": ({"instances": [["a" * 101, "b"]]}, 400, "101 characters"),
    "many": ({"instances": [GOOD] * 5}, 400, "instances: received 5; send at most 4"),
    "10,000": ({"instances": [0] * 6000}, 400, "received 6,000"),
    "large": (b" " * 20001, 413, "larger than 20,000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_told_why(service, name):
    body, expected, reason = BAD[name]
    status, answer = service.post(body)
    assert (status, list(answer)) == (expected, ["error"])
    assert reason in answer["error"]
    assert "\n" not in answer["error"] and len(answer["error"]) <= 500


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "'texts' is a required property"),
        (b'{"texts": []}', "texts: "),
        (b'{"texts": ["a", 1]}', "texts[1] is 1; expected text"),
        # Before anything looks at each of them.
        (b'{"texts": [' + b"1," * 6000 + b"1]}", "received 6,001; send at most 4"),
        (b"x", "body: "),
    ],
)
def test_bad_requests_for_tokens_are_told_why(service, body, reason):
    status, answer = service.post(body, "tokenize")
    assert (status, list(answer)) == (400, ["error"])
    assert reason in answer["error"]


def test_chunks_are_counted(service):
    def chunks(number):
        return iter(
            [b" " * 1000] * number + [json.dumps({"instances": [GOOD]}).encode()]
        )

    with contextlib.closing(service.connect()) as connection:
        for number, expected in ((19, 200), (20, 413)):
            connection.request(
                "POST",
                PREDICT,
                chunks(number),
                encode_chunked=True,
                headers={"Transfer-Encoding": "chunked"},
            )
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (expected, True)


def test_a_large_body_is_refused_before_it_is_sent(service):
    with service.raw() as raw:
        raw.sendall(
            b"POST /v1/models/fake:predict HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 100000000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/v1/models/other:predict", 404),
        ("GET", "/v1/models/fake/versions/2", 404),
        ("GET", "/v1/models/fake/", 404),
        ("GET", "/docs", 404),
        ("GET", "/%00%ff", 404),
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("DELETE", "/", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_other_addresses_and_methods(service, method, path, expected):
    status, _, body = service.request(method, path)
    assert (status, list(json.loads(body.decode()))) == (expected, ["error"])


def test_a_full_queue_is_503(predictor):
    with running(predictor, batches=batching.Settings(max_queue=2)) as service:
        predictor.gate.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as callers:
            first = callers.submit(service.post, {"instances": [GOOD, GOOD]})
            assert predictor.started.acquire(timeout=TIMEOUT_SECONDS)
            body = json.dumps({"instances": [GOOD]})
            status, headers, body = service.request("POST", PREDICT, body)
            assert (status, headers["retry-after"]) == (503, "1")
            assert "queue is full" in json.loads(body.decode())["error"]
            # Health does not depend on the model's work.
            assert service.request("GET", "/healthz")[0] == 200
            predictor.gate.set()
            assert first.result() == (200, {"predictions": [ANSWER, ANSWER]})
        assert service.post({"instances": [GOOD]})[0] == 200


def test_texts_to_tokenize_are_bounded_like_instances(predictor):
    started, gate = threading.Semaphore(0), threading.Event()

    def tokenize(text):
        started.release()
        assert gate.wait(TIMEOUT_SECONDS)
        return []

    predictor.tokenize = tokenize
    path = "/v1/models/fake:tokenize"
    with running(predictor, batches=batching.Settings(max_queue=2)) as service:
        with concurrent.futures.ThreadPoolExecutor(1) as callers:
            first = callers.submit(service.post, {"texts": ["a", "b"]}, "tokenize")
            assert started.acquire(timeout=TIMEOUT_SECONDS)
            assert service.service.num_pending == 2
            body = json.dumps({"texts": ["c"]})
            status, headers, _ = service.request("POST", path, body)
            # They take no room from predictions.
            predicted = service.post({"instances": [GOOD, GOOD]})
            gate.set()
            assert (status, headers["retry-after"], predicted[0]) == (503, "1", 200)
            assert first.result() == (200, {"tokens": [[], []]})
        assert service.post({"texts": ["c"]}, "tokenize")[0] == 200


def test_a_client_that_leaves_harms_nobody(predictor):
    with running(predictor, batches=batching.Settings(num_workers=1)) as service:
        predictor.gate.clear()
        connections_ = [service.connect() for _ in range(3)]
        body = json.dumps({"instances": [GOOD]})
        for number, connection in enumerate(connections_):
            connection.request("POST", PREDICT, body)
            if number == 0:
                assert predictor.started.acquire(timeout=TIMEOUT_SECONDS)
            wait_until(lambda n=number: service.service.num_pending == n + 1)
        # One that runs and one that waits.
        connections_[0].close()
        connections_[1].close()
        wait_until_counted(service, 2, 499)
        predictor.gate.set()
        response = connections_[2].getresponse()
        assert json.loads(response.read().decode()) == {"predictions": [ANSWER]}
        connections_[2].close()
        assert predictor.batches == [1, 1]
        wait_until(lambda: service.service.num_pending == 0)


def metric(service, name, **labels):
    return service.service.metrics.registry.get_sample_value(name, labels)


def wait_until_counted(service, number, code):
    """Returns when so many predict requests ended with this status code."""
    labels = {"verb": "predict", "code": str(code)}
    wait_until(lambda: metric(service, "albert_requests_total", **labels) == number)


@pytest.mark.parametrize("verb", ["predict", "tokenize", "fill_mask"])
def test_a_service_without_its_threads_is_not_healthy(predictor, verb):
    predictor.has_mask_head = True
    with running(predictor) as service:
        batcher = service.service.batchers[verb]
        assert batcher.is_working
        assert service.request("GET", "/healthz")[0] == 200
        batcher.close()
        status, _, body = service.request("GET", "/healthz")
        assert (status, list(json.loads(body.decode()))) == (503, ["error"])


def test_a_broken_model_is_an_error_for_its_request_only(predictor):
    with running(predictor, batches=batching.Settings(num_workers=1)) as service:
        broken = {"text_a": predictor.broken, "text_b": "b"}
        status, body = service.post({"instances": [broken]})
        assert (status, list(body)) == (500, ["error"])
        assert service.post({"instances": [GOOD]})[0] == 200
        wait_until_counted(service, 1, 500)


@pytest.mark.parametrize(
    ("method", "error", "expected"),
    [
        ("prepare_masks", UserError("no [MASK]"), 400),
        ("words", NotFinite("predicts NaN"), 500),
    ],
)
def test_what_words_for_masks_fail_for(predictor, method, error, expected):
    def fail(text):
        raise error

    predictor.has_mask_head = True
    setattr(predictor, method, fail)
    with running(predictor) as service:
        assert service.post({"instances": ["a"]}, "fill_mask")[0] == expected


def test_metrics_are_those_of_each_verb(predictor):
    started, gate = threading.Semaphore(0), threading.Event()

    def slowly(text):
        started.release()
        assert gate.wait(TIMEOUT_SECONDS)
        return []

    predictor.has_mask_head = True
    predictor.words = predictor.tokenize = slowly
    posts = {"tokenize": {"texts": ["a"] * 3}, "fill_mask": {"instances": ["a"] * 3}}
    with running(predictor) as service:
        with concurrent.futures.ThreadPoolExecutor(2) as callers:
            answers = [
                callers.submit(service.post, body, verb) for verb, body in posts.items()
            ]
            for _ in posts:
                assert started.acquire(timeout=TIMEOUT_SECONDS)
            name = "albert_pending_instances"
            pending = [metric(service, name, verb=verb) for verb in posts]
            gate.set()
            assert pending == [3, 3]
            assert [answer.result()[0] for answer in answers] == [200, 200]
        assert service.post({"instances": [GOOD] * 2})[0] == 200
        for verb, number in {"predict": 2, "tokenize": 3, "fill_mask": 3}.items():
            assert service.post({}, verb)[0] == 400
            for code in ("200", "400"):
                labels = {"verb": verb, "code": code}
                assert metric(service, "albert_requests_total", **labels) == 1
            assert metric(service, "albert_request_seconds_count", verb=verb) == 2
            assert metric(service, "albert_batch_instances_sum", verb=verb) == number
            assert metric(service, "albert_batch_seconds_total", verb=verb) > 0
            assert metric(service, "albert_pending_instances", verb=verb) == 0


def test_concurrent_clients_get_their_own_answers(predictor):
    with running(predictor) as service:

        def ask(client):
            with contextlib.closing(service.connect()) as connection:
                for number in range(20):
                    same = (client + number) % 2
                    texts = [str(client), str(client) if same else "other"]
                    body = json.dumps({"instances": [texts]})
                    connection.request("POST", PREDICT, body)
                    answer = json.loads(connection.getresponse().read().decode())
                    if answer["predictions"][0]["label"] != str(same):
                        return False
            return True

        with concurrent.futures.ThreadPoolExecutor(32) as clients:
            assert all(clients.map(ask, range(32)))
        wait_until_counted(service, 640, 200)
        # Many went together.
        assert sum(predictor.batches) == 640 > len(predictor.batches)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda children: st.lists(children, max_size=6)
    | st.dictionaries(
        st.sampled_from(["text_a", "text_b", "text", "instances"])
        | st.text(max_size=9),
        children,
        max_size=4,
    ),
    max_leaves=12,
)
INSTANCES = JSON_VALUES | st.fixed_dictionaries(
    {"text_a": st.text() | JSON_VALUES, "text_b": st.text() | JSON_VALUES}
)
BODIES = (
    st.binary(max_size=200)
    | JSON_VALUES
    | st.fixed_dictionaries({"instances": st.lists(INSTANCES, max_size=5)})
)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32"])


@settings(max_examples=200, deadline=None)
@given(body=BODIES, encoding=ENCODINGS, is_ascii=st.booleans())
def test_no_body_is_an_internal_error(service, body, encoding, is_ascii):
    if not isinstance(body, bytes):
        text = json.dumps(body, ensure_ascii=is_ascii)
        body = text.encode(encoding, "surrogatepass")
    status, answer = service.post(body)
    assert status in (200, 400, 413)
    assert list(answer) == ["predictions" if status == 200 else "error"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.binary(max_size=30)
        | st.sampled_from(
            [
                b"POST /v1/models/fake:predict HTTP/1.1\r\n",
                b"GET / HTTP/1.1\r\n",
                b"GET /%s HTTP/1.0\r\n",
                b"OPTIONS * HTTP/1.1\r\n",
                b"GET http://[::1 HTTP/1.1\r\n",
                b"Host: a\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: -1\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
                b"CONNECT a:1 HTTP/1.1\r\n",
                b"Expect: 100-continue\r\n",
                b"\r\n",
                b"{}x",
                b"3\r\n{}x\r\n0\r\n\r\n",
            ]
        ),
        max_size=9,
    )
)
def test_no_bytes_are_an_internal_error(service, parts):
    with service.raw() as raw:
        raw.sendall(b"".join(parts) + b"\r\n\r\n")
        # What comes after is bad, so that the connection is closed.
        raw.sendall(b"\0\0\r\n\r\n" * 3)
        received = b""
        # Some requests are complete after all, and their connections stay open.
        raw.settimeout(0.3)
        with contextlib.suppress(ConnectionError, socket.timeout):
            for data in iter(lambda: raw.recv(100000), b""):
                received += data
    statuses = {part[:3] for part in received.split(b"HTTP/1.1 ")[1:]}
    assert not {status for status in statuses if status.startswith(b"5")}


def test_the_service_is_well_after_all_this(service):
    assert service.post({"instances": [GOOD]}) == (200, {"predictions": [ANSWER]})
    assert service.service.num_pending == 0
