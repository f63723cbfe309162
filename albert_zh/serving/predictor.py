"""A resident model: it is loaded once, and predicts from then on.

    predictor = load("demo/classifier")
    predictor({"text_a": "怎么开户", "text_b": "如何开户"})

Estimator is not used: it would build the graph and restore the checkpoint for every
prediction.
"""

import itertools
import logging
from typing import Any, List, NamedTuple

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.serving import encoder as encoders
from albert_zh.serving import inputs
from albert_zh.serving.forms import FORMS
from albert_zh.tasks import kinds, model_files
from albert_zh.tasks.features import Features
from albert_zh.tasks.registry import get_task

_LOGGER = logging.getLogger(__name__)

BACKENDS = ("tensorflow", "onnx")
# Instances of a call whose features are in memory together.
_INSTANCES_AT_A_TIME = 10000


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
        return self.prepare_example(self._form.example(instance))

    def prepare_example(self, example):
        """`prepare` of an example, as files of the task are read."""
        windows = self.kind.build_features(example)
        is_refused = self._form.refuses_long_texts and not self._truncate
        if is_refused and any(window.is_truncated for window in windows):
            raise UserError(
                "longer than the {} tokens that the model takes; shorten it".format(
                    self.max_seq_length
                )
            )
        return Prepared(example, windows)

    def tokenize(self, text):
        """Returns the tokens of a text for people to see.

        Args:
          text: str.

        Returns:
          List of dicts: `token`, `id`, and `start` and `end` in the text.
        """
        tokens = self.kind.tokenizer.tokenize_with_offsets(text)
        texts = [token.text for token in tokens]
        ids = self.kind.tokenizer.convert_tokens_to_ids(texts)
        return [
            {
                "token": token.text,
                "id": int(number),
                "start": token.start,
                "end": token.end,
            }
            for token, number in zip(tokens, ids)
        ]

    def answer(self, prepared):
        """Computes the answers to a list of `Prepared`.

        Returns:
          List of dicts, in the same order.

        Raises:
          UserError: the model predicts NaN.
        """
        rows = iter(self._rows([w for each in prepared for w in each.windows]))
        answers = []
        for example, windows in prepared:
            own = list(itertools.islice(rows, len(windows)))
            prediction = self.kind.decode(example, windows, own)
            answers.append(self._form.answer(example, prediction))
        return answers

    def _rows(self, windows):
        """Returns the list of the dict of outputs of each window."""
        rows = [None] * len(windows)
        for places, batch in inputs.batches(windows, self.max_seq_length):
            outputs = self.backend.run(batch)
            self._check_finite(outputs)
            for number, place in enumerate(places):
                rows[place] = {name: out[number] for name, out in outputs.items()}
        return rows

    def _check_finite(self, outputs):
        for values in outputs.values():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(
                    "{} predicts NaN: its weights are damaged or its training "
                    "diverged; train again with a lower --learning_rate".format(
                        self._source
                    )
                )

    def __call__(self, instances):
        """Answers an instance or a list of instances.

        Args:
          instances: as `prepare` takes it, or a list of such. A list of str is one
            instance where the model takes several texts.

        Returns:
          A dict, or a list of them in the same order.

        Raises:
          UserError: an instance cannot be used; in a list, its number from 0 on.
        """
        if self._is_one(instances):
            return self.answer([self.prepare(instances)])[0]
        return self.predict_many(instances)

    def _is_one(self, instances):
        if isinstance(instances, (dict, str)):
            return True
        is_texts = all(isinstance(text, str) for text in instances)
        takes_several = isinstance(instances, tuple) or len(self.fields) == 2
        return bool(instances) and is_texts and takes_several

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

    def close(self):
        """Frees the model."""
        self.backend.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def load(directory, backend="tensorflow", truncate=False, encoder=False):
    """Loads a model.

    Args:
      directory: a fine-tuned model's, its training's (whose `best/` counts), or that
        of a pretrained model, which has vectors and words for [MASK]. It need not be
        writable.
      backend: one of `BACKENDS`.
      truncate: bool, whether texts over the model's length are cut as in training;
        else they are refused. Entities and answers are looked for in all of a text.
      encoder: bool, whether to take the encoder alone of a fine-tuned model.

    Returns:
      `Predictor`.

    Raises:
      UserError: the directory cannot be used.
    """
    if backend not in BACKENDS:
        problem = "backend={!r}: expected one of {}"
        raise UserError(problem.format(backend, ", ".join(BACKENDS)))
    directory = model_directory.resolve(directory)
    if backend == "onnx":
        from albert_zh.serving import onnx_backend

        kind = kind_of(read_files(directory, encoder), directory)
        return Predictor(
            kind, onnx_backend.OnnxBackend(kind, directory), directory, truncate
        )
    from albert_zh.serving import backends
    from albert_zh.training import numerics

    files = read_files(directory, encoder)
    checkpoint = model_directory.find_checkpoint(directory)
    if checkpoint is None:
        raise UserError("{} holds no checkpoint".format(directory))
    check_checkpoint(directory, checkpoint, files, encoder)
    kind = kind_of(files, directory)
    computing = backends.TensorFlowBackend(kind, checkpoint, numerics.choose())
    return Predictor(kind, computing, directory, truncate)


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
        vocab_file, spm_model_file = model_directory.find_vocabulary(directory)
        if config_file is None:
            raise UserError("{} holds no model: no config".format(directory))
        config = model_settings.read_config(config_file)
        casing = model_directory.read_do_lower_case(directory)
        files = model_files.TaskFiles(
            config=config,
            task=encoders.TASK,
            labels=(),
            vocab_file=vocab_file,
            spm_model_file=spm_model_file,
            do_lower_case=True if casing is None else casing,
            normalize_punctuation=False,
            max_seq_length=config.max_position_embeddings,
        )
    elif encoder:
        length = files.config.max_position_embeddings
        files = files._replace(
            task=encoders.TASK, labels=(), options={}, max_seq_length=length
        )
    if not (files.vocab_file or files.spm_model_file):
        raise UserError(
            "{} holds neither {} nor {}; copy the vocabulary it was trained with "
            "there".format(
                directory, model_directory.VOCAB_FILE, model_directory.SPM_FILE
            )
        )
    return files


def kind_of(files, directory):
    """Returns the `kind.Kind` of a model, ready to predict.

    Args:
      files: `model_files.TaskFiles`.
      directory: path, where the model is.

    Raises:
      UserError: the vocabulary or the options cannot be used.
    """
    if files.task.kind == encoders.TASK.kind:
        kind = encoders.Encoder(files)
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
    from albert_zh.models import architecture, checkpoints

    flag = "--model_dir"
    architecture.check(checkpoint, files.config, flag)
    names = set(checkpoints.read_shapes(checkpoint, flag))
    heads = sorted(names & {"output_weights", "cls/squad/output_weights"})
    heads += sorted(name for name in names if name.startswith("ner/"))
    if heads and not encoder:
        raise UserError(
            "{} holds a fine-tuned model ({}), without its task ({})".format(
                directory, heads[0], model_directory.LABELS_FILE
            )
        )
    checkpoints.check_readable(checkpoint, flag)
