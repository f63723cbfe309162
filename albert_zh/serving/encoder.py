"""A model without a task: vectors of texts, and words for [MASK].

It has the methods of a `kind.Kind` that prediction needs.
"""

import modeling
from albert_zh.base.errors import UserError
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.tasks import features
from albert_zh.tasks.model_files import TaskFiles
from albert_zh.tasks.registry import Task

# A Task so that all that is served has one; it is not among the tasks to train.
TASK = Task(name="encoder", columns=("text_a", "label"), kind="encoder")
# The same model's, for files of pairs.
PAIR_TASK = TASK._replace(columns=("text_a", "text_b", "label"))

# How the vectors of a text's tokens, [CLS] and [SEP] included, become one vector:
# `cls` takes that of [CLS], `mean` the mean of all, of the last layer;
# `first_last_mean` the mean of the means of the first and the last layer
# (arXiv:2103.15316).
POOLINGS = ("cls", "mean", "first_last_mean")
DEFAULT_POOLING = "mean"

MASK = "[MASK]"
MASK_POSITIONS = "masked_lm_positions"
# Name of the output of the masked language model.
MASK_LOGITS = "masked_lm_logits"
_HEAD = "cls/predictions/"


def files_of(
    config,
    vocab_file,
    spm_model_file,
    do_lower_case=None,
    normalize_punctuation=False,
    max_seq_length=None,
):
    """Returns the `model_files.TaskFiles` of a model without a task.

    Args:
      config: `modeling.AlbertConfig`.
      vocab_file, spm_model_file: paths, one of them None.
      do_lower_case: bool; None for True.
      normalize_punctuation: bool.
      max_seq_length: int; None for all positions that the model has.
    """
    return TaskFiles(
        config,
        TASK,
        labels=(),
        vocab_file=vocab_file,
        spm_model_file=spm_model_file,
        do_lower_case=do_lower_case is not False,
        normalize_punctuation=normalize_punctuation,
        max_seq_length=max_seq_length or config.max_position_embeddings,
    )


class Encoder:
    """Vectors of texts and of pairs of texts.

    A prediction is float32 [H].

    Attributes:
      files: `model_files.TaskFiles`, of `TASK`.
      tokenizer: `tokenization.FullTokenizer`.
      pooling: one of `POOLINGS`.
    """

    target_fields = ()
    reads_sequence = True

    def __init__(self, files, pooling=DEFAULT_POOLING):
        """Builds the tokenizer; raises `UserError` where it cannot."""
        self.files = files
        self.pooling = pooling
        self.tokenizer = files.build_tokenizer()

    def build_features(self, example):
        """The inputs of a `reading.Example`; see `kind.Kind`."""
        texts, length = example[:2], self.files.max_seq_length
        return [features.pair_features(self.tokenizer, *texts, length)]

    def outputs(self, model):
        """Returns the dict of the tensors that can be fetched.

        Args:
          model: `modeling.AlbertModel`.

        Returns:
          `layer_1` to `layer_L` float32 [B, T, H].
        """
        layers = model.get_all_encoder_layers()
        return {layer_name(i): layer for i, layer in enumerate(layers)}

    def predictions(self, outputs, features):
        """Returns the dict of the vectors [B, H] of `pooling`, under its name."""
        return {self.pooling: self.vectors(outputs, features)[self.pooling]}

    def vectors(self, outputs, features):
        """Returns the dict of the vectors [B, H] of each of `POOLINGS`."""
        mask = tf.expand_dims(tf.cast(features["input_mask"], tf.float32), 2)
        number = tf.reduce_sum(mask, axis=1)

        def mean(layer):
            # A product of matrices: TensorFlow Lite 2.15 multiplies element by element
            # in place, also in the memory of a layer that is an output.
            total = tf.matmul(mask, layer, transpose_a=True)  # [B, 1, H]
            return tf.squeeze(total, axis=1) / number

        last_name = layer_name(self.files.config.num_hidden_layers - 1)
        first, last = outputs[layer_name(0)], outputs[last_name]
        return {
            "cls": last[:, 0],
            "mean": mean(last),
            "first_last_mean": (mean(first) + mean(last)) / 2,
        }

    def decode(self, example, windows, predicted):
        """See `kind.Kind`."""
        del example, windows
        return predicted[0][self.pooling]

    def mask_features(self, text):
        """The inputs of a text with [MASK] in it, and where these are.

        Returns:
          (`features.Features`, list of int).

        Raises:
          UserError: there is no [MASK].
        """
        pieces = text.split(MASK)
        if len(pieces) < 2:
            raise UserError("no [MASK] in the text {:.100}".format(repr(text)))
        tokens = ["[CLS]"] + self.tokenizer.tokenize(pieces[0])
        positions = []
        for piece in pieces[1:]:
            positions.append(len(tokens))
            tokens += [MASK] + self.tokenizer.tokenize(piece)
        ids = self.tokenizer.convert_tokens_to_ids(tokens + ["[SEP]"])
        return features.Features(ids, [0] * len(ids)), positions


def layer_name(number):
    """Name of the output of a layer, numbered from 0 on."""
    return "layer_{}".format(number + 1)


def is_layer_name(name):
    """Whether an output's name is one of `layer_name`."""
    return name.startswith("layer_")


def mask_logits(config, model, positions):
    """The logits of the masked language model, for a graph.

    Args:
      config: `modeling.AlbertConfig`.
      model: `modeling.AlbertModel`.
      positions: int32 [B, P].

    Returns:
      float32 [B * P, V].
    """
    shape = tf.shape(positions)
    labels, weights = tf.zeros(shape, tf.int32), tf.ones(shape, tf.float32)
    return modeling.get_masked_lm_output(config, model, positions, labels, weights)[2]


def has_mask_head(names):
    """Whether variables of these names include a masked language model."""
    return any(name.startswith(_HEAD) for name in names)
