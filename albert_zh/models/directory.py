"""The files of a model in one directory: which is config, vocabulary, checkpoint.

Directories of this repository use the names below. Those of published models have
names of their own, which are found as well.
"""

import fnmatch
import logging
import os
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
# Present where the model is a fine-tuned classifier.
LABELS_FILE = "labels.json"
# The tokenizer's settings under Hugging Face's names; of them the casing is read.
TOKENIZER_FILE = "tokenizer_settings.json"
# Hugging Face's file with the same key. It is not written beside a TensorFlow
# checkpoint: bert-for-tf2 wants one file there that matches *_config*.json.
_HUGGING_FACE_TOKENIZER_FILE = "tokenizer_config.json"
# The best model of a fine-tuning, inside its --output_dir.
BEST_DIRECTORY = "best"

# Names that published models use, by falling preference; those of one tuple are equal.
_CONFIG_NAMES = ((CONFIG_FILE,), ("albert_config*.json", "bert_config*.json"))
_OTHER_CONFIG_NAMES = (("*config*.json",),)
_VOCAB_NAMES = ((VOCAB_FILE,), ("vocab*.txt",))
_SPM_NAMES = ((SPM_FILE,), ("spiece.model",), ("30k-clean.model",))
_OTHER_SPM_NAMES = (("*.model",),)
# Weights of Hugging Face's PyTorch models.
_HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What config files of Hugging Face have and TensorFlow's have not.
_HUGGING_FACE_KEYS = {"model_type", "architectures", "transformers_version"}

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
    """A model's files; each but the directory is None where there is none.

    Attributes:
      directory: the directory searched; None where flags alone name the files.
      config_file: TensorFlow config of the encoder.
      vocab_file: WordPiece vocabulary.
      spm_model_file: SentencePiece model, which has the vocabulary in it; where there
        is one, `vocab_file` is not searched for.
      checkpoint: path prefix of a TensorFlow checkpoint.
    """

    directory: Optional[str]
    config_file: Optional[str] = None
    vocab_file: Optional[str] = None
    spm_model_file: Optional[str] = None
    checkpoint: Optional[str] = None


def find(directory):
    """Finds a model's files, for commands that have no flag for each of them.

    Args:
      directory: path; where it is that of a fine-tuning, its `best/` is taken.

    Returns:
      `ModelDirectory`.

    Raises:
      UserError: there is no such directory, several files could be meant, one of a
        checkpoint's files is missing, or the weights are another framework's.
    """
    directory = resolve(directory)
    return ModelDirectory(
        directory,
        find_config(directory),
        *find_vocabulary(directory),
        checkpoint=find_checkpoint(directory),
    )


def choose(directory, **flags):
    """Takes what the flags name and, for the rest, what a directory holds.

    Args:
      directory: --model_dir, or None.
      **flags: field of `ModelDirectory` -> its flag's value, None where that is
        absent. Fields that are not named here are neither searched for nor returned.
        A vocabulary and a SentencePiece model exclude each other: where one is
        named, the other one is not searched for.

    Returns:
      `ModelDirectory`.

    Raises:
      UserError: as `find`, for the files searched for; or a file that a flag names
        is not there (checkpoints are left to `checkpoints.read_shapes`).
    """
    for field in ("config_file", "vocab_file", "spm_model_file"):
        _check_exists(field, flags.get(field))
    if directory is None:
        return ModelDirectory(None, **flags)
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
    return ModelDirectory(directory, **found)


def _check_exists(field, path):
    if path and not files.exists(path):
        hint = "; " + _VOCABULARY_HINT if field == "vocab_file" else ""
        raise UserError("{}={}: no such file{}".format(_FLAGS[field], path, hint))


def require(found, *fields, has_flags=True):
    """Makes sure that files were named or found.

    Args:
      found: `ModelDirectory`.
      *fields: those that must not be None; for "vocab_file" a SentencePiece model
        does as well.
      has_flags: as `resolve` takes it.

    Raises:
      UserError: names the first one that is missing, and its flag.
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
    """Returns the directory of the model itself: a fine-tuning's is its `best/`.

    Args:
      directory: path.
      has_flags: bool; whether the command has a flag for each file that a directory
        is searched for, which the message then names. So in all functions below.

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
    """Tells whether a model's tokenizer lower-cases.

    Args:
      directory: path of the model itself, see `resolve`.

    Returns:
      bool, of `labels.json`, else of `tokenizer_settings.json`, else of Hugging
      Face's `tokenizer_config.json`; None where none says.

    Raises:
      UserError: one of the files is damaged.
    """
    for name in (LABELS_FILE, TOKENIZER_FILE, _HUGGING_FACE_TOKENIZER_FILE):
        path = os.path.join(directory, name)
        if not files.exists(path):
            continue
        value = model_settings.read_casing(path, is_labels=name == LABELS_FILE)
        if value is not None:
            return value
    return None


def choose_do_lower_case(given, directory):
    """Takes --do_lower_case where it is given, else the model's casing, else True.

    Args:
      given: bool, or None where the flag is absent.
      directory: path of the model that is started from, or None.

    Returns:
      bool.

    Raises:
      UserError: as `read_do_lower_case`.
    """
    if given is not None:
        return given
    held = read_do_lower_case(directory) if directory else None
    if held is None:
        return True
    _LOGGER.info("--model_dir: its do_lower_case is %s", held)
    return held


def find_config(directory, has_flags=False):
    """Returns the path of the TensorFlow config in a directory, or None.

    Raises:
      UserError: several files could be meant.
    """
    return _find_one(directory, "config_file", _CONFIG_NAMES, has_flags) or _find_one(
        directory, "config_file", _OTHER_CONFIG_NAMES, has_flags, _is_tensorflow_config
    )


def find_vocabulary(directory, has_flags=False):
    """Returns (vocabulary, SentencePiece model): the path of one of them, or none.

    A SentencePiece model of a usual name is preferred, as tokenizers prefer it.

    Raises:
      UserError: several files could be meant.
    """
    spm_model_file = _find_one(directory, "spm_model_file", _SPM_NAMES, has_flags)
    if spm_model_file:
        return None, spm_model_file
    vocab_file = _find_one(directory, "vocab_file", _VOCAB_NAMES, has_flags)
    if vocab_file:
        return vocab_file, None
    return None, _find_one(directory, "spm_model_file", _OTHER_SPM_NAMES, has_flags)


def _find_one(directory, field, tiers, has_flags, is_right=lambda path: True):
    """Returns the path of the one file that the first tier with any names, or None.

    Raises:
      UserError: the tier names several.
    """
    present = files.list_directory(directory)
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
    """Whether a JSON file describes an encoder, and not in Hugging Face's terms."""
    try:
        settings = json_files.read(path, {"type": "object"}, advice="")
    except UserError:
        return False
    return "hidden_size" in settings and not _HUGGING_FACE_KEYS & set(settings)


def find_checkpoint(directory, needs_data=True, has_flags=False):
    """Finds the TensorFlow checkpoint of a directory.

    The `checkpoint` file decides, if what it names is here: the directory may have
    been moved or copied. Else the directory must have one checkpoint only; a path
    elsewhere is followed only where it has none.

    Args:
      directory: path.
      needs_data: bool; whether the .data files must be there, too.
      has_flags: as `resolve` takes it.

    Returns:
      Path prefix, or None.

    Raises:
      UserError: there are several checkpoints, one without its .index or .data file,
        or only another framework's weights.
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
    """The checkpoint meant by a `checkpoint` file.

    Args:
      directory: path.
      prefixes: list of the path prefixes in the directory.
      named: the path prefix that the file names.
      has_flags: as `resolve` takes it.

    Returns:
      Path prefix.

    Raises:
      UserError: several are there and not the named one, or none anywhere.
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
        raise UserError("{}: names {}, which is not there".format(state_file, named))
    _LOGGER.warning("%s: reading %s, which it names", state_file, named)
    return named


def _only_one(directory, prefixes, reason, has_flags):
    """Returns the one path prefix, or None; `UserError` if there are several."""
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
    """Raises `UserError` where a directory holds PyTorch weights."""
    weights = [name for name in _HUGGING_FACE_WEIGHTS if name in names]
    if weights:
        raise UserError(
            "{} holds {} and no TensorFlow checkpoint; convert it: python3 "
            "convert_checkpoint.py --from=huggingface --to=google --input={} "
            "--output=DIRECTORY".format(directory, weights[0], directory)
        )


def check_vocabulary(vocab_size, vocab_file, config, exact=False):
    """Makes sure that a vocabulary goes with a model's embedding table.

    Args:
      vocab_size: int, number of its entries.
      vocab_file: its path, or that of the SentencePiece model, for the message.
      config: `modeling.AlbertConfig`.
      exact: bool; whether it must have an entry for every row, as the vocabulary of
        a trained model has.

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
        raise UserError(
            "{} has {} entries, the model's embedding table {} rows; give the "
            "vocabulary the model was trained with (if this is it and the table was "
            "made larger: append {} lines such as [unused{}])".format(
                vocab_file, vocab_size, rows, rows - vocab_size, vocab_size
            )
        )


def check_vocabulary_of(found, config):
    """Reads a model's vocabulary, if it has one, and holds it against the config.

    Args:
      found: `ModelDirectory`.
      config: `modeling.AlbertConfig`.

    Raises:
      UserError: it cannot be used, or not with this model.
    """
    if not (found.vocab_file or found.spm_model_file):
        return
    with as_user_error(ValueError, OSError, ImportError):
        tokenizer = tokenization.FullTokenizer(
            found.vocab_file, spm_model_file=found.spm_model_file
        )
    path = found.spm_model_file or found.vocab_file
    check_vocabulary(tokenizer.vocab_size, path, config, exact=True)


def copy_vocabulary(found, directory):
    """Completes an --output_dir by the vocabulary of the model it started from.

    The casing comes along in `tokenizer_settings.json`, where the model has it.

    Args:
      found: `ModelDirectory`.
      directory: path.

    Raises:
      UserError: it holds another vocabulary, or is of another casing.
    """
    _copy_casing(found.directory, directory)
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


def _copy_casing(source, directory):
    given = read_do_lower_case(source) if source else None
    held = read_do_lower_case(directory)
    if given is None or given is held:
        return
    if held is not None:
        raise UserError(
            "--output_dir: {} has do_lower_case {}, the model started from in {} has "
            "{}; choose another --output_dir".format(directory, held, source, given)
        )
    path = os.path.join(directory, TOKENIZER_FILE)
    json_files.write({"do_lower_case": given}, path)


def read_bytes(path):
    """Returns the content of a file; None for the path None."""
    return None if path is None else files.read_bytes(path)


def copy_file(source, target):
    """Copies a file, if there is one and it is not there already."""
    if source is not None and source != target:
        files.copy(source, target)
