"""A model behind HTTP: TensorFlow Serving's REST API, health, metrics and a page.

    POST /v1/models/NAME:predict       {"instances": [...]} -> {"predictions": [...]}
    POST /v1/models/NAME:tokenize      {"texts": [...]} -> {"tokens": [[...], ...]}
    POST /v1/models/NAME:fill_mask     words for [MASK], of models that have them
    GET  /v1/models                    the name of the model
    GET  /v1/models/NAME               status
    GET  /v1/models/NAME/metadata      task, labels, fields of an instance, limits
    GET  /healthz  /metrics  /         health, Prometheus text, page for people

Errors are {"error": "..."} with a status of 4xx or 503. `connections` has what is below
HTTP requests: sockets, time limits, shutdown.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import http
import json
import os
import re
import time
from typing import NamedTuple

import fastapi
import prometheus_client
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from albert_zh.base import json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError
from albert_zh.serving import batching
from albert_zh.serving.predictor import NotFinite

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
# TensorFlow Serving's default signature; there is no other here.
SIGNATURE = "serving_default"
# A model directory has no versions: the one that is served is number 1.
VERSION = "1"

_MAX_MESSAGE_CHARS = 500
_JSON = "application/json"
# The client has left; nobody reads the response. Other servers log this code, too.
_CLIENT_GONE = 499

_PREDICT_SCHEMA = {
    "type": "object",
    "properties": {
        "instances": {"type": "array", "minItems": 1},
        "signature_name": {"const": SIGNATURE},
    },
    "required": ["instances"],
    "additionalProperties": False,
}
_TOKENIZE_SCHEMA = {
    "type": "object",
    # Not their types: a schema takes seconds for the many texts that a body can hold.
    "properties": {"texts": {"type": "array", "minItems": 1}},
    "required": ["texts"],
    "additionalProperties": False,
}


class Limits(NamedTuple):
    """What a request may hold.

    Attributes:
      max_body_bytes: of a body.
      max_instances: in a request.
      max_text_chars: of each text of an instance, in code points.
    """

    max_body_bytes: int = 1 << 20
    max_instances: int = 256
    max_text_chars: int = 10000


class Metrics:
    """What /metrics shows, of each verb."""

    def __init__(self):
        """Has no numbers yet."""
        self.registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "albert_requests",
            "Requests by verb and status code.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.request_seconds = prometheus_client.Histogram(
            "albert_request_seconds",
            "Seconds from a request's headers to its answer.",
            ["verb"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
            registry=self.registry,
        )
        self.batch_instances = prometheus_client.Histogram(
            "albert_batch_instances",
            "Instances of a batch.",
            ["verb"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.batch_seconds = prometheus_client.Counter(
            "albert_batch_seconds",
            "Seconds that all batches took.",
            ["verb"],
            registry=self.registry,
        )
        self.pending_instances = prometheus_client.Gauge(
            "albert_pending_instances",
            "Instances accepted and not yet answered.",
            ["verb"],
            registry=self.registry,
        )

    def observe_batch(self, verb, num_instances, seconds):
        """Counts a batch."""
        self.batch_instances.labels(verb).observe(num_instances)
        self.batch_seconds.labels(verb).inc(seconds)

    def observe_request(self, verb, code, seconds):
        """Counts a request."""
        self.requests.labels(verb, str(code)).inc()
        self.request_seconds.labels(verb).observe(seconds)

    def show_pending(self, verb, num_pending):
        """Takes the function that returns the length of a verb's queue."""
        self.pending_instances.labels(verb).set_function(num_pending)


class Service:
    """A predictor with a name, behind a batcher for each verb.

    Attributes:
      name: of the model in addresses.
      limits: `Limits`.
      batchers: dict of verb -> `batching.Batcher`: "predict", "tokenize" and, if the
        model has words for [MASK], "fill_mask". None fills the queue of another.
      metrics: `Metrics`.
    """

    def __init__(self, predictor, name, limits, batch_settings):
        """Starts the threads of the batchers.

        Args:
          predictor: what `albert_zh.load` returns.
          name: str, of letters, digits, ".", "_" and "-".
          limits: `Limits`.
          batch_settings: `batching.Settings`.
        """
        self.name = name
        self.limits = limits
        self._predictor = predictor
        self.metrics, self.batchers = Metrics(), {}
        self._start("predict", predictor.prepare, predictor.answer, batch_settings)
        # A text at a time: these gain nothing from a batch.
        alone = batch_settings._replace(
            num_workers=1, max_batch_size=1, max_latency_ms=0
        )
        self._start("tokenize", _as_it_is, _each(predictor.tokenize), alone)
        if predictor.has_mask_head:
            fill = _each(predictor.words)
            self._start("fill_mask", predictor.prepare_masks, fill, alone)

    def _start(self, verb, prepare, run, settings):
        """Starts the batcher of a verb; see `batching.Model` for the functions."""
        observe = functools.partial(self.metrics.observe_batch, verb)
        model = batching.Model(prepare, _our_fault(run), observe)
        batcher = self.batchers[verb] = batching.Batcher(model, settings)
        self.metrics.show_pending(verb, lambda: batcher.num_pending)

    @property
    def num_pending(self):
        """How many instances and texts are accepted and not yet answered."""
        return sum(batcher.num_pending for batcher in self.batchers.values())

    def close(self, deadline=None):
        """Ends the batchers' threads; see `batching.Batcher.close`."""
        for batcher in self.batchers.values():
            batcher.close(deadline)

    @contextlib.contextmanager
    def _counting(self, verb):
        """Counts a request of a verb, which ends with status 200 or an exception."""
        started, code = time.monotonic(), 500
        try:
            yield
            code = 200
        except HTTPException as error:
            code = error.status_code
            raise
        except ClientDisconnect:
            code = _CLIENT_GONE
            raise
        finally:
            self.metrics.observe_request(verb, code, time.monotonic() - started)

    async def predict(self, request):
        """POST :predict."""
        with self._counting("predict"):
            return await self._predict(request, "predict")

    async def fill_mask(self, request):
        """POST :fill_mask."""
        with self._counting("fill_mask"):
            if "fill_mask" not in self.batchers:
                message = "fill_mask: the model has no MLM head; a pretrained one may"
                raise HTTPException(404, message)
            return await self._predict(request, "fill_mask")

    async def tokenize(self, request):
        """POST :tokenize."""
        with self._counting("tokenize"):
            texts = (await self._body(request, _TOKENIZE_SCHEMA))["texts"]
            self._check_size(texts, "texts")
            for index, text in enumerate(texts):
                if not isinstance(text, str):
                    message = "texts[{}] is {:.100}; expected text"
                    raise HTTPException(400, message.format(index, repr(text)))
            tokens = await self._answers(request, "tokenize", texts)
            return _json_response({"tokens": tokens})

    async def _predict(self, request, verb):
        instances = (await self._body(request, _PREDICT_SCHEMA))["instances"]
        self._check_size(instances, "instances")
        answers = await self._answers(request, verb, instances)
        return _json_response({"predictions": answers})

    async def _answers(self, request, verb, instances):
        """Waits for the answers of a verb's batcher.

        Raises:
          HTTPException: an instance is wrong, or they are not accepted now.
          ClientDisconnect: the client has left.
        """
        try:
            future = self.batchers[verb].submit(instances)
        except batching.QueueFull as error:
            message = "the queue is full; try again later"
            raise HTTPException(503, message, {"Retry-After": "1"}) from error
        except batching.Closed as error:
            message = "the service is shutting down"
            raise HTTPException(503, message, {"Connection": "close"}) from error
        try:
            return await _unless_gone(future, request)
        except UserError as error:
            raise HTTPException(400, str(error)) from error

    async def health(self, request):
        """GET /healthz."""
        if not all(batcher.is_working for batcher in self.batchers.values()):
            # Requests would wait for it without an end.
            raise HTTPException(503, "a worker thread has ended; the log has more")
        return _json_response({"status": "ok"})

    async def models(self, request):
        """GET /v1/models: which there are, for clients that do not know the name."""
        return _json_response({"models": [{"name": self.name}]})

    async def status(self, request):
        """GET of the model: as TensorFlow Serving answers."""
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": VERSION, "state": "AVAILABLE", "status": status}
        return _json_response({"model_version_status": [version]})

    async def metadata(self, request):
        """GET metadata: what the page and other clients need to know."""
        predictor = self._predictor
        return _json_response(
            {
                "model_spec": {
                    "name": self.name,
                    "signature_name": SIGNATURE,
                    "version": VERSION,
                },
                "metadata": dict(
                    self.limits._asdict(),
                    task_name=predictor.task_name,
                    kind=predictor.kind_name,
                    labels=list(predictor.labels),
                    fields=list(predictor.fields),
                    max_seq_length=predictor.max_seq_length,
                    fill_mask="fill_mask" in self.batchers,
                ),
            }
        )

    async def show_metrics(self, request):
        """GET /metrics."""
        return Response(
            prometheus_client.generate_latest(self.metrics.registry),
            media_type=prometheus_client.CONTENT_TYPE_LATEST,
        )

    async def _body(self, request, schema):
        """Reads and parses the body of a request.

        Raises:
          HTTPException: it is too large or not what the schema says.
          ClientDisconnect: the client has left before its end.
        """
        limit = self.limits.max_body_bytes
        too_large = HTTPException(
            413, "the body is larger than {:,} bytes; send less at a time".format(limit)
        )
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
        try:
            return json_files.parse(bytes(body), schema)
        except ValueError as error:
            raise HTTPException(400, "body: {}".format(error)) from error

    def _check_size(self, values, name):
        """Raises `HTTPException` if there are too many, or if a text is too long."""
        if len(values) > self.limits.max_instances:
            message = "{}: received {:,}; send at most {:,} in a request"
            message = message.format(name, len(values), self.limits.max_instances)
            raise HTTPException(400, message)
        limit = self.limits.max_text_chars
        for index, value in enumerate(values):
            for text in _texts(value):
                if len(text) > limit:
                    message = "{}[{}]: a text has {:,} characters; send at most {:,}"
                    message = message.format(name, index, len(text), limit)
                    raise HTTPException(400, message)


def _our_fault(run):
    """`run` for which predicting NaN is an internal error, not one of the request."""

    def guarded(prepared):
        try:
            return run(prepared)
        except NotFinite as error:
            raise RuntimeError(str(error)) from error

    return guarded


def _each(answer):
    """The `run` of `batching.Model` that answers one by one."""
    return lambda prepared: list(map(answer, prepared))


def _as_it_is(instance):
    """The `prepare` of `batching.Model` that has nothing to do."""
    return instance


def _texts(instance):
    """Returns the texts of an instance: one, several, or those of an object's fields.

    Texts elsewhere make no instance: `prepare` of the predictor refuses them.
    """
    values = instance.values() if isinstance(instance, dict) else [instance]
    for value in values:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield text


def build_app(service):
    """Returns the ASGI application of a `Service`."""
    # Without FastAPI's pages about itself: their scripts come from other servers.
    app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    model = "/v1/models/" + service.name

    def get(path, endpoint):
        app.router.add_route(path, endpoint, methods=["GET", "HEAD"])

    def post(path, endpoint):
        # Not as a FastAPI endpoint: the body is bounded while it is read.
        app.router.add_route(path, endpoint, methods=["POST"])

    for prefix in (model, "{}/versions/{}".format(model, VERSION)):
        post(prefix + ":predict", service.predict)
        post(prefix + ":tokenize", service.tokenize)
        post(prefix + ":fill_mask", service.fill_mask)
        get(prefix, service.status)
        get(prefix + "/metadata", service.metadata)
    get("/v1/models", service.models)
    get("/healthz", service.health)
    get("/metrics", service.show_metrics)
    get("/", _page_endpoint())
    app.add_exception_handler(HTTPException, _explain_to(service))
    app.add_exception_handler(ClientDisconnect, _ignore)
    app.add_exception_handler(Exception, _apologize)
    return app


def _page_endpoint():
    """Returns the endpoint of the page, which may load and run nothing but itself."""
    with open(PAGE, encoding="utf-8") as file:
        html = file.read()
    policy = "; ".join(
        [
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            "script-src " + _hashes("script", html),
            "style-src " + _hashes("style", html),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}

    async def page(request):
        return Response(html, media_type="text/html", headers=headers)

    return page


def _hashes(tag, html):
    """Returns the elements of a page as sources of a Content-Security-Policy."""
    pattern = "<{0}>(.*?)</{0}>".format(tag)
    digests = [
        hashlib.sha256(content.encode("utf-8")).digest()
        for content in re.findall(pattern, html, re.DOTALL)
    ]
    sources = ["'sha256-{}'".format(base64.b64encode(d).decode()) for d in digests]
    return " ".join(sources)


def _explain_to(service):
    """Returns the handler of `HTTPException`: {"error": ...}."""

    async def explain(request, error):
        message = error.detail
        # Starlette's own, where no address matches.
        if message == http.HTTPStatus.NOT_FOUND.phrase:
            message = "{} {}: not found; the model is at /v1/models/{}".format(
                request.method, request.url.path, service.name
            )
        return _json_response(
            {"error": printable(message)[:_MAX_MESSAGE_CHARS]},
            error.status_code,
            error.headers,
        )

    return explain


async def _ignore(request, error):
    """The answer to a client who has left, which nobody reads."""
    del request, error
    return Response(status_code=_CLIENT_GONE)


async def _apologize(request, error):
    """The answer to a defect of the service or of its model."""
    # uvicorn logs it.
    del request, error
    return _json_response({"error": "internal error; the log has more"}, 500)


def _json_response(value, code=200, headers=None):
    content = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return Response(content.encode("utf-8"), code, headers, _JSON)


async def _unless_gone(future, request):
    """Waits for an answer as long as the client does.

    Args:
      future: `concurrent.futures.Future`, cancelled when the client leaves.
      request: `starlette.requests.Request` whose body has been read.

    Raises:
      ClientDisconnect: the client has left.
    """
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        future.cancel()


async def _disconnected(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass
