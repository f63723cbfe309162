"""The same text through this repository and through another framework.

    python benchmarks/head_to_head.py --work=/tmp/head_to_head

Writes models with random weights at the real tiny sizes, converts them in both
directions with `convert_checkpoint.py`'s library, loads each side with its own
framework and prints a Markdown table of the largest absolute differences. The peers
are transformers (Hugging Face) and, for albert_pytorch, whose code is on no package
index, the functions of its bright variant written out below.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import shutil
import sys
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import modeling
from albert_zh.interop import conversion
from albert_zh.interop.model import Options
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.tasks import kinds, model_files
from albert_zh.tasks.registry import get_task
from benchmarks.rows import REPOSITORY
from benchmarks.work_directory import work_directory

TINY = dict(
    vocab_size=21128,
    hidden_size=312,
    num_hidden_layers=4,
    num_attention_heads=12,
    intermediate_size=1248,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
HEADS = ("masked_lm", "sentence_order")
# Heads of fine-tuned models -> a task that has it.
_TASKS = {
    "classifier": "single",
    "multiple_choice": "multiple_choice",
    "tagger": "ner",
    "span": "squad",
}
# Tasks need one; what is in it changes no output here.
VOCAB_FILE = REPOSITORY / "resources" / "albert_tiny_open" / "vocab.txt"


class Inputs(NamedTuple):
    """A batch: int32 [B, S] each, padding at the end of the later rows."""

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray


def make_inputs(vocab_size, batch=4, length=48, seed=1):
    """Returns random `Inputs`."""
    rng = np.random.RandomState(seed)
    lengths = np.linspace(length, length // 2, batch).astype(int)
    mask = (np.arange(length) < lengths[:, np.newaxis]).astype(np.int32)
    ids = rng.randint(1, vocab_size, [batch, length]).astype(np.int32) * mask
    segments = (np.arange(length) >= length // 3).astype(np.int32) * mask
    return Inputs(ids, mask, segments)


# --- This repository ---------------------------------------------------------


def build_outputs(config, inputs, heads, num_labels=3):
    """Builds the graph of all outputs; returns {name: tensor}.

    sequence float32 [B, S, H], pooled [B, H], and per head: masked_lm [B, S, V],
    sentence_order [B, 2], classifier [B, num_labels], multiple_choice [B, 1] (of a
    question with B choices), tagger [B, S - 1, num_labels] (without [CLS]), span
    [B, S, 2]. The last four are those that the fine-tuning commands build.
    """
    batch, length = inputs.input_ids.shape
    model = modeling.AlbertModel(config, False, *map(tf.constant, inputs))
    outputs = {
        "sequence": model.get_sequence_output(),
        "pooled": model.get_pooled_output(),
    }
    if "masked_lm" in heads:
        positions = tf.tile(tf.range(length)[tf.newaxis], [batch, 1])
        logits = modeling.get_masked_lm_output(
            config, model, positions, positions, tf.ones([batch, length])
        )[2]
        outputs["masked_lm"] = tf.reshape(logits, [batch, length, -1])
    if "sentence_order" in heads:
        labels = tf.zeros([batch], tf.int32)
        outputs["sentence_order"] = modeling.get_sentence_order_output(
            config, model, labels
        )[2]
    for head in _TASKS.keys() & set(heads):
        found = _task_kind(head, config, num_labels).outputs(model)
        if head == "multiple_choice":
            outputs[head] = found["scores"][:, tf.newaxis]
        elif head == "span":
            ends = [found["start_logits"], found["end_logits"]]
            outputs[head] = tf.stack(ends, axis=-1)
        else:
            outputs[head] = found["logits"]
    return outputs


def _task_kind(head, config, num_labels):
    """The `kind.Kind` of the task of a head."""
    labels, options = [str(i) for i in range(num_labels)], {}
    if head == "tagger":  # O, and two tags of each type
        labels, options = labels[: num_labels // 2], {"decoder": "softmax"}
    task = get_task(_TASKS[head])
    settings = tuple(labels), str(VOCAB_FILE), None, True, False, 64, options
    files = model_files.TaskFiles(config, task, *settings)
    return kinds.kind_of(task)(files)


def write_random_model(directory, config, heads, vocab_file=None, seed=0, step=7):
    """Writes a model directory with random weights, biases and LayerNorms too.

    The scale of the weights makes every part of the network matter.
    """
    rng = np.random.RandomState(seed)
    tensors = {"global_step": np.int64(step)}
    with tf.Graph().as_default():
        build_outputs(config, make_inputs(config.vocab_size, 1, 4), heads)
        for variable in tf.trainable_variables():
            value = rng.normal(0.0, 0.06, variable.shape.as_list())
            if variable.op.name.endswith("gamma"):
                value += 1.0
            tensors[variable.op.name] = value.astype(np.float32)
    os.makedirs(directory)
    path = os.path.join(directory, model_directory.CONFIG_FILE)
    pathlib.Path(path).write_text(config.to_json_string())
    if vocab_file:
        content = pathlib.Path(vocab_file).read_bytes()
        pathlib.Path(directory, model_directory.VOCAB_FILE).write_bytes(content)
    checkpoints.write_tensors(tensors, os.path.join(directory, "model.ckpt"))
    return tensors


def run_here(directory, inputs, heads, num_labels=3):
    """Runs a model directory with `modeling`; returns {output name: ndarray}."""
    files = model_directory.find(directory)
    config = modeling.AlbertConfig.from_json_file(files.config_file)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = build_outputs(config, inputs, heads, num_labels)
        tf.train.Saver(tf.trainable_variables()).restore(session, files.checkpoint)
        return session.run(outputs)


# --- Hugging Face ------------------------------------------------------------


def run_transformers(directory, inputs, heads):
    """Runs a directory with the classes that its config names.

    Raises:
      ValueError: transformers found parameters missing or left over.
    """
    import torch
    import transformers

    config = json.loads(pathlib.Path(directory, "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model, info = model_class.from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager"
    )
    if {"tagger", "span"}.intersection(heads):  # their classes have no pooler
        unexpected = info["unexpected_keys"]
        info["unexpected_keys"] = [key for key in unexpected if ".pooler." not in key]
    problems = {key: names for key, names in info.items() if names}
    if problems:
        raise ValueError("{}: {}".format(directory, problems))
    model.eval()
    ids, mask, segments = (torch.tensor(value, dtype=torch.long) for value in inputs)
    with torch.no_grad():
        arguments = dict(attention_mask=mask, token_type_ids=segments)
        base = getattr(model, config["model_type"], model)
        encoded = base(ids, **arguments)
        outputs = {
            "sequence": encoded.last_hidden_state,
            "pooled": encoded.pooler_output,
        }
        if encoded.pooler_output is None:  # of classes that do not read it
            del outputs["pooled"]
        if "multiple_choice" in heads:  # [1, B, S]: the choices of one question
            arguments = {name: value[None] for name, value in arguments.items()}
            ids = ids[None]
        if heads:
            result = model(ids, **arguments)
        if "masked_lm" in heads:
            outputs["masked_lm"] = result.prediction_logits
        if "sentence_order" in heads:
            outputs["sentence_order"] = getattr(
                result, "sop_logits", getattr(result, "seq_relationship_logits", None)
            )
        if "classifier" in heads:
            outputs["classifier"] = result.logits
        if "tagger" in heads:
            outputs["tagger"] = result.logits[:, 1:]
        if "multiple_choice" in heads:
            outputs["multiple_choice"] = result.logits.T
        if "span" in heads:
            logits = [result.start_logits, result.end_logits]
            outputs["span"] = torch.stack(logits, dim=-1)
    return {name: value.numpy() for name, value in outputs.items()}


_CLASS_SUFFIXES = {
    ("classifier",): "ForSequenceClassification",
    ("multiple_choice",): "ForMultipleChoice",
    ("tagger",): "ForTokenClassification",
    ("span",): "ForQuestionAnswering",
}


def write_transformers_model(directory, kind, heads, sizes, safe=True, seed=0):
    """Saves a randomly initialized model as transformers does it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config_class = getattr(transformers, kind + "Config")
    suffix = _CLASS_SUFFIXES.get(heads, "ForPreTraining" if heads else "Model")
    config = config_class(initializer_range=0.06, **sizes)
    model = getattr(transformers, kind + suffix)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.06)
    model.save_pretrained(directory, safe_serialization=safe)


# --- albert_pytorch ----------------------------------------------------------


def run_albert_pytorch(directory, inputs, heads):
    """albert_pytorch's bright variant, from its parameter names: an oracle.

    Raises:
      ValueError: the file holds a parameter that the variant has not.
    """
    import torch

    settings = json.loads(pathlib.Path(directory, "config.json").read_text())
    state = torch.load(os.path.join(directory, "pytorch_model.bin"), weights_only=True)
    model = _Bright(settings, state)
    ids, mask, segments = (torch.tensor(value, dtype=torch.long) for value in inputs)
    hidden = model.embed(ids, segments)
    score_bias = (1.0 - mask[:, None, None, :].float()) * -10000.0
    for _ in range(settings["num_hidden_layers"]):
        hidden = model.layer(hidden, score_bias)
    pooled = torch.tanh(model.linear(hidden[:, 0], "bert.pooler.dense"))
    outputs = {"sequence": hidden, "pooled": pooled}
    if "masked_lm" in heads:
        outputs["masked_lm"] = model.predict(hidden)
    if "sentence_order" in heads:
        outputs["sentence_order"] = model.linear(pooled, "cls.seq_relationship")
    if "classifier" in heads:
        outputs["classifier"] = model.linear(pooled, "classifier")
    if model.used != set(state):
        raise ValueError("{}: not used: {}".format(directory, set(state) - model.used))
    return {name: value.numpy() for name, value in outputs.items()}


class _Bright:
    """The layers of albert_pytorch's `modeling_albert_bright.py`."""

    def __init__(self, settings, state):
        self.settings = settings
        self.state = state
        self.used = set()

    def parameter(self, name):
        self.used.add(name)
        return self.state[name]

    def linear(self, x, name, bias=True):
        y = x @ self.parameter(name + ".weight").T
        return y + self.parameter(name + ".bias") if bias else y

    def norm(self, x, name):
        from torch.nn import functional

        weight, bias = (self.parameter(name + end) for end in (".weight", ".bias"))
        epsilon = self.settings["layer_norm_eps"]
        return functional.layer_norm(x, weight.shape, weight, bias, epsilon)

    def activate(self, x):
        from torch.nn import functional

        form = {"gelu": "none", "gelu_new": "tanh"}[self.settings["hidden_act"]]
        return functional.gelu(x, approximate=form)

    def embed(self, ids, segments):
        scope = "bert.embeddings."
        x = self.parameter(scope + "word_embeddings.weight")[ids]
        x = self.linear(x, scope + "word_embeddings_2", bias=False)
        x = x + self.parameter(scope + "position_embeddings.weight")[: ids.shape[1]]
        x = x + self.parameter(scope + "token_type_embeddings.weight")[segments]
        return self.norm(x, scope + "LayerNorm")

    def layer(self, x, score_bias):
        scope = "bert.encoder.layer_shared."
        heads = [*x.shape[:2], self.settings["num_attention_heads"], -1]
        query, key, value = (
            self.linear(x, scope + "attention.self." + name)
            .reshape(heads)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + score_bias
        context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
        x = x + self.linear(context, scope + "attention.output.dense")
        x = self.norm(x, scope + "attention.output.LayerNorm")
        inner = self.activate(self.linear(x, scope + "intermediate.dense"))
        x = x + self.linear(inner, scope + "output.dense")
        return self.norm(x, scope + "output.LayerNorm")

    def predict(self, x):
        scope = "cls.predictions."
        x = self.activate(self.linear(x, scope + "transform.dense"))
        x = self.norm(x, scope + "transform.LayerNorm")
        x = self.linear(x, scope + "project_layer", bias=False)
        return self.linear(x, scope + "decoder", bias=False) + self.parameter(
            scope + "bias"
        )


# --- Comparison --------------------------------------------------------------

GOOGLE = dict(TINY, embedding_size=128, num_hidden_groups=1, inner_group_num=1)
GROUPS = dict(TINY, embedding_size=128, num_hidden_groups=2, inner_group_num=2)
ALBERT_ZH = dict(TINY, embedding_size=128, ln_type="postln")


class Case(NamedTuple):
    """One comparison: what is written first, what it becomes."""

    name: str
    source: str
    target: str
    settings: dict
    heads: tuple = HEADS
    activation: str = "gelu"


_MORE_HEADS = ("multiple_choice", "tagger", "span")
_TO = ("google", "huggingface")

CASES = (
    Case("google -> huggingface", "google", "huggingface", GOOGLE),
    Case("google, 2 groups of 2 -> huggingface", "google", "huggingface", GROUPS),
    Case(
        "google, classifier -> huggingface",
        "google",
        "huggingface",
        GOOGLE,
        ("classifier",),
    ),
    Case("huggingface -> google", "huggingface", "google", GOOGLE),
    Case("huggingface, 2 groups of 2 -> google", "huggingface", "google", GROUPS),
    Case(
        "huggingface, classifier, exact GELU -> google",
        "huggingface",
        "google",
        GOOGLE,
        ("classifier",),
        "gelu_exact",
    ),
    *(
        Case("google, {} -> huggingface".format(head), *_TO, GOOGLE, (head,))
        for head in _MORE_HEADS
    ),
    *(
        Case("huggingface, {} -> google".format(head), *_TO[::-1], GOOGLE, (head,))
        for head in _MORE_HEADS
    ),
    Case("bert -> huggingface", "bert", "huggingface", TINY),
    Case("huggingface -> bert", "huggingface", "bert", TINY, HEADS, "gelu_exact"),
    Case("albert_zh -> albert_pytorch", "albert_zh", "albert_pytorch", ALBERT_ZH),
    Case("albert_pytorch -> albert_zh", "albert_pytorch", "albert_zh", ALBERT_ZH),
)

_RUNNERS = {"huggingface": run_transformers, "albert_pytorch": run_albert_pytorch}


class Result(NamedTuple):
    """Number of tensors and scalars, {output: largest absolute difference}."""

    tensors: int
    parameters: int
    differences: dict


def compare(case, work):
    """Writes, converts and runs both sides of a case; returns a `Result`."""
    for name in ("first", "source", "target"):  # of an earlier run
        shutil.rmtree(os.path.join(work, name), ignore_errors=True)
    source, target = os.path.join(work, "source"), os.path.join(work, "target")
    _write_source(case, source, work)
    options = Options()
    model = conversion.convert(case.source, case.target, source, target, options)
    inputs = make_inputs(case.settings["vocab_size"])
    outputs = []
    for kind, directory in ((case.source, source), (case.target, target)):
        if kind in _RUNNERS:
            outputs.append(_RUNNERS[kind](directory, inputs, case.heads))
        else:
            outputs.append(run_here(directory, inputs, case.heads))
    differences = largest_differences(*outputs, inputs=inputs)
    return Result(len(model.weights), model.num_parameters(), differences)


def largest_differences(outputs, others, inputs):
    """Returns {output of both: largest absolute difference over the real tokens}."""
    real = inputs.input_mask.astype(bool)
    differences = {}
    for name in outputs.keys() & others.keys():
        difference = np.abs(outputs[name] - others[name])
        if difference.ndim == 3:  # padding means nothing; some lack the first token
            difference = difference[real[:, -difference.shape[1] :]]
        differences[name] = float(difference.max())
    return differences


def _write_source(case, source, work):
    if case.source == "huggingface":
        sizes = dict(case.settings)
        sizes["hidden_act"] = "gelu" if case.activation == "gelu_exact" else "gelu_new"
        kind = "Bert" if case.target == "bert" else "Albert"
        if {"classifier", "tagger"}.intersection(case.heads):
            sizes["num_labels"] = 3
        write_transformers_model(source, kind, case.heads, sizes)
        return
    config = modeling.AlbertConfig(hidden_act=case.activation, **case.settings)
    if case.source in conversion.FORMATS and case.source != "albert_pytorch":
        write_random_model(source, config, case.heads)
        return
    first = os.path.join(work, "first")
    write_random_model(first, config, case.heads)
    options = Options()
    conversion.convert("albert_zh", "albert_pytorch", first, source, options)


def print_table(rows):
    """Prints (name, `Result` or None where the peer is missing) as Markdown."""
    names = ("sequence", "pooled", "masked_lm", "sentence_order", "classifier")
    names += _MORE_HEADS
    lines = [
        "| pair | tensors | parameters | " + " | ".join(names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for name, result in rows:
        if result is None:
            lines.append("| {} | peer not installed |".format(name))
            continue
        cells = [name, str(result.tensors), "{:,}".format(result.parameters)]
        for output in names:
            value = result.differences.get(output)
            cells.append("" if value is None else "{:.1e}".format(value))
        lines.append("| " + " | ".join(cells) + " |")
    sys.stdout.write("\nTensorFlow {}\n\n{}\n".format(tf.__version__, "\n".join(lines)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", required=True, type=work_directory)
    args = parser.parse_args()
    rows = []
    for number, case in enumerate(CASES):
        installed = all(map(importlib.util.find_spec, ("torch", "transformers")))
        result = compare(case, str(args.work / str(number))) if installed else None
        rows.append((case.name, result))
    print_table(rows)


if __name__ == "__main__":
    main()
