"""What every command shares: start-up check, flags, logging, one-line errors.

A command imports this module before anything that needs TensorFlow, so that an
interpreter without it is told so in one line instead of by a traceback.
"""

import argparse
import importlib.util
import os
import sys

from albert_zh.base import console
from albert_zh.base.errors import Stopped, UserError
from albert_zh.data import masking

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# The C++ side of TensorFlow 2.15 logs every start at ERROR level (cuDNN, cuBLAS
# "factories"); real errors arrive as exceptions. The environment still wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _require_tensorflow():
    """Exits with one line where this interpreter has no TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        sys.exit(
            "{}: error: Python {}.{} ({}) has no TensorFlow; run "
            "`pip install -r requirements.txt` with Python 3.7 or 3.9-3.11".format(
                os.path.basename(sys.argv[0]), *sys.version_info[:2], sys.executable
            )
        )


_require_tensorflow()


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for flags that have none."""

    def _get_help_string(self, action):
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """An `argparse` parser with absl-style booleans and one-line errors.

    Flags are spelled as in the published scripts (`--do_train=True`,
    `--do_train`), are never abbreviated, and show their defaults in `--help`.
    """

    def __init__(self, description):
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )

    def error(self, message):
        message = console.printable_lines(message)
        self.exit(EXIT_USER_ERROR, "{}: error: {}\n".format(self.prog, message))

    def add_bool(self, name, default, help):
        """Adds a flag taken as `--name`, `--name=true` or `--name=False`."""
        self.add_argument(
            name, type=_boolean, nargs="?", const=True, default=default, help=help
        )


def add_mask_arguments(parser, condition):
    """Adds the flags of how masks are drawn, absent where they are not given.

    Args:
      parser: `ArgumentParser`.
      condition: str, when they are of use.
    """
    defaults = masking.MaskSettings()
    for name, kind, text in (
        ("masked_lm_prob", float, "share of tokens masked"),
        ("ngram", positive_int, "words masked in a row at most"),
    ):
        text = "{}, {}; default: {}".format(text, condition, getattr(defaults, name))
        parser.add_argument("--" + name, type=kind, help=text)


def given_mask_settings(args):
    """Returns the dict of those fields of `masking.MaskSettings` that are given."""
    values = {name: getattr(args, name) for name in masking.MaskSettings._fields}
    return {name: value for name, value in values.items() if value is not None}


def add_dropout_argument(parser):
    """Adds the flag that turns the encoder's dropout on or off."""
    parser.add_argument(
        "--dropout",
        type=_probability,
        help="share of activations and attention zeroed in training, 0 for none; the "
        "model's config goes along with it; default: as that config says",
    )


def add_device_arguments(parser):
    """Adds the TPU flags, under the names of the published scripts."""
    parser.add_bool("--use_tpu", False, "train on TPU instead of CPU or one GPU")
    parser.add_argument("--tpu_name", help="name or grpc:// address of the TPU")
    parser.add_argument("--tpu_zone", help="zone of the TPU; detected when absent")
    parser.add_argument("--gcp_project", help="project of the TPU; detected likewise")
    parser.add_argument("--master", help="TensorFlow master URL")
    parser.add_argument(
        "--num_tpu_cores", type=positive_int, default=8, help="TPU cores to use"
    )
    parser.add_argument(
        "--iterations_per_loop",
        type=positive_int,
        default=1000,
        help="training steps between two returns to the host, TPU only",
    )


def add_numerics_arguments(parser):
    """Adds the flags of how a model computes; `numerics.choose` takes them."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the matrix products; default: bfloat16 where the device has products "
        "of it, else float32",
    )
    parser.add_bool(
        "--xla",
        None,
        "let XLA compile the element-wise parts, anew for every new shape; default: "
        "where it pays",
    )


def add_distribution_arguments(parser):
    """Adds the flags of training on several devices, as `distribution.create` takes."""
    parser.add_argument(
        "--distribution",
        choices=("none", "mirrored", "multi_worker"),
        default="none",
        help="what a batch is spread over: mirrored, the GPUs of this machine; "
        "multi_worker, the workers that TF_CONFIG names (see launch_workers.py)",
    )
    parser.add_argument(
        "--worker_timeout",
        type=positive_int,
        help="seconds to wait for the other workers, multi_worker only; default: 300",
    )
    parser.add_bool(
        "--allow_open_ports",
        False,
        "let workers that are all on this machine open their ports to the network: "
        "whoever reaches them can read and write files as you; multi_worker only",
    )


def _boolean(text):
    values = {"true": True, "t": True, "1": True, "yes": True}
    values.update({"false": False, "f": False, "0": False, "no": False})
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(
            "expected true or false, received {!r}".format(text)
        )
    return values[text.lower()]


def _probability(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("expected 0 to below 1, received " + text)
    return value


def positive_int(text):
    """An `argparse` type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected at least 1, received " + text)
    return value


def non_negative_int(text):
    """An `argparse` type: an integer from 0 to 2**31 - 1, as seeds and steps are."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError("expected 0 to 2**31 - 1, received " + text)
    return value


def run(main, parser, argv=None):
    """Parses the flags and calls `main(args)`; a `UserError` ends in one line.

    Args:
      main: function of one argument, the parsed `argparse.Namespace`.
      parser: the command's `ArgumentParser`.
      argv: list of arguments, `sys.argv[1:]` when None.

    Raises:
      SystemExit: with code 2 for a user's mistake, 130 after Ctrl-C, 0 where the run
        was stopped in good order.
    """
    console.set_up()
    args = parser.parse_args(argv)
    try:
        main(args)
    except UserError as error:
        parser.error(" ".join(str(error).split("\n")))
    except Stopped as stopped:
        console.show("{}\n".format(stopped))
        parser.exit(0)
    except KeyboardInterrupt:
        parser.exit(EXIT_INTERRUPTED, "{}: interrupted\n".format(parser.prog))
