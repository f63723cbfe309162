"""ALBERT as an ONNX model, written from a config and weights.

It computes what `modeling.AlbertModel` and the heads of `tasks` do, equation by
equation, and is not traced from a graph: a converter unrolls the shared layers into a
copy of the weights for each, which made files seven times as large.

Inputs, int32 [batch, length], both dynamic: `input_ids`, `input_mask`, `segment_ids`.
Outputs, float32, by kind of task:

  classification, multi_label   logits, probabilities [batch, classes]
  regression                    value [batch]
  multiple_choice, cloze        scores [batch], a row for each choice
  span_extraction               start_logits, end_logits [batch, length]
  tagging, softmax              logits [batch, length - 1, tags], without [CLS]
  tagging, crf                  the same, and transitions [tags, tags]
  tagging, span                 scores [batch, types, length - 1, length - 1]
  encoder                       layer_1, layer_2, ..., and the last of them once more,
                                as sequence_output [batch, length, H]; pooled_output,
                                cls, mean, first_last_mean [batch, H]; with an MLM head,
                                for rows b * length + t in masked_lm_positions [P], an
                                input that may be left out: masked_lm_logits [P, V]

Shapes in comments are those of `modeling`.
"""

import math
from typing import Dict, NamedTuple, Tuple

import numpy as np

import modeling
from albert_zh.serving import encoder, inputs
from albert_zh.serving.onnx_graph import Graph
from albert_zh.tasks.kinds import kind_of

# As in `modeling`.
_MASKED_SCORE = -10000.0
_EPSILON = 1e-12
_SCOPE = "bert/"
_POOLER = _SCOPE + "pooler/dense"
_MASKED_LM = "cls/predictions/"
_ROTARY_BASE = 10000.0


class Head(NamedTuple):
    """What is on top of the encoder.

    Attributes:
      name: key of `HEADS`.
      variables: tuple of the names of its variables.
      reads_sequence: whether it reads the outputs of all tokens; else the last layer
        computes the first token's alone.
    """

    name: str
    variables: Tuple[str, ...] = ()
    reads_sequence: bool = True


ENCODER = Head("encoder")


def head_of(files):
    """Returns the `Head` of `model_files.TaskFiles`."""
    if files.task.kind == encoder.TASK.kind:
        return ENCODER
    kind = kind_of(files.task)
    name = files.task.kind
    if name == "tagging":
        name = "tagging_" + files.options["decoder"]
    variables = tuple(variable.name for variable in kind.head(files))
    return Head(name, variables, kind.reads_sequence)


def build(config, weights, head=ENCODER, precision="float32"):
    """Writes a model.

    Args:
      config: `modeling.AlbertConfig`.
      weights: dict variable name -> float32 array, of encoder and head.
      head: `Head`.
      precision: one of `onnx_graph.PRECISIONS`, see `onnx_graph.Graph`.

    Returns:
      `onnx.ModelProto`.

    Raises:
      UserError: the package onnx is missing, or a weight is too large for float16.
    """
    graph = Graph(weights, precision)
    for name in inputs.NAMES:
        graph.add_input(name, ["batch", "length"])
    x = _embed(graph, config)
    layers = _encode(graph, config, x, head.reads_sequence)
    HEADS[head.name](graph, config, layers, head.variables)
    return graph.build()


# --- The encoder ---


def _embed(graph, config):
    """LayerNorm(word + segment + position embedding): [B, S, E or H]."""
    scope = _SCOPE + "embeddings/"
    x = graph.rows(scope + "word_embeddings", "input_ids")
    if config.dialect == "albert_zh":
        x = graph.add("MatMul", x, graph.weight(scope + "word_embeddings_2"))
    segments = graph.constant(
        scope + "token_type_embeddings", graph.weights[scope + "token_type_embeddings"]
    )
    segments = graph.add("Gather", segments, "segment_ids", axis=0)
    length = graph.slice(graph.add("Shape", "input_ids"), 0, 1, 2)
    positions = graph.first_rows(scope + "position_embeddings", length)
    x = graph.add("Add", graph.add("Add", x, segments), positions)
    x = graph.layer_norm(x, scope + "LayerNorm", _EPSILON)
    width = config.embedding_size if config.dialect == "google" else config.hidden_size
    graph.set_shape(x, ["batch", "length", width])
    return x


def _encode(graph, config, x, reads_sequence):
    """Runs the layers; returns the list of their outputs."""
    scope = _SCOPE + "encoder/"
    if config.embedding_size != config.hidden_size and config.dialect == "google":
        x = graph.dense(x, scope + "embedding_hidden_mapping_in")
    # [B, 1, 1, S], an axis at a time and -10000 as the last factor, as ONNX Runtime
    # expects of attention that it fuses.
    is_token = graph.unsqueeze(graph.unsqueeze("input_mask", 1), 2)
    is_token = graph.to_float(is_token)
    mask_bias = graph.add(
        "Mul",
        graph.add("Sub", graph.number(1), is_token),
        graph.number(_MASKED_SCORE),
    )
    steps = [
        (layer, inner)
        for layer in range(config.num_hidden_layers)
        for inner in range(config.inner_group_num)
    ]
    outputs = []
    for layer, inner in steps:
        is_last = (layer, inner) == steps[-1]
        takes_first = is_last and not reads_sequence
        scopes = modeling.layer_scopes(config, layer, inner)
        x = _layer(graph, config, x, mask_bias, scopes, takes_first)
        if inner == config.inner_group_num - 1:
            outputs.append(x)
    return outputs


def _layer(graph, config, x, mask_bias, scopes, takes_first):
    """One layer: [B, S, H] -> [B, S, H], or [B, 1, H] where it `takes_first`."""
    attention, feed_forward = scopes
    scope = _SCOPE + "encoder/"
    is_post = config.ln_type == "postln"

    def queries(x):
        return graph.slice(x, 1, 0, 1) if takes_first else x

    def norm(x, name):
        return graph.layer_norm(x, scope + name, _EPSILON)

    z = x if is_post else norm(x, attention.norm)
    update = _attend(
        graph, config, scope + attention.attention, mask_bias, queries(z), z
    )
    x = graph.add("Add", update, queries(x))
    x = norm(x, attention.norm) if is_post else x
    z = x if is_post else norm(x, feed_forward.norm)
    inner = graph.dense(z, scope + feed_forward.inner)
    inner = graph.activation(config.hidden_act, inner)
    x = graph.add("Add", graph.dense(inner, scope + feed_forward.output), x)
    return norm(x, feed_forward.norm) if is_post else x


def _attend(graph, config, scope, mask_bias, q, x):
    """Attention of q [B, Q, H] to x [B, S, H]: [B, Q, H]."""
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    by_head = graph.integers(0, 0, heads, size)  # 0: as it is

    def project(x, name, order):
        x = graph.add("Reshape", graph.dense(x, scope + "/self/" + name), by_head)
        return graph.add("Transpose", x, perm=order)

    query = project(q, "query", [0, 2, 1, 3])  # [B, N, Q, D]
    key = project(x, "key", [0, 2, 3, 1])  # [B, N, D, S]
    value = project(x, "value", [0, 2, 1, 3])  # [B, N, S, D]
    return _weigh(graph, config, scope, mask_bias, query, key, value)


def _weigh(graph, config, scope, mask_bias, query, key, value):
    """The values [B, N, S, D] weighed by queries and keys [B, N, D, S]: [B, Q, H]."""
    size = config.hidden_size // config.num_attention_heads
    root = graph.constant("root_of_head_size", np.float32(math.sqrt(size)))
    scores = graph.add("Div", graph.add("MatMul", query, key), root)
    scores = graph.add("Softmax", graph.add("Add", scores, mask_bias), axis=3)
    context = graph.add("MatMul", scores, value)
    context = graph.add("Transpose", context, perm=[0, 2, 1, 3])
    context = graph.add("Reshape", context, graph.integers(0, 0, config.hidden_size))
    return graph.dense(context, scope + "/output/dense")


def _first_token(graph, x):
    """[B, S, H] -> [B, H]."""
    return graph.add("Gather", x, graph.constant("zero", np.int64(0)), axis=1)


def _pool(graph, x):
    """tanh(first token W + b), [B, H]."""
    return graph.add("Tanh", graph.dense(_first_token(graph, x), _POOLER))


# --- Heads: functions (graph, config, layers, variables) that add the outputs ---

# `layers` are the layers' outputs [B, S, H]; the last one is [B, 1, H] for a head that
# reads the first token.


def _classes(operator, **attributes):
    """A head of logits, and of probabilities by an operator."""

    def add(graph, config, layers, variables):
        shape = ["batch", len(graph.weights[variables[1]])]
        logits = graph.linear(_pool(graph, layers[-1]), *variables, name="logits")
        graph.add(operator, logits, name="probabilities", **attributes)
        graph.add_output("logits", shape)
        graph.add_output("probabilities", shape)

    return add


def _number(name):
    """A head of one number for each row."""

    def add(graph, config, layers, variables):
        x = graph.linear(_pool(graph, layers[-1]), *variables)  # [B, 1]
        graph.add("Squeeze", x, axes=[1], name=name)
        graph.add_output(name, ["batch"])

    return add


def _span_extraction(graph, config, layers, variables):
    logits = graph.linear(layers[-1], *variables)  # [B, S, 2]
    for place, name in enumerate(("start_logits", "end_logits")):
        index = graph.constant("index_{}".format(place), np.int64(place))
        graph.add("Gather", logits, index, axis=2, name=name)
        graph.add_output(name, ["batch", "length"])


def _without_first(graph, layers):
    """The outputs after [CLS], [B, S - 1, H]."""
    return graph.slice(layers[-1], 1, 1, 2**31 - 1)


def _tags(graph, config, layers, variables):
    weights, bias = variables[:2]
    graph.linear(_without_first(graph, layers), weights, bias, name="logits")
    graph.add_output("logits", ["batch", "tokens", len(graph.weights[bias])])


def _crf(graph, config, layers, variables):
    _tags(graph, config, layers, variables)
    transitions = variables[2]
    graph.add("Identity", graph.weight(transitions), name="transitions")
    graph.add_output("transitions", list(graph.weights[transitions].shape))


def _entity_spans(graph, config, layers, variables):
    """As `tag_decoders.SpanDecoder.outputs`."""
    weights, bias, type_weights, type_bias = variables
    size = len(graph.weights[bias]) // 2
    types = len(graph.weights[type_bias]) // 2
    vectors = graph.linear(_without_first(graph, layers), weights, bias)
    cos, sin = _rotation(graph, vectors, size)
    queries, keys = (
        _rotated(graph, graph.slice(vectors, 2, begin, begin + size), cos, sin, size)
        for begin in (0, size)
    )
    keys = graph.add("Transpose", keys, perm=[0, 2, 1])
    scores = graph.add("MatMul", queries, keys)  # [B, T, T]
    root = graph.constant("root_of_span_size", np.float32(size**0.5))
    scores = graph.unsqueeze(graph.add("Div", scores, root), 1)
    by_type = graph.linear(vectors, type_weights, type_bias)
    by_type = graph.add("Transpose", by_type, perm=[0, 2, 1])
    by_type = graph.add("Mul", by_type, graph.number(0.5))  # [B, 2C, T]
    starts = graph.slice(by_type, 1, 0, types)
    ends = graph.slice(by_type, 1, types, 2 * types)
    starts, ends = graph.unsqueeze(starts, 3), graph.unsqueeze(ends, 2)
    graph.add("Add", graph.add("Add", scores, starts), ends, name="scores")
    graph.add_output("scores", ["batch", types, "tokens", "tokens"])


def _rotation(graph, vectors, size):
    """Cosines and sines of rotary position embeddings, both [T, size / 2]."""
    rates = _ROTARY_BASE ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    rates = graph.constant("rotary_rates", rates[None].astype(np.float32))
    zero, one = (graph.constant(n, np.int64(v)) for n, v in (("zero", 0), ("one", 1)))
    length = graph.add("Gather", graph.add("Shape", vectors), one, axis=0)
    positions = graph.to_float(graph.add("Range", zero, length, one))
    angles = graph.add("Mul", graph.unsqueeze(positions, 1), rates)
    return graph.add("Cos", angles), graph.add("Sin", angles)


def _rotated(graph, x, cos, sin, size):
    """x [B, T, size], turned."""
    first = graph.slice(x, 2, 0, size // 2)
    second = graph.slice(x, 2, size // 2, size)
    parts = [
        graph.add(operator, graph.add("Mul", first, a), graph.add("Mul", second, b))
        for operator, a, b in (("Sub", cos, sin), ("Add", sin, cos))
    ]
    return graph.add("Concat", *parts, axis=2)


def _encoder(graph, config, layers, variables):
    width = config.hidden_size
    named = {encoder.layer_name(i): layer for i, layer in enumerate(layers)}
    named["sequence_output"] = layers[-1]
    for name, layer in named.items():
        graph.add("Identity", layer, name=name)
        graph.add_output(name, ["batch", "length", width])
    vectors = _vectors(graph, layers)
    if _POOLER + "/kernel" in graph.weights:
        vectors["pooled_output"] = _pool(graph, layers[-1])
    for name, vector in vectors.items():
        graph.add("Identity", vector, name=name)
        graph.add_output(name, ["batch", width])
    if encoder.has_mask_head(graph.weights):
        _masked_lm(graph, config, layers[-1])


def _vectors(graph, layers):
    """Dict of `encoder.POOLINGS` -> [B, H], as `encoder.Encoder.predictions`."""
    mask = graph.to_float(graph.unsqueeze("input_mask", 2))  # [B, S, 1]
    number = graph.sum(mask, 1)

    def mean(layer):
        return graph.add("Div", graph.sum(graph.add("Mul", layer, mask), 1), number)

    first, last = mean(layers[0]), mean(layers[-1])
    both = graph.add("Mul", graph.add("Add", first, last), graph.number(0.5))
    cls = _first_token(graph, layers[-1])
    return {"cls": cls, "mean": last, "first_last_mean": both}


def _masked_lm(graph, config, x):
    """The logits of the words at `masked_lm_positions`; at none by default."""
    none = np.zeros([0], np.int32)
    positions = graph.add_input(encoder.MASK_POSITIONS, ["predictions"], none)
    flat = graph.add("Reshape", x, graph.integers(-1, config.hidden_size))
    x = graph.add("Gather", flat, positions, axis=0)  # [P, H]
    scope = _MASKED_LM + "transform/"
    x = graph.activation(config.hidden_act, graph.dense(x, scope + "dense"))
    x = graph.layer_norm(x, scope + "LayerNorm", _EPSILON)
    tables = _SCOPE + "embeddings/"
    if config.dialect == "albert_zh":
        projection = graph.weight(tables + "word_embeddings_2")
        x = graph.add("Gemm", x, projection, transB=1)
    table = graph.whole_table(tables + "word_embeddings")
    bias = graph.weight(_MASKED_LM + "output_bias")
    graph.add("Gemm", x, table, bias, transB=1, name=encoder.MASK_LOGITS)
    graph.add_output(encoder.MASK_LOGITS, ["predictions", config.vocab_size])


HEADS: Dict[str, object] = {
    "classification": _classes("Softmax", axis=1),
    "multi_label": _classes("Sigmoid"),
    "regression": _number("value"),
    "multiple_choice": _number("scores"),
    "cloze": _number("scores"),
    "span_extraction": _span_extraction,
    "tagging_softmax": _tags,
    "tagging_crf": _crf,
    "tagging_span": _entity_spans,
    "encoder": _encoder,
}
