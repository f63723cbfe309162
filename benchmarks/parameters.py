"""What a model's size and ALBERT's two ideas cost: parameters, disk, time, memory.

    python benchmarks/parameters.py

Prints a Markdown table of the published sizes, of BERT-base, and of the base size
with each kind of cross-layer sharing and each embedding size E of the ablations in
arXiv:1909.11942 (tables 3 and 4). Weights are random, which changes nothing of this.

Forward: the encoder alone. Training step: encoder, both pretraining heads, gradients
and LAMB. Times are medians over `--steps` runs after one warm-up, of one batch of
full length, float32, dropout as in the config file. Memory is the peak resident
memory of a process that does nothing else, TensorFlow's own few hundred MB included.
The checkpoint has model and heads, no optimizer slots. At E = H the projection of the
albert_zh dialect, [E, H], is still there. A row whose process is killed, as when memory
runs out, says so.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple, Optional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import modeling
import optimization
from albert_zh.base import files
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "albert_config"
# Row -> config file, settings that replace the file's. All but small and bert_base,
# which there is no albert_zh config for, are of the albert_zh dialect.
ROWS = {
    "tiny": ("albert_config_tiny.json", {}),
    "small": ("albert_config_small_google.json", {}),
    "base": ("albert_config_base.json", {}),
    "large": ("albert_config_large.json", {}),
    "xlarge": ("albert_config_xlarge.json", {}),
    "xxlarge": ("albert_config_xxlarge.json", {}),
    "bert_base": ("bert_config_base.json", {}),
    "base_sharing_attention": (
        "albert_config_base.json",
        {"cross_layer_sharing": "attention"},
    ),
    "base_sharing_ffn": ("albert_config_base.json", {"cross_layer_sharing": "ffn"}),
    "base_sharing_none": ("albert_config_base.json", {"cross_layer_sharing": "none"}),
    "base_e64": ("albert_config_base.json", {"embedding_size": 64}),
    "base_e256": ("albert_config_base.json", {"embedding_size": 256}),
    "base_e768": ("albert_config_base.json", {"embedding_size": 768}),
}
# Share of the tokens that pretraining predicts.
MASKED_SHARE = 0.15
# Large enough to do the work of a real step, small enough to keep weights finite.
LEARNING_RATE = 1e-4


class Cost(NamedTuple):
    """Median time of one batch, peak resident memory of the process.

    The time is None where the process was killed.
    """

    milliseconds: Optional[float]
    megabytes: float


class Row(NamedTuple):
    """One line of the table."""

    name: str
    config: modeling.AlbertConfig
    encoder_parameters: int
    parameters: int
    checkpoint_megabytes: float
    forward: Cost
    training: Cost


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--rows", default=",".join(ROWS), help="which to measure, by commas")
    add("--batch_size", type=positive_int, default=1, help="sequences")
    add("--length", type=positive_int, default=128, help="tokens a sequence")
    add("--steps", type=positive_int, default=5, help="timed runs of each kind")
    parser.add_bool("--recompute", False, "train with recomputed layers")
    add("--output", help="JSON file for the numbers")
    add("--measure", choices=sorted(_MEASURES), help=argparse.SUPPRESS)
    return parser


def load_config(name):
    """Returns the `AlbertConfig` of a row."""
    file, changes = ROWS[name]
    settings = json.loads((CONFIGS / file).read_text())
    return modeling.AlbertConfig.from_dict(dict(settings, **changes))


def main(args):
    """Measures the rows, or, in a process started by that, one cost of one row."""
    names = args.rows.split(",")
    unknown = sorted(set(names) - set(ROWS))
    if unknown:
        raise UserError(
            "--rows: no row {}; expected some of {}".format(
                ", ".join(unknown), ", ".join(ROWS)
            )
        )
    if args.measure:
        json.dump(_MEASURES[args.measure](load_config(names[0]), args), sys.stdout)
        return
    sys.stdout.write(
        "TensorFlow {}, Python {}.{}, batch {}, length {}, median of {}\n\n{}\n".format(
            tf.__version__,
            *sys.version_info[:2],
            args.batch_size,
            args.length,
            args.steps,
            "\n".join(HEADER),
        )
    )
    rows = []
    for name in tqdm.tqdm(names, disable=None):
        rows.append(measure(name, args))
        sys.stdout.write(format_row(rows[-1]) + "\n")
        sys.stdout.flush()
    if args.output:
        numbers = [dict(row._asdict(), config=row.config.to_dict()) for row in rows]
        files.write_text(json.dumps(numbers, indent=2) + "\n", args.output)


# --- The table ---------------------------------------------------------------

HEADER = (
    "| model | layers | H | E | shared | encoder parameters | with heads "
    "| checkpoint MB | forward ms | training step ms | forward MB | training MB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def format_row(row):
    """Returns the row as a line of Markdown."""
    cells = [
        row.name,
        row.config.num_hidden_layers,
        row.config.hidden_size,
        row.config.embedding_size,
        row.config.cross_layer_sharing,
        "{:,}".format(row.encoder_parameters),
        "{:,}".format(row.parameters),
        "{:.1f}".format(row.checkpoint_megabytes),
        _format_time(row.forward),
        _format_time(row.training),
        "{:.0f}".format(row.forward.megabytes),
        "{:.0f}".format(row.training.megabytes),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _format_time(cost):
    if cost.milliseconds is None:
        return "killed"
    return "{:.0f}".format(cost.milliseconds)


# --- Measuring ---------------------------------------------------------------


def measure(name, args):
    """Measures one row, each part in a process of its own."""
    size, _ = _run_in_process("size", name, args)
    if size is None:
        raise UserError("--rows: row {} does not fit into memory".format(name))
    costs = []
    for kind in ("forward", "training"):
        found, megabytes = _run_in_process(kind, name, args)
        costs.append(Cost(found and found["milliseconds"], megabytes))
    return Row(
        name,
        load_config(name),
        size["encoder_parameters"],
        size["parameters"],
        size["checkpoint_megabytes"],
        *costs,
    )


def _run_in_process(kind, name, args):
    """Runs `_MEASURES[kind]` of a row.

    Returns:
      What it returns, or None where it was killed; peak resident memory in MB.

    Raises:
      UserError: it failed.
    """
    flags = ["--measure=" + kind, "--rows=" + name]
    flags += [
        "--{}={}".format(flag, getattr(args, flag))
        for flag in ("batch_size", "length", "steps", "recompute")
    ]
    command = [sys.executable, os.path.abspath(__file__)] + flags
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status  # it has been waited for
    megabytes = usage.ru_maxrss / 1024
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None, megabytes
    if status:
        raise UserError("{} of row {} failed, as said above".format(kind, name))
    return json.loads(output.decode()), megabytes


def _measure_forward(config, args):
    """Returns milliseconds of the encoder's forward pass."""
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.placeholder(tf.int32, [args.batch_size, args.length])
        model = modeling.AlbertModel(config, False, ids)
        # Tensors, as of a group of operations TensorFlow may run none.
        outputs = [model.get_sequence_output(), model.get_pooled_output()]
        feed = {ids: _random_ids(config, [args.batch_size, args.length])}
        return {
            "milliseconds": _median_milliseconds(session, outputs, feed, args.steps)
        }


def _measure_training(config, args):
    """Returns milliseconds of a training step."""
    with tf.Graph().as_default(), tf.Session() as session:
        tokens = [args.batch_size, args.length]
        predictions = [args.batch_size, max(1, int(MASKED_SHARE * args.length))]
        ids = tf.placeholder(tf.int32, tokens)
        labels = tf.placeholder(tf.int32, predictions)
        positions = tf.tile(tf.range(predictions[1])[tf.newaxis], [args.batch_size, 1])
        model = modeling.AlbertModel(config, True, ids, recompute=args.recompute)
        loss = _pretraining_loss(config, model, positions, labels)
        train_op = optimization.create_optimizer(loss, LEARNING_RATE, 1000, 0, False)
        feed = {ids: _random_ids(config, tokens)}
        feed[labels] = _random_ids(config, predictions)
        return {
            "milliseconds": _median_milliseconds(session, train_op, feed, args.steps)
        }


def _measure_size(config, args):
    """Returns numbers of parameters, the checkpoint's size in MB."""
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.zeros([args.batch_size, args.length], tf.int32)
        model = modeling.AlbertModel(config, False, ids)
        encoder_parameters = modeling.count_parameters(tf.trainable_variables())
        _pretraining_loss(config, model, ids[:, :1], ids[:, :1])
        session.run(tf.global_variables_initializer())
        return {
            "encoder_parameters": encoder_parameters,
            "parameters": modeling.count_parameters(tf.trainable_variables()),
            "checkpoint_megabytes": _checkpoint_megabytes(session),
        }


def _pretraining_loss(config, model, positions, labels):
    """Loss of both heads: int32 [B, P] positions and labels -> scalar."""
    batch, predictions = modeling.get_shape_list(labels)
    masked_lm = modeling.get_masked_lm_output(
        config, model, positions, labels, tf.ones([batch, predictions])
    )
    order = modeling.get_sentence_order_output(
        config, model, tf.zeros([batch], tf.int32)
    )
    return masked_lm[0] + order[0]


_MEASURES = {
    "size": _measure_size,
    "forward": _measure_forward,
    "training": _measure_training,
}


def _random_ids(config, shape):
    return np.random.RandomState(0).randint(config.vocab_size, size=shape)


def _median_milliseconds(session, fetches, feed, steps):
    """Initializes the variables and times a fetch; the first one is left out."""
    session.run(tf.global_variables_initializer())
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        session.run(fetches, feed)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[1:]))


def _checkpoint_megabytes(session):
    """Size on disk of a checkpoint of the trainable variables, 1 MB = 10^6 bytes."""
    with tempfile.TemporaryDirectory() as directory:
        tf.train.Saver(tf.trainable_variables()).save(
            session, os.path.join(directory, "model.ckpt"), write_meta_graph=False
        )
        files = pathlib.Path(directory).glob("model.ckpt*")
        return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    command_line.run(main, build_parser())
