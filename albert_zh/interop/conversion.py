"""Converts a model directory from one format to another, exactly or not at all."""

import functools
import logging
import os
import re
from typing import Callable, NamedTuple, Tuple

import tokenization
from albert_zh.base import files, locks
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.interop import checkpoint_format, heads, model, state_dict_format
from albert_zh.models import checkpoints
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings

_LOGGER = logging.getLogger(__name__)

# Sequence length of a model without one: the default of the fine-tuning commands.
_SEQUENCE_LENGTH = 128


class Format(NamedTuple):
    """One format of model directories.

    Attributes:
      dialects: the dialects of `modeling` that the format supports.
      check: function of an `AlbertConfig`, raises `UserError` if such a model cannot
        be written, or a package for it is not installed.
      read: function (directory, options, is_trusted), returns a `model.Model`;
        `is_trusted` says that this process wrote the directory.
      write: function (model, directory, options).
      is_tensorflow: bool; which options and settings apply.
    """

    dialects: Tuple[str, ...]
    check: Callable
    read: Callable
    write: Callable
    is_tensorflow: bool


def _tensorflow(dialect):
    return Format(
        (dialect,),
        lambda config: None,
        checkpoint_format.read,
        checkpoint_format.write,
        True,
    )


def _pytorch(layouts):
    return Format(
        tuple(layouts),
        functools.partial(state_dict_format.check_writable, layouts),
        functools.partial(state_dict_format.read, layouts),
        functools.partial(state_dict_format.write, layouts),
        False,
    )


FORMATS = {
    "albert_zh": _tensorflow("albert_zh"),
    "google": _tensorflow("google"),
    "bert": _tensorflow("bert"),
    "huggingface": _pytorch(state_dict_format.HUGGING_FACE),
    "albert_pytorch": _pytorch(state_dict_format.ALBERT_PYTORCH),
}

# Why a dialect cannot be converted to another one.
_REASONS = {
    "albert_zh": "position and segment embeddings are added after the projection "
    "to the hidden size, in Google's dialect before it, in BERT's there is none",
    "google": "position and segment embeddings are added before the projection to "
    "the hidden size, in albert_zh's dialect after it, in BERT's there is none",
    "bert": "its embeddings have the hidden size, without a projection",
}


# What transformers calls a label without a name.
_NO_NAME = re.compile(r"LABEL_\d+")


def convert(source_format, target_format, source, target, options):
    """Converts a model directory.

    The output is read back and compared before it appears under its name.

    Args:
      source_format: key of `FORMATS`.
      target_format: key of `FORMATS`.
      source: directory to read.
      target: directory to write; must be absent or empty.
      options: `model.Options`.

    Returns:
      The `model.Model` written.

    Raises:
      UserError: an input is missing, damaged or does not fit, no exact conversion
        exists, the output exists already, or another process is writing it.
    """
    _check_output(target)
    _check_options(FORMATS[source_format], FORMATS[target_format], options)
    target = os.path.realpath(target)
    parent, name = os.path.split(target)
    with files.writing(parent):
        files.make_directory(parent)
    with locks.hold(
        os.path.join(parent, ".{}.lock".format(name)),
        "--output={}: in use by another process; wait for it, or give another "
        "one".format(target),
    ):
        # Again, because another process may just have finished.
        _check_output(target)
        files.remove_leftovers(target)
        return _convert(source_format, target_format, source, target, options)


def _convert(source_format, target_format, source, target, options):
    reader, writer = FORMATS[source_format], FORMATS[target_format]
    content = reader.read(source, options)
    _check_dialect(content.config.dialect, source_format, target_format, source)
    writer.check(content.config)
    if options.drop_masked_lm:
        content = model.without_masked_lm(content)
    content = model.without_unknown(content)
    if writer.is_tensorflow:
        content = model.with_pooler(content)
    else:
        _check_decoder(content, source)
    for name in content.unused:
        _LOGGER.warning("not converted: %s", printable(name))
    for name in model.check(content, source, options.allow_missing):
        _LOGGER.warning("%s is missing; the output lacks it, too", name)
    content = _with_task(content, options.task, options.kind)
    if writer.is_tensorflow:
        _check_task(content, source)
    _check_vocabulary(content, source)
    _check_finite(content, source)
    _write_whole(content, writer, target, options)
    return content


def _check_output(target):
    """Raises `UserError` if the output exists already or cannot be written."""
    if files.is_remote(target):
        raise UserError(
            "--output={}: expected a local directory; copy it there "
            "afterwards".format(target)
        )
    parent = os.path.realpath(target)
    if os.path.exists(parent) and (not os.path.isdir(parent) or os.listdir(parent)):
        raise UserError("--output={}: exists already; give a new one".format(target))
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
        raise UserError(
            "--output={}: {} is not a writable directory".format(target, parent)
        )


def _check_options(reader, writer, options):
    if options.keep_slots and not (reader.is_tensorflow and writer.is_tensorflow):
        raise UserError(
            "--keep_slots requires TensorFlow formats on both sides: PyTorch's "
            "optimizers store their state differently"
        )
    if options.dtype != "float32" and writer.is_tensorflow:
        raise UserError(
            "--dtype={} requires a PyTorch format in --to: TensorFlow restores "
            "variables only in the dtype that was saved".format(options.dtype)
        )


def _check_dialect(dialect, source_format, target_format, source):
    if dialect not in FORMATS[source_format].dialects:
        raise UserError(
            "--from={}: {} has the {} dialect; give --from={}".format(
                source_format, source, dialect, dialect
            )
        )
    if dialect not in FORMATS[target_format].dialects:
        others = [name for name in FORMATS if dialect in FORMATS[name].dialects]
        raise UserError(
            "--from={} --to={}: no exact conversion exists from the {} dialect: {}; "
            "expected --to={}".format(
                source_format,
                target_format,
                dialect,
                _REASONS[dialect],
                " or ".join(others),
            )
        )


def _check_decoder(content, source):
    """Refuses a tagger that is more than a layer, for which PyTorch has no class."""
    names = [name for name in content.weights if name.startswith(heads.TAGGER_SCOPE)]
    others = set(names) - set(heads.HEADS["tagger"].variables)
    if others:
        raise UserError(
            "{}: no exact conversion exists of its head, which has {}; train with "
            "run_ner.py --decoder=softmax for one".format(
                source, ", ".join(sorted(others))
            )
        )


def _with_task(content, task, kind):
    """Adds the user's settings of a fine-tuned model to those of the source."""
    if task is None:
        return content
    head = content.fine_tuned_head
    if head is None:
        raise UserError("--task_name: the model has no head of a fine-tuned model")
    if kind is not None and kind not in heads.HEADS[head].kinds:
        raise UserError(
            "--task_name={}: the head of the model is a {}; give {}".format(
                task["task_name"], head, heads.HEADS[head].example
            )
        )
    classes = content.num_rows
    positions = content.config.max_position_embeddings
    settings = {
        "labels": heads.default_labels(head, classes),
        "do_lower_case": content.do_lower_case,
        "normalize_punctuation": content.normalize_punctuation,
        "max_seq_length": min(_SEQUENCE_LENGTH, positions),
    }
    if head == "tagger":
        is_crf = heads.CRF_TRANSITIONS in content.weights
        settings["options"] = {"decoder": "crf" if is_crf else "softmax"}
    settings.update(content.task or {})
    _check_names(settings["labels"], task, heads.HEADS[head].example)
    settings.update(task)
    if head in heads.WITHOUT_LABELS and settings["labels"]:
        raise UserError("--labels: a {} has none".format(head))
    if heads.num_rows(head, settings["labels"]) != classes:
        raise UserError(
            "--labels={}: the {} has {} classes".format(
                ",".join(settings["labels"]), head, classes
            )
        )
    if settings["max_seq_length"] > positions:
        raise UserError(
            "--max_seq_length={}: the model has {} positions".format(
                settings["max_seq_length"], positions
            )
        )
    return content._replace(task=settings)


def _check_names(held, task, example):
    """Checks that a task's labels do not exchange those that a model has already.

    Args:
      held: list of str, the model's labels, in the order of its rows.
      task: dict of the user's settings.
      example: flags that name an open task for the model's head.

    Raises:
      UserError: they have names in common, in other places.
    """
    given = task.get("labels")
    if not given or list(given) == list(held):
        return
    if set(given) & set(held):
        raise UserError(
            "--task_name={}: its labels are {}, those of the model in the order of its "
            "rows {}; give an open task, {}, and --labels={}".format(
                task["task_name"],
                ",".join(given),
                ",".join(held),
                example,
                ",".join(held),
            )
        )
    if not all(_NO_NAME.fullmatch(label) for label in held):
        pairs = ("{} becomes {}".format(*pair) for pair in zip(held, given))
        _LOGGER.warning("labels: %s", ", ".join(pairs))


def _check_task(content, source):
    """Checks that a TensorFlow directory can keep the labels: only with a task."""
    head = content.fine_tuned_head
    if head is None:
        return
    if "task_name" in (content.task or {}):
        _check_settings(content, source)
        return
    example = heads.HEADS[head].example
    labels = (content.task or {}).get("labels", [])
    if not all(_NO_NAME.fullmatch(label) for label in labels):
        raise UserError(
            "{}: its labels, {}, can only be kept with a task: give {}".format(
                source, ",".join(labels), example
            )
        )
    _LOGGER.warning(
        "the %s has no task: it can be trained further, but to predict, convert it "
        "with %s",
        head,
        example,
    )


def _check_settings(content, source):
    """Raises `UserError` if a model's settings do not fit `labels.json`."""
    head, task = content.fine_tuned_head, content.task
    fewest = {"classifier": 2, "multi_label": 2, "tagger": 1}.get(head, 0)
    model_settings.check_labels(task, source, fewest)
    model_settings.check_fit(source, task, content.config)
    labels, classes = task["labels"], content.num_rows
    if heads.num_rows(head, labels) != classes:
        raise UserError(
            "{}: it has {} labels, its {} has {} classes; correct the labels "
            "there".format(source, len(labels), head, classes)
        )


def _check_vocabulary(content, source):
    """Refuses a vocabulary without exactly one entry per row of the embedding table."""
    if content.vocabulary is None and content.sentencepiece is None:
        _LOGGER.warning("%s has no vocabulary; the output has none either", source)
        return
    name = "the vocabulary of " + source
    with as_user_error(ValueError, ImportError):
        tokenizer = tokenization.FullTokenizer.from_bytes(
            content.sentencepiece or content.vocabulary,
            is_sentencepiece=content.sentencepiece is not None,
            source=name,
        )
    model_directory.check_vocabulary(
        tokenizer.vocab_size, name, content.config, exact=True
    )


def _check_finite(content, source):
    """Refuses a model with NaN or infinity, whose training had failed."""
    for name, value in sorted(content.tensors.items()):
        checkpoints.check_finite(source, name, value)


def _write_whole(content, writer, target, options):
    """Writes beside the target, reads back, compares, renames."""
    with files.directory_beside(target) as partial:
        writer.write(content, partial, options)
        written = writer.read(partial, options, is_trusted=True)
        _compare(content, written, None if writer.is_tensorflow else options.dtype)
        files.rename_directory(partial, target)


def _compare(expected, written, dtype):
    """Raises `RuntimeError` if the output differs from the model."""
    names = set(expected.tensors) - {checkpoints.STEP}
    if not written.weights.keys() >= expected.weights.keys():
        raise RuntimeError("the output lacks tensors")
    for name in names & set(written.tensors):
        value = written.tensors[name]
        wanted = expected.tensors[name].astype(dtype or value.dtype).astype(value.dtype)
        # As bytes: a NaN equals itself.
        if value.shape != wanted.shape or value.tobytes() != wanted.tobytes():
            raise RuntimeError("the output's {} differs".format(name))
