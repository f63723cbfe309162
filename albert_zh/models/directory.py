"""Finds the config, vocabulary and checkpoint in a model directory.

This repository writes the names below. The names of published models are found, too.
"""

import contextlib
import fnmatch
import logging
import os
import shlex
from typing import NamedTuple, Optional

import tokenization
from albert_zh.base import files, json_files
from albert_zh.base.errors import UserError, as_user_error
from albert_zh.models import checkpoints
from albert_zh.models import settings as model_settings

_LOGGER = logging.getLogger(__name__)

CONFIG_FILE = "albert_config.json"
VOCAB_FILE = "vocab.txt"
SPM_FILE = "spm.model"
# Present if the model is a fine-tuned classifier.
LABELS_FILE = "labels.json"
# What its kind of task chose on dev, such as a threshold.
DECISION_FILE = "decision.json"
# Tokenizer settings of a model without labels: do_lower_case, which is Hugging Face's
# key, and normalize_punctuation.
TOKENIZER_FILE = "tokenizer_settings.json"
# Hugging Face's file with the same key. Not written beside a TensorFlow checkpoint:
# bert-for-tf2 expects exactly one file there that matches *_config*.json.
_HUGGING_FACE_TOKENIZER_FILE = "tokenizer_config.json"
# Directory of the best model, inside the --output_dir of fine-tuning.
BEST_DIRECTORY = "best"

# Names of published models; earlier tuples are preferred.
_CONFIG_NAMES = ((CONFIG_FILE,), ("albert_config*.json", "bert_config*.json"))
_OTHER_CONFIG_NAMES = (("*config*.json",),)
_VOCAB_NAMES = ((VOCAB_FILE,), ("vocab*.txt",))
_SPM_NAMES = ((SPM_FILE,), ("spiece.model",), ("30k-clean.model",))
_OTHER_SPM_NAMES = (("*.model",),)
# Weights of Hugging Face's PyTorch models.
_HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Keys that only config files of Hugging Face have.
_HUGGING_FACE_KEYS = {"model_type", "architectures", "transformers_version"}

_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
DECISION_SCHEMA = dict(_NUMBERS, properties={"former": _NUMBERS})

_FLAGS = {
    "config_file": "--albert_config_file",
    "vocab_file": "--vocab_file",
    "spm_model_file": "--spm_model_file",
    "checkpoint": "--init_checkpoint",
}
_KINDS = {
    "config_file": "config",
    "vocab_file": "vocabulary",
    "spm_model_file": "SentencePiece model",
    "checkpoint": "checkpoint",
}
_VOCABULARY_HINT = (
    "`python3 download_model.py vocab` writes BERT's Chinese one to "
    "albert_config/vocab.txt"
)


class ModelDirectory(NamedTuple):
    """Paths of a model's files; absent ones are None.

    Attributes:
      directory: the directory searched; None if flags name all files.
      config_file: TensorFlow config of the encoder.
      vocab_file: WordPiece vocabulary.
      spm_model_file: SentencePiece model, which includes the vocabulary; if there is
        one, `vocab_file` is not searched for.
      checkpoint: path prefix of a TensorFlow checkpoint.
    """

    directory: Optional[str]
    config_file: Optional[str] = None
    vocab_file: Optional[str] = None
    spm_model_file: Optional[str] = None
    checkpoint: Optional[str] = None


def find(directory):
    """Finds a model's files, for commands without a flag for each of them.

    Args:
      directory: path; for an --output_dir of fine-tuning, its `best/` is used.

    Returns:
      `ModelDirectory`.

    Raises:
      UserError: there is no such directory, a file is ambiguous, a checkpoint lacks
        a file, or the weights are another framework's.
    """
    directory = resolve(directory)
    return ModelDirectory(
        directory,
        find_config(directory),
        *find_vocabulary(directory),
        checkpoint=find_checkpoint(directory),
    )


def choose(directory, **flags):
    """Returns the files that flags name; searches a directory for the others.

    Args:
      directory: --model_dir, or None.
      **flags: field of `ModelDirectory` -> its flag's value, None if the flag is
        absent. Fields not given are neither searched for nor returned. Vocabulary and
        SentencePiece model are alternatives: if one is named, the other is not
        searched for.

    Returns:
      `ModelDirectory`.

    Raises:
      UserError: as `find`, for the files searched for; or a file that a flag names
        does not exist or is a pipe (`checkpoints.read_shapes` checks checkpoints).
    """
    for field in ("config_file", "vocab_file", "spm_model_file"):
        _check_exists(field, flags.get(field))
    if flags.get("checkpoint"):
        flags["checkpoint"] = checkpoints.prefix_at(flags["checkpoint"])
    if directory is None:
        return _without_pipes(ModelDirectory(None, **flags))
    directory = resolve(directory, has_flags=True)
    found = dict(flags)
    absent = {field for field, path in flags.items() if not path}
    if "config_file" in absent:
        found["config_file"] = find_config(directory, has_flags=True)
    if "checkpoint" in absent:
        found["checkpoint"] = find_checkpoint(directory, has_flags=True)
    if {"vocab_file", "spm_model_file"} <= absent:
        found["vocab_file"], found["spm_model_file"] = find_vocabulary(
            directory, has_flags=True
        )
    for field, path in found.items():
        if path and field in absent:
            _LOGGER.info("--model_dir: %s is its %s", path, _KINDS[field])
        elif path:
            _LOGGER.info("%s: %s, not --model_dir's", _FLAGS[field], path)
    return _without_pipes(ModelDirectory(directory, **found))


def _without_pipes(found):
    """Returns a `ModelDirectory`; raises `UserError` if reading a file could block."""
    for path in (found.config_file, found.vocab_file, found.spm_model_file):
        if path:
            files.require_regular(path)
    return found


def _check_exists(field, path):
    if path and not files.exists(path):
        hint = "; " + _VOCABULARY_HINT if field == "vocab_file" else ""
        raise UserError("{}={}: no such file{}".format(_FLAGS[field], path, hint))


def require(found, *fields, has_flags=True):
    """Checks that files were named or found.

    Args:
      found: `ModelDirectory`.
      *fields: fields that must not be None; for "vocab_file" a SentencePiece model
        is accepted, too.
      has_flags: as in `resolve`.

    Raises:
      UserError: names the first missing one, and its flag.
    """
    for field in fields:
        is_vocab = field == "vocab_file"
        if getattr(found, field) or (is_vocab and found.spm_model_file):
            continue
        if found.directory is None:
            message = "{} is missing; give it or --model_dir".format(_FLAGS[field])
        else:
            message = "--model_dir={} holds no {}".format(
                found.directory, _KINDS[field]
            )
            message += "; give " + _FLAGS[field] if has_flags else ""
        hint = " ({})".format(_VOCABULARY_HINT) if is_vocab else ""
        raise UserError(message + hint)


def resolve(directory, has_flags=False):
    """Returns the directory that has the model: after fine-tuning, its `best/`.

    Args:
      directory: path.
      has_flags: bool; whether the command has a flag for each file. Messages then
        name the flag. The same in all functions below.

    Raises:
      UserError: there is no such directory.
    """
    if not files.is_directory(directory):
        hint = " (a checkpoint's path goes to --init_checkpoint)" if has_flags else ""
        raise UserError(
            "{}: no such directory; expected a model's{}".format(directory, hint)
        )
    best_dir = os.path.join(directory, BEST_DIRECTORY)
    is_fine_tuning = files.exists(os.path.join(best_dir, LABELS_FILE))
    return best_dir if is_fine_tuning else directory


def read_do_lower_case(directory):
    """Reads whether a model's tokenizer lower-cases.

    Args:
      directory: path from `resolve`.

    Returns:
      bool from `labels.json`, else `tokenizer_settings.json`, else Hugging Face's
      `tokenizer_config.json`; None if none of them says.

    Raises:
      UserError: one of the files is damaged.
    """
    names = LABELS_FILE, TOKENIZER_FILE, _HUGGING_FACE_TOKENIZER_FILE
    return _read_tokenizer_setting("do_lower_case", directory, names)


def read_normalize_punctuation(directory):
    """Reads whether a model's tokenizer maps punctuation.

    Args:
      directory: path from `resolve`.

    Returns:
      bool from `labels.json`, else `tokenizer_settings.json`, else False.

    Raises:
      UserError: one of the files is damaged.
    """
    names = LABELS_FILE, TOKENIZER_FILE
    return bool(_read_tokenizer_setting("normalize_punctuation", directory, names))


def _read_tokenizer_setting(setting, directory, names):
    """Returns a setting from the first file that has it; None if none has."""
    for name in names:
        path = os.path.join(directory, name)
        if files.exists(path):
            value = model_settings.read_tokenizer_setting(
                path, setting, is_labels=name == LABELS_FILE
            )
            if value is not None:
                return value
    return None


def write_tokenizer_settings(directory, do_lower_case, normalize_punctuation):
    """Writes the `tokenizer_settings.json` of a model without labels.

    Args:
      directory: path.
      do_lower_case, normalize_punctuation: bool.

    Raises:
      UserError: it cannot be written.
    """
    settings = {"do_lower_case": do_lower_case}
    if normalize_punctuation:
        settings["normalize_punctuation"] = True
    json_files.write(settings, os.path.join(directory, TOKENIZER_FILE))


def choose_do_lower_case(given, directory):
    """Returns --do_lower_case if given, else the model's casing, else True.

    Args:
      given: bool, or None if the flag is absent.
      directory: path of the model to start from, or None.

    Returns:
      bool.

    Raises:
      UserError: as `read_do_lower_case`.
    """
    if given is not None:
        held = given
        with contextlib.suppress(UserError):  # the file is not needed
            held = read_do_lower_case(directory) if directory else None
        if held not in (None, given):
            _LOGGER.warning(
                "--do_lower_case=%s, but the model was trained with %s: texts become "
                "other tokens than it learned",
                given,
                held,
            )
        return given
    held = read_do_lower_case(directory) if directory else None
    if held is None:
        return True
    _LOGGER.info("--model_dir: its do_lower_case is %s", held)
    return held


def find_config(directory, has_flags=False):
    """Returns the path of the TensorFlow config in a directory, or None.

    Raises:
      UserError: several files match.
    """
    return _find_one(directory, "config_file", _CONFIG_NAMES, has_flags) or _find_one(
        directory, "config_file", _OTHER_CONFIG_NAMES, has_flags, _is_tensorflow_config
    )


def find_vocabulary(directory, has_flags=False):
    """Returns the paths (vocabulary, SentencePiece model), at least one of them None.

    A SentencePiece model with a usual name has precedence, as in the tokenizer.

    Raises:
      UserError: several files match.
    """
    spm_model_file = _find_one(directory, "spm_model_file", _SPM_NAMES, has_flags)
    if spm_model_file:
        return None, spm_model_file
    vocab_file = _find_one(directory, "vocab_file", _VOCAB_NAMES, has_flags)
    if vocab_file:
        return vocab_file, None
    return None, _find_one(directory, "spm_model_file", _OTHER_SPM_NAMES, has_flags)


def _find_one(directory, field, tiers, has_flags, is_right=lambda path: True):
    """Returns the path of the file that matches the first tier with a match, or None.

    Raises:
      UserError: several files match that tier.
    """
    # Not the files that macOS adds to every file of an archive or a foreign disk.
    present = [n for n in files.list_directory(directory) if not n.startswith("._")]
    for patterns in tiers:
        names = [n for n in present if any(fnmatch.fnmatch(n, p) for p in patterns)]
        paths = [os.path.join(directory, name) for name in names]
        paths = list(filter(is_right, paths))
        if len(paths) > 1:
            raise UserError(
                "{} holds {}: each could be the model's; leave one there{}".format(
                    directory,
                    ", ".join(map(os.path.basename, paths)),
                    ", or name it with " + _FLAGS[field] if has_flags else "",
                )
            )
        if paths:
            return paths[0]
    return None


def _is_tensorflow_config(path):
    """Whether a JSON file is the config of an encoder, but not Hugging Face's."""
    try:
        settings = json_files.read(path, {"type": "object"}, advice="")
    except UserError:
        return False
    return "hidden_size" in settings and not _HUGGING_FACE_KEYS & set(settings)


def find_checkpoint(directory, needs_data=True, has_flags=False):
    """Finds the TensorFlow checkpoint of a directory.

    The `checkpoint` file decides if the checkpoint that it names is in the directory,
    which may have been moved or copied. Else the directory must have exactly one
    checkpoint. Only if it has none, a path to another directory is followed.

    Args:
      directory: path.
      needs_data: bool; whether the .data files must exist, too.
      has_flags: as in `resolve`.

    Returns:
      Path prefix, or None.

    Raises:
      UserError: there are several checkpoints, one lacks its .index or .data file,
        or there are only weights of another framework.
    """
    names = files.list_directory(directory)
    prefixes = sorted(filter(None, {checkpoints.prefix_of(name) for name in names}))
    prefixes = [os.path.join(directory, prefix) for prefix in prefixes]
    named = checkpoints.named_checkpoint(directory)
    if named is None:
        reason = "and no `checkpoint` file that names one of them"
        prefix = _only_one(directory, prefixes, reason, has_flags)
    else:
        prefix = _follow(directory, prefixes, named, has_flags)
    if prefix is None:
        _refuse_hugging_face(directory, names)
        return None
    missing = checkpoints.missing_files(prefix)
    if missing and (needs_data or missing[0].endswith(".index")):
        raise UserError(
            "{} is missing; copy or download the checkpoint again".format(missing[0])
        )
    return prefix


def _follow(directory, prefixes, named, has_flags):
    """Returns the checkpoint that a `checkpoint` file means.

    Args:
      directory: path.
      prefixes: list of the path prefixes in the directory.
      named: the path prefix that the file names.
      has_flags: as in `resolve`.

    Returns:
      Path prefix.

    Raises:
      UserError: the directory has several, but not the named one; or there is none.
    """
    state_file = os.path.join(directory, "checkpoint")
    beside = os.path.join(directory, os.path.basename(named))
    if beside in prefixes:
        return beside
    if prefixes:
        reason = "but its `checkpoint` file names {}".format(named)
        prefix = _only_one(directory, prefixes, reason, has_flags)
        _LOGGER.warning(
            "%s names %s, which is not in this directory; reading %s",
            state_file,
            named,
            prefix,
        )
        return prefix
    if not files.exists(named + ".index"):
        raise UserError("{}: names {}, which does not exist".format(state_file, named))
    _LOGGER.warning("%s: reading %s, which it names", state_file, named)
    return named


def _only_one(directory, prefixes, reason, has_flags):
    """Returns the only path prefix, or None; `UserError` if there are several."""
    if len(prefixes) > 1:
        raise UserError(
            "{} holds the checkpoints {}, {}; {}leave one, or name one in the "
            "`checkpoint` file".format(
                directory,
                ", ".join(map(os.path.basename, prefixes)),
                reason,
                "choose one with --init_checkpoint, " if has_flags else "",
            )
        )
    return prefixes[0] if prefixes else None


def _refuse_hugging_face(directory, names):
    """Raises `UserError` if a directory has PyTorch weights."""
    weights = [name for name in _HUGGING_FACE_WEIGHTS if name in names]
    if weights:
        raise UserError(
            "{} holds {} and no TensorFlow checkpoint; convert it: python3 "
            "convert_checkpoint.py --from=huggingface --to=google --input={} "
            "--output=DIRECTORY (of a BERT: --to=bert)".format(
                directory, weights[0], shlex.quote(directory)
            )
        )


def check_vocabulary(vocab_size, vocab_file, config, exact=False):
    """Checks that a vocabulary fits a model's embedding table.

    Args:
      vocab_size: int, number of its entries.
      vocab_file: path of the vocabulary or SentencePiece model, for messages.
      config: `modeling.AlbertConfig`.
      exact: bool; whether it must have an entry for every row, as the vocabulary of
        a trained model does.

    Raises:
      UserError: it has more entries than the table has rows or, if `exact`, fewer.
    """
    rows = config.vocab_size
    if vocab_size > rows:
        raise UserError(
            "{} has {} entries, the model's embedding table only {} rows; give the "
            "vocabulary of the model".format(vocab_file, vocab_size, rows)
        )
    if exact and vocab_size < rows:
        missing = "[unused{}]".format(vocab_size)
        if rows - vocab_size > 1:
            missing = "the lines {} to [unused{}]".format(missing, rows - 1)
        raise UserError(
            "{} has {} entries, the model's embedding table {} rows; give the "
            "vocabulary the model was trained with (if that is a text file shorter "
            "than the table: append {})".format(vocab_file, vocab_size, rows, missing)
        )


def check_vocabulary_of(found, config):
    """Reads a model's vocabulary, if it has one, and checks it against the config.

    Args:
      found: `ModelDirectory`.
      config: `modeling.AlbertConfig`.

    Raises:
      UserError: it cannot be used, or does not fit the config.
    """
    if not (found.vocab_file or found.spm_model_file):
        return
    with as_user_error(ValueError, OSError, ImportError):
        tokenizer = tokenization.FullTokenizer(
            found.vocab_file, spm_model_file=found.spm_model_file
        )
    path = found.spm_model_file or found.vocab_file
    check_vocabulary(tokenizer.vocab_size, path, config, exact=True)


def copy_vocabulary(found, directory, of_records=None):
    """Copies the vocabulary of the model that training started from.

    The tokenizer's settings, those of the records or else of that model, are written
    to `tokenizer_settings.json`.

    Args:
      found: `ModelDirectory` of that model.
      directory: path of the --output_dir.
      of_records: dict of the settings that the records were made with; {} or None if
        that is unknown.

    Raises:
      UserError: the directory has another vocabulary or other settings.
    """
    _copy_tokenizer_settings(found.directory, directory, of_records or {})
    for source, name in (
        (found.vocab_file, VOCAB_FILE),
        (found.spm_model_file, SPM_FILE),
    ):
        target = os.path.join(directory, name)
        if source is None:
            continue
        if files.exists(target) and read_bytes(target) != read_bytes(source):
            raise UserError(
                "--output_dir: {} differs from {} of the model started from; choose "
                "another --output_dir".format(target, source)
            )
        copy_file(source, target)


def _copy_tokenizer_settings(source, directory, of_records):
    given = _tokenizer_settings(source) if source else {}
    for name, value in of_records.items():
        if given.get(name, value) is not value:
            _LOGGER.warning(
                "the records were made with %s %s, but the model in %s was trained "
                "with %s: it gets other tokens than it knows",
                name,
                value,
                source,
                given[name],
            )
    given.update(of_records)
    if "do_lower_case" not in given:
        return
    held = _tokenizer_settings(directory)
    for name in sorted(set(given) & set(held)):
        if given[name] is not held[name]:
            raise UserError(
                "--output_dir: {} has {} {}, {} {}; choose another "
                "--output_dir".format(
                    directory,
                    name,
                    held[name],
                    "the records" if of_records else "the model in " + source,
                    given[name],
                )
            )
    if not held:
        marks = given["normalize_punctuation"]
        write_tokenizer_settings(directory, given["do_lower_case"], marks)


def _tokenizer_settings(directory):
    """What a directory's files say of its tokenizer; {} where no file does."""
    lower_case = read_do_lower_case(directory)
    if lower_case is None:
        return {}
    marks = read_normalize_punctuation(directory)
    return {"do_lower_case": lower_case, "normalize_punctuation": marks}


def read_decision(directory):
    """Returns the dict of a `decision.json`; {} where there is none.

    Raises:
      UserError: it is damaged.
    """
    decision = _read_decisions(directory)
    former = decision.pop("former", None)
    if former and checkpoints.named_step(directory) == former.get("step"):
        decision = former  # the new weights are not in use yet
    decision.pop("step", None)
    return decision


def _read_decisions(directory):
    path = os.path.join(directory, DECISION_FILE)
    advice = "copy the model again from an intact source, or train again"
    return json_files.read(path, DECISION_SCHEMA, advice) if files.exists(path) else {}


def replace_decision(decision, step, directory):
    """Writes the decision of weights that are to replace those of a directory.

    The former one holds as long as the `checkpoint` file names the former weights.

    Args:
      decision: dict of numbers; of an empty one nothing is written.
      step: of the new weights.
      directory: path.
    """
    if not decision:
        return
    new, held = dict(decision, step=step), read_decision(directory)
    held_step = checkpoints.named_step(directory)
    if held and held_step not in (None, step):
        new["former"] = dict(held, step=held_step)
    write_decision(new, directory)


def settle_decision(directory):
    """Leaves of two decisions that of the weights that the `checkpoint` file names."""
    if "former" in _read_decisions(directory):
        step = checkpoints.named_step(directory)
        write_decision(dict(read_decision(directory), step=step), directory)


def write_decision(decision, directory):
    """Writes a `decision.json`, if there is anything in it."""
    if decision:
        json_files.write(decision, os.path.join(directory, DECISION_FILE))


def read_bytes(path):
    """Returns the content of a file; None for the path None."""
    return None if path is None else files.read_bytes(path)


def copy_file(source, target):
    """Copies a file, if there is one and it is not there already."""
    if source is not None and source != target:
        files.copy(source, target)
