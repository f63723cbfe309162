"""ALBERT for TensorFlow 1.x graphs: configuration, encoder, pretraining heads.

One code path builds the three families of published checkpoints ("dialects").
They compute the same Transformer encoder and differ in where the embedding is
projected and in how variables are named:

  dialect      width of embeddings    projection to H          layer variables
  albert_zh    H                      words only, no bias      layer_shared/...
  google       E                      after LayerNorm, bias    transformer/group_G/...
  bert         H                      none (E = H)             layer_N/...

Sources: BERT (arXiv:1810.04805), ALBERT (arXiv:1909.11942; factorized
embedding, cross-layer sharing and sentence-order prediction are its sections
3.1-3.2), pre-LN (arXiv:2002.04745), GELU (arXiv:1606.08415).

The file has two floors. The upper one, down to the line "Lower floor", is the
model as the papers write it. The lower one, `_Kernels`, implements the operations:
precision, XLA and hand-written gradients. `k.to_float32(x)` above is x cast to float32.

Shapes, as comments beside the tensors:

  B  sequences in the batch        H  hidden size
  S  tokens of a sequence          I  intermediate size
  Q  query tokens, Q <= S          N  attention heads
  P  predictions of a sequence     D  = H / N, size of a head
  V  vocabulary                    L  layers
  E  embedding size

The file stands alone: it imports only the standard library, NumPy and TensorFlow.
"""

import collections
import contextlib
import copy
import functools
import inspect
import itertools
import json
import math
import operator
import re
from typing import NamedTuple, Optional, Union

import numpy as np


class _TensorFlow:
    """Becomes `tensorflow.compat.v1` at its first use: a config needs no TensorFlow."""

    def __getattr__(self, name):
        global tf
        import tensorflow.compat.v1 as tf

        return getattr(tf, name)


tf = _TensorFlow()

SHARING = ("all", "attention", "ffn", "none")
LN_TYPES = ("postln", "preln")

# Keys in published files that do not change the encoder. Hugging Face's tools add most
# of them; names that begin with "_" are notes of whoever wrote the file.
_UNUSED_KEYS = frozenset(
    "architectures bos_token_id chunk_size_feed_forward classifier_dropout "
    "classifier_dropout_prob cls_token_id directionality down_scale_factor dtype "
    "eos_token_id finetuning_task gap_size gradient_checkpointing id2label label2id "
    "language mask_token_id net_structure_type network_structure_type "
    "num_labels num_memory_blocks output_attentions output_hidden_states output_past "
    "pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
    "pooler_size_per_head pooler_type problem_type return_dict sep_token_id "
    "task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript "
    "transformers_version unk_token_id use_bfloat16 use_cache "
    # Full dumps also have what generating text is told.
    "bad_words_ids begin_suppress_tokens cross_attention_hidden_size "
    "decoder_start_token_id diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size eos_token_ids exponential_decay_length_penalty "
    "forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
    "output_scores prefix remove_invalid_values repetition_penalty "
    "return_dict_in_generate suppress_tokens temperature tie_encoder_decoder top_k "
    "top_p typical_p".split()
)
# Keys of other models' code that change what the encoder computes, with the values
# that mean what is computed here.
FIXED_KEYS = {
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "layer_norm_eps": (1e-12,),
    "layers_to_keep": ([],),
    "model_type": ("albert", "bert"),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({},),
    "tie_word_embeddings": (True,),
    "use_relative_position": (False,),
}
# Other names of activations in config files.
_ACTIVATION_NAMES = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}

# Added to the scores of padding instead of minus infinity, as in published models.
_MASKED_SCORE = -10000.0
_LAYER_NORM_EPSILON = 1e-12
# Keeps the MLM loss finite where a batch holds no prediction at all.
_WEIGHT_EPSILON = 1e-5


class AlbertConfig:
    """Sizes and settings of one model; a published JSON file loads untouched.

    The keys given decide the dialect; the first match wins:

      google      `num_hidden_groups` or `inner_group_num`
      albert_zh   `embedding_size`
      bert        neither

    Without `ln_type`, as in albert_zh's older files, layers are post-LN.

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
        self.hidden_act = (
            hidden_act.lower() if isinstance(hidden_act, str) else hidden_act
        )
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
        _check_activation(self.hidden_act)
        if self.num_hidden_groups > 1 and self.cross_layer_sharing != "all":
            raise ValueError(
                "num_hidden_groups {} needs cross_layer_sharing all, not {}".format(
                    self.num_hidden_groups, self.cross_layer_sharing
                )
            )

    @classmethod
    def from_dict(cls, settings):
        """Builds a config from a dict.

        Keys of published files that do not change the encoder are ignored.

        Raises:
          ValueError: a key is unknown, or has a value that this model cannot compute.
        """
        check_fixed_keys(settings)
        settings = {
            key: value
            for key, value in settings.items()
            if not (key in _UNUSED_KEYS or key in FIXED_KEYS or key.startswith("_"))
        }
        if isinstance(settings.get("hidden_act"), str):
            name = settings["hidden_act"]
            settings["hidden_act"] = _ACTIVATION_NAMES.get(name, name)
        known = list(inspect.signature(cls).parameters)
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
            with tf.io.gfile.GFile(json_file, "rb") as reader:
                # Some editors on Windows write a byte order mark.
                settings = json.loads(reader.read().decode("utf-8-sig"))
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


def check_fixed_keys(settings):
    """Raises `ValueError` if one of `FIXED_KEYS` asks for another computation.

    Args:
      settings: dict, the content of a config file. A null stands for the default.
    """
    for key, values in sorted(FIXED_KEYS.items()):
        value = settings.get(key)
        # 0 and 0.0 are not False.
        is_right = any(type(value) is type(v) and value == v for v in values)
        if value is not None and not is_right:
            raise ValueError(
                "{} is {}, but this model computes only {}".format(
                    key, repr(value)[:200], " or ".join(map(repr, values))
                )
            )


def _dialect(embedding_size, ln_type, num_hidden_groups, inner_group_num):
    """Returns the dialect that the given config keys stand for.

    "postln" is what the other dialects compute anyway, so that published files of
    theirs may say it.
    """
    grouped = num_hidden_groups is not None or inner_group_num is not None
    chosen = ln_type not in (None, "postln")
    if chosen and grouped:
        raise ValueError(
            "ln_type {!r} (albert_zh dialect) and num_hidden_groups or "
            "inner_group_num (google dialect) exclude each other".format(ln_type)
        )
    if chosen and embedding_size is None:
        raise ValueError(
            "ln_type {!r} (albert_zh dialect) needs embedding_size".format(ln_type)
        )
    if grouped:
        return "google"
    return "bert" if embedding_size is None else "albert_zh"


class Numerics(NamedTuple):
    """How a model computes: the `AlbertModel` arguments of the same names.

    To forward all of them, pass `**numerics._asdict()`.
    """

    compute_dtype: Union["tf.DType", str] = "float32"
    use_xla: bool = False
    plain_gradients: bool = False
    recompute: bool = False


FLOAT32 = Numerics()


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
        compute_dtype="float32",
        use_xla=False,
        needed_positions=None,
        plain_gradients=False,
        recompute=False,
    ):
        """Builds the graph under variable scope `scope` (default "bert").

        Args:
          config: `AlbertConfig`.
          is_training: bool; False turns dropout off.
          input_ids: int [B, S].
          input_mask: int [B, S], 1 for tokens, 0 for padding; None means all 1.
          token_type_ids: int [B, S], the segment of each token; None means all 0.
          use_one_hot_embeddings: bool; look words up by a matrix product with
            one-hot rows, which is faster on TPU, instead of a gather.
          scope: variable scope name.
          compute_dtype: dtype of the matrix products, float32 or bfloat16, a
            `tf.DType` or its name. Variables, LayerNorm, softmax and all outputs stay
            float32. Activations saved for backward, and the reductions that give
            the gradients of biases and LayerNorm, use this dtype.
          use_xla: bool; let XLA fuse the element-wise operations. Pays off only for
            stable shapes: each new shape is recompiled.
          needed_positions: int [B, P] or None for all. If given, the last layer
            computes only these positions and the first token, which is all that
            the pretraining losses read.
          plain_gradients: bool; use TensorFlow's own gradients. The hand-written
            default saves time and memory, but not in a graph loaded with
            `tf.train.import_meta_graph`: there `tf.gradients` raises LookupError.
            Set it for graphs to be imported and differentiated; otherwise even second
            derivatives work without it. It does not change any output, and the
            pretraining heads follow the model's setting.
          recompute: bool; gradient checkpointing (arXiv:1604.06174). Keeps only each
            layer's input and recomputes the layer in the backward pass: the same
            gradients in less memory and more time.

        Raises:
          ValueError: S is larger than `config.max_position_embeddings`, or
            `recompute` with `plain_gradients`.
        """
        if recompute and plain_gradients:
            raise ValueError("recompute and plain_gradients cannot be combined")
        batch, length = get_shape_list(input_ids, expected_rank=2)
        if isinstance(length, int) and length > config.max_position_embeddings:
            raise ValueError(
                "sequence length {} is above max_position_embeddings {}".format(
                    length, config.max_position_embeddings
                )
            )
        dtype = tf.as_dtype(compute_dtype)
        self.numerics = Numerics(dtype, use_xla, plain_gradients, recompute)
        k = self.kernels = _Kernels(self.numerics)
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
                    k,
                    input_ids,
                    token_type_ids,
                    self._word_embeddings,
                    self._projection,
                    use_one_hot_embeddings,
                )  # [B, S, E or H]
            with tf.variable_scope("encoder"):
                positions = None
                if needed_positions is not None:
                    first = tf.zeros([batch, 1], tf.int32)
                    needed = tf.cast(needed_positions, tf.int32)
                    positions = tf.concat([first, needed], axis=1)  # [B, 1 + P]
                self._all_encoder_layers = _encode(
                    config, k, self._embedding_output, input_mask, positions
                )
            with tf.variable_scope("pooler"):
                first_token = self._all_encoder_layers[-1][:, 0, :]  # [B, H]
                weights = _dense_variables(
                    "dense",
                    config.hidden_size,
                    config.hidden_size,
                    config.initializer_range,
                )
                pooled = k.in_float32().dense(first_token, weights)
                self._pooled_output = tf.tanh(pooled)  # [B, H]

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
                "the model was built with needed_positions, so its last layer has no "
                "other outputs; build it without needed_positions"
            )
        return self._all_encoder_layers

    def get_output_at(self, positions):
        """Picks the last layer's outputs: float32 [B * P, H].

        Args:
          positions: int [B, P]; if the model was built for `needed_positions`, that
            same tensor.

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
        outputs = self._all_encoder_layers[-1][:, 1:, :]  # [B, P, H]
        return tf.reshape(outputs, [-1, get_shape_list(outputs)[-1]])

    def get_embedding_output(self):
        """Returns the encoder's input: float32 [B, S, H], google: [B, S, E]."""
        return self._embedding_output

    def get_embedding_table(self):
        """Returns the word embedding variable, float32 [V, E]."""
        return self._word_embeddings

    # BERT's scripts read these attributes.
    pooled_output = property(get_pooled_output)
    sequence_output = property(get_sequence_output)
    all_encoder_layers = property(get_all_encoder_layers)
    embedding_output = property(get_embedding_output)
    embedding_table = property(get_embedding_table)

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
    k = model.kernels
    x = model.get_output_at(positions)  # [B*P, H]
    width = config.embedding_size if config.dialect == "google" else config.hidden_size
    with tf.variable_scope("cls/predictions"):
        with tf.variable_scope("transform"):
            weights = _dense_variables(
                "dense", config.hidden_size, width, config.initializer_range
            )
            x = k.activate(config.hidden_act, k.dense(x, weights))
            x = k.layer_norm(x, _norm_variables("LayerNorm", width))  # [B*P, E or H]
        output_bias = tf.get_variable(
            "output_bias", [config.vocab_size], initializer=tf.zeros_initializer()
        )
        for table in (model.get_embedding_table_2(), model.get_embedding_table()):
            if table is not None:
                x = k.product(x, table, transpose_b=True)  # [B*P, E], then [B*P, V]
        logits = k.add_bias(x, output_bias)  # [B*P, V]

        per_example_loss = k.cross_entropy(logits, label_ids)  # [B*P]
        label_weights = tf.reshape(tf.cast(label_weights, tf.float32), [-1])
        loss = tf.reduce_sum(label_weights * per_example_loss) / (
            tf.reduce_sum(label_weights) + _WEIGHT_EPSILON
        )
    return loss, per_example_loss, k.to_float32(logits)


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
        logits = tf.nn.bias_add(logits, output_bias)  # [B, 2]
        per_example_loss = model.kernels.cross_entropy(logits, labels)  # [B]
        return tf.reduce_mean(per_example_loss), per_example_loss, logits


def gather_indexes(sequence, positions):
    """Picks vectors: float [B, S, H] at int positions [B, P] -> [B * P, H]."""
    batch, length, width = get_shape_list(sequence, expected_rank=3)
    rows = _row_indexes(tf.cast(positions, tf.int32), length)
    sequence = tf.reshape(sequence, [batch * length, width])
    return tf.gather(sequence, tf.reshape(rows, [-1]))


def _row_indexes(positions, length):
    """Positions within each sequence -> rows of [B*S, ...]: int32 [B, P] -> [B, P]."""
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


def _embed(config, kernels, input_ids, token_type_ids, table, projection, one_hot):
    """LayerNorm(word + segment + position embedding), dropout: [B, S, E or H]."""
    k = kernels
    batch, length = get_shape_list(input_ids, expected_rank=2)
    words = k.lookup(table, tf.reshape(input_ids, [-1]), one_hot)  # [B*S, E]
    if projection is not None:
        words = k.product(words, projection)  # [B*S, H]
    words = k.to_float32(words)
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
    # For a table this small a one-hot product beats a gather, above all in backward.
    segments = tf.matmul(
        tf.one_hot(tf.reshape(token_type_ids, [-1]), config.type_vocab_size),
        segment_table,
        name="segments",
    )  # [B*S, E or H]
    embeddings = tf.reshape(words + segments, [batch, length, width])
    embeddings += position_table[:length]  # [B, S, E or H]
    norm = _norm_variables("LayerNorm", width)
    embeddings = k.layer_norm(embeddings, norm, tf.float32)
    return k.dropout(embeddings, config.hidden_dropout_prob)


# --- Encoder -----------------------------------------------------------------


def _encode(config, kernels, embeddings, input_mask, positions):
    """Runs the L layers.

    Args:
      config: `AlbertConfig`.
      kernels: `_Kernels`.
      embeddings: float32 [B, S, E or H].
      input_mask: int [B, S].
      positions: int32 [B, Q] or None; the positions whose output the last layer
        computes; None for all.

    Returns:
      The layers' outputs: a list of float32 [B, S, H], the last one [B, Q, H].
    """
    k = kernels
    batch, length, width = get_shape_list(embeddings, expected_rank=3)
    x = tf.reshape(embeddings, [-1, width])  # [B*S, E or H], faster than 3-D
    if width != config.hidden_size:
        name = "embedding_hidden_mapping_in"
        x = k.dense(
            x,
            _dense_variables(name, width, config.hidden_size, config.initializer_range),
        )
    x = k.hidden(x, batch, length)  # [B*S, H]
    # [B, 1, 1, S], added to the scores of every head and query.
    mask_bias = (1.0 - tf.cast(input_mask, tf.float32)) * _MASKED_SCORE
    mask_bias = tf.expand_dims(tf.expand_dims(mask_bias, 1), 1)

    layers = _layer_weights(config, k)
    queries = [_all_positions] * len(layers)
    if positions is not None:
        rows = _row_indexes(positions, length)  # [B, Q]
        queries[-1] = functools.partial(k.take, rows=rows)
    outputs = []
    for number, (weights, queries_of) in enumerate(zip(layers, queries)):
        layer, inner = divmod(number, config.inner_group_num)
        with tf.name_scope("layer_{}".format(layer)):
            # A default binds queries_of now: `recompute` calls this after the loop.
            def run(k, x, given, queries_of=queries_of):
                mask_bias, (attention, feed_forward) = given
                return _layer(
                    config, k, x, mask_bias, attention, feed_forward, queries_of
                )

            x = k.layer(run, x, (mask_bias, weights))
        if inner == config.inner_group_num - 1:
            outputs.append(x)
    return [
        tf.reshape(x.exact, [x.batch, x.length, config.hidden_size]) for x in outputs
    ]


def _all_positions(x):
    """Returns x: the queries of a layer that computes all positions."""
    return x


def _layer(config, kernels, x, mask_bias, attention, feed_forward, queries_of):
    """One layer, post-LN (arXiv:1706.03762) or pre-LN (arXiv:2002.04745).

    Pre-LN has no LayerNorm after the last layer, unlike GPT-2.

    Args:
      config: `AlbertConfig`.
      kernels: `_Kernels`.
      x: `_Hidden` [B*S, H].
      mask_bias: float32 [B, 1, 1, S], 0 for tokens, -10000 for padding.
      attention: `_AttentionWeights`.
      feed_forward: `_FeedForwardWeights`.
      queries_of: function that picks the positions whose output is wanted:
        `_Hidden` [B*S, H] -> [B*Q, H]. They attend to all positions of x.

    Returns:
      `_Hidden` [B*Q, H].
    """
    k = kernels
    attend = functools.partial(_attend, config, k, attention, mask_bias)
    feed = functools.partial(_feed_forward, config, k, feed_forward)
    if config.ln_type == "postln":
        q = queries_of(x)
        x = k.add_and_normalize(q, attend(q, x), attention.norm)
        x = k.add_and_normalize(x, feed(x), feed_forward.norm)
    else:
        z = k.normalize(x, attention.norm)
        x = k.add(queries_of(x), attend(queries_of(z), z))
        x = k.add(x, feed(k.normalize(x, feed_forward.norm)))
    return x


def _attend(config, kernels, weights, mask_bias, q, x):
    """Multi-head attention (arXiv:1706.03762, section 3.2), then dropout.

    Queries come from q, keys and values from x. Each of the N heads computes

      Q = (q W_q + b_q) / sqrt(D)      K = x W_k + b_k      V = x W_v + b_v
      head = softmax(Q K^T + mask_bias) V

    and the result is concat(heads) W_o + b_o. `weights.qkv` includes the 1 / sqrt(D).

    Args:
      config: `AlbertConfig`.
      kernels: `_Kernels`.
      weights: `_AttentionWeights`.
      mask_bias: float32 [B, 1, 1, S].
      q: `_Hidden` [B*Q, H].
      x: `_Hidden` [B*S, H].

    Returns:
      [B*Q, H].
    """
    k = kernels
    query, key, value = k.project_by_head(
        q, x, weights.qkv, config.num_attention_heads
    )  # [B, N, Q, D], and twice [B, N, S, D]
    context = k.attention(
        query, key, value, mask_bias, config.attention_probs_dropout_prob
    )  # [B, N, Q, D]
    context = tf.transpose(context, [0, 2, 1, 3])  # [B, Q, N, D]
    context = tf.reshape(context, [-1, config.hidden_size])  # [B*Q, H]
    return k.dropout(k.dense(context, weights.output), config.hidden_dropout_prob)


def _feed_forward(config, kernels, weights, x):
    """activation(x W_1 + b_1) W_2 + b_2 (arXiv:1706.03762, section 3.3), dropout.

    Args:
      config: `AlbertConfig`.
      kernels: `_Kernels`.
      weights: `_FeedForwardWeights`.
      x: `_Hidden` [n, H].

    Returns:
      [n, H].
    """
    k = kernels
    inner = k.activate(config.hidden_act, k.dense(x, weights.inner))  # [n, I]
    return k.dropout(k.dense(inner, weights.output), config.hidden_dropout_prob)


# --- Weights: cross-layer sharing and the dialects' names --------------------


class _Dense(NamedTuple):
    """Weights of x W + b: kernel [in, out], bias [out]."""

    kernel: "tf.Tensor"
    bias: "tf.Tensor"


class _Norm(NamedTuple):
    """Weights of LayerNorm, both [size]."""

    gamma: "tf.Tensor"
    beta: "tf.Tensor"


class _AttentionWeights(NamedTuple):
    """Weights of attention: qkv [H, 3H], output [H, H], and its LayerNorm."""

    qkv: _Dense
    output: _Dense
    norm: _Norm


class _FeedForwardWeights(NamedTuple):
    """Weights of a feed-forward network: inner [H, I], output [I, H]; its norm's."""

    inner: _Dense
    output: _Dense
    norm: _Norm


class _AttentionScopes(NamedTuple):
    """Variable scopes of `_AttentionWeights`; equal scopes are shared weights."""

    attention: str
    norm: str


class _FeedForwardScopes(NamedTuple):
    """Variable scopes of `_FeedForwardWeights`; equal scopes are shared weights."""

    inner: str
    output: str
    norm: str


def _layer_weights(config, kernels):
    """Creates the encoder's variables.

    Returns:
      A list of (`_AttentionWeights`, `_FeedForwardWeights`), first layer first;
      layers of equal scopes share variables.
    """
    scopes = [
        layer_scopes(config, layer, inner)
        for layer in range(config.num_hidden_layers)
        for inner in range(config.inner_group_num)
    ]
    uses = collections.Counter(half for layer in scopes for half in layer)
    creators = (_create_attention_weights, _create_feed_forward_weights)
    weights = {}  # an iterator for each sublayer ("half"): one item per use
    for layer in scopes:
        for half, create in zip(layer, creators):
            if half not in weights:
                weights[half] = create(config, kernels, half, uses[half])
    return [tuple(next(weights[half]) for half in layer) for layer in scopes]


def _create_attention_weights(config, kernels, scopes, uses):
    """An iterator of `_AttentionWeights` for `uses` layers that share them."""
    size, heads = config.hidden_size, config.num_attention_heads
    with tf.variable_scope(scopes.attention):
        with tf.variable_scope("self"):
            query, key, value = (
                _dense_variables(name, size, size, config.initializer_range)
                for name in ("query", "key", "value")
            )
        # Dividing W_q and b_q by sqrt(D) is cheaper than dividing every Q.
        scale = 1.0 / math.sqrt(size // heads)
        query = _Dense(query.kernel * scale, query.bias * scale)
        qkv = kernels.side_by_side(query, key, value)
        with tf.variable_scope("output"):
            output = _dense_variables("dense", size, size, config.initializer_range)
    norm = _norm_variables(scopes.norm, size)
    return map(
        _AttentionWeights,
        kernels.share(qkv, uses),
        kernels.share(output, uses),
        itertools.repeat(norm),
    )


def _create_feed_forward_weights(config, kernels, scopes, uses):
    """An iterator of `_FeedForwardWeights` for `uses` layers that share them."""
    size, inner_size = config.hidden_size, config.intermediate_size
    inner = _dense_variables(scopes.inner, size, inner_size, config.initializer_range)
    output = _dense_variables(scopes.output, inner_size, size, config.initializer_range)
    norm = _norm_variables(scopes.norm, size)
    return map(
        _FeedForwardWeights,
        kernels.share(inner, uses),
        kernels.share(output, uses),
        itertools.repeat(norm),
    )


def layer_scopes(config, layer, inner):
    """Returns one layer's variable scopes, which published checkpoints rely on.

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
        # Float division, as in Google's code: integer division would group some
        # configs differently.
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


def _dense_variables(name, input_size, output_size, initializer_range):
    """Creates kernel [input_size, output_size] and bias under scope `name`."""
    with tf.variable_scope(name):
        kernel = tf.get_variable(
            "kernel",
            [input_size, output_size],
            initializer=create_initializer(initializer_range),
        )
        bias = tf.get_variable(
            "bias", [output_size], initializer=tf.zeros_initializer()
        )
    return _Dense(kernel, bias)


def _norm_variables(name, size):
    """Creates gamma and beta, both [size], under scope `name`."""
    with tf.variable_scope(name):
        beta = tf.get_variable("beta", [size], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [size], initializer=tf.ones_initializer())
    return _Norm(gamma, beta)


# === Lower floor: precision, fusing, hand-written gradients ==================

# The gradients that all layers give one shared kernel are summed in one pass, which is
# fastest, if they fit in this size (float32); else one by one, which saves memory.
_MAX_HELD_GRADIENT_BYTES = 2**28


class _Hidden(NamedTuple):
    """Hidden states of B sequences of S tokens, [B*S, H], as the layers pass them on.

    Attributes:
      exact: float32, for sums and LayerNorm; None where only products read it.
      operand: the same in the products' dtype; None where no product reads it.
      batch, length: B and S, ints or int32 scalars.
    """

    exact: Optional["tf.Tensor"]
    operand: Optional["tf.Tensor"]
    batch: Union[int, "tf.Tensor"]
    length: Union[int, "tf.Tensor"]

    def parts(self):
        """Returns the list of its tensors, without those that are None."""
        return [part for part in (self.exact, self.operand) if part is not None]

    def with_parts(self, parts):
        """Returns the same with other tensors, in the order of `parts()`."""
        parts = iter(parts)
        exact, operand = (
            None if part is None else next(parts) for part in (self.exact, self.operand)
        )
        return self._replace(exact=exact, operand=operand)


class _Kernels:
    """The operations that a model is built of, each opening with its plain equation.

    Everything the equations do not show is decided here:

    - Casts. Products take and return `compute_dtype`; sums, LayerNorm, softmax,
      dropout and losses are computed in float32.
    - XLA. With `use_xla`, the operations in a `with self._fused()` block become one
      kernel. Products stay outside: TensorFlow's own are faster.
    - Gradients. Those TensorFlow derives read the operands several times and keep
      the values in between; the ones here keep only what they need. With
      `plain_gradients` they are left out.
    """

    def __init__(self, numerics, draws=None):
        """Creates the operations for `Numerics`; `_Draws` repeat random numbers."""
        self._numerics = numerics
        self._dtype = numerics.compute_dtype
        self._draws = draws

    def in_float32(self):
        """Returns the same operations with float32 products."""
        return _Kernels(self._numerics._replace(compute_dtype=tf.float32))

    # --- Products ---

    def product(self, a, b, transpose_b=False):
        """a b, or a b^T: [n, in] and [in, out] (or [out, in]) -> [n, out]."""
        a, b = tf.cast(a, self._dtype), tf.cast(b, self._dtype)
        return tf.matmul(a, b, transpose_b=transpose_b)

    def add_bias(self, x, bias):
        """x + b: [n, size] and [size] -> [n, size]."""

        @self._with_gradient
        def add_bias(x, bias):
            def gradient(d_y):
                (d_y,) = _dense_gradients([d_y])
                return d_y, _column_sums(d_y)

            return tf.nn.bias_add(x, bias), gradient

        return add_bias(x, tf.cast(bias, x.dtype))

    def dense(self, x, weights):
        """x W + b: tensor [n, in] or `_Hidden`, and `_Dense` -> [n, out]."""
        x = x.operand if isinstance(x, _Hidden) else x
        return self.add_bias(self.product(x, weights.kernel), weights.bias)

    def lookup(self, table, ids, one_hot):
        """table[ids]: [V, E] and int [n] -> [n, E].

        With `one_hot` it is a product, [n, V] [V, E], in the products' dtype.
        """
        if not one_hot:
            return tf.gather(table, ids)
        vocab_size = get_shape_list(table)[0]
        return self.product(tf.one_hot(ids, vocab_size, dtype=self._dtype), table)

    # --- Weights ---

    def side_by_side(self, *layers):
        """x [W_1 W_2 ...] + [b_1 b_2 ...]: one wide product instead of several."""
        return _Dense(
            tf.concat([layer.kernel for layer in layers], axis=1),
            tf.concat([layer.bias for layer in layers], axis=0),
        )

    def share(self, weights, uses):
        """W, `uses` times: an iterator with a `_Dense` for each layer that shares it.

        The copies are cast to the products' dtype once. The gradient of W is the sum
        of the copies' gradients, in float32 and in one pass, whereas TensorFlow would
        add them in the products' dtype.
        """
        if self._numerics.plain_gradients:
            # Cast by each layer that uses them, so that this sum, too, is in float32.
            return itertools.repeat(weights, uses)

        return map(_Dense, *(self._copies(tensor, uses) for tensor in weights))

    def _copies(self, tensor, uses):
        """One tensor of `share`: a list of `uses` copies, in the products' dtype."""
        shape = get_shape_list(tensor)
        held_bytes = 4 * uses * functools.reduce(operator.mul, shape)
        if held_bytes > _MAX_HELD_GRADIENT_BYTES:
            return self._chained_copies(tensor, uses, shape)

        @tf.custom_gradient
        def copies(tensor):
            def gradient(*d_copies):
                with self._fused():
                    return _sum(_dense_gradients(d_copies))

            cast = tf.cast(tensor, self._dtype)
            return [tf.identity(cast) for _ in range(uses)], gradient

        return copies(tensor)

    def _chained_copies(self, tensor, uses, shape):
        """The same where the copies' gradients are too large to be held until the end.

        Each is added to the sum of the later layers' as soon as it is there.
        """
        # Every other sum has one more dimension, 1: TensorFlow's optimizer joins a
        # chain of sums of one shape into one sum, which waits for all of them.
        shapes = itertools.cycle([[1] + shape, shape])

        @tf.custom_gradient
        def use(cast, exact):
            own_shape, next_shape = get_shape_list(exact), next(shapes)

            def gradient(d_copy, d_rest):
                d_copy = tf.reshape(self.to_float32(d_copy), next_shape)
                return None, tf.reshape(d_copy + d_rest, own_shape)

            return [tf.identity(cast), tf.reshape(exact, next_shape)], gradient

        cast, copies = tf.cast(tensor, self._dtype), []
        for _ in range(uses - 1):
            copy, tensor = use(cast, tensor)
            copies.append(copy)
        return copies + [tf.reshape(tf.cast(tensor, self._dtype), shape)]

    # --- Hidden states: sums, LayerNorm, dropout ---

    def hidden(self, x, batch, length):
        """x, [B*S, H] -> `_Hidden`."""
        exact = self.to_float32(x)
        return _Hidden(exact, tf.cast(exact, self._dtype), batch, length)

    def to_float32(self, x):
        """x, in float32."""
        return tf.cast(x, tf.float32)

    def take(self, x, rows):
        """x[rows]: `_Hidden` [B*S, H] and int32 [B, Q] -> `_Hidden` [B*Q, H]."""
        flat = tf.reshape(rows, [-1])
        exact, operand = (
            None if tensor is None else tf.gather(tensor, flat)
            for tensor in (x.exact, x.operand)
        )
        return _Hidden(exact, operand, x.batch, get_shape_list(rows)[1])

    def add(self, x, update):
        """x + update: `_Hidden` and [n, H] -> `_Hidden`, which no product reads."""
        return x._replace(exact=x.exact + self.to_float32(update), operand=None)

    def normalize(self, x, norm):
        """LayerNorm(x): `_Hidden`, `_Norm` -> `_Hidden`, which only products read."""
        (operand,) = self._normalize([x.exact], norm, [self._dtype])
        return x._replace(exact=None, operand=operand)

    def add_and_normalize(self, x, update, norm):
        """LayerNorm(x + update): `_Hidden`, [n, H] and `_Norm` -> `_Hidden`."""
        dtypes = [tf.float32, self._dtype]
        exact, operand = self._normalize([x.exact, update], norm, dtypes)
        return x._replace(exact=exact, operand=operand)

    def layer_norm(self, x, norm, dtype=None):
        """LayerNorm(x): [..., size] and `_Norm` -> [..., size].

        The result is of `dtype`, or else of the products' dtype.
        """
        (y,) = self._normalize([x], norm, [dtype or self._dtype])
        return y

    def _normalize(self, terms, norm, dtypes):
        """(x - mean(x)) / sqrt(var(x) + epsilon) gamma + beta, for x the sum of terms.

        Layer normalization (arXiv:1607.06450), over the last axis.

        Args:
          terms: list of tensors [..., size].
          norm: `_Norm`.
          dtypes: list of dtypes.

        Returns:
          A list of tensors [..., size]: the result in each of `dtypes`.
        """

        @self._with_gradient
        def normalize(gamma, beta, *terms):
            with self._fused():
                x = _sum(terms)
                centered = x - tf.reduce_mean(x, axis=-1, keepdims=True)
                variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
                inverse = tf.rsqrt(variance + _LAYER_NORM_EPSILON)
                normalized = centered * inverse
                y = normalized * gamma + beta
                outputs = [tf.cast(y, dtype) for dtype in dtypes]
                # All that the gradient keeps: half the memory in bfloat16.
                kept = tf.cast(normalized, self._dtype)

            def gradient(*d_outputs):
                d_outputs = _dense_gradients(d_outputs)
                with self._fused():
                    d_y = _sum(d_outputs)
                    normalized = self.to_float32(kept)
                    slope = d_y * gamma
                    mean = tf.reduce_mean(slope, axis=-1, keepdims=True)
                    product = tf.reduce_mean(slope * normalized, axis=-1, keepdims=True)
                    d_x = inverse * (slope - mean - normalized * product)
                    d_terms = [tf.cast(d_x, term.dtype) for term in terms]
                    d_scaled = tf.cast(d_y * normalized, self._dtype)
                size = get_shape_list(gamma)[0]
                # beta's from each upstream gradient: nothing else needs their sum
                # written to memory.
                d_gamma, *d_betas = (
                    self.to_float32(_column_sums(tf.reshape(d, [-1, size])))
                    for d in [d_scaled] + d_outputs
                )
                return [d_gamma, tf.add_n(d_betas)] + d_terms

            return outputs, gradient

        return normalize(norm.gamma, norm.beta, *terms)

    def dropout(self, x, rate):
        """x, with a share `rate` of its elements zeroed, the others / (1 - rate).

        In float32: bfloat16 would draw and scale too coarsely.
        """
        if not rate:
            return x
        if self._draws is None:
            return dropout(self.to_float32(x), rate)
        return _keep(self.to_float32(x), self._uniform(get_shape_list(x)) >= rate, rate)

    # --- Attention ---

    def project_by_head(self, x, z, qkv, heads):
        """Q = x W_q + b_q, K = z W_k + b_k, V = z W_v + b_v, split by head.

        Args:
          x: `_Hidden` [B*Q, H].
          z: `_Hidden` [B*S, H]; the same object as x where every position attends.
          qkv: `_Dense` [H, 3H], the three layers side by side.
          heads: int, N.

        Returns:
          Q: [B, N, Q, D]. K, V: [B, N, S, D].
        """
        size = get_shape_list(qkv.kernel)[0]

        def project(x, weights, parts):
            """`_Hidden` [B*S, H] -> a list of `parts` tensors [B, N, S, D]."""
            shape = [x.batch, x.length, parts, heads, size // heads]
            y = tf.reshape(self.dense(x, weights), shape)
            return tf.unstack(tf.transpose(y, [2, 0, 3, 1, 4]))

        if x is z:
            return project(x, qkv, 3)
        of_x, of_z = (
            _Dense(*pair)
            for pair in zip(
                *[tf.split(tensor, [size, 2 * size], axis=-1) for tensor in qkv]
            )
        )
        return project(x, of_x, 1) + project(z, of_z, 2)

    def attention(self, query, key, value, mask_bias, dropout_prob):
        """softmax(Q K^T + mask_bias) V, with dropout of the softmax.

        The division by sqrt(D) is in Q already, see `_attend`.

        Args:
          query: [B, N, Q, D].
          key, value: [B, N, S, D].
          mask_bias: float32 [B, 1, 1, S].
          dropout_prob: float.

        Returns:
          [B, N, Q, D], in the dtype of `query`.

        Raises:
          ValueError: ranks, heads, head sizes or lengths do not fit.
        """
        _check_attention(query, key, value, mask_bias)

        @self._with_gradient
        def attention(query, key, value, mask_bias):
            scores = tf.matmul(query, key, transpose_b=True)  # [B, N, Q, S]
            with self._fused():
                exact = tf.nn.softmax(self.to_float32(scores) + mask_bias)
                probabilities = tf.cast(exact, scores.dtype)
            kept = probabilities
            if dropout_prob:
                is_kept = self._uniform(get_shape_list(scores)) >= dropout_prob
                kept = tf.cast(_keep(exact, is_kept, dropout_prob), scores.dtype)
            context = tf.matmul(kept, value)  # [B, N, Q, D]

            def gradient(d_context):
                d_value = tf.matmul(kept, d_context, transpose_a=True)
                d_probabilities = tf.matmul(d_context, value, transpose_b=True)
                if dropout_prob:
                    d_probabilities = _keep(
                        self.to_float32(d_probabilities), is_kept, dropout_prob
                    )
                # mean = sum(d_probabilities * probabilities) over S, but from the
                # smaller context and d_context (arXiv:2205.14135, appendix B.2). In a
                # kernel of its own: in the next one XLA would repeat it per score.
                with self._fused():
                    products = self.to_float32(context) * self.to_float32(d_context)
                    mean = tf.reduce_sum(products, axis=-1, keepdims=True)
                with self._fused():
                    d_scores = self.to_float32(probabilities) * (
                        self.to_float32(d_probabilities) - mean
                    )
                    d_scores = tf.cast(d_scores, scores.dtype)  # [B, N, Q, S]
                d_query = tf.matmul(d_scores, key)
                d_key = tf.matmul(d_scores, query, transpose_a=True)
                d_bias = tf.reduce_sum(self.to_float32(d_scores), [1, 2], keepdims=True)
                return d_query, d_key, d_value, d_bias

            return context, gradient

        return attention(query, key, value, mask_bias)

    # --- Activations, losses ---

    def activate(self, name, x):
        """f(x), element by element, for the activation `name`, in the dtype of x.

        GELU is computed in float32, or in float64 if x is that.
        """
        value_and_slope = _WITH_SLOPE.get(name)
        if value_and_slope is None:
            function = get_activation(name)
            return function(x) if function else x

        @self._with_gradient
        def activate(x):
            with self._fused():
                wide = x if x.dtype == tf.float64 else self.to_float32(x)
                y, slope = (tf.cast(t, x.dtype) for t in value_and_slope(wide))

            def gradient(d_y):
                with self._fused():
                    return d_y * slope

            return y, gradient

        return activate(x)

    def cross_entropy(self, logits, labels):
        """log(sum(exp(logits))) - logits[label], for each row.

        Args:
          logits: [n, classes].
          labels: int, n of them in any shape.

        Returns:
          float32 [n].
        """
        classes = get_shape_list(logits)[-1]
        labels = tf.reshape(labels, [-1])

        @self._with_gradient
        def cross_entropy(logits, labels):
            # Subtracted before `exp` and added back after `log`: avoids overflow.
            largest = self.to_float32(tf.reduce_max(logits, axis=-1, keepdims=True))
            with self._fused():
                powers = tf.exp(self.to_float32(logits) - largest)
                # Kept for the gradient, and as large as the logits.
                powers = tf.cast(powers, logits.dtype)
            total = tf.reduce_sum(self.to_float32(powers), axis=-1, keepdims=True)
            right = tf.gather(logits, labels[:, tf.newaxis], batch_dims=1)
            losses = tf.log(total) + largest - self.to_float32(right)  # [n, 1]

            def gradient(d_losses):
                scale = d_losses[:, tf.newaxis]
                share = scale / total
                with self._fused():
                    is_right = tf.one_hot(labels, classes)
                    d_logits = self.to_float32(powers) * share - is_right * scale
                    return tf.cast(d_logits, logits.dtype), None

            return tf.squeeze(losses, axis=-1), gradient

        return cross_entropy(logits, labels)

    # --- Layers ---

    def layer(self, run, x, given):
        """run(self, x, given): `_Hidden` and nested tensors -> `_Hidden`.

        With `recompute`, only x is kept for the backward pass, where `run` computes
        the rest again: the same, since dropout draws from a seed that is kept, too.

        Args:
          run: function (`_Kernels`, x, given) -> `_Hidden`.
          x: `_Hidden` [B*S, H].
          given: nested tuples of the tensors and variables that `run` reads and
            that may have gradients.

        Returns:
          `_Hidden`.
        """
        if not self._numerics.recompute:
            return run(self, x, given)
        seed = tf.random_uniform([2], maxval=tf.int32.max, dtype=tf.int32)
        x_parts = x.parts()
        y_form = []

        def forward(*tensors):
            kernels = _Kernels(self._numerics, _Draws(seed))
            y = run(
                kernels,
                x.with_parts(tensors[: len(x_parts)]),
                tf.nest.pack_sequence_as(given, tensors[len(x_parts) :]),
            )
            y_form[:] = [y]
            return y.parts()

        @tf.custom_gradient
        def recomputed(*tensors):
            def gradient(*d_parts):
                # Without these TensorFlow would compute the layer again at once.
                with tf.control_dependencies(_dense_gradients(d_parts)):
                    kept = [tf.identity(tensor) for tensor in tensors]
                pairs = zip(forward(*kept), d_parts)
                parts, upstream = zip(*[p for p in pairs if p[1] is not None])
                return [
                    None if d_kept is None else tf.convert_to_tensor(d_kept)
                    for d_kept in tf.gradients(list(parts), kept, list(upstream))
                ]

            return forward(*tensors), gradient

        parts = recomputed(*x_parts, *tf.nest.flatten(given))
        return y_form[0].with_parts(parts)

    # --- How the above are built ---

    def _with_gradient(self, function):
        """`tf.custom_gradient`; with `plain_gradients`, the function's value alone."""
        if self._numerics.plain_gradients:
            return lambda *arguments: function(*arguments)[0]
        return tf.custom_gradient(function)

    def _uniform(self, shape):
        """Random numbers from [0, 1): float32 of that shape."""
        draw = self._draws.uniform if self._draws else tf.random_uniform
        return draw(shape)

    def _fused(self):
        """A context whose operations XLA compiles into one kernel, with `use_xla`."""
        if not self._numerics.use_xla or tf.executing_eagerly():
            return contextlib.nullcontext()
        return tf.xla.experimental.jit_scope(compile_ops=True)


class _Draws:
    """Random numbers that can be drawn once more, from the same seed."""

    def __init__(self, seed):
        """Begins with the first draw of a seed, int32 [2]."""
        self._seed = seed
        self._number = 0

    def uniform(self, shape):
        """The next draw: float32 of that shape, from [0, 1)."""
        self._number += 1
        return tf.random.stateless_uniform(shape, self._seed + [0, self._number])


def _keep(x, is_kept, rate):
    """Dropout with a drawn mask: x / (1 - rate) where `is_kept`, else 0."""
    return tf.where(is_kept, x / (1.0 - rate), tf.zeros_like(x))


def _check_attention(query, key, value, mask_bias):
    """Raises `ValueError` where shapes do not fit; unknown dimensions do."""
    batch, heads, _, head_size = query.shape.with_rank(4).as_list()
    length = key.shape.with_rank(4).as_list()[2]
    for name, tensor, expected in (
        ("key", key, [batch, heads, length, head_size]),
        ("value", value, [batch, heads, length, head_size]),
        ("mask_bias", mask_bias, [batch, 1, 1, length]),
    ):
        if not tensor.shape.is_compatible_with(expected):
            raise ValueError(
                "attention: {} has shape {}, expected {} beside query {}".format(
                    name, tensor.shape, expected, query.shape
                )
            )


def _gelu_with_slope(x):
    """f(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), and f'(x)."""
    scale = math.sqrt(2.0 / math.pi)
    square = tf.square(x)
    tanh = tf.tanh(x * (scale + 0.044715 * scale * square))
    share = 0.5 + 0.5 * tanh
    d_inner = scale + 3.0 * 0.044715 * scale * square
    return x * share, share + 0.5 * x * (1.0 - tf.square(tanh)) * d_inner


def _gelu_exact_with_slope(x):
    """f(x) = x/2 (1 + erf(x / sqrt(2))), and f'(x)."""
    share = 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0)))
    density = tf.exp(-0.5 * tf.square(x)) / math.sqrt(2.0 * math.pi)
    return x * share, share + x * density


# Activations whose slope is written by hand.
_WITH_SLOPE = {"gelu": _gelu_with_slope, "gelu_exact": _gelu_exact_with_slope}


def _sum(tensors):
    """The tensors' sum, in float32."""
    # TensorFlow would rewrite a chain of `+`, which takes it out of XLA's kernel.
    return tf.add_n([tf.cast(tensor, tf.float32) for tensor in tensors])


def _column_sums(x):
    """The sum over n: [n, size] -> [size]. A product is the fastest way to it."""
    ones = tf.ones([1, get_shape_list(x)[0]], x.dtype)
    return tf.matmul(ones, x)[0]


def _dense_gradients(upstream):
    """The upstream gradients as dense tensors, without those that are None."""
    # TensorFlow 1.15 passes None for a bfloat16 output that nothing reads, and
    # `IndexedSlices` for one that a gather reads.
    return [tf.convert_to_tensor(d_y) for d_y in upstream if d_y is not None]


# --- Functions other projects call by these names ----------------------------

# Differentiable twice and after an import, like the functions they are named after.
_PLAIN = _Kernels(Numerics(plain_gradients=True))


def layer_norm(input_tensor, name=None):
    """Layer normalization over the last axis, with variables of its own.

    Args:
      input_tensor: float32 [..., size], the last dimension static.
      name: scope of its `beta` and `gamma`, default "LayerNorm"; a second one in the
        same scope is "LayerNorm_1".

    Returns:
      float32 [..., size].
    """
    size = get_shape_list(input_tensor)[-1]
    with tf.variable_scope(name, default_name="LayerNorm") as scope:
        norm = _norm_variables(scope, size)
    return _PLAIN.layer_norm(input_tensor, norm)


def layer_norm_and_dropout(input_tensor, dropout_prob, name=None):
    """`layer_norm`, then `dropout`."""
    return dropout(layer_norm(input_tensor, name), dropout_prob)


def dropout(input_tensor, dropout_prob):
    """Zeroes elements with probability `dropout_prob`; None or 0.0 does nothing."""
    if not dropout_prob:
        return input_tensor
    return tf.nn.dropout(input_tensor, rate=dropout_prob)


def gelu(x):
    """GELU in its tanh form (arXiv:1606.08415, section 2), as the models use it."""
    return _PLAIN.activate("gelu", x)


def gelu_exact(x):
    """GELU in its exact form, x Phi(x), which PyTorch's models call "gelu"."""
    return _PLAIN.activate("gelu_exact", x)


def get_activation(name):
    """Returns the activation function called `name`; a function is returned as it is.

    Args:
      name: "gelu", "gelu_exact", "relu", "tanh" or "linear", as is None or ""; in
        upper or lower case.

    Returns:
      Function of a tensor; None for "linear", as in BERT's code.

    Raises:
      ValueError: `name` is none of these.
    """
    if callable(name):
        return name
    _check_activation(name)
    functions = {
        "gelu": gelu,
        "gelu_exact": gelu_exact,
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
    }
    return functions.get((name or "").lower())


def _check_activation(name):
    """Raises `ValueError` unless `get_activation` takes it; needs no TensorFlow."""
    if callable(name) or name is None:
        return
    known = ("gelu", "gelu_exact", "relu", "tanh", "linear", "")
    if not isinstance(name, str) or name.lower() not in known:
        raise ValueError(
            "hidden_act must be gelu, gelu_exact, relu, tanh or linear, received "
            "{!r}".format(name)
        )


def create_initializer(initializer_range=0.02):
    """Returns a truncated normal initializer of that standard deviation."""
    return tf.truncated_normal_initializer(stddev=initializer_range)


def assert_rank(tensor, expected_rank, name=None):
    """Checks the rank of a tensor.

    Args:
      tensor: any tensor of known rank.
      expected_rank: int or a collection of ints.
      name: name for the error message.

    Raises:
      ValueError: the rank is not the expected one.
    """
    ranks = [expected_rank] if isinstance(expected_rank, int) else list(expected_rank)
    static = tensor.shape.as_list()
    if len(static) not in ranks:
        raise ValueError(
            "{} has rank {} (shape {}), expected {}".format(
                name or tensor.name, len(static), static, expected_rank
            )
        )


def get_shape_list(tensor, expected_rank=None, name=None):
    """Returns a tensor's shape: ints where static, scalar tensors elsewhere.

    Args:
      tensor: any tensor of known rank.
      expected_rank: int or a collection of ints; None accepts any.
      name: name for the error message.

    Raises:
      ValueError: the rank is not the expected one.
    """
    if expected_rank is not None:
        assert_rank(tensor, expected_rank, name)
    static = tensor.shape.as_list()
    if all(size is not None for size in static):
        return static
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def reshape_to_matrix(input_tensor):
    """Flattens all but the last axis: [..., n] -> [m, n].

    Raises:
      ValueError: the rank is below 2.
    """
    if input_tensor.shape.ndims < 2:
        raise ValueError(
            "{} has rank {}, expected at least 2".format(
                input_tensor.name, input_tensor.shape.ndims
            )
        )
    if input_tensor.shape.ndims == 2:
        return input_tensor
    return tf.reshape(input_tensor, [-1, input_tensor.shape.as_list()[-1]])


def reshape_from_matrix(output_tensor, orig_shape_list):
    """Undoes `reshape_to_matrix`: [m, n] -> `orig_shape_list`, with n as last size."""
    if len(orig_shape_list) == 2:
        return output_tensor
    width = get_shape_list(output_tensor)[-1]
    return tf.reshape(output_tensor, orig_shape_list[:-1] + [width])


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
    """Matches variables with a checkpoint's by name.

    Args:
      tvars: list of variables.
      init_checkpoint: path prefix of a TensorFlow checkpoint.

    Returns:
      assignment_map: OrderedDict checkpoint name -> variable name, for
        `tf.train.init_from_checkpoint`. The two differ in checkpoints with the names
        of Keras or of TensorFlow Hub (`usual_names`).
      initialized_variable_names: dict with the names of the variables that the
        map restores, with and without ":0", each to 1.
    """
    names = {re.sub(r":\d+$", "", variable.name) for variable in tvars}
    assignment_map = collections.OrderedDict()
    initialized_variable_names = {}
    stored = [name for name, _ in tf.train.list_variables(init_checkpoint)]
    usual = usual_names(stored)
    for name in stored:
        if usual[name] in names:
            assignment_map[name] = usual[name]
            initialized_variable_names[usual[name]] = 1
            initialized_variable_names[usual[name] + ":0"] = 1
    return assignment_map, initialized_variable_names


_MODULE = re.compile(r"^module/(?=(bert|albert|cls)/)")
_LAYER_OF_GROUP = re.compile(r"/(group_\d+)(?:_\d+)?/layer_\d+/(?=inner_group_\d+/)")
_KERAS_NORM = re.compile(
    r"^(?P<scope>.*)/layer_normalization(?:_(?P<number>\d+))?/(?P<rest>.*)$"
)


def usual_names(names):
    """Finds out which variables other releases of the published code mean.

    Google's ALBERT code names layer norms as Keras does when TensorFlow 2 runs it, and
    its TensorFlow Hub modules count layers in the names of shared ones:

      bert/embeddings/layer_normalization/gamma
      bert/encoder/transformer/group_0/layer_0/inner_group_0/layer_normalization_2/beta
      module/bert/encoder/transformer/group_0_11/layer_11/inner_group_0/LayerNorm/gamma

    Args:
      names: iterable of the names of a checkpoint's variables.

    Returns:
      Dict of every name to the one that `AlbertModel` gives that variable; a name
      stays as it is if its usual name is taken.
    """
    renamed = _rename_norms(
        {
            name: _LAYER_OF_GROUP.sub(r"/\1/", _MODULE.sub("", name), count=1)
            for name in names
        }
    )
    uses = collections.Counter(renamed.values())
    return {
        name: new if uses[new] == 1 else name for name, new in sorted(renamed.items())
    }


def _rename_norms(renamed):
    """Renames Keras' layer norms; the first of a scope is LayerNorm, then LayerNorm_1.

    Args:
      renamed: dict of the stored name to the name so far.
    """
    matches = {name: _KERAS_NORM.match(new) for name, new in renamed.items()}
    numbers = collections.defaultdict(set)
    for match in filter(None, matches.values()):
        numbers[match.group("scope")].add(int(match.group("number") or 0))
    result = dict(renamed)
    for name, match in matches.items():
        if match:
            held = sorted(numbers[match.group("scope")])
            place = held.index(int(match.group("number") or 0))
            suffix = "_{}".format(place) if place else ""
            result[name] = "{}/LayerNorm{}/{}".format(
                match.group("scope"), suffix, match.group("rest")
            )
    return result


def count_parameters(variables):
    """Returns the number of scalars in these variables."""
    return sum(int(np.prod(variable.shape.as_list())) for variable in variables)


# --- BERT's building blocks, for projects that build encoders of their own -----------

# The same arguments, variables and results as in BERT's modeling.py. `AlbertModel`
# does not use them.


def embedding_lookup(
    input_ids,
    vocab_size,
    embedding_size=128,
    initializer_range=0.02,
    word_embedding_name="word_embeddings",
    use_one_hot_embeddings=False,
):
    """Looks up word embeddings.

    Args:
      input_ids: int [B, S] or [B, S, n].
      vocab_size: int, V.
      embedding_size: int, E.
      initializer_range: float, standard deviation of the new table.
      word_embedding_name: name of its variable.
      use_one_hot_embeddings: bool; as in `AlbertModel`.

    Returns:
      float32 [B, S, E] or [B, S, n * E], and the table, float32 [V, E].
    """
    table = tf.get_variable(
        word_embedding_name,
        [vocab_size, embedding_size],
        initializer=create_initializer(initializer_range),
    )
    if input_ids.shape.ndims == 2:
        input_ids = tf.expand_dims(input_ids, -1)
    shape = get_shape_list(input_ids)
    words = _PLAIN.lookup(table, tf.reshape(input_ids, [-1]), use_one_hot_embeddings)
    return tf.reshape(words, shape[:-1] + [shape[-1] * embedding_size]), table


def embedding_postprocessor(
    input_tensor,
    use_token_type=False,
    token_type_ids=None,
    token_type_vocab_size=16,
    token_type_embedding_name="token_type_embeddings",
    use_position_embeddings=True,
    position_embedding_name="position_embeddings",
    initializer_range=0.02,
    max_position_embeddings=512,
    dropout_prob=0.1,
):
    """Adds segment and position embeddings, then LayerNorm and dropout.

    Args:
      input_tensor: float32 [B, S, E].
      use_token_type: bool; whether to add the segments' embeddings.
      token_type_ids: int [B, S], required then.
      token_type_vocab_size: int, number of segments.
      token_type_embedding_name: name of their table.
      use_position_embeddings: bool; whether to add the positions' embeddings.
      position_embedding_name: name of their table.
      initializer_range: float, standard deviation of the new tables.
      max_position_embeddings: int, rows of the positions' table.
      dropout_prob: float.

    Returns:
      float32 [B, S, E].

    Raises:
      ValueError: `token_type_ids` is missing, or S is above `max_position_embeddings`.
    """
    _, length, width = shape = get_shape_list(input_tensor, expected_rank=3)
    initializer = create_initializer(initializer_range)
    output = input_tensor
    if use_token_type:
        if token_type_ids is None:
            raise ValueError("use_token_type requires token_type_ids")
        table = tf.get_variable(
            token_type_embedding_name,
            [token_type_vocab_size, width],
            initializer=initializer,
        )
        ids = tf.reshape(token_type_ids, [-1])
        segments = tf.matmul(tf.one_hot(ids, token_type_vocab_size), table)
        output += tf.reshape(segments, shape)
    if use_position_embeddings:
        if isinstance(length, int) and length > max_position_embeddings:
            raise ValueError(
                "sequence length {} is above max_position_embeddings {}".format(
                    length, max_position_embeddings
                )
            )
        table = tf.get_variable(
            position_embedding_name,
            [max_position_embeddings, width],
            initializer=initializer,
        )
        output += table[:length]
    return layer_norm_and_dropout(output, dropout_prob)


def create_attention_mask_from_input_mask(from_tensor, to_mask):
    """Lets every query attend to the same tokens.

    Args:
      from_tensor: [B, Q] or [B, Q, ...].
      to_mask: int [B, S], 1 for tokens, 0 for padding.

    Returns:
      float32 [B, Q, S], `to_mask` for every query.
    """
    batch, queries = get_shape_list(from_tensor, expected_rank=[2, 3])[:2]
    to_mask = tf.cast(to_mask, tf.float32)[:, tf.newaxis, :]  # [B, 1, S]
    return tf.ones([batch, queries, 1], tf.float32) * to_mask


def attention_layer(
    from_tensor,
    to_tensor,
    attention_mask=None,
    num_attention_heads=1,
    size_per_head=512,
    query_act=None,
    key_act=None,
    value_act=None,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.02,
    do_return_2d_tensor=False,
    batch_size=None,
    from_seq_length=None,
    to_seq_length=None,
):
    """Multi-head attention (arXiv:1706.03762, section 3.2) without output projection.

    Args:
      from_tensor: float32 [B, Q, width] or [B*Q, width], where the queries are from.
      to_tensor: float32 [B, S, width] or [B*S, width], keys and values.
      attention_mask: [B, Q, S], 1 for tokens, 0 for padding; None for all tokens.
      num_attention_heads: int, N.
      size_per_head: int, D.
      query_act, key_act, value_act: functions, names (`get_activation`) or None.
      attention_probs_dropout_prob: float.
      initializer_range: float, standard deviation of new kernels.
      do_return_2d_tensor: bool; which form to return.
      batch_size, from_seq_length, to_seq_length: B, Q and S, required for matrices.

    Returns:
      float32 [B, Q, N*D], or [B*Q, N*D].

    Raises:
      ValueError: the ranks differ, or B, Q or S is missing.
    """
    shape = get_shape_list(from_tensor, expected_rank=[2, 3])
    assert_rank(to_tensor, len(shape))
    if len(shape) == 3:
        batch_size, from_seq_length = shape[:2]
        to_seq_length = get_shape_list(to_tensor)[1]
    if None in (batch_size, from_seq_length, to_seq_length):
        raise ValueError(
            "matrices require batch_size, from_seq_length and to_seq_length"
        )
    width = num_attention_heads * size_per_head

    def project(x, name, activation, length):
        x = _dense_layer(x, width, name, activation, initializer_range)
        x = tf.reshape(x, [batch_size, length, num_attention_heads, size_per_head])
        return tf.transpose(x, [0, 2, 1, 3])  # [B, N, length, D]

    query = project(from_tensor, "query", query_act, from_seq_length)
    key = project(to_tensor, "key", key_act, to_seq_length)
    value = project(to_tensor, "value", value_act, to_seq_length)
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(size_per_head)
    if attention_mask is not None:
        is_token = tf.cast(attention_mask, tf.float32)[:, tf.newaxis]
        scores += (1.0 - is_token) * _MASKED_SCORE  # [B, N, Q, S]
    weights = dropout(tf.nn.softmax(scores), attention_probs_dropout_prob)
    context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])  # [B, Q, N, D]
    if do_return_2d_tensor:
        return tf.reshape(context, [-1, width])
    return tf.reshape(context, [batch_size, from_seq_length, width])


def transformer_model(
    input_tensor,
    attention_mask=None,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    intermediate_act_fn=gelu,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    initializer_range=0.02,
    do_return_all_layers=False,
):
    """BERT's encoder: post-LN layers that share nothing.

    Args:
      input_tensor: float32 [B, S, H].
      attention_mask: [B, S, S], 1 where a query may attend, else 0; None for all.
      hidden_size, num_hidden_layers, num_attention_heads, intermediate_size,
        hidden_dropout_prob, attention_probs_dropout_prob, initializer_range: as in
        `AlbertConfig`.
      intermediate_act_fn: function or name (`get_activation`).
      do_return_all_layers: bool; which outputs to return.

    Returns:
      float32 [B, S, H], or a list of L of them.

    Raises:
      ValueError: the sizes do not fit.
    """
    batch, length, width = shape = get_shape_list(input_tensor, expected_rank=3)
    if width != hidden_size or hidden_size % num_attention_heads:
        raise ValueError(
            "hidden_size {} must be the width {} of {} and a multiple of "
            "num_attention_heads {}".format(
                hidden_size, width, input_tensor.name, num_attention_heads
            )
        )

    def project_and_add(x, residual):
        with tf.variable_scope("output"):
            x = _dense_layer(x, hidden_size, "dense", None, initializer_range)
            return layer_norm(dropout(x, hidden_dropout_prob) + residual)

    x, outputs = reshape_to_matrix(input_tensor), []
    for layer in range(num_hidden_layers):
        with tf.variable_scope("layer_{}".format(layer)):
            with tf.variable_scope("attention"):
                with tf.variable_scope("self"):
                    context = attention_layer(
                        x,
                        x,
                        attention_mask,
                        num_attention_heads,
                        hidden_size // num_attention_heads,
                        attention_probs_dropout_prob=attention_probs_dropout_prob,
                        initializer_range=initializer_range,
                        do_return_2d_tensor=True,
                        batch_size=batch,
                        from_seq_length=length,
                        to_seq_length=length,
                    )
                x = project_and_add(context, x)
            with tf.variable_scope("intermediate"):
                inner = _dense_layer(
                    x,
                    intermediate_size,
                    "dense",
                    intermediate_act_fn,
                    initializer_range,
                )
            x = project_and_add(inner, x)
        outputs.append(reshape_from_matrix(x, shape))
    return outputs if do_return_all_layers else outputs[-1]


def _dense_layer(x, output_size, name, activation, initializer_range):
    """activation(x W + b) of a matrix or of [B, S, n], which becomes a matrix."""
    x = reshape_to_matrix(x)
    width = get_shape_list(x)[-1]
    weights = _dense_variables(name, width, output_size, initializer_range)
    x, function = _PLAIN.dense(x, weights), get_activation(activation)
    return function(x) if function else x
