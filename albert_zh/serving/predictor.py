"""A resident model: it is loaded once, and predicts from then on.

    predictor = load("demo/classifier")
    predictor({"text_a": "怎么开户", "text_b": "如何开户"})

Estimator is not used: it would build the graph and restore the checkpoint for every
prediction.
"""

import os
import re
from typing import Any, List, NamedTuple

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.models import architecture, checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.serving import encoder as encoders
from albert_zh.serving import exported, inputs, vectors
from albert_zh.serving.forms import FORMS, LONGER
from albert_zh.tasks import kinds, model_files, text_lines
from albert_zh.tasks.features import Features
from albert_zh.tasks.registry import get_task

BACKENDS = ("tensorflow", "onnx")
# Instances of a call whose features are in memory together.
_INSTANCES_AT_A_TIME = 10000
# Variables of the heads of tasks.
_HEADS = re.compile(r"output_weights$|ner/|cls/squad/")


class TooLong(UserError):
    """An instance has more tokens than the model takes, and is not to be cut."""


class NotFinite(UserError):
    """The model predicts NaN, whatever the instance."""


class Prepared(NamedTuple):
    """An instance, checked and tokenized; see `Predictor.prepare`."""

    example: Any
    windows: List[Features]


class Predictor:
    """A model that answers instances. Any number of threads may use it at once.

    Attributes:
      files: `model_files.TaskFiles` of the model.
      kind: its `kind.Kind`, or an `encoder.Encoder`.
      backend: what computes; see `backends`.
      task_name, kind_name: str; "encoder" for a model without a task.
      labels: list of str, empty where there are none.
      max_seq_length: int, tokens of a window.
      fields: tuple of the keys of an instance.
    """

    def __init__(self, kind, backend, source, truncate=False):
        """Takes a model that is loaded; see `load`.

        Args:
          kind: `kind.Kind` or `encoder.Encoder`.
          backend: see `backends`.
          source: str, where the model is from, for messages.
          truncate: bool, whether texts over the model's length are cut.
        """
        self.kind, self.files, self.backend = kind, kind.files, backend
        self._source, self._truncate = source, truncate
        self._form = FORMS[self.kind_name](kind)

    @property
    def task_name(self):
        """Name of the task, a key of `registry.TASKS`."""
        return self.files.task.name

    @property
    def kind_name(self):
        """Name of the kind of task, a key of `kinds.KINDS`."""
        return self.files.task.kind

    @property
    def labels(self):
        """The names of the classes, or types of entities."""
        return list(self.files.labels)

    @property
    def max_seq_length(self):
        """Tokens of a window, [CLS] and [SEP] included."""
        return self.files.max_seq_length

    @property
    def fields(self):
        """The keys of an instance."""
        return self._form.fields

    @property
    def may_cut(self):
        """Whether there are texts over the model's length that `truncate` cuts."""
        return self._form.may_cut

    def takes_texts(self, number):
        """Whether this number of texts alone can be an instance."""
        return self._form.takes_texts(number)

    def check(self, instance):
        """Raises `UserError`, one line, for an instance that has no answer."""
        self.prepare(instance)

    def prepare(self, instance):
        """Checks and tokenizes an instance, which needs no model.

        Args:
          instance: dict of `fields`; or a str for the only field, or a list or tuple
            of str for all of them.

        Returns:
          `Prepared`, for `answer`.

        Raises:
          UserError: one line that says what is wrong with the instance.
        """
        try:
            example = self._form.example(instance)
        except RecursionError as error:
            raise UserError("the instance is nested too deeply") from error
        return self.prepare_example(example)

    def prepare_example(self, example):
        """`prepare` of an example, as files of the task are read."""
        windows = self.kind.build_features(example)
        problem = None if self._truncate else self._form.too_long(example, windows)
        if problem:
            raise TooLong(problem)
        return Prepared(example, windows)

    def tokenize(self, text):
        """Returns the tokens of a text, as the model reads it, for people to see.

        Args:
          text: str.

        Returns:
          List of dicts: `token`, `id`, and `start` and `end` in the text.
        """
        tokens = self._form.tokens(text)
        ids = self.kind.tokenizer.convert_tokens_to_ids([token for token, *_ in tokens])
        return [
            {"token": token, "id": int(number), "start": start, "end": end}
            for (token, start, end), number in zip(tokens, ids)
        ]

    def answer(self, prepared):
        """Computes the answers to a list of `Prepared`.

        Returns:
          List of dicts, in the same order.

        Raises:
          NotFinite: the model predicts NaN.
        """
        predictions = self.predict(prepared)
        return [
            self._form.answer(each.example, prediction)
            for each, prediction in zip(prepared, predictions)
        ]

    def predict(self, prepared, batch_size=inputs.MOST_WINDOWS):
        """Returns what the kind's `decode` makes of each of a list of `Prepared`.

        Args:
          prepared: list of `Prepared`.
          batch_size: int, windows of a step at most.

        Raises:
          NotFinite: the model predicts NaN.
        """
        windows = [window for each in prepared for window in each.windows]
        rows = [[None] * len(each.windows) for each in prepared]
        owners = [(i, j) for i, own in enumerate(rows) for j in range(len(own))]
        predictions = [None] * len(prepared)
        for places, batch in inputs.batches(windows, self.max_seq_length, batch_size):
            outputs = self.run(batch)
            for number, place in enumerate(places):
                i, j = owners[place]
                rows[i][j] = {name: out[number] for name, out in outputs.items()}
                # At once: the outputs of all texts together would take gigabytes.
                if None not in rows[i]:
                    predictions[i] = self.kind.decode(*prepared[i], rows[i])
                    rows[i] = ()
        return predictions

    def run(self, batch, names=None):
        """`run` of the back end, see `backends`; raises `NotFinite` for NaN."""
        outputs = self.backend.run(batch, names)
        for values in outputs.values():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise NotFinite(
                    "{} predicts NaN: its weights are damaged or its training "
                    "diverged; train again with a lower learning rate".format(
                        self._source
                    )
                )
        return outputs

    def __call__(self, instances):
        """Answers an instance or a list of instances.

        Args:
          instances: as `prepare` takes it, or a list of such. A list of str is one
            instance where the model takes several texts.

        Returns:
          A dict, or a list of them in the same order.

        Raises:
          UserError: an instance cannot be used; of a list, the message begins with
            its number, from 0 on.
        """
        if self._is_one(instances):
            return self.answer([self.prepare(instances)])[0]
        return self.predict_many(instances)

    def _is_one(self, instances):
        if isinstance(instances, (dict, str)) or not hasattr(instances, "__len__"):
            return True
        is_texts = all(isinstance(text, str) for text in instances)
        takes_several = isinstance(instances, tuple) or len(self.fields) == 2
        return len(instances) > 0 and is_texts and takes_several

    def predict_many(self, instances):
        """Answers a list of instances; see `__call__`."""
        answers = []
        for begin in range(0, len(instances), _INSTANCES_AT_A_TIME):
            prepared = []
            part = instances[begin : begin + _INSTANCES_AT_A_TIME]
            for number, instance in enumerate(part, start=begin):
                try:
                    prepared.append(self.prepare(instance))
                except UserError as error:
                    text = "instance {}: {}".format(number, error)
                    raise UserError(text) from error
            answers += self.answer(prepared)
        return answers

    @property
    def has_mask_head(self):
        """Whether `fill_mask` has words."""
        return encoders.MASK_LOGITS in self.backend.output_names

    def fill_mask(self, text, top_k=5):
        """The most probable words for each [MASK] of a text.

        Args:
          text: str, with [MASK] once or more.
          top_k: int, how many words of each, at most the vocabulary's.

        Returns:
          List of a list of {"token", "probability"} for each [MASK], best first.

        Raises:
          UserError: the text has no [MASK] or is too long, the model is none for it,
            or `top_k` is not positive.
        """
        prepared = self.prepare_masks(text)
        if not (isinstance(top_k, int) and top_k > 0):
            raise UserError("top_k={!r}: expected a positive integer".format(top_k))
        return self.words(prepared, top_k)

    def prepare_masks(self, text):
        """Checks and tokenizes a text of `fill_mask`, which needs no model.

        Returns:
          What `words` takes.

        Raises:
          UserError: as of `fill_mask`.
        """
        if not self.has_mask_head:
            raise UserError(
                "{} has no masked language model; load a pretrained model".format(
                    self._source
                )
            )
        problem = text_lines.text_problem("text", text)
        if problem:
            raise UserError(problem)
        window, positions = self.kind.mask_features(text)
        if len(window.input_ids) > self.max_seq_length:
            raise TooLong(LONGER.format(self.max_seq_length))
        return window, positions

    def words(self, prepared, top_k=5):
        """Computes the answer of `fill_mask` to a text of `prepare_masks`.

        Raises:
          NotFinite: the model predicts NaN.
        """
        window, positions = prepared
        batch = inputs.assemble([window], len(window.input_ids))
        batch[encoders.MASK_POSITIONS] = np.array([positions], np.int32)
        outputs = self.run(batch, (encoders.MASK_LOGITS,))
        return [
            self._largest(logits.astype(np.float64), top_k)
            for logits in outputs[encoders.MASK_LOGITS]
        ]

    def _largest(self, logits, top_k):
        """The words of the largest logits [V], with their probabilities."""
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = vectors.largest(probabilities, top_k).tolist()
        words = self.kind.tokenizer.convert_ids_to_tokens(best)
        return [
            {"token": word, "probability": float(probabilities[i])}
            for word, i in zip(words, best)
        ]

    def close(self):
        """Frees the model."""
        self.backend.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def load(
    directory,
    backend=None,
    truncate=False,
    encoder=False,
    pooling=None,
    shares_cores=False,
):
    """Loads a model.

    Args:
      directory: a fine-tuned model's, its training's (whose `best/` counts), or that
        of a pretrained model, which has vectors and words for [MASK]. It need not be
        writable.
      backend: one of `BACKENDS`; None for "onnx" where the directory is an export,
        else "tensorflow".
      truncate: bool, whether texts over the model's length are cut as in training;
        else they are refused. Entities and answers are looked for in all of a text,
        and a blank is judged by the text around it.
      encoder: bool, whether to take the encoder alone of a fine-tuned model.
      pooling: one of `encoder.POOLINGS`, which vector an encoder answers with; None
        for its default, and for models that have no vectors.
      shares_cores: bool, whether others need the cores while an answer is computed, as
        in a service: threads of an ONNX model then sleep instead of waiting in a loop,
        so that a lone answer takes longer, and it is held twice in memory, see
        `onnx_backend.Sessions`.

    Returns:
      `Predictor`.

    Raises:
      UserError: the directory cannot be used.
    """
    directory = model_directory.resolve(os.fspath(directory))
    if backend is None:
        backend = "onnx" if exported.is_export(directory) else "tensorflow"
    for name, value, known in (
        ("backend", backend, BACKENDS),
        ("pooling", pooling, (None, *encoders.POOLINGS)),
    ):
        if value not in known:
            problem = "{}={!r}: expected one of {}"
            raise UserError(problem.format(name, value, ", ".join(filter(None, known))))
    files = read_files(directory, encoder)
    if pooling and files.task is not encoders.TASK:
        raise UserError(
            "pooling={!r}: {} is a model for {} and has no vectors; remove it".format(
                pooling, directory, files.task.name
            )
        )
    kind = kind_of(files, directory, pooling or encoders.DEFAULT_POOLING)
    if backend == "onnx":
        from albert_zh.serving import onnx_backend

        held = onnx_backend.OnnxBackend(kind, directory, shares_cores)
    else:
        held = _tensorflow_backend(kind, directory, encoder)
    return Predictor(kind, held, directory, truncate)


def _tensorflow_backend(kind, directory, encoder):
    from albert_zh.serving import backends
    from albert_zh.training import numerics

    checkpoint = model_directory.find_checkpoint(directory)
    if checkpoint is None:
        hint = ""
        if exported.is_export(directory):
            hint = '; backend="onnx" loads it if export_model.py --format=onnx wrote it'
        raise UserError("{} holds no checkpoint{}".format(directory, hint))
    check_checkpoint(directory, checkpoint, kind.files, encoder)
    return backends.TensorFlowBackend(kind, checkpoint, numerics.choose())


def read_files(directory, encoder=False):
    """Reads all of a model but its weights; needs no TensorFlow.

    Args:
      directory: path from `model_directory.resolve`.
      encoder: as `load` takes it.

    Returns:
      `model_files.TaskFiles`; of `encoder.TASK` for a model without a task.

    Raises:
      UserError: a file is missing or damaged.
    """
    files = model_files.load(directory)
    if files is None:
        config_file = model_directory.find_config(directory)
        if config_file is None:
            model_directory.find_checkpoint(directory)  # may be another framework's
            raise UserError("{} holds no model: no config".format(directory))
        files = encoders.files_of(
            model_settings.read_config(config_file),
            *model_directory.find_vocabulary(directory),
            do_lower_case=model_directory.read_do_lower_case(directory),
            normalize_punctuation=model_directory.read_normalize_punctuation(directory),
        )
    elif encoder:
        files = encoders.files_of(
            files.config,
            files.vocab_file,
            files.spm_model_file,
            files.do_lower_case,
            files.normalize_punctuation,
        )
    if not (files.vocab_file or files.spm_model_file):
        raise UserError(
            "{} holds neither {} nor {}; copy the vocabulary it was trained with "
            "there".format(
                directory, model_directory.VOCAB_FILE, model_directory.SPM_FILE
            )
        )
    return files


def kind_of(files, directory, pooling=encoders.DEFAULT_POOLING):
    """Returns the `kind.Kind` of a model, ready to predict.

    Args:
      files: `model_files.TaskFiles`.
      directory: path, where the model is.
      pooling: as `load` takes it.

    Raises:
      UserError: the vocabulary or the options cannot be used.
    """
    if files.task.kind == encoders.TASK.kind:
        kind = encoders.Encoder(files, pooling)
    else:
        kind = kinds.kind_of(files.task)(files)
        kind.decision = model_directory.read_decision(directory)
    model_directory.check_vocabulary(
        kind.tokenizer.vocab_size,
        files.spm_model_file or files.vocab_file,
        files.config,
        exact=True,
    )
    return kind


def check_checkpoint(directory, checkpoint, files, encoder):
    """Raises `UserError` where a checkpoint is not of the model to load."""
    if files.task is not encoders.TASK:
        task = get_task(files.task.name)
        given = model_directory.ModelDirectory(None)
        model_files.load_trained(None, directory, task, given, {}, has_results=False)
        return
    check_encoder(checkpoint, files.config)
    heads = find_heads(checkpoint)
    if heads and not encoder:
        raise UserError(
            "{} holds a fine-tuned model ({}) without its task ({}); "
            "convert_checkpoint.py --task_name makes a copy that has it, "
            "extract_features.py takes its encoder alone".format(
                directory, heads[0], model_directory.LABELS_FILE
            )
        )


def find_heads(checkpoint):
    """Returns the variables of a checkpoint that are those of tasks' heads, sorted."""
    names = checkpoints.read_shapes(checkpoint, "--model_dir")
    return [name for name in sorted(names) if _HEADS.match(name)]


def check_encoder(checkpoint, config, flag="--model_dir"):
    """Raises `UserError` where a checkpoint is damaged or not of a config's encoder."""
    architecture.check(checkpoint, config, flag)
    checkpoints.check_readable(checkpoint, flag)
