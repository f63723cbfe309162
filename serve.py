"""Serves a model over HTTP, with TensorFlow Serving's REST API and a page to try it.

    python3 serve.py --model_dir=sample/pairs/best
    curl http://127.0.0.1:8501/v1/models/pair:predict \\
        -d '{"instances": [{"text_a": "花呗怎么还款", "text_b": "怎么还花呗"}]}'

SIGTERM ends it after the answers to running requests, with exit code 0.
"""

from albert_zh import command_line  # isort: split

import argparse
import logging
import os
import re

import albert_zh
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import non_negative_number, positive_int, positive_number
from albert_zh.serving.predictor import BACKENDS

_LOGGER = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
# Threads cannot wait for any number of seconds, and nobody wants more than this.
_HOUR_SECONDS = 3600
_PACKAGES = "fastapi uvicorn httptools prometheus_client"


def build_parser():
    """Returns the command's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    text = "fine-tuned or pretrained model, or an ONNX export of one"
    add("--model_dir", required=True, help=text)
    text = "of the model in addresses; default: its task's, else its directory's"
    add("--name", type=_name, help=text)
    text = "address to listen at; 0.0.0.0 admits other machines"
    add("--host", type=_host, default="127.0.0.1", help=text)
    add("--port", type=_port, default=8501, help="0: any free port")
    text = "what computes; default: onnx for an export, else tensorflow"
    add("--backend", choices=BACKENDS, help=text)
    text = "milliseconds that a request may wait for others to form a batch"
    add("--max_latency_ms", type=_latency, default=2.0, help=text)
    add("--max_batch_size", type=positive_int, default=64, help="instances of a batch")
    text = "instances accepted and not yet answered, of each verb (:predict, :tokenize,"
    text += " :fill_mask); beyond it: 503"
    add("--max_queue", type=positive_int, default=1024, help=text)
    text = "of a request; beyond it: 413"
    add("--max_body_bytes", type=positive_int, default=1 << 20, help=text)
    text = "of a request; beyond it: 400"
    add("--max_instances", type=positive_int, default=256, help=text)
    text = "characters of each text; beyond it: 400"
    add("--max_text_chars", type=positive_int, default=10000, help=text)
    text = "for a client to send a request or to take a response"
    add("--timeout_seconds", type=positive_number, default=30.0, help=text)
    text = "for running requests to end after SIGTERM"
    add("--drain_seconds", type=_drain, default=30.0, help=text)
    return parser


def _name(text):
    if not _NAME.fullmatch(text):
        message = (
            "expected letters, digits, '_', '.', '-', such as m-1.2; received {!r}"
        )
        raise argparse.ArgumentTypeError(message.format(text))
    return text


def _host(text):
    """An address as it is, also in the brackets that it has in URLs."""
    is_bracketed = text.startswith("[") and text.endswith("]")
    return text[1:-1] if is_bracketed else text


def _port(text):
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= 1 << 16:
        message = "expected 0 to 65535, received {!r}".format(text)
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _latency(text):
    return _at_most(non_negative_number(text), _HOUR_SECONDS * 1000, text)


def _drain(text):
    return _at_most(positive_number(text), _HOUR_SECONDS, text)


def _at_most(value, limit, text):
    if value > limit:
        message = "expected at most {} (an hour), received {}".format(limit, text)
        raise argparse.ArgumentTypeError(message)
    return value


def main(args):
    """Loads the model and serves it; see `build_parser` for the arguments."""
    try:
        from albert_zh.serving import batching, connections, http
    except ModuleNotFoundError as error:
        message = "serve.py requires {}: run `pip install {}`"
        raise UserError(message.format(error.name, _PACKAGES)) from error
    if args.max_instances > args.max_queue:
        message = "--max_instances={} is more than --max_queue={}: it would never fit"
        raise UserError(message.format(args.max_instances, args.max_queue))
    # First, since loading takes time.
    listener = connections.bind(args.host, args.port)
    with albert_zh.load(
        args.model_dir, backend=args.backend, shares_cores=True
    ) as predictor:
        service = http.Service(
            predictor,
            args.name or _default_name(predictor, args.model_dir),
            http.Limits(args.max_body_bytes, args.max_instances, args.max_text_chars),
            batching.Settings(args.max_latency_ms, args.max_batch_size, args.max_queue),
        )
        _warn_of_others(args.host)
        deadline = connections.serve(
            http.build_app(service),
            listener,
            connections.Settings(args.timeout_seconds, args.drain_seconds),
            lambda server: _announce(connections.address_of(listener), service.name),
        )
        service.close(deadline)
        _report(service.num_pending)


def _default_name(predictor, model_dir):
    """Returns a name that can stand in an address."""
    folder = os.path.basename(os.path.abspath(model_dir))
    name = folder if predictor.kind_name == "encoder" else predictor.task_name
    return name if _NAME.fullmatch(name) else "model"


def _warn_of_others(host):
    if host not in ("127.0.0.1", "::1", "localhost"):
        _LOGGER.warning(
            "--host=%s: whoever reaches the port can use the model; there is no "
            "password and no encryption",
            host,
        )


def _announce(address, name):
    console.show("page: {0}\nmodel: {0}v1/models/{1}:predict\n".format(address, name))


def _report(num_pending):
    left = "; {:,} instances had no answer in time".format(num_pending)
    console.show("stopped{}\n".format(left if num_pending else ""))


if __name__ == "__main__":
    command_line.run(main, build_parser())
