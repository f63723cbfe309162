"""Speed of training and inference beside Hugging Face transformers.

    make bench-train
    python benchmarks/training_speed.py --profile
    python benchmarks/training_speed.py --beside=CLONE

The last compares this code with that of an earlier version, in a clone.

Every contestant is a process of its own that keeps its model; they take turns, a few
steps each, so that a ratio compares what ran within seconds. A training step is the
encoder, both heads, the gradients and the update (here LAMB, there AdamW), on random
token ids, all of them real tokens; inference is the encoder alone, here with variables
frozen to constants, and a single sentence is run on one thread and on all of them, of
which the faster counts. GFLOP/s counts the matrix products that a contestant computes
and stands beside those of one square product of 2048 in TensorFlow, measured in the
same turns.
"""

import argparse
import collections
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

PRECISIONS = ("bfloat16", "float32")
# Seconds that a contestant computes for in one turn.
TURN_SECONDS = 3.0
GEMM_SIZE = 2048
# At least, however long they take.
STEPS_OF_A_TURN = 3
PROFILED_STEPS = 5
TITLES = {
    "training": "Training step",
    "inference": "Inference, encoder",
    "headline": "albert_tiny and BERT-base",
}


class Case(NamedTuple):
    """What is measured.

    Attributes:
      size: names albert_config/albert_config_SIZE.json, or "bert_base".
      batch, length: sequences, tokens each.
      predictions: masked tokens of a sequence; 0 for inference.
    """

    size: str
    batch: int
    length: int
    predictions: int = 0

    def __str__(self):
        text = "{}, batch {}, length {}".format(self.size, self.batch, self.length)
        return text + (
            ", {} predictions".format(self.predictions) if self.predictions else ""
        )


TRAINING = (
    Case("tiny", 32, 128, 20),
    Case("base", 8, 128, 20),
    Case("tiny", 4, 512, 51),
)
INFERENCE = (Case("tiny", 32, 128), Case("tiny", 1, 32), Case("base", 8, 128))
# The published headline: albert_tiny beside BERT-base, both here.
HEADLINE = (Case("tiny", 8, 128), Case("bert_base", 8, 128))


def load_settings(size):
    """Returns the dict of a published config, without dropout."""
    name = "bert_config_base" if size == "bert_base" else "albert_config_" + size
    path = REPOSITORY / "albert_config" / (name + ".json")
    settings = json.loads(path.read_text())
    settings["hidden_dropout_prob"] = settings["attention_probs_dropout_prob"] = 0.0
    return settings


def count_flop(case, last_layer_rows, head_rows, head_transform):
    """Floating-point operations of the products of one step.

    Args:
      case: `Case`.
      last_layer_rows: of each sequence, the positions that the last layer computes.
      head_rows: of each sequence, the positions whose vocabulary scores are computed.
      head_transform: weights of the head's layer before those scores.
    """
    settings = load_settings(case.size)
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    embedding = settings.get("embedding_size", width)
    layers, length = settings["num_hidden_layers"], case.length

    def layer(rows):
        keys = 2 * length * width**2
        own = rows * (2 * width**2 + 2 * width * inner)
        return keys + own + 2 * rows * length * width

    total = (layers - 1) * layer(length) + layer(last_layer_rows)
    if embedding != width:
        total += length * embedding * width
    if case.predictions:
        head = head_transform + embedding * settings["vocab_size"]
        total += head_rows * head
        total *= 3  # forward, and backward twice as much
    return 2.0 * total * case.batch


def random_batch(case, vocab_size):
    """Returns a dict of int32 arrays, the features of pretraining records."""
    rng = np.random.RandomState(0)
    shape = [case.batch, case.length]
    order = rng.random_sample(shape).argsort(axis=1)
    positions = np.sort(order[:, : case.predictions], axis=1)
    return {
        "input_ids": rng.randint(1, vocab_size, shape).astype(np.int32),
        "input_mask": np.ones(shape, np.int32),
        "segment_ids": (np.arange(case.length) >= case.length // 2)
        * np.ones(shape, np.int32),
        "masked_lm_positions": positions.astype(np.int32),
        "masked_lm_ids": rng.randint(1, vocab_size, positions.shape).astype(np.int32),
        "masked_lm_weights": np.ones(positions.shape, np.float32),
        "next_sentence_labels": rng.randint(0, 2, [case.batch, 1]).astype(np.int32),
    }


# --- Contestants: each returns a function that computes one step --------------


def here(case, precision, threads):
    """This repository, as `run_pretraining.py` or an importer builds it."""
    session, fetches, feed = build_here(case, precision, threads)
    step = session.make_callable(fetches, feed_list=list(feed))
    return functools.partial(step, *feed.values())


def build_here(case, precision, threads):
    """Returns a session, what a step fetches in it, and what it feeds, by name."""
    import tensorflow.compat.v1 as tf

    import modeling
    from albert_zh.training import estimator as estimators
    from albert_zh.training import numerics, pretraining_model

    tf.disable_eager_execution()
    config = modeling.AlbertConfig.from_dict(load_settings(case.size))
    batch = random_batch(case, config.vocab_size)
    # Fed, as TensorFlow would compute ahead what follows from constants.
    features = {
        name: tf.placeholder(value.dtype, value.shape, name=name)
        for name, value in batch.items()
    }
    feed = {features[name].name: value for name, value in batch.items()}
    tf.train.get_or_create_global_step()
    # A single sentence is done before XLA's kernels have all been called.
    how = numerics.choose(precision, static_shapes=case.batch > 1)
    if case.predictions:
        schedule = estimators.Schedule("lamb", 1e-4, 10000, 100, case.batch)
        start = estimators.Start(tempfile.mkdtemp())
        model_fn = pretraining_model.model_fn_builder(
            config, start, schedule, numerics=how
        )
        spec = model_fn(features, None, tf.estimator.ModeKeys.TRAIN, {})
        fetches = [spec.train_op, spec.loss]
    else:
        model = modeling.AlbertModel(
            config,
            False,
            features["input_ids"],
            features["input_mask"],
            features["segment_ids"],
            **how._asdict(),
        )
        fetches = [model.get_sequence_output(), model.get_pooled_output()]
    settings = estimators.session_config()
    settings.intra_op_parallelism_threads = threads
    settings.inter_op_parallelism_threads = threads
    session = tf.Session(config=settings)
    session.run(tf.global_variables_initializer())
    if not case.predictions:
        inputs = [features["input_" + name].name for name in ("ids", "mask")]
        feed = {name: feed[name] for name in inputs + [features["segment_ids"].name]}
        session, fetches = _freeze(session, fetches, settings)
    return session, fetches, feed


def _freeze(session, fetches, settings):
    """A session of the same graph with constants for variables, and its fetches."""
    import tensorflow.compat.v1 as tf

    graph = tf.graph_util.convert_variables_to_constants(
        session, session.graph.as_graph_def(), [tensor.op.name for tensor in fetches]
    )
    with tf.Graph().as_default():
        names = [tensor.name for tensor in fetches]
        frozen = tf.import_graph_def(graph, name="", return_elements=names)
        return tf.Session(config=settings), frozen


def transformers(case, precision, threads):
    """Hugging Face transformers under `torch.autocast`."""
    import torch
    import transformers as library

    torch.set_num_threads(threads)
    settings = load_settings(case.size)
    names = "vocab_size hidden_size num_hidden_layers num_attention_heads".split()
    names += ["intermediate_size", "max_position_embeddings"]
    sizes = {name: settings[name] for name in names}
    sizes.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = library.AlbertConfig(
        embedding_size=settings["embedding_size"], classifier_dropout_prob=0.0, **sizes
    )
    batch = {
        name: torch.tensor(value, dtype=torch.long)
        for name, value in random_batch(case, config.vocab_size).items()
    }
    inputs = dict(
        input_ids=batch["input_ids"],
        attention_mask=batch["input_mask"],
        token_type_ids=batch["segment_ids"],
    )
    autocast = torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"
    )
    if not case.predictions:
        model = library.AlbertModel(config).eval()

        def infer():
            with torch.inference_mode(), autocast:
                return model(**inputs)

        return infer
    model = library.AlbertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.full_like(batch["input_ids"], -100)
    labels.scatter_(1, batch["masked_lm_positions"], batch["masked_lm_ids"])
    order = batch["next_sentence_labels"][:, 0]

    def train():
        optimizer.zero_grad()
        with autocast:
            loss = model(**inputs, labels=labels, sentence_order_label=order).loss
        loss.backward()
        optimizer.step()

    return train


def gemm(case, precision, threads):
    """One product of two square matrices in TensorFlow."""
    del case, threads  # the same for every one
    import tensorflow.compat.v1 as tf

    from albert_zh.training import estimator as estimators

    tf.disable_eager_execution()
    shape = [GEMM_SIZE, GEMM_SIZE]
    values = tf.random_normal(shape), tf.random_normal(shape)
    factors = [
        tf.get_variable(name, initializer=tf.cast(value, precision), use_resource=True)
        for name, value in zip("ab", values)
    ]
    product = tf.matmul(*factors)
    session = tf.Session(config=estimators.session_config())
    session.run(tf.global_variables_initializer())
    return session.make_callable(product.op)


CONTESTANTS = {function.__name__: function for function in (here, transformers, gemm)}


def serve(name, case, precision, threads):
    """Computes steps as standard input asks for them: seconds in, JSON times out."""
    step = CONTESTANTS[name](case, precision, threads)
    for _ in range(3):  # start-up, compilation, caches
        step()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        step()  # not measured: the memory of an idle process has to be fetched again
        times, end = [], time.perf_counter() + float(line)
        while len(times) < STEPS_OF_A_TURN or time.perf_counter() < end:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        sys.stdout.write(json.dumps(times) + "\n")
        sys.stdout.flush()


# --- The comparison ----------------------------------------------------------


class Contestant:
    """One process that computes steps when asked to."""

    def __init__(self, name, case, precision, threads=None, script=__file__):
        self.name, self.case, self.medians, self.times = name, case, [], []
        threads = threads or os.cpu_count()
        command = [sys.executable, str(script), "--serve", name, precision]
        command += [json.dumps(case), str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"),
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("{} ended: {}".format(name, " ".join(command)))

    def take_turn(self, seconds):
        self._process.stdin.write("{}\n".format(seconds))
        self._process.stdin.flush()
        times = json.loads(self._process.stdout.readline())
        self.medians.append(statistics.median(times))
        self.times.extend(times)

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def flop(self):
        """Floating-point operations of one step's products."""
        case = self.case
        if self.name == "gemm":
            return 2.0 * GEMM_SIZE**3
        settings = load_settings(case.size)
        width = settings["hidden_size"]
        narrow = width * settings.get("embedding_size", width)
        if self.name == "transformers" or not case.predictions:
            return count_flop(case, case.length, case.length, narrow)
        # The head keeps the width before it projects (albert_zh's dialect).
        full = narrow + width**2
        return count_flop(case, case.predictions + 1, case.predictions, full)


def compare(contestants, turns, seconds):
    """Lets them take turns; closes them."""
    try:
        for _ in range(turns):
            for contestant in contestants:
                contestant.take_turn(seconds)
    finally:
        for contestant in contestants:
            contestant.close()


def ratio(slow, fast):
    """Median over the turns of how many times `fast` is as fast."""
    pairs = zip(slow.medians, fast.medians)
    return statistics.median(
        a * fast.case.batch / (b * slow.case.batch) for a, b in pairs
    )


def report(title, rows):
    """Writes a Markdown table.

    Args:
      title: str.
      rows: list of tuples of cells, the header first.
    """
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    sys.stdout.write("\n{}\n\n{}\n".format(title, "\n".join(lines)))
    sys.stdout.flush()


def beside_transformers(cases, turns, seconds):
    """Compares each case in both precisions; returns rows for `report`."""
    rows = [
        (
            "case",
            "precision",
            "here seq/s",
            "transformers seq/s",
            "ratio",
            "here ms",
            "transformers ms",
            "here GFLOP/s",
            "transformers GFLOP/s",
            "GEMM GFLOP/s",
            "here / GEMM",
        )
    ]
    for case in cases:
        for precision in PRECISIONS:
            trio = _compete(case, precision, turns, seconds)
            ours, theirs, product = trio
            rates = [c.flop() / statistics.median(c.times) / 1e9 for c in trio]
            share = statistics.median(
                (ours.flop() / a) / (product.flop() / b)
                for a, b in zip(ours.medians, product.medians)
            )
            if share > 1:
                raise RuntimeError("{}: computed ahead, not in the step".format(case))
            milliseconds = [1000 * statistics.median(c.times) for c in (ours, theirs)]
            rows.append(
                (str(case), precision)
                + tuple("{:.1f}".format(1000 * case.batch / ms) for ms in milliseconds)
                + ("{:.2f}".format(ratio(theirs, ours)),)
                + tuple("{:.1f}".format(ms) for ms in milliseconds)
                + tuple("{:.0f}".format(rate) for rate in rates)
                + ("{:.0%}".format(share),)
            )
    return rows


def _compete(case, precision, turns, seconds):
    """Lets every contestant run, with the number of threads that suits it best."""
    choices = (1, os.cpu_count()) if case.batch == 1 else (os.cpu_count(),)
    fields = {
        name: [Contestant(name, case, precision, threads) for threads in choices]
        for name in CONTESTANTS
    }
    compare(sum(fields.values(), []), turns, seconds)
    return [
        min(field, key=lambda contestant: statistics.median(contestant.times))
        for field in fields.values()
    ]


def headline(turns, seconds):
    """albert_tiny beside BERT-base, both here; returns rows for `report`."""
    rows = [("precision", "albert_tiny seq/s", "BERT-base seq/s", "ratio")]
    for precision in PRECISIONS:
        tiny, bert = (Contestant("here", case, precision) for case in HEADLINE)
        compare([tiny, bert], turns, seconds)
        rates = [c.case.batch / statistics.median(c.times) for c in (tiny, bert)]
        rows.append(
            (precision,)
            + tuple("{:.1f}".format(rate) for rate in rates)
            + ("{:.1f}".format(ratio(bert, tiny)),)
        )
    return rows


def beside_clone(clone, turns, seconds):
    """This code and that of `clone`, a directory; returns rows for `report`."""
    script = pathlib.Path(clone) / "benchmarks" / pathlib.Path(__file__).name
    rows = [
        ("case", "precision", "clone ms", "here ms", "here / clone", "of the turns")
    ]
    for case in TRAINING + INFERENCE:
        for precision in PRECISIONS:
            old = Contestant("here", case, precision, script=script)
            new = Contestant("here", case, precision)
            compare([old, new], turns, seconds)
            milliseconds = [1000 * statistics.median(c.times) for c in (old, new)]
            quotients = [b / a for a, b in zip(old.medians, new.medians)]
            rows.append(
                (str(case), precision)
                + tuple("{:.1f}".format(ms) for ms in milliseconds)
                + ("{:.3f}".format(statistics.median(quotients)),)
                + ("{:.3f} to {:.3f}".format(min(quotients), max(quotients)),)
            )
    return rows


def profile(case, precision):
    """Where a step's time goes here: rows of kernels for `report`, longest first."""
    import tensorflow.compat.v1 as tf

    seconds, calls = collections.Counter(), collections.Counter()
    with tf.Graph().as_default():
        session, fetches, feed = build_here(case, precision, os.cpu_count())
        for number in range(PROFILED_STEPS + 3):  # the first ones start up
            metadata = tf.RunMetadata()
            options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
            session.run(fetches, feed, options, metadata)
            for device in metadata.step_stats.dev_stats if number >= 3 else []:
                for node in device.node_stats:
                    kernel = node.timeline_label.split("=")[-1].split("(")[0].strip()
                    micros = node.op_end_rel_micros - node.op_start_rel_micros
                    seconds[kernel] += micros / 1e6 / PROFILED_STEPS
                    calls[kernel] += 1
    total = sum(seconds.values())
    rows = [("kernel", "calls", "ms", "share")]
    for kernel, time_taken in seconds.most_common(12):
        rows.append(
            (
                kernel,
                str(calls[kernel] // PROFILED_STEPS),
                "{:.1f}".format(1000 * time_taken),
                "{:.1%}".format(time_taken / total),
            )
        )
    return rows + [("all", "", "{:.1f}".format(1000 * total), "")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument(
        "--profile", action="store_true", help="only show where the time goes here"
    )
    parser.add_argument(
        "--beside", metavar="CLONE", help="only compare with the code in this directory"
    )
    parser.add_argument("--parts", default=",".join(TITLES), help="what to measure")
    parser.add_argument("--turns", type=int, default=5, help="of each contestant")
    parser.add_argument("--seconds", type=float, default=TURN_SECONDS, help="of a turn")
    args = parser.parse_args()
    if args.serve:
        name, precision, case, threads = args.serve
        serve(name, Case(*json.loads(case)), precision, int(threads))
        return
    if args.profile:
        for case in TRAINING[:2]:
            for precision in PRECISIONS:
                title = "{}, {}".format(case, precision)
                report(title, profile(case, precision))
        return
    if args.beside:
        rows = beside_clone(args.beside, args.turns, args.seconds)
        report("Beside {}".format(args.beside), rows)
        return
    parts = {
        "training": lambda: beside_transformers(TRAINING, args.turns, args.seconds),
        "inference": lambda: beside_transformers(INFERENCE, args.turns, args.seconds),
        "headline": lambda: headline(args.turns, args.seconds),
    }
    for part in args.parts.split(","):
        report(TITLES[part], parts[part]())


if __name__ == "__main__":
    main()
