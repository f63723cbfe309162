"""What a fine-tuned model's directory holds beside its checkpoint.

`albert_config.json`, `vocab.txt` (or `spm.model`) and `labels.json` make the
directory complete: predicting needs nothing else. The directory of a training has a
`training.json` too, and the complete model in `best/` below it.
"""

import logging
import os
import re
import shlex
from typing import Any, Dict, NamedTuple, Optional, Tuple

import modeling
import tokenization
from albert_zh.base import files, json_files, name_lists
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.base.lazy import tensorflow as tf
from albert_zh.models import architecture, checkpoints, output_directory
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.tasks.kind import describe_head
from albert_zh.tasks.kinds import COMMANDS, kind_of
from albert_zh.tasks.registry import Task, get_task

_LOGGER = logging.getLogger(__name__)

TRAINING_FILE = "training.json"
DEFAULT_MAX_SEQ_LENGTH = 128

_OF_ONE_OUTPUT = ("cloze", "multiple_choice", "regression")
_OF_SEVERAL_OUTPUTS = ("classification", "multi_label")
# Of a tagger whose decoder is span, which convert_checkpoint.py does not take.
_SPAN_TAGGER = "ner/span_weights"
# A variable of a head -> the kinds of task that it may be for.
_HEADS = {
    architecture.HEADS["classifier"]: _OF_ONE_OUTPUT + _OF_SEVERAL_OUTPUTS,
    architecture.HEADS["tagger"]: ("tagging",),
    architecture.HEADS["span"]: ("span_extraction",),
    _SPAN_TAGGER: ("tagging",),
}


class TaskFiles(NamedTuple):
    """Everything about a fine-tuned model but its weights.

    Attributes:
      config: the encoder's `modeling.AlbertConfig`.
      task: the `registry.Task`.
      labels: names of the classes, in the order of the model's outputs; () for a task
        that has none.
      vocab_file: WordPiece vocabulary, or the one beside a SentencePiece model.
      spm_model_file: SentencePiece model, None for WordPiece.
      do_lower_case: whether the tokenizer lower-cases.
      normalize_punctuation: whether it maps punctuation the vocabulary lacks.
      max_seq_length: tokens of a window.
      options: dict of further settings that only its kind of task has, which the model
        cannot be used without.
    """

    config: modeling.AlbertConfig
    task: Task
    labels: Tuple[str, ...]
    vocab_file: Optional[str]
    spm_model_file: Optional[str]
    do_lower_case: bool
    normalize_punctuation: bool
    max_seq_length: int
    options: Dict[str, Any] = {}

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


def check_best(directory, given, is_new):
    """Makes sure that `best/` holds no model but an earlier best one of this training.

    Args:
      directory: path of `best/`.
      given: the `TaskFiles` of the training.
      is_new: bool; whether the training begins now, and so has no best model yet.

    Raises:
      UserError: it holds another model, or is a symbolic link.
    """
    if files.is_link(directory):
        raise UserError("--output_dir: {} is a link; remove it".format(directory))
    if not files.is_directory(directory):
        return
    if is_new and checkpoints.run_files(directory):
        raise UserError(
            "--output_dir: {} holds a model of another training, which would be "
            "overwritten; choose another --output_dir".format(directory)
        )
    held = load(directory)
    if held is None:
        check_not_foreign(directory, given)
    else:
        check_same_model(directory, held, given)


def check_not_foreign(directory, given):
    """Makes sure that `save` overwrites nothing but a classifier's own files.

    Raises:
      UserError: the directory has no labels, but a config or vocabulary of other
        content than `given`.
    """
    if files.exists(os.path.join(directory, model_directory.LABELS_FILE)):
        return
    for name, content in (
        (model_directory.CONFIG_FILE, given.config.to_json_string().encode("utf-8")),
        (model_directory.VOCAB_FILE, model_directory.read_bytes(given.vocab_file)),
        (model_directory.SPM_FILE, model_directory.read_bytes(given.spm_model_file)),
    ):
        path = os.path.join(directory, name)
        if (
            content is not None
            and files.exists(path)
            and content != files.read_bytes(path)
        ):
            raise UserError(
                "--output_dir: {} is no classifier's and would be overwritten; choose "
                "another --output_dir".format(path)
            )


def save(directory, given):
    """Writes `TaskFiles` into a directory, creating it.

    Raises:
      UserError: as `check_not_foreign`, or it cannot be written to.
    """
    check_not_foreign(directory, given)
    with files.writing(directory):
        files.make_directory(directory)
    files.write_text(
        given.config.to_json_string(),
        os.path.join(directory, model_directory.CONFIG_FILE),
    )
    model_directory.copy_file(
        given.vocab_file, os.path.join(directory, model_directory.VOCAB_FILE)
    )
    model_directory.copy_file(
        given.spm_model_file, os.path.join(directory, model_directory.SPM_FILE)
    )
    # Last: its presence says that the others are there.
    path = os.path.join(directory, model_directory.LABELS_FILE)
    json_files.write(task_settings(given), path)


def task_settings(files):
    """Returns what `labels.json` holds of `TaskFiles`, a dict."""
    settings = {
        "task_name": files.task.name,
        "labels": list(files.labels),
        "do_lower_case": files.do_lower_case,
        "normalize_punctuation": files.normalize_punctuation,
        "max_seq_length": files.max_seq_length,
    }
    if files.options:
        settings["options"] = files.options
    return settings


def for_training(chosen, task, train_data, given, dropout=None):
    """Decides what a model that is to be trained is made of.

    Args:
      chosen: `model_directory.ModelDirectory` of the model to start from.
      task: the `registry.Task`.
      train_data: the `reading.ExampleFile` whose labels count where the task has none.
      given: dict field of `TaskFiles` -> value, for what the user gives. What is
        not given is taken from the model to start from, which may be fine-tuned.
      dropout: as `model_settings.load_config` takes it.

    Returns:
      `TaskFiles`.

    Raises:
      UserError: a file is missing or damaged, or the model's sizes do not suffice.
    """
    chosen = _prefer_spm(chosen)
    model_directory.require(chosen, "config_file", "vocab_file")
    if chosen.directory:
        model_directory.require(chosen, "checkpoint")
    _check_own_vocabulary(chosen)
    length = given.get("max_seq_length", DEFAULT_MAX_SEQ_LENGTH)
    return TaskFiles(
        config=model_settings.load_config(chosen.config_file, length, dropout),
        task=task,
        labels=task.labels or kind_of(task).find_labels(train_data),
        vocab_file=chosen.vocab_file,
        spm_model_file=chosen.spm_model_file,
        do_lower_case=model_directory.choose_do_lower_case(
            given.get("do_lower_case"), chosen.directory
        ),
        normalize_punctuation=given.get(
            "normalize_punctuation",
            bool(chosen.directory)
            and model_directory.read_normalize_punctuation(chosen.directory),
        ),
        max_seq_length=length,
        options=given.get("options", {}),
    )


def flags_of(directory, task):
    """What a training that starts from a fine-tuned model takes from it.

    Args:
      directory: of the model to start from.
      task: the `registry.Task` to train.

    Returns:
      Dict name of a flag -> value; {} where there is no model of that kind of task.
    """
    settings = _read_known_labels(directory)
    if not settings or get_task(settings["task_name"]).kind != task.kind:
        return {}
    options = settings.get("options", {})
    return dict(options, max_seq_length=settings["max_seq_length"])


def _read_known_labels(directory):
    """The settings of a `labels.json`; None without one, or for another program's."""
    path = os.path.join(directory, model_directory.LABELS_FILE)
    if not files.exists(path):
        return None
    try:
        settings = model_settings.read_labels(path)
        get_task(settings["task_name"])
    except UserError:
        return None
    return settings


def has_head_of(checkpoint, given):
    """Whether the head of a checkpoint may be that of a model to train.

    The `labels.json` beside it tells: its labels must be the same, in the same order,
    its kind of task, too, and whether it takes one text or two. A head of another shape
    is never restored.

    Args:
      checkpoint: path prefix, or None.
      given: `TaskFiles` of the model to train.
    """
    settings = checkpoint and _read_known_labels(os.path.dirname(checkpoint))
    if not settings:
        return True
    task, held = get_task(settings["task_name"]), settings["labels"]
    if task.shape != given.task.shape:
        _LOGGER.info(
            "%s is a model for %s: its head starts anew for %s",
            checkpoint,
            task.name,
            given.task.name,
        )
        return False
    if held == list(given.labels):
        return True
    _LOGGER.info(
        "%s is a classifier for the labels %s: its head starts anew for %s",
        checkpoint,
        name_lists.join(held),
        name_lists.join(given.labels),
    )
    return False


def _check_own_vocabulary(chosen):
    """Checks a vocabulary against the one beside the checkpoint to start from.

    Entries such as [unused1] may have been given to new words.

    Raises:
      UserError: an entry differs, so that texts would become other words' ids.
    """
    if not (chosen.vocab_file and chosen.checkpoint):
        return
    path = os.path.join(os.path.dirname(chosen.checkpoint), model_directory.VOCAB_FILE)
    if not files.exists(path) or files.is_directory(path):
        return
    try:
        held, given = map(tokenization.load_vocab, (path, chosen.vocab_file))
    except (ValueError, OSError):  # the tokenizer says what is wrong with the one given
        return
    for number, (old, new) in enumerate(zip(held, given), start=1):
        if old != new and not re.fullmatch(r"\[unused\d+\]", old):
            raise UserError(
                "--vocab_file={}:{}: {!r}, but {}, beside the checkpoint, has {!r}; "
                "give the vocabulary that the checkpoint was trained with".format(
                    chosen.vocab_file, number, new, path, old
                )
            )


def load(directory):
    """Reads what `save` wrote.

    Returns:
      `TaskFiles`, or None where the directory holds none.

    Raises:
      UserError: a file is damaged, or does not go with the others.
    """
    labels_file = os.path.join(directory, model_directory.LABELS_FILE)
    if not files.exists(labels_file):
        return None
    settings = model_settings.read_labels(labels_file)
    config = model_settings.read_config(
        os.path.join(directory, model_directory.CONFIG_FILE)
    )
    model_settings.check_fit(labels_file, settings, config)
    task = _task_of(settings, labels_file)
    if len(settings["labels"]) < kind_of(task).min_labels:
        raise UserError(
            "{}: damaged (labels: {} are too few); copy the model again from an intact "
            "source, or train into another directory".format(
                labels_file, len(settings["labels"])
            )
        )
    _check_options(labels_file, task, settings.get("options", {}))
    vocab_file = os.path.join(directory, model_directory.VOCAB_FILE)
    spm_model_file = os.path.join(directory, model_directory.SPM_FILE)
    return TaskFiles(
        config,
        task,
        tuple(settings["labels"]),
        vocab_file if files.exists(vocab_file) else None,
        spm_model_file if files.exists(spm_model_file) else None,
        settings["do_lower_case"],
        settings["normalize_punctuation"],
        settings["max_seq_length"],
        settings.get("options", {}),
    )


def _check_options(labels_file, task, options):
    """Raises `UserError` where the options of a `labels.json` are not its task's."""
    kind = kind_of(task)
    schema = {
        "type": "object",
        "properties": kind.options,
        "required": list(kind.needed_options),
        "additionalProperties": False,
    }
    try:
        json_files.check({"options": options}, {"properties": {"options": schema}})
    except ValueError as error:
        raise UserError(
            "{}: damaged ({}); copy the model again from an intact source, or train "
            "into another directory".format(labels_file, error)
        ) from error


def _task_of(settings, labels_file):
    """The `Task` that a `labels.json` names; `UserError` where it names none."""
    try:
        return get_task(settings["task_name"])
    except UserError as error:
        raise UserError(
            "{}: task_name is {!r}, which is no task; train into another "
            "--output_dir".format(labels_file, settings["task_name"])
        ) from error


def find_task_name(directories, names):
    """Finds the task of the first fine-tuned model among directories.

    Args:
      directories: dict name of a flag -> path of a model or of its training, or None.
      names: list of the tasks that the command takes, for the message.

    Returns:
      The task's name, and that of the flag.

    Raises:
      UserError: none of them holds a fine-tuned model, or one for an unknown task.
    """
    for flag, directory in directories.items():
        for place in (directory, best_directory(directory)) if directory else ():
            path = os.path.join(place, model_directory.LABELS_FILE)
            if files.exists(path):
                return _task_of(model_settings.read_labels(path), path).name, flag
    raise UserError(
        "--task_name is missing, and no directory given holds a fine-tuned model, "
        "which would tell it; give one of {}".format(", ".join(names))
    )


def best_directory(output_dir):
    """Returns the directory of the best model of an --output_dir, existing or not.

    It is `best/`, or the directory itself where that is a complete model and not
    the directory of a training.
    """
    best_dir = os.path.join(output_dir, model_directory.BEST_DIRECTORY)
    is_model = (
        files.exists(os.path.join(output_dir, model_directory.LABELS_FILE))
        and not files.exists(os.path.join(output_dir, TRAINING_FILE))
        and not files.exists(best_dir)
        and model_directory.find_checkpoint(output_dir) is not None
    )
    return output_dir if is_model else best_dir


def _check_results_of(output_dir, model_dir):
    """Keeps the results of one model out of the directory of another.

    Raises:
      UserError: there is no model directory, or `output_dir` holds another model.
    """
    used = best_directory(model_directory.resolve(model_dir))
    held = best_directory(output_dir)
    is_held = any(
        files.exists(os.path.join(directory, model_directory.LABELS_FILE))
        for directory in (output_dir, held)
    )
    if is_held and files.real_path(held) != files.real_path(used):
        raise UserError(
            "--output_dir={} holds a fine-tuned model of its own, whose results those "
            "of --model_dir={} would replace; choose another --output_dir".format(
                output_dir, model_dir
            )
        )


def load_trained(output_dir, model_dir, task, chosen, given, has_results=True):
    """Reads a fine-tuned model, and checks the directory of its results.

    Args:
      output_dir: where the results go; may be None where there are none.
      model_dir: directory of the model, or of its training; None where that is
        `output_dir`.
      task: the `registry.Task` asked for.
      chosen: `model_directory.ModelDirectory` of the config and the vocabulary that
        the user gives again.
      given: dict field of `TaskFiles` -> value, for other settings given again.
      has_results: whether files will be written there.

    Returns:
      `TaskFiles`.

    Raises:
      UserError: no model there, a damaged one, or one that differs from what is
        given; or `output_dir` belongs to another model.
    """
    flag, directory = "--output_dir", output_dir
    if model_dir:
        flag, directory = "--model_dir", model_dir
        if output_dir:
            _check_results_of(output_dir, model_dir)
    best_dir = best_directory(directory)
    saved = load(best_dir)
    checkpoint = model_directory.find_checkpoint(best_dir) if saved else None
    if checkpoint is None:
        _refuse_without_task(flag, directory, best_dir, task)
        raise UserError(
            "{}={} holds no fine-tuned model".format(flag, directory),
            "; run with --do_train first",
        )
    given = dict(given, options=dict(saved.options, **given.get("options", {})))
    trained = saved._replace(task=task, **_given_again(task, chosen, given))
    _check_has_vocabulary(trained, flag, directory, best_dir)
    check_same_model(directory, _with_usage_options(saved, trained), trained, flag)
    held_config_file = os.path.join(best_dir, model_directory.CONFIG_FILE)
    config = model_settings.load_config(
        chosen.config_file or held_config_file, trained.max_seq_length
    )
    # A training may have set them by --dropout; they are not used here.
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(config, name, getattr(saved.config, name))
    output_directory.check_same_config(directory, held_config_file, config, flag)
    _check_trained(checkpoint, trained, flag)
    kind_of(task).check_options(trained)
    if has_results:
        output_directory.check(output_dir, trained.config)
    return trained


def load_fine_tuned(directory, flag, task):
    """Reads a fine-tuned model that is used as it is.

    Args:
      directory: of the model, or of its training.
      flag: the flag that names it.
      task: the `registry.Task` of the model it is used for.

    Returns:
      `TaskFiles`, and the path prefix of its checkpoint.

    Raises:
      UserError: there is no such model, or a damaged one.
    """
    if not files.is_directory(directory):
        raise UserError("{}={}: no such directory".format(flag, directory))
    best_dir = best_directory(directory)
    saved = load(best_dir)
    checkpoint = model_directory.find_checkpoint(best_dir) if saved else None
    if checkpoint is None:
        _refuse_without_task(flag, directory, best_dir, task)
        raise UserError(
            "{}={} holds no fine-tuned model; give the --output_dir of a finished "
            "training, or a copy of its {}/".format(
                flag, directory, model_directory.BEST_DIRECTORY
            )
        )
    _check_has_vocabulary(saved, flag, directory, best_dir)
    _check_trained(checkpoint, saved, flag)
    kind_of(saved.task).check_options(saved)
    return saved, checkpoint


def _check_has_vocabulary(given, flag, directory, best_dir):
    """Raises `UserError` for `TaskFiles` without a vocabulary."""
    if not (given.vocab_file or given.spm_model_file):
        raise UserError(
            "{}={}: {} holds neither {} nor {}; copy the vocabulary it was trained "
            "with there".format(
                flag,
                directory,
                best_dir,
                model_directory.VOCAB_FILE,
                model_directory.SPM_FILE,
            )
        )


def _with_usage_options(saved, given):
    """Returns `TaskFiles` with the options of others that concern a model's use."""
    names = kind_of(saved.task).usage_options
    usage = {name: value for name, value in given.options.items() if name in names}
    return saved._replace(options=dict(saved.options, **usage))


def _given_again(task, chosen, given):
    """Returns the dict of fields of `TaskFiles` that a user gives again."""
    if chosen.checkpoint:
        _LOGGER.info("without --do_train --init_checkpoint is not read")
    chosen = _prefer_spm(chosen)
    again = {
        "labels": task.labels,
        "vocab_file": chosen.vocab_file,
        "spm_model_file": chosen.spm_model_file,
    }
    again = {name: value for name, value in again.items() if value is not None}
    return dict(given, **again)


def _prefer_spm(chosen):
    """Drops a vocabulary beside a SentencePiece model; published commands name both."""
    return chosen._replace(vocab_file=None) if chosen.spm_model_file else chosen


def _refuse_without_task(flag, directory, best_dir, task):
    """Raises `UserError` where there is a fine-tuned model, but no `labels.json`.

    Args:
      flag, directory: what the user gave.
      best_dir: `best_directory` of it.
      task: the `registry.Task` asked for.
    """
    for place in filter(files.is_directory, (best_dir, directory)):
        labels_file = os.path.join(place, model_directory.LABELS_FILE)
        checkpoint = model_directory.find_checkpoint(place)
        if not checkpoint or files.exists(labels_file):
            continue
        shapes = checkpoints.read_shapes(checkpoint, flag)
        head, kinds = _find_head(shapes)
        if head is None:
            continue
        advice = "copy that file from where the model was trained"
        if task.kind not in kinds:
            commands = sorted({COMMANDS[kind] for kind in kinds})
            text = "; it is none for {}, but for a task of {}"
            advice += text.format(task.name, " or ".join(commands))
        elif head != _SPAN_TAGGER:
            layout = architecture.infer(shapes, checkpoint).dialect
            text = ", or make a copy that has it: python3 convert_checkpoint.py "
            text += "--from={0} --to={0} --input={1} --output=DIRECTORY --task_name={2}"
            advice += text.format(layout, shlex.quote(place), task.name)
            advice += _labels_flag(task, shapes[head][0])
        raise UserError(
            "{}={} holds a fine-tuned model, {}, without its task (no {}); {}".format(
                flag, directory, os.path.basename(checkpoint), labels_file, advice
            )
        )


def _find_head(shapes):
    """Finds the head of a checkpoint by its variables.

    Args:
      shapes: dict name of a variable -> shape.

    Returns:
      The name of the variable in `_HEADS`, and a tuple of the kinds of task that the
      head may be for; None, () without a head.
    """
    for name, kinds in _HEADS.items():
        if name in shapes:
            if len(kinds) > 1:
                is_single = shapes[name][0] == 1
                kinds = _OF_ONE_OUTPUT if is_single else _OF_SEVERAL_OUTPUTS
            return name, kinds
    return None, ()


def _labels_flag(task, num_outputs):
    """The end of a command line: --labels, where a task has none of its own."""
    if not kind_of(task).min_labels or get_task(task.name).labels:
        return ""
    number = (num_outputs - 1) // 2 if task.kind == "tagging" else num_outputs
    names = name_lists.join(task.labels or ["NAME"] * number)
    return " --labels=" + shlex.quote(names)


def _check_trained(checkpoint, files, flag):
    """Raises `UserError` where a checkpoint is not that of a fine-tuned model."""
    architecture.check(checkpoint, files.config, flag)
    variables = checkpoints.read_variables(checkpoint, flag)
    if checkpoints.STEP not in variables:
        raise UserError(
            "{0}: {1} has no global_step, which predicting needs; "
            "convert_checkpoint.py --from={2} --to={2} makes a copy with one".format(
                flag, checkpoint, files.config.dialect
            )
        )
    source = "{}: {}".format(flag, checkpoint)
    step = variables[checkpoints.STEP].dtype
    checkpoints.check_type(source, checkpoints.STEP, step, tf.int64)
    for name, expected in describe_head(kind_of(files.task).head(files)).items():
        found = variables.get(name)
        shape = found and list(found.shape)
        if shape != expected:
            raise UserError(
                "{}: {} has {}, expected {} {}{}".format(
                    flag,
                    checkpoint,
                    "{} {}".format(name, shape) if shape else "no " + name,
                    name,
                    expected,
                    " for the labels " + name_lists.join(files.labels)
                    if files.labels
                    else "",
                )
            )
    checkpoints.check_readable(checkpoint, flag)
    checkpoints.read_step(checkpoint, flag)


def check_same_model(directory, saved, given, flag="--output_dir"):
    """Refuses to mix two models in one directory.

    Args:
      directory: for the message.
      saved: the `TaskFiles` it holds.
      given: the `TaskFiles` asked for now; only the sequence length and the
        config, which `output_directory.check_same_config` checks, may differ.
      flag: the flag that named the directory.

    Raises:
      UserError: names the first difference.
    """
    for what, old, new in (
        ("task", saved.task.name, given.task.name),
        ("labels", name_lists.join(saved.labels), name_lists.join(given.labels)),
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
    ) + tuple(
        (name, saved.options.get(name), given.options.get(name))
        for name in sorted(set(saved.options) | set(given.options))
    ):
        if old != new:
            raise UserError(
                "{0}={1} holds a different model: its {2} is {3}, received {4}; choose "
                "another {0}".format(flag, directory, what, old, new)
            )


class _Content:
    """A file that is equal to another of the same bytes, shown by its path."""

    def __init__(self, path):
        self._path = path
        self._content = model_directory.read_bytes(path)

    def __eq__(self, other):
        return self._content == other._content

    def __str__(self):
        return str(self._path)
