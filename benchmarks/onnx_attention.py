"""What it gains that ONNX Runtime fuses attention, in ours and in other ONNX models.

    python benchmarks/onnx_attention.py

`onnx_model` writes attention with ONNX's own operators, which every runtime knows.
ONNX Runtime fuses them when it loads the model, except in the first layer and in the
last one, of which the first token alone is wanted. Compared are the same file without
that fusion, and a file with ONNX Runtime's own operator, `com.microsoft.Attention`, in
all but the last layer. Weights are random. The models take turns on the same inputs;
shown are the medians of ours in ms, and of the ratios.
"""

import argparse
import functools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from unittest import mock

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import modeling  # noqa: E402
from albert_zh.serving import inputs, onnx_backend, onnx_model  # noqa: E402

SHAPES = ((1, 28), (1, 128), (32, 28), (32, 128))
HEAD = onnx_model.Head("classification", ("output_weights", "output_bias"), False)
separate = onnx_model._attend


def one_operator(graph, config, scope, mask_bias, q, x):
    """ONNX Runtime's operator."""
    if q != x:
        return separate(graph, config, scope, mask_bias, q, x)
    context = graph.add(
        "Attention",
        x,
        merged(graph, scope, "kernel"),
        merged(graph, scope, "bias"),
        "input_mask",
        num_heads=config.num_attention_heads,
        domain="com.microsoft",
    )
    return graph.dense(context, scope + "/output/dense")


def merged(graph, scope, kind):
    """The variables of query, key and value as one constant."""
    names = ["{}/self/{}/{}".format(scope, n, kind) for n in ("query", "key", "value")]
    array = np.concatenate([graph.weights[name] for name in names], axis=-1)
    return graph.constant("{}/merged/{}".format(scope, kind), array)


# Name -> (function that writes attention, optimizers of ONNX Runtime to leave out).
ATTENTIONS = {
    "ours": (separate, []),
    "not fused": (separate, ["AttentionFusion"]),
    "one operator": (one_operator, []),
}


def random_weights(config):
    """Dict variable name -> float32 array, of the encoder and `HEAD`."""
    with tf.Graph().as_default():
        modeling.AlbertModel(config, False, tf.zeros([1, 8], tf.int32))
        shapes = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    shapes.update(output_weights=[2, config.hidden_size], output_bias=[2])
    rng = np.random.RandomState(1)
    weights = {n: rng.normal(0, 0.05, shapes[n]).astype("f") for n in sorted(shapes)}
    for name in weights:
        weights[name] += name.endswith("gamma")
    return weights


def open_model(config, weights, attend, without, folder):
    """Writes a model with one of `ATTENTIONS`; returns its session."""
    make_model = onnx.helper.make_model
    session = functools.partial(
        onnxruntime.InferenceSession, disabled_optimizers=without
    )

    def with_domain(graph, opset_imports, **others):
        opsets = opset_imports + [onnx.helper.make_opsetid("com.microsoft", 1)]
        return make_model(graph, opset_imports=opsets, **others)

    with mock.patch.object(onnx_model, "_attend", attend):
        with mock.patch.object(onnx.helper, "make_model", with_domain):
            model = onnx_model.build(config, weights, HEAD)
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path)
    with mock.patch.object(onnxruntime, "InferenceSession", session):
        return onnx_backend.open_session(path)


def measure(sessions, vocab_size, shape, turns):
    """Returns a dict name -> list of seconds, one for each turn."""
    arrays = {name: np.zeros(shape, np.int32) for name in inputs.NAMES}
    arrays["input_ids"] = np.random.RandomState(1).randint(1, vocab_size, shape, "i4")
    arrays["input_mask"][:, :-2] = 1  # two tokens are padding
    seconds = {name: [] for name in sessions}
    logits = {}
    for turn in range(-2, turns):
        for name, session in sessions.items():
            began = time.perf_counter()
            logits[name] = session.run(["logits"], arrays)[0]
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    for found in logits.values():
        np.testing.assert_allclose(found, logits["ours"], atol=1e-4)
    return seconds


def main(args):
    """Measures each size of model and of batch; prints the table."""
    columns = ("model", "pairs x tokens", "ours, ms") + tuple(ATTENTIONS)[1:]
    sys.stdout.write("| {} |\n{}|\n".format(" | ".join(columns), "|---" * len(columns)))
    for size in args.sizes:
        path = "albert_config_{}_google.json".format(size)
        path = REPOSITORY / "albert_config" / path
        config = modeling.AlbertConfig.from_json_file(str(path))
        weights = random_weights(config)
        with tempfile.TemporaryDirectory() as folder:
            sessions = {
                name: open_model(config, weights, *how, folder)
                for name, how in ATTENTIONS.items()
            }
        for shape in SHAPES:
            seconds = measure(sessions, config.vocab_size, shape, args.turns)
            ours = seconds["ours"]
            cells = [size, "{} x {}".format(*shape)]
            cells.append("{:.1f}".format(1000 * statistics.median(ours)))
            for name in list(ATTENTIONS)[1:]:
                ratios = [a / b for a, b in zip(ours, seconds[name])]
                cells.append("{:.2f}".format(statistics.median(ratios)))
            sys.stdout.write("| {} |\n".format(" | ".join(cells)))
            sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=("tiny", "base"))
    parser.add_argument("--turns", type=int, default=15)
    main(parser.parse_args())
