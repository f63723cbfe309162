"""What a kind of task is to the one fine-tuning loop of `fine_tuning`.

A kind turns examples into features, adds its head to the encoder, turns the head's
outputs into predictions, and scores them. Epochs, checkpoints, resuming, batches and
result files are the loop's.
"""

import abc
import contextlib
from typing import Any, Dict, NamedTuple, Tuple

import modeling
from albert_zh.base.lazy import tensorflow as tf

# BERT's and ALBERT's scripts drop a tenth of what a head reads, whatever dropout the
# encoder's config asks for (it asks for none in the published tiny and xxlarge).
HEAD_DROPOUT = 0.1
# Seeds that lie side by side draw from places far apart.
_MIXING_PRIME = 1000003


class Variable(NamedTuple):
    """A variable of a head.

    Attributes:
      name: its name in checkpoints.
      shape: tuple of int.
      is_bias: bool; a bias starts at 0, another one as the encoder's matrices.
    """

    name: str
    shape: Tuple[int, ...]
    is_bias: bool = False


class Kind(abc.ABC):
    """One kind of task, with the files of the model to train or to apply.

    Attributes:
      files: `model_files.TaskFiles`.
      tokenizer: `tokenization.FullTokenizer`.
      target_fields: class attribute, tuple of `features.Field`: what the records hold
        beside the encoder's inputs.
      reads_sequence: class attribute, whether the head reads the outputs of all tokens;
        else it reads the first token's alone, and the last layer computes no other.
      has_head_dropout: class attribute, whether `outputs` drops what the head reads.
      tie_breakers: class attribute, tuple of the scores that decide between epochs
        whose metric is equal.
      min_labels: class attribute, int, the fewest labels a model has.
      prediction_files: class attribute, tuple of the names `write_predictions` uses.
      metrics: class attribute, tuple of the scores that --metric may name; the higher,
        the better, but for `loss`.
      decision: dict ready for JSON, of what `fit_decision` chose on dev; {} at first.
      options: class attribute, dict name -> JSON Schema of what `TaskFiles.options` may
        hold, and nothing else.
      needed_options: class attribute, tuple of those that cannot be missing.
      usage_options: class attribute, tuple of those options that may be others where a
        model is used than where it was trained.
      teacher_fields: tuple of `features.Field`: the logits of a teacher that the
        records of a student hold, see `distillation`.
      has_temperature: class attribute, whether these logits are of probabilities.
    """

    target_fields = ()
    reads_sequence = False
    has_head_dropout = True
    tie_breakers = ()
    min_labels = 0
    prediction_files = ()
    metrics = ()
    options = {}
    needed_options = ()
    usage_options = ()
    teacher_fields = ()
    has_temperature = True

    def __init__(self, files):
        """Builds the tokenizer.

        Raises:
          UserError: the vocabulary or the options cannot be used.
        """
        self.check_options(files)
        self.files = files
        self.decision = {}
        self.tokenizer = files.build_tokenizer()

    @classmethod
    def check_options(cls, files):
        """Checks the options of a model against its other settings.

        Args:
          files: `model_files.TaskFiles`.

        Raises:
          UserError: they cannot go together.
        """
        del files

    @classmethod
    def find_labels(cls, data):
        """Returns the tuple of labels of a training file; () for a kind without any.

        Args:
          data: labelled `reading.ExampleFile`.

        Raises:
          UserError: the file has none that can be used.
        """
        del data
        return ()

    @classmethod
    @abc.abstractmethod
    def head(cls, files):
        """Returns the tuple of the head's `Variable`s for a `model_files.TaskFiles`."""

    @abc.abstractmethod
    def build_features(self, example):
        """Turns an example into model inputs.

        Returns:
          List of `features.Features`, one for each window of the example, at least one.
        """

    @abc.abstractmethod
    def outputs(self, model, drop=None):
        """Adds the head, which creates the variables of `head`.

        Args:
          model: `modeling.AlbertModel` of a batch of windows.
          drop: `HeadDropout` of a training; None for no dropout.

        Returns:
          Dict name -> float32 tensor; what `losses` and `predictions` read.
        """

    @abc.abstractmethod
    def losses(self, outputs, features, objective):
        """The losses to minimize the mean of.

        Args:
          outputs: dict from `outputs`.
          features: dict name -> tensor, of `features.Features` and `target_fields`.
          objective: `objective.Objective`; what it adds to these losses is none of the
            kind's business.

        Returns:
          float32 [B].
        """

    @classmethod
    def check_has_soft_losses(cls, files, flag):
        """Checks that a model can be compared with another one's outputs.

        Args:
          files: `model_files.TaskFiles`.
          flag: str, what the message begins with.

        Raises:
          UserError: it cannot.
        """
        del files, flag

    @classmethod
    def token_settings(cls, files):
        """What else decides which tokens a window has, dict name of a flag -> value."""
        del files
        return {}

    @classmethod
    def class_names(cls, files):
        """The names of the outputs along the last axis of a teacher's logits.

        Returns:
          Tuple of str; () where outputs have no names.
        """
        del files
        return ()

    def teacher_outputs(self, outputs, features):
        """The logits that a student of this model learns from.

        Args:
          outputs, features: as those of `predictions`.

        Returns:
          Dict name of one of `teacher_fields` -> float32 tensor [B, ...].
        """
        raise NotImplementedError

    def num_teacher_rows(self, window):
        """How many rows of a window's logits are not padding; None for all.

        Args:
          window: `features.Features`.
        """
        del window

    def soft_losses(self, outputs, features, temperature):
        """How far the model is from its teacher, or from another pass of its own.

        Args:
          outputs: dict from `outputs`.
          features: as `losses` takes it, with the `teacher_fields`.
          temperature: float; see `distillation_losses`.

        Returns:
          float32 [B].
        """
        raise NotImplementedError

    @abc.abstractmethod
    def predictions(self, outputs, features):
        """What a session fetches to predict.

        Args:
          outputs, features: as those of `losses`; without the targets.

        Returns:
          Dict name -> tensor [B, ...].
        """

    @abc.abstractmethod
    def decode(self, example, windows, predicted):
        """Turns what the model predicts for an example's windows into a prediction.

        Args:
          example: the example.
          windows: list of its `features.Features`.
          predicted: list of dicts name -> array, a row of `predictions` for each
            window. In a row with a value for each token, padding follows the window.

        Returns:
          A prediction, as the other methods take it.
        """

    def fit_decision(self, examples, predictions):
        """Chooses on dev how predictions become answers, such as by a threshold.

        The loop sets `decision` to it before it calls `score`, and keeps it beside the
        model, for `score` and `write_predictions` of later runs.

        Args:
          examples, predictions: as those of `score`.

        Returns:
          Dict ready for JSON of numbers; {} where there is nothing to choose.
        """
        del examples, predictions
        return {}

    @abc.abstractmethod
    def score(self, examples, predictions):
        """Scores predictions.

        Args:
          examples: list of labelled examples.
          predictions: list of what `decode` returned for each.

        Returns:
          Dict ready for JSON. It has the metric that `files.task.metric` names.
        """

    @abc.abstractmethod
    def write_predictions(self, output_dir, data, predictions):
        """Writes predictions for people and for judges.

        Args:
          output_dir: str, an existing directory.
          data: what was predicted, such as a `reading.TextFile`.
          predictions: iterable of (example, prediction), in the order of the data.

        Returns:
          The path to name to the user.
        """

    @contextlib.contextmanager
    def open_submission(self, path, data):
        """Opens what a judge reads; it appears whole, when the block ends.

        Args:
          path: of the file.
          data: as that of `write_predictions`.

        Yields:
          A function (example, prediction) that adds one, in the order of the data.
        """
        raise NotImplementedError("{} has no judge".format(self.files.task.name))

    @property
    def ranked_by(self):
        """The names of the scores that `rank` compares."""
        metric = self.files.task.metric
        return (metric,) + tuple(n for n in self.tie_breakers if n != metric)

    def rank(self, scores):
        """Sort key of scores, larger is better: the metric, then the tie breakers.

        Args:
          scores: dict that has the numbers of `ranked_by`.
        """
        return tuple(
            -scores[name] if name == "loss" else scores[name] for name in self.ranked_by
        )

    @abc.abstractmethod
    def headline(self, scores):
        """The most telling scores as one short text."""

    def report(self, name, scores):
        """The scores of one split as lines of text.

        Args:
          name: of the split.
          scores: dict from `score`.
        """
        return "{}: {} examples, {}\n".format(
            name, scores["num_examples"], self.headline(scores)
        )


def create_variables(variables):
    """Creates the variables of a head.

    Args:
      variables: tuple of `Variable`.

    Returns:
      List of float32 tensors.
    """
    return [
        tf.get_variable(
            name,
            shape,
            initializer=tf.zeros_initializer()
            if is_bias
            else modeling.create_initializer(),
        )
        for name, shape, is_bias in variables
    ]


class HeadDropout:
    """Dropout of what a head reads in training, with `HEAD_DROPOUT`.

    A mask follows from a seed, the global step and the number of the call, so that a
    training that is resumed draws what it would have drawn without the interruption.
    """

    def __init__(self, seed):
        """Begins with the first mask of a step; `seed` is an int."""
        self._seed = seed
        self._number = 0

    def __call__(self, x):
        """x, float32 of any shape, with another mask than the call before."""
        self._number += 1
        if not HEAD_DROPOUT:
            return x
        first = (self._seed * _MIXING_PRIME + self._number) % 2**31
        step = tf.cast(tf.train.get_or_create_global_step(), tf.int32)
        drawn = tf.random.stateless_uniform(tf.shape(x), [first, step])
        return tf.where(drawn >= HEAD_DROPOUT, x / (1 - HEAD_DROPOUT), tf.zeros_like(x))


def describe_head(variables):
    """Returns the dict name -> shape (list) of a head's variables."""
    shapes: Dict[str, Any] = {}
    for variable in variables:
        shapes[variable.name] = list(variable.shape)
    return shapes
