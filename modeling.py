"""ALBERT for TensorFlow 1.x graphs: configuration, encoder, pretraining heads.

One code path builds the three families of published checkpoints ("dialects").
They compute the same Transformer encoder and differ in where the embedding is
projected and in how variables are named:

  dialect      embeddings summed in   projection               layer variables
  albert_zh    H                      word_embeddings_2        layer_shared/...
  google       E                      after LayerNorm, bias    transformer/group_G/...
  bert         H                      none (E = H)             layer_N/...

Sources: BERT (arXiv:1810.04805), ALBERT (arXiv:1909.11942; factorized
embedding, cross-layer sharing and sentence-order prediction are its sections
3.1-3.2), pre-LN (arXiv:2002.04745), GELU (arXiv:1606.08415).

Shapes in this file use: B batch, S sequence length, V vocabulary, E embedding
size, H hidden size, I intermediate size, N attention heads, D = H / N,
P predictions per sequence, L layers. The file stands alone: it imports only
the standard library, NumPy and TensorFlow.
"""

import collections
import contextlib
import copy
import json
import math
import re

import numpy as np
import tensorflow.compat.v1 as tf

SHARING = ("all", "attention", "ffn", "none")
LN_TYPES = ("postln", "preln")

# Carried by published files, read by no published model code.
_UNUSED_KEYS = frozenset(
    "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
    "pooler_size_per_head pooler_type net_structure_type gap_size num_memory_blocks "
    "down_scale_factor".split()
)

# Stands for minus infinity in masked attention scores; part of the published
# models' numbers.
_MASKED_SCORE = -10000.0
_LAYER_NORM_EPSILON = 1e-12
# Keeps the MLM loss finite where a batch holds no prediction at all.
_WEIGHT_EPSILON = 1e-5


class AlbertConfig:
    """Sizes and settings of one model; a published JSON file loads untouched.

    The dialect follows from the keys given: `num_hidden_groups` or
    `inner_group_num` means google; else `embedding_size` means albert_zh, whose
    older published files lack `ln_type` (post-LN); else it is bert.

    Attributes:
      dialect: "albert_zh", "google" or "bert".
      cross_layer_sharing: "all", "attention", "ffn" or "none" (arXiv:1909.11942,
        section 3.1); "none" by default in the bert dialect, else "all".
      All constructor arguments, under their names.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        max_position_embeddings=512,
        type_vocab_size=2,
        initializer_range=0.02,
        embedding_size=None,
        ln_type=None,
        num_hidden_groups=None,
        inner_group_num=None,
        cross_layer_sharing=None,
    ):
        """Raises `ValueError` with one line where the settings do not fit."""
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.dialect = _dialect(
            embedding_size, ln_type, num_hidden_groups, inner_group_num
        )
        self.embedding_size = hidden_size if embedding_size is None else embedding_size
        self.ln_type = "postln" if ln_type is None else ln_type
        self.num_hidden_groups = 1 if num_hidden_groups is None else num_hidden_groups
        self.inner_group_num = 1 if inner_group_num is None else inner_group_num
        if cross_layer_sharing is None:
            cross_layer_sharing = "none" if self.dialect == "bert" else "all"
        self.cross_layer_sharing = cross_layer_sharing
        self._check()

    def _check(self):
        for name in (
            "vocab_size hidden_size num_hidden_layers num_attention_heads "
            "intermediate_size max_position_embeddings type_vocab_size "
            "embedding_size num_hidden_groups inner_group_num"
        ).split():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    "{} must be a positive integer, received {!r}".format(name, value)
                )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "hidden_size {} is not divisible by num_attention_heads {}".format(
                    self.hidden_size, self.num_attention_heads
                )
            )
        for name, choices in (
            ("ln_type", LN_TYPES),
            ("cross_layer_sharing", SHARING),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    "{} must be one of {}, received {!r}".format(
                        name, ", ".join(choices), getattr(self, name)
                    )
                )
        for name in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "initializer_range",
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
                raise ValueError(
                    "{} must be a number in [0, 1), received {!r}".format(name, value)
                )
        get_activation(self.hidden_act)
        if self.num_hidden_groups > 1 and self.cross_layer_sharing != "all":
            raise ValueError(
                "num_hidden_groups {} needs cross_layer_sharing all, not {}".format(
                    self.num_hidden_groups, self.cross_layer_sharing
                )
            )

    @classmethod
    def from_dict(cls, settings):
        """Builds a config from a dict; an unknown key is a `ValueError`."""
        settings = {k: v for k, v in settings.items() if k not in _UNUSED_KEYS}
        known = cls.__init__.__code__.co_varnames[1 : cls.__init__.__code__.co_argcount]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                "unknown config key {}; known keys are {}".format(
                    ", ".join(unknown), ", ".join(known)
                )
            )
        if "vocab_size" not in settings:
            raise ValueError("config lacks vocab_size")
        return cls(**settings)

    @classmethod
    def from_json_file(cls, json_file):
        """Reads a JSON config; errors are one-line `ValueError`s naming the file."""
        if not tf.io.gfile.exists(json_file):
            raise ValueError("{}: no such config file".format(json_file))
        try:
            with tf.io.gfile.GFile(json_file, "r") as reader:
                settings = json.loads(reader.read())
            if not isinstance(settings, dict):
                raise ValueError("expected a JSON object")
            return cls.from_dict(settings)
        except RecursionError as error:
            raise ValueError("{}: nested too deeply".format(json_file)) from error
        except (ValueError, tf.errors.OpError) as error:
            message = getattr(error, "message", None) or str(error)
            raise ValueError("{}: {}".format(json_file, message)) from error

    def to_dict(self):
        """Returns the settings as a dict that `from_dict` reads back to this config."""
        settings = copy.copy(self.__dict__)
        absent = {
            "albert_zh": ("num_hidden_groups", "inner_group_num"),
            "google": ("ln_type",),
            "bert": (
                "num_hidden_groups",
                "inner_group_num",
                "ln_type",
                "embedding_size",
            ),
        }
        for key in absent[settings.pop("dialect")]:
            del settings[key]
        return settings

    def to_json_string(self):
        """Returns the settings as indented JSON text with a final newline."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


BertConfig = AlbertConfig


def _dialect(embedding_size, ln_type, num_hidden_groups, inner_group_num):
    """Returns the dialect that the given config keys stand for."""
    grouped = num_hidden_groups is not None or inner_group_num is not None
    if ln_type is not None and grouped:
        raise ValueError(
            "ln_type (albert_zh dialect) and num_hidden_groups or inner_group_num "
            "(google dialect) exclude each other"
        )
    if ln_type is not None and embedding_size is None:
        raise ValueError("ln_type (albert_zh dialect) needs embedding_size")
    if grouped:
        return "google"
    return "bert" if embedding_size is None else "albert_zh"


class AlbertModel:
    """The encoder: token ids to contextual vectors.

    Example:
      config = AlbertConfig.from_json_file("albert_config/albert_config_tiny.json")
      model = AlbertModel(config, is_training=False, input_ids=input_ids)
      vectors = model.get_sequence_output()    # [B, S, H]
    """

    def __init__(
        self,
        config,
        is_training,
        input_ids,
        input_mask=None,
        token_type_ids=None,
        use_one_hot_embeddings=False,
        scope=None,
        compute_dtype=tf.float32,
        use_xla=False,
        needed_positions=None,
    ):
        """Builds the graph under variable scope `scope` (default "bert").

        Args:
          config: `AlbertConfig`.
          is_training: bool; dropout is off where it is False.
          input_ids: int [B, S].
          input_mask: int [B, S], 1 for tokens, 0 for padding; all 1 when None.
          token_type_ids: int [B, S], the segment of each token; all 0 when None.
          use_one_hot_embeddings: bool; look words up by a matrix product with
            one-hot rows, which is faster on TPU, instead of a gather.
          scope: variable scope name.
          compute_dtype: dtype of the matrix products, `tf.float32` or
            `tf.bfloat16`. Variables, LayerNorm, softmax and all outputs are
            float32 in either case; what is kept for gradients, and the sums that
            are those of biases and of LayerNorm's parameters, is of this dtype.
          use_xla: bool; let XLA compile the element-wise parts, each into one
            kernel, which is the faster the more the shapes stay the same: every
            new shape is compiled anew. The products stay with TensorFlow.
          needed_positions: int [B, P] or None; the last layer computes its output
            for the first token and for these only, which is all that a loss reads
            and saves most of that layer. None computes every position's.

        Raises:
          ValueError: S is larger than `config.max_position_embeddings`.
        """
        batch, length = get_shape_list(input_ids, expected_rank=2)
        if isinstance(length, int) and length > config.max_position_embeddings:
            raise ValueError(
                "sequence length {} is above max_position_embeddings {}".format(
                    length, config.max_position_embeddings
                )
            )
        self.numerics = Numerics(compute_dtype, use_xla)
        self._needed_positions = needed_positions
        config = copy.copy(config)
        if not is_training:
            config.hidden_dropout_prob = 0.0
            config.attention_probs_dropout_prob = 0.0
        if input_mask is None:
            input_mask = tf.ones([batch, length], tf.int32)
        if token_type_ids is None:
            token_type_ids = tf.zeros([batch, length], tf.int32)

        with tf.variable_scope(scope, default_name="bert"):
            with tf.variable_scope("embeddings"):
                self._word_embeddings, self._projection = _word_tables(config)
                self._embedding_output = _embed(
                    config,
                    input_ids,
                    token_type_ids,
                    self._word_embeddings,
                    self._projection,
                    use_one_hot_embeddings,
                    self.numerics,
                )
            with tf.variable_scope("encoder"):
                rows = None
                if needed_positions is not None:
                    first = tf.zeros([batch, 1], tf.int32)
                    needed = tf.cast(needed_positions, tf.int32)
                    rows = _row_indexes(tf.concat([first, needed], axis=1), length)
                self._all_encoder_layers = _encode(
                    config, self._embedding_output, input_mask, rows, self.numerics
                )
            with tf.variable_scope("pooler"):
                first_token = self._all_encoder_layers[-1][:, 0, :]  # [B, H]
                weights = _dense_variables(
                    "dense", config.hidden_size, config.hidden_size, config
                )
                self._pooled_output = tf.tanh(_dense(first_token, weights, FLOAT32))

    def get_pooled_output(self):
        """Returns float32 [B, H], the first token's vector through a tanh layer."""
        return self._pooled_output

    def get_sequence_output(self):
        """Returns float32 [B, S, H], the last layer's output.

        Raises:
          ValueError: the model was built for `needed_positions` only.
        """
        return self.get_all_encoder_layers()[-1]

    def get_all_encoder_layers(self):
        """Returns a list of L float32 tensors [B, S, H], first layer first.

        Raises:
          ValueError: the model was built for `needed_positions` only.
        """
        if self._needed_positions is not None:
            raise ValueError(
                "this model's last layer has the outputs of needed_positions only; "
                "build it without them"
            )
        return self._all_encoder_layers

    def get_output_at(self, positions):
        """Picks the last layer's outputs: float32 [B * P, H].

        Args:
          positions: int [B, P]; the very tensor given as `needed_positions`, if the
            model was built for such.

        Raises:
          ValueError: the model was built for other positions.
        """
        if self._needed_positions is None:
            return gather_indexes(self.get_sequence_output(), positions)
        if positions is not self._needed_positions:
            raise ValueError(
                "positions {} are not the needed_positions {} that the model was "
                "built for".format(positions, self._needed_positions)
            )
        outputs = self._all_encoder_layers[-1][:, 1:, :]
        return tf.reshape(outputs, [-1, get_shape_list(outputs)[-1]])

    def get_embedding_output(self):
        """Returns the encoder's input: float32 [B, S, H], google: [B, S, E]."""
        return self._embedding_output

    def get_embedding_table(self):
        """Returns the word embedding variable, float32 [V, E]."""
        return self._word_embeddings

    def get_embedding_table_2(self):
        """Returns the albert_zh dialect's projection [E, H], else None."""
        return self._projection


BertModel = AlbertModel


# --- Pretraining heads -------------------------------------------------------


def get_masked_lm_output(config, model, positions, label_ids, label_weights):
    """The masked language model's loss, through the tied embedding tables.

    Args:
      config: `AlbertConfig`.
      model: `AlbertModel`.
      positions: int [B, P], which tokens are predicted.
      label_ids: int [B, P], their original ids.
      label_weights: float [B, P], 1 for predictions, 0 for padding.

    Returns:
      loss: float32 scalar, the weighted mean of the per-example losses.
      per_example_loss: float32 [B * P].
      logits: float32 [B * P, V].
    """
    dtype = model.numerics.compute_dtype
    hidden = model.get_output_at(positions)  # [B*P, H]
    width = config.embedding_size if config.dialect == "google" else config.hidden_size
    with tf.variable_scope("cls/predictions"):
        with tf.variable_scope("transform"):
            weights = _dense_variables("dense", config.hidden_size, width, config)
            hidden = _dense(hidden, weights, model.numerics)
            hidden = _activate(config, hidden, model.numerics)
            norm = _norm_variables("LayerNorm", width)
            (hidden,) = _normalize([hidden], norm, [dtype], model.numerics)
        output_bias = tf.get_variable(
            "output_bias", [config.vocab_size], initializer=tf.zeros_initializer()
        )
        for table in (model.get_embedding_table_2(), model.get_embedding_table()):
            if table is not None:
                hidden = tf.matmul(hidden, tf.cast(table, dtype), transpose_b=True)
        logits = _add_bias(hidden, tf.cast(output_bias, dtype))  # [B*P, V]

        per_example_loss = _cross_entropy(logits, label_ids, model.numerics)
        label_weights = tf.reshape(tf.cast(label_weights, tf.float32), [-1])
        loss = tf.reduce_sum(label_weights * per_example_loss) / (
            tf.reduce_sum(label_weights) + _WEIGHT_EPSILON
        )
    return loss, per_example_loss, tf.cast(logits, tf.float32)


def get_sentence_order_output(config, model, labels):
    """Sentence-order prediction (arXiv:1909.11942, section 3.1).

    Args:
      config: `AlbertConfig`.
      model: `AlbertModel`.
      labels: int [B] or [B, 1], 0 where the segments are in order, 1 where they
        are swapped.

    Returns:
      loss: float32 scalar, the mean of the per-example losses.
      per_example_loss: float32 [B].
      logits: float32 [B, 2].
    """
    with tf.variable_scope("cls/seq_relationship"):
        output_weights = tf.get_variable(
            "output_weights",
            [2, config.hidden_size],
            initializer=create_initializer(config.initializer_range),
        )
        output_bias = tf.get_variable(
            "output_bias", [2], initializer=tf.zeros_initializer()
        )
        logits = tf.matmul(model.get_pooled_output(), output_weights, transpose_b=True)
        logits = tf.nn.bias_add(logits, output_bias)
        per_example_loss = _cross_entropy(logits, labels, model.numerics)
        return tf.reduce_mean(per_example_loss), per_example_loss, logits


def _cross_entropy(logits, labels, numerics):
    """float32 [n] losses of logits [n, classes] against int labels of any shape."""
    classes = get_shape_list(logits)[-1]
    labels = tf.reshape(labels, [-1])

    @tf.custom_gradient
    def cross_entropy(logits, labels):
        largest = tf.cast(tf.reduce_max(logits, axis=-1, keepdims=True), tf.float32)
        with _compiled(numerics):
            powers = tf.exp(tf.cast(logits, tf.float32) - largest)
            # What the gradient keeps: as large as the logits.
            powers = tf.cast(powers, logits.dtype)
        total = tf.reduce_sum(tf.cast(powers, tf.float32), axis=-1, keepdims=True)
        right = tf.gather(logits, labels[:, tf.newaxis], batch_dims=1)
        losses = tf.log(total) + largest - tf.cast(right, tf.float32)

        def gradient(d_losses):
            scale = d_losses[:, tf.newaxis]
            share = scale / total
            with _compiled(numerics):
                is_right = tf.one_hot(labels, classes)
                d_logits = tf.cast(powers, tf.float32) * share - is_right * scale
                return tf.cast(d_logits, logits.dtype), None

        return tf.squeeze(losses, axis=-1), gradient

    return cross_entropy(logits, labels)


def gather_indexes(sequence, positions):
    """Picks vectors: float [B, S, H] at int positions [B, P] -> [B * P, H]."""
    batch, length, width = get_shape_list(sequence, expected_rank=3)
    rows = _row_indexes(tf.cast(positions, tf.int32), length)
    sequence = tf.reshape(sequence, [batch * length, width])
    return tf.gather(sequence, tf.reshape(rows, [-1]))


def _row_indexes(positions, length):
    """Rows of [B * S, ...] that int32 positions [B, P] stand for: int32 [B, P]."""
    batch = get_shape_list(positions)[0]
    offsets = tf.reshape(tf.range(batch, dtype=tf.int32) * length, [-1, 1])
    return positions + offsets


# --- Embeddings --------------------------------------------------------------


def _word_tables(config):
    """Returns the word table [V, E] and, in the albert_zh dialect, [E, H]."""
    initializer = create_initializer(config.initializer_range)
    table = tf.get_variable(
        "word_embeddings",
        [config.vocab_size, config.embedding_size],
        initializer=initializer,
    )
    if config.dialect != "albert_zh":
        return table, None
    return table, tf.get_variable(
        "word_embeddings_2",
        [config.embedding_size, config.hidden_size],
        initializer=initializer,
    )


def _embed(config, input_ids, token_type_ids, table, projection, one_hot, numerics):
    """Word + segment + position embeddings, LayerNorm, dropout: [B, S, E or H]."""
    batch, length = get_shape_list(input_ids, expected_rank=2)
    flat_ids = tf.reshape(input_ids, [-1])
    dtype = numerics.compute_dtype
    if one_hot:
        rows = tf.one_hot(flat_ids, config.vocab_size, dtype=dtype)
        words = tf.matmul(rows, tf.cast(table, dtype))
    else:
        words = tf.gather(table, flat_ids)  # [B*S, E]
    if projection is not None:
        words = tf.matmul(tf.cast(words, dtype), tf.cast(projection, dtype))  # [.., H]
    words = tf.cast(words, tf.float32)
    width = get_shape_list(words)[-1]
    initializer = create_initializer(config.initializer_range)
    segment_table = tf.get_variable(
        "token_type_embeddings",
        [config.type_vocab_size, width],
        initializer=initializer,
    )
    position_table = tf.get_variable(
        "position_embeddings",
        [config.max_position_embeddings, width],
        initializer=initializer,
    )
    # With so few rows the product is faster than a gather, above all backwards.
    segments = tf.matmul(
        tf.one_hot(tf.reshape(token_type_ids, [-1]), config.type_vocab_size),
        segment_table,
        name="segments",
    )
    embeddings = tf.reshape(words + segments, [batch, length, width])
    embeddings += position_table[:length]
    norm = _norm_variables("LayerNorm", width)
    (embeddings,) = _normalize([embeddings], norm, [tf.float32], numerics)
    return dropout(embeddings, config.hidden_dropout_prob)


# --- Encoder -----------------------------------------------------------------

# compute_dtype: dtype of the matrix products; use_xla: bool, whether XLA compiles
# the element-wise parts.
Numerics = collections.namedtuple("Numerics", ["compute_dtype", "use_xla"])
FLOAT32 = Numerics(tf.float32, False)
# The hidden states, [B*S, H], in float32 and, where a product reads them as they
# are (post-LN), in the products' dtype too.
_Stream = collections.namedtuple("_Stream", ["exact", "operand"])
_Dense = collections.namedtuple("_Dense", ["kernel", "bias"])
_Norm = collections.namedtuple("_Norm", ["gamma", "beta"])
_Attention = collections.namedtuple("_Attention", ["qkv", "output", "norm"])
_FeedForward = collections.namedtuple("_FeedForward", ["inner", "output", "norm"])
# Variable scopes of one layer; the attention and the feed-forward half are
# shared across layers exactly where these names repeat.
_AttentionScopes = collections.namedtuple("_AttentionScopes", ["attention", "norm"])
_FeedForwardScopes = collections.namedtuple(
    "_FeedForwardScopes", ["inner", "output", "norm"]
)


def _layer_scopes(config, layer, inner):
    """Names the variables of one layer: the published dialects' public API.

    Args:
      config: `AlbertConfig`.
      layer: int, the layer's number from 0.
      inner: int, the layer's place in its inner group from 0.

    Returns:
      `_AttentionScopes`, `_FeedForwardScopes` relative to ".../encoder".
    """
    sharing = config.cross_layer_sharing
    attention_shared = sharing in ("all", "attention")
    ffn_shared = sharing in ("all", "ffn")
    if config.dialect == "google":
        # In floating point, as published: exact integers would group differently
        # for some numbers of layers and groups.
        group = int(layer / config.num_hidden_layers * config.num_hidden_groups)
        template = "transformer/group_{}/inner_group_" + str(inner)
        attention = template.format(group if attention_shared else layer)
        ffn = template.format(group if ffn_shared else layer)
        return (
            _AttentionScopes(attention + "/attention_1", attention + "/LayerNorm"),
            _FeedForwardScopes(
                ffn + "/ffn_1/intermediate/dense",
                ffn + "/ffn_1/intermediate/output/dense",
                ffn + "/LayerNorm_1",
            ),
        )
    prefix = "layer_{}/".format(layer) if sharing == "none" else "layer_shared/"
    own = "_{}".format(layer)
    attention = prefix + "attention" + (own if sharing == "ffn" else "")
    suffix = own if sharing == "attention" else ""
    output = prefix + "output" + suffix
    return (
        _AttentionScopes(attention, attention + "/output/LayerNorm"),
        _FeedForwardScopes(
            prefix + "intermediate" + suffix + "/dense",
            output + "/dense",
            output + "/LayerNorm",
        ),
    )


def _encode(config, embeddings, input_mask, rows, numerics):
    """Runs the L layers.

    Args:
      config: `AlbertConfig`.
      embeddings: float32 [B, S, E or H].
      input_mask: int [B, S].
      rows: int32 [B, Q] or None; the rows of [B*S, H] that the last layer computes.
      numerics: `Numerics`.

    Returns:
      The layers' outputs: a list of float32 [B, S, H], the last one [B, Q, H].
    """
    batch, length, width = get_shape_list(embeddings, expected_rank=3)
    hidden_size = config.hidden_size
    hidden = tf.reshape(embeddings, [-1, width])  # products are faster in 2-D
    if width != hidden_size:
        projection = _dense_variables(
            "embedding_hidden_mapping_in", width, hidden_size, config
        )
        hidden = tf.cast(_dense(hidden, projection, numerics), tf.float32)
    # [B, 1, 1, S], added to the scores of every head and query
    score_bias = (1.0 - tf.cast(input_mask, tf.float32)) * _MASKED_SCORE
    score_bias = score_bias[:, tf.newaxis, tf.newaxis, :]

    stream = _Stream(hidden, tf.cast(hidden, numerics.compute_dtype))
    scopes = [
        _layer_scopes(config, layer, inner)
        for layer in range(config.num_hidden_layers)
        for inner in range(config.inner_group_num)
    ]
    weights = _layer_weights(config, scopes, numerics)
    outputs = []
    for number, (attention_scopes, ffn_scopes) in enumerate(scopes):
        layer, inner = divmod(number, config.inner_group_num)
        with tf.name_scope("layer_{}".format(layer)):
            stream = _transformer_layer(
                config,
                stream,
                score_bias,
                weights[attention_scopes].pop(),
                weights[ffn_scopes].pop(),
                [batch, length],
                rows if number == len(scopes) - 1 else None,
                numerics,
            )
        if inner == config.inner_group_num - 1:
            outputs.append(stream.exact)
    lengths = [length] * len(outputs)
    if rows is not None:
        lengths[-1] = get_shape_list(rows)[1]
    return [
        tf.reshape(output, [batch, size, hidden_size])
        for output, size in zip(outputs, lengths)
    ]


def _layer_weights(config, scopes, numerics):
    """Creates the layers' variables, each once, and shares them out.

    Args:
      config: `AlbertConfig`.
      scopes: list of (`_AttentionScopes`, `_FeedForwardScopes`), one a layer: a name
        that repeats is a shared half.
      numerics: `Numerics`.

    Returns:
      dict of the scopes to a list of weights, one for each layer that has them.
    """
    weights = {}
    for halves in scopes:
        for half, create in zip(halves, (_attention_variables, _ffn_variables)):
            if half not in weights:
                uses = sum(half in others for others in scopes)
                weights[half] = _share(create(half, config), uses, numerics)
    return weights


def _transformer_layer(
    config, stream, score_bias, attention, ffn, batch_shape, rows, numerics
):
    """One layer, post-LN or pre-LN: `_Stream` -> `_Stream`, of `rows` if given."""

    def self_attention(inputs):
        context = _attend(
            config, inputs, score_bias, attention.qkv, batch_shape, rows, numerics
        )
        return _dense(context, attention.output, numerics)

    def feed_forward(inputs):
        inner = _dense(inputs, ffn.inner, numerics)
        return _dense(_activate(config, inner, numerics), ffn.output, numerics)

    for block, norm in ((self_attention, attention.norm), (feed_forward, ffn.norm)):
        exact, inputs = stream
        if config.ln_type == "preln":
            (inputs,) = _normalize([exact], norm, [numerics.compute_dtype], numerics)
        update = block(inputs)
        if config.hidden_dropout_prob:  # bfloat16 would draw and scale too coarsely
            update = tf.cast(update, tf.float32)
            update = dropout(update, config.hidden_dropout_prob)
        if rows is not None and block is self_attention:
            exact = tf.gather(exact, tf.reshape(rows, [-1]))
        if config.ln_type == "preln":
            stream = _Stream(exact + tf.cast(update, tf.float32), None)
        else:
            dtypes = [tf.float32, numerics.compute_dtype]
            stream = _Stream(*_normalize([exact, update], norm, dtypes, numerics))
    return stream


def _attend(config, x, score_bias, qkv, batch_shape, rows, numerics):
    """Multi-head self-attention (arXiv:1706.03762, section 3.2).

    Args:
      config: `AlbertConfig`.
      x: [B*S, H].
      score_bias: float32 [B, 1, 1, S], 0 for tokens, -10000 for padding.
      qkv: `_Dense`, kernel [H, 3H]: query, already scaled, key and value side by
        side.
      batch_shape: [B, S].
      rows: int32 [B, Q], the rows of x that attend, None for all of them.
      numerics: `Numerics`.

    Returns:
      [B*Q, H] in the products' dtype, the heads' contexts side by side.
    """
    batch, length = batch_shape
    heads, size = config.num_attention_heads, config.hidden_size

    def by_head(projected, parts, length):
        """[B*S, parts * H] -> parts tensors [B, N, S, D]."""
        shape = [batch, length, parts, heads, size // heads]
        projected = tf.transpose(tf.reshape(projected, shape), [2, 0, 3, 1, 4])
        return tf.unstack(projected)

    if rows is None:
        query, key, value = by_head(_dense(x, qkv, numerics), 3, length)
    else:
        own, others = (
            _Dense(*parts)
            for parts in zip(
                *[tf.split(tensor, [size, 2 * size], axis=-1) for tensor in qkv]
            )
        )
        attending = _dense(tf.gather(x, tf.reshape(rows, [-1])), own, numerics)
        (query,) = by_head(attending, 1, get_shape_list(rows)[1])
        key, value = by_head(_dense(x, others, numerics), 2, length)
    rate = config.attention_probs_dropout_prob
    context = _weigh_values(query, key, value, score_bias, rate, numerics)
    context = tf.transpose(context, [0, 2, 1, 3])
    return tf.reshape(context, [-1, size])


def _attention_variables(scopes, config):
    """Variables of the attention half of a layer."""
    size = config.hidden_size
    with tf.variable_scope(scopes.attention):
        with tf.variable_scope("self"):
            query, key, value = (
                _dense_variables(name, size, size, config)
                for name in ("query", "key", "value")
            )
        # Scaling the query's weights costs less than scaling its every score.
        scale = 1.0 / math.sqrt(size // config.num_attention_heads)
        # One product of three times the width instead of three products.
        qkv = _Dense(
            tf.concat([query.kernel * scale, key.kernel, value.kernel], axis=1),
            tf.concat([query.bias * scale, key.bias, value.bias], axis=0),
        )
        with tf.variable_scope("output"):
            output = _dense_variables("dense", size, size, config)
    norm = _norm_variables(scopes.norm, size)
    return _Attention(qkv, output, norm)


def _ffn_variables(scopes, config):
    """Variables of the feed-forward half of a layer."""
    size, inner_size = config.hidden_size, config.intermediate_size
    inner = _dense_variables(scopes.inner, size, inner_size, config)
    output = _dense_variables(scopes.output, inner_size, size, config)
    norm = _norm_variables(scopes.norm, size)
    return _FeedForward(inner, output, norm)


def _share(half, uses, numerics):
    """Hands the weights of a layer's half to the layers that share it.

    Args:
      half: `_Attention` or `_FeedForward` of float32 tensors.
      uses: int, how many layers have them.
      numerics: `Numerics`.

    Returns:
      A list of `uses` halves, the kernels and biases cast to the products' dtype.
    """

    def copies(tensor):
        @tf.custom_gradient
        def share(tensor):
            cast = tf.cast(tensor, numerics.compute_dtype)

            def gradient(*d_copies):
                # In float32 and in one pass, unlike the sum that TensorFlow makes.
                with _compiled(numerics):
                    return _sum(_given(d_copies))

            return [tf.identity(cast) for _ in range(uses)], gradient

        return share(tensor)

    dense = [[copies(tensor) for tensor in part] for part in half[:2]]
    return [
        type(half)(*[_Dense(*(c[use] for c in part)) for part in dense], half.norm)
        for use in range(uses)
    ]


def _dense_variables(name, input_size, output_size, config):
    """Creates kernel [input_size, output_size] and bias under scope `name`."""
    with tf.variable_scope(name):
        kernel = tf.get_variable(
            "kernel",
            [input_size, output_size],
            initializer=create_initializer(config.initializer_range),
        )
        bias = tf.get_variable(
            "bias", [output_size], initializer=tf.zeros_initializer()
        )
    return _Dense(kernel, bias)


def _dense(x, weights, numerics):
    """x W + b for x [n, in]: [n, out], all in the products' dtype."""
    x, kernel, bias = (tf.cast(t, numerics.compute_dtype) for t in (x,) + weights)
    return _add_bias(tf.matmul(x, kernel), bias)


@tf.custom_gradient
def _add_bias(x, bias):
    """x + bias for x [n, size] and bias [size]."""

    def gradient(d_y):
        (d_y,) = _given([d_y])
        return d_y, _column_sums(d_y)

    return tf.nn.bias_add(x, bias), gradient


def _column_sums(x):
    """Sums of [n, size] over n: [size]. A product is the fastest way to them."""
    ones = tf.ones([1, get_shape_list(x)[0]], x.dtype)
    return tf.matmul(ones, x)[0]


def _norm_variables(name, size):
    with tf.variable_scope(name):
        beta = tf.get_variable("beta", [size], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [size], initializer=tf.ones_initializer())
    return _Norm(gamma, beta)


# --- Element-wise parts, with gradients by hand ------------------------------
#
# A gradient that TensorFlow derives goes through the operands several times and
# keeps what lies between; these keep what the gradient needs and nothing else.


def _compiled(numerics):
    """A context whose operations XLA compiles into one kernel, if wanted."""
    if not numerics.use_xla or tf.executing_eagerly():
        return contextlib.nullcontext()
    return tf.xla.experimental.jit_scope(compile_ops=True)


def _normalize(terms, norm, dtypes, numerics):
    """Layer normalization (arXiv:1607.06450) of a sum, over the last axis.

    Args:
      terms: list of tensors [..., size], added up in float32.
      norm: `_Norm`.
      dtypes: list of dtypes.
      numerics: `Numerics`.

    Returns:
      A list of tensors [..., size]: the result in each of `dtypes`.
    """

    @tf.custom_gradient
    def normalize(gamma, beta, *terms):
        with _compiled(numerics):
            x = _sum(terms)
            centered = x - tf.reduce_mean(x, axis=-1, keepdims=True)
            variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
            inverse = tf.rsqrt(variance + _LAYER_NORM_EPSILON)
            normalized = centered * inverse
            y = normalized * gamma + beta
            outputs = [tf.cast(y, dtype) for dtype in dtypes]
            # For the gradient only, as all that is kept: half the memory in bfloat16.
            kept = tf.cast(normalized, numerics.compute_dtype)

        def gradient(*d_outputs):
            given = _given(d_outputs)
            with _compiled(numerics):
                d_y = _sum(given)
                normalized = tf.cast(kept, tf.float32)
                slope = d_y * gamma
                mean = tf.reduce_mean(slope, axis=-1, keepdims=True)
                product = tf.reduce_mean(slope * normalized, axis=-1, keepdims=True)
                d_x = inverse * (slope - mean - normalized * product)
                d_terms = [tf.cast(d_x, term.dtype) for term in terms]
                d_scaled = tf.cast(d_y * normalized, numerics.compute_dtype)
            size = get_shape_list(gamma)[0]
            # Not of d_y, which nothing else needs written down.
            d_gamma, *d_betas = (
                tf.cast(_column_sums(tf.reshape(d, [-1, size])), tf.float32)
                for d in [d_scaled] + given
            )
            return [d_gamma, tf.add_n(d_betas)] + d_terms

        return outputs, gradient

    return normalize(norm.gamma, norm.beta, *terms)


def _weigh_values(query, key, value, score_bias, dropout_prob, numerics):
    """softmax(query key^T + score_bias) value, with dropout of the probabilities.

    Args:
      query: [B, N, Q, D].
      key, value: [B, N, S, D].
      score_bias: float32 [B, 1, 1, S].
      dropout_prob: float.
      numerics: `Numerics`.

    Returns:
      [B, N, Q, D], in the dtype of `query`.
    """

    def keep(x, is_kept):
        return tf.where(is_kept, x / (1.0 - dropout_prob), tf.zeros_like(x))

    @tf.custom_gradient
    def weigh(query, key, value, score_bias):
        scores = tf.matmul(query, key, transpose_b=True)  # [B, N, Q, S]
        with _compiled(numerics):
            exact = tf.nn.softmax(tf.cast(scores, tf.float32) + score_bias)
            probabilities = tf.cast(exact, scores.dtype)
        kept = probabilities
        if dropout_prob:
            is_kept = tf.random_uniform(get_shape_list(scores)) >= dropout_prob
            kept = tf.cast(keep(exact, is_kept), scores.dtype)
        context = tf.matmul(kept, value)

        def gradient(d_context):
            d_value = tf.matmul(kept, d_context, transpose_a=True)
            d_probabilities = tf.matmul(d_context, value, transpose_b=True)
            if dropout_prob:
                d_probabilities = tf.cast(d_probabilities, tf.float32)
                d_probabilities = keep(d_probabilities, is_kept)
            # The mean of d_probabilities under the probabilities is that of d_context
            # and context, which are smaller (arXiv:2205.14135, appendix B.2). A kernel
            # of its own: in the next one XLA would compute it anew for every score.
            with _compiled(numerics):
                products = tf.cast(context, tf.float32) * tf.cast(d_context, tf.float32)
                mean = tf.reduce_sum(products, axis=-1, keepdims=True)
            with _compiled(numerics):
                d_scores = tf.cast(probabilities, tf.float32) * (
                    tf.cast(d_probabilities, tf.float32) - mean
                )
                d_scores = tf.cast(d_scores, scores.dtype)
            d_key = tf.matmul(d_scores, query, transpose_a=True)
            d_bias = tf.reduce_sum(tf.cast(d_scores, tf.float32), [1, 2], keepdims=True)
            return tf.matmul(d_scores, key), d_key, d_value, d_bias

        return context, gradient

    return weigh(query, key, value, score_bias)


def _activate(config, x, numerics):
    """The config's activation of x, any shape, in the dtype of x."""
    terms = {"gelu": _gelu_terms, "gelu_exact": _gelu_exact_terms}
    if config.hidden_act not in terms:
        return get_activation(config.hidden_act)(x)
    return _with_slope(terms[config.hidden_act], x, numerics)


def _with_slope(terms, x, numerics):
    """f(x), where `terms` gives f(x) and f'(x), element by element, in float32.

    float64 is computed as it is.
    """

    @tf.custom_gradient
    def apply(x):
        with _compiled(numerics):
            wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
            y, slope = (tf.cast(term, x.dtype) for term in terms(wide))

        def gradient(d_y):
            with _compiled(numerics):
                return d_y * slope

        return y, gradient

    return apply(x)


def _gelu_terms(x):
    scale = math.sqrt(2.0 / math.pi)
    square = tf.square(x)
    tanh = tf.tanh(x * (scale + 0.044715 * scale * square))
    share = 0.5 + 0.5 * tanh
    d_inner = scale + 3.0 * 0.044715 * scale * square
    return x * share, share + 0.5 * x * (1.0 - tf.square(tanh)) * d_inner


def _gelu_exact_terms(x):
    share = 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0)))
    density = tf.exp(-0.5 * tf.square(x)) / math.sqrt(2.0 * math.pi)
    return x * share, share + x * density


def _sum(tensors):
    """The sum in float32."""
    # Not by `+`: TensorFlow would rewrite such a chain, which takes it out of XLA's
    # kernel.
    return tf.add_n([tf.cast(tensor, tf.float32) for tensor in tensors])


def _given(d_outputs):
    """The gradients that a custom gradient is given, as dense tensors."""
    # TensorFlow 1.15 has None for a bfloat16 output that nothing reads, and rows alone
    # (`IndexedSlices`) where a gather reads it.
    return [tf.convert_to_tensor(d_y) for d_y in d_outputs if d_y is not None]


# --- Functions other projects call by these names ----------------------------


def layer_norm(input_tensor, name=None):
    """Layer normalization over the last axis, with variables of its own.

    Args:
      input_tensor: float32 [..., size], the last dimension static.
      name: scope of its `beta` and `gamma`, default "LayerNorm".

    Returns:
      float32 [..., size].
    """
    size = get_shape_list(input_tensor)[-1]
    norm = _norm_variables(name or "LayerNorm", size)
    (output,) = _normalize([input_tensor], norm, [tf.float32], FLOAT32)
    return output


def dropout(input_tensor, dropout_prob):
    """Zeroes elements with probability `dropout_prob`; None or 0.0 does nothing."""
    if not dropout_prob:
        return input_tensor
    return tf.nn.dropout(input_tensor, rate=dropout_prob)


def gelu(x):
    """GELU in its tanh form (arXiv:1606.08415, section 2), as the models use it."""
    return _with_slope(_gelu_terms, x, FLOAT32)


def gelu_exact(x):
    """GELU in its exact form, x Phi(x), which PyTorch's models call "gelu"."""
    return _with_slope(_gelu_exact_terms, x, FLOAT32)


def get_activation(name):
    """Maps "gelu", "gelu_exact", "relu", "tanh", "linear" (or a function) to one.

    Raises:
      ValueError: `name` is none of these.
    """
    if callable(name):
        return name
    functions = {
        "gelu": gelu,
        "gelu_exact": gelu_exact,
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "linear": tf.identity,
        "": tf.identity,
        None: tf.identity,
    }
    if name not in functions:
        raise ValueError(
            "hidden_act must be gelu, gelu_exact, relu, tanh or linear, received "
            "{!r}".format(name)
        )
    return functions[name]


def create_initializer(initializer_range=0.02):
    """Returns a truncated normal initializer of that standard deviation."""
    return tf.truncated_normal_initializer(stddev=initializer_range)


def get_shape_list(tensor, expected_rank=None, name=None):
    """Returns a tensor's shape: ints where static, scalar tensors elsewhere.

    Args:
      tensor: any tensor of known rank.
      expected_rank: int or a collection of ints; None accepts any.
      name: name for the error message.

    Raises:
      ValueError: the rank is not the expected one.
    """
    static = tensor.shape.as_list()
    if expected_rank is not None:
        ranks = (
            [expected_rank] if isinstance(expected_rank, int) else list(expected_rank)
        )
        if len(static) not in ranks:
            raise ValueError(
                "{} has rank {} (shape {}), expected {}".format(
                    name or tensor.name, len(static), static, expected_rank
                )
            )
    if all(size is not None for size in static):
        return static
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
    """Matches variables with a checkpoint's by name.

    Args:
      tvars: list of variables.
      init_checkpoint: path prefix of a TensorFlow checkpoint.

    Returns:
      assignment_map: OrderedDict checkpoint name -> variable name, for
        `tf.train.init_from_checkpoint`.
      initialized_variable_names: dict with the names of the variables that the
        map restores, with and without ":0", each to 1.
    """
    names = {re.sub(r":\d+$", "", variable.name) for variable in tvars}
    assignment_map = collections.OrderedDict()
    initialized_variable_names = {}
    for name, _ in tf.train.list_variables(init_checkpoint):
        if name in names:
            assignment_map[name] = name
            initialized_variable_names[name] = 1
            initialized_variable_names[name + ":0"] = 1
    return assignment_map, initialized_variable_names


def count_parameters(variables):
    """Returns the number of scalars in these variables."""
    return sum(int(np.prod(variable.shape.as_list())) for variable in variables)
