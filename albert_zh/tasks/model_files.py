"""What a fine-tuned model's directory holds beside its checkpoint.

`albert_config.json`, `vocab.txt` (or `spm.model`) and `labels.json` make the
directory complete: predicting needs nothing else. The directory of a training has a
`training.json` too, and the complete model in `best/` below it.
"""

import json
import os
from typing import NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

import modeling
import tokenization
from albert_zh import checkpoints, estimators, records
from albert_zh.errors import UserError, as_user_error
from albert_zh.tasks.registry import Task, get_task

# The best checkpoint of a training, inside --output_dir.
BEST_DIRECTORY = "best"
VOCAB_FILE = "vocab.txt"
SPM_FILE = "spm.model"
LABELS_FILE = "labels.json"
TRAINING_FILE = "training.json"


class ClassifierFiles(NamedTuple):
    """Everything about a classifier but its weights.

    Attributes:
      config: the encoder's `modeling.AlbertConfig`.
      task: the `registry.Task`.
      labels: names of the classes, in the order of the model's outputs.
      vocab_file: WordPiece vocabulary, or the one beside a SentencePiece model.
      spm_model_file: SentencePiece model, None for WordPiece.
      do_lower_case: whether the tokenizer lower-cases.
      normalize_punctuation: whether it maps punctuation the vocabulary lacks.
      max_seq_length: tokens a sequence is truncated to.
    """

    config: modeling.AlbertConfig
    task: Task
    labels: Tuple[str, ...]
    vocab_file: Optional[str]
    spm_model_file: Optional[str]
    do_lower_case: bool
    normalize_punctuation: bool
    max_seq_length: int

    def build_tokenizer(self):
        """Builds the tokenizer.

        Raises:
          UserError: the vocabulary cannot be used.
        """
        with as_user_error(ValueError, OSError, ImportError):
            return tokenization.FullTokenizer(
                self.vocab_file,
                do_lower_case=self.do_lower_case,
                spm_model_file=self.spm_model_file,
                normalize_punctuation=self.normalize_punctuation,
            )


def check_not_foreign(directory, files):
    """Makes sure that `save` overwrites nothing but a classifier's own files.

    Raises:
      UserError: the directory has no labels, but a config or vocabulary of other
        content than `files`.
    """
    if tf.io.gfile.exists(os.path.join(directory, LABELS_FILE)):
        return
    for name, content in (
        (estimators.CONFIG_FILE, files.config.to_json_string().encode("utf-8")),
        (VOCAB_FILE, _read(files.vocab_file)),
        (SPM_FILE, _read(files.spm_model_file)),
    ):
        path = os.path.join(directory, name)
        if content is not None and tf.io.gfile.exists(path) and content != _read(path):
            raise UserError(
                "--output_dir: {} is no classifier's and would be overwritten; choose "
                "another --output_dir".format(path)
            )


def save(directory, files):
    """Writes `ClassifierFiles` into a directory, creating it.

    Raises:
      UserError: as `check_not_foreign`.
    """
    check_not_foreign(directory, files)
    tf.io.gfile.makedirs(directory)
    records.write_text(
        files.config.to_json_string(), os.path.join(directory, estimators.CONFIG_FILE)
    )
    _copy(files.vocab_file, os.path.join(directory, VOCAB_FILE))
    _copy(files.spm_model_file, os.path.join(directory, SPM_FILE))
    settings = {
        "task_name": files.task.name,
        "labels": files.labels,
        "do_lower_case": files.do_lower_case,
        "normalize_punctuation": files.normalize_punctuation,
        "max_seq_length": files.max_seq_length,
    }
    # Last: its presence says that the others are there.
    write_json(os.path.join(directory, LABELS_FILE), settings)


def _copy(source, target):
    """Copies a file, if there is one, whole and writable whatever the source is."""
    if source is None or source == target:
        return
    content = _read(source)
    with tf.io.gfile.GFile(target + ".partial", "wb") as writer:
        writer.write(content)
    tf.io.gfile.rename(target + ".partial", target, overwrite=True)


def _read(path):
    """Bytes of a file, None where there is no path."""
    if path is None:
        return None
    with tf.io.gfile.GFile(path, "rb") as source:
        return source.read()


def load(directory):
    """Reads what `save` wrote.

    Returns:
      `ClassifierFiles`, or None where the directory holds none.

    Raises:
      UserError: a file is damaged.
    """
    labels_file = os.path.join(directory, LABELS_FILE)
    if not tf.io.gfile.exists(labels_file):
        return None
    try:
        with tf.io.gfile.GFile(labels_file, "r") as source:
            settings = json.loads(source.read())
        task = get_task(settings.pop("task_name"))
        labels = tuple(settings.pop("labels"))
        with as_user_error(ValueError, OSError):
            config = modeling.AlbertConfig.from_json_file(
                os.path.join(directory, estimators.CONFIG_FILE)
            )
        vocab_file = os.path.join(directory, VOCAB_FILE)
        spm_model_file = os.path.join(directory, SPM_FILE)
        return ClassifierFiles(
            config,
            task,
            labels,
            vocab_file if tf.io.gfile.exists(vocab_file) else None,
            spm_model_file if tf.io.gfile.exists(spm_model_file) else None,
            **settings,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            "{}: damaged ({!r}); train into another --output_dir".format(
                labels_file, error
            )
        ) from error


def best_directory(output_dir):
    """Where the best model of an --output_dir lies, or will lie.

    It is `best/`, or the directory itself where that is a complete model and not
    the directory of a training.
    """
    best_dir = os.path.join(output_dir, BEST_DIRECTORY)
    is_model = (
        tf.io.gfile.exists(os.path.join(output_dir, LABELS_FILE))
        and not tf.io.gfile.exists(os.path.join(output_dir, TRAINING_FILE))
        and not tf.io.gfile.exists(best_dir)
        and checkpoints.latest_checkpoint(output_dir) is not None
    )
    return output_dir if is_model else best_dir


def load_trained(output_dir, task, given, config_file=None):
    """Reads the best model of a training, to evaluate it or predict with it.

    Args:
      output_dir: --output_dir of the training, or its `best/`.
      task: the `registry.Task` asked for.
      given: dict field of `ClassifierFiles` -> value, for what the user gives again.
      config_file: the config the user gives again, or None.

    Returns:
      `ClassifierFiles`.

    Raises:
      UserError: no model there, or one that differs from what is given.
    """
    best_dir = best_directory(output_dir)
    saved = load(best_dir)
    if saved is None:
        raise UserError(
            "--output_dir={} holds no fine-tuned model; run with --do_train "
            "first".format(output_dir)
        )
    files = saved._replace(task=task, **given)
    check_same_model(output_dir, saved, files)
    config = estimators.load_config(
        config_file or os.path.join(best_dir, estimators.CONFIG_FILE),
        files.max_seq_length,
    )
    estimators.prepare_output_dir(output_dir, config)
    return files


def check_same_model(directory, saved, given):
    """Refuses to mix two models in one directory.

    Args:
      directory: --output_dir, for the message.
      saved: the `ClassifierFiles` it holds.
      given: the `ClassifierFiles` asked for now; only the sequence length and the
        config, which `estimators.prepare_output_dir` checks, may differ.

    Raises:
      UserError: names the first difference.
    """
    for what, old, new in (
        ("task", saved.task.name, given.task.name),
        ("labels", ",".join(saved.labels), ",".join(given.labels)),
        ("do_lower_case", saved.do_lower_case, given.do_lower_case),
        (
            "normalize_punctuation",
            saved.normalize_punctuation,
            given.normalize_punctuation,
        ),
        ("vocab_file", _Content(saved.vocab_file), _Content(given.vocab_file)),
        (
            "spm_model_file",
            _Content(saved.spm_model_file),
            _Content(given.spm_model_file),
        ),
    ):
        if old != new:
            raise UserError(
                "--output_dir={} holds a different model: its {} is {}, received {}; "
                "choose another --output_dir or delete this one".format(
                    directory, what, old, new
                )
            )


class _Content:
    """A file that is equal to another of the same bytes, shown by its path."""

    def __init__(self, path):
        self._path = path
        self._content = _read(path)

    def __eq__(self, other):
        return self._content == other._content

    def __str__(self):
        return str(self._path)


def write_json(path, value):
    """Writes a value as indented JSON; the file appears whole or not at all."""
    records.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)
