"""Tokenizer files beside PyTorch models, as Hugging Face names them."""

import logging
import os

from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

_LOGGER = logging.getLogger(__name__)

_VOCABULARY = "vocab.txt"
_SENTENCEPIECE = "spiece.model"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"

_SHOWN_CHARACTERS = 200
_COPY_AGAIN = "copy or download it again"
_SWITCH = {"type": ["boolean", "null"]}
_CONFIG_SCHEMA = {"type": "object", "properties": {"do_lower_case": _SWITCH}}
_TOKENIZER_SCHEMA = {
    "type": "object",
    "properties": {
        "normalizer": {
            "type": ["object", "null"],
            "properties": {"lowercase": _SWITCH},
        },
        "model": {
            "type": ["object", "null"],
            "if": {
                "required": ["type"],
                "properties": {"type": {"const": "WordPiece"}},
            },
            "then": {
                "required": ["vocab"],
                "properties": {
                    "vocab": {
                        "type": "object",
                        "additionalProperties": {"type": "integer"},
                    }
                },
            },
        },
    },
}

# Settings of a tokenizer_config.json that are fixed in `tokenization`.
_TOKENIZER_DEFAULTS = {
    "keep_accents": False,
    "remove_space": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
}


def read(directory):
    """Reads a directory's tokenizer.

    Returns:
      (vocabulary, sentencepiece, do_lower_case): bytes of a vocab.txt or None, bytes
      of a SentencePiece model or None, bool.

    Raises:
      UserError: a file is damaged.
    """

    def path_of(name):
        path = os.path.join(directory, name)
        return path if os.path.exists(path) else None

    settings, tokenizer = {}, {}
    if path_of(_TOKENIZER_CONFIG):
        settings = json_files.read(
            path_of(_TOKENIZER_CONFIG), _CONFIG_SCHEMA, _COPY_AGAIN
        )
    vocabulary, sentencepiece = (
        files.read_bytes(path_of(name)) if path_of(name) else None
        for name in (_VOCABULARY, _SENTENCEPIECE)
    )
    if path_of(_TOKENIZER) and vocabulary is None and sentencepiece is None:
        tokenizer = json_files.read(path_of(_TOKENIZER), _TOKENIZER_SCHEMA, _COPY_AGAIN)
        vocabulary = _vocabulary_of(tokenizer.get("model") or {}, path_of(_TOKENIZER))
    for key, value in _TOKENIZER_DEFAULTS.items():
        if settings.get(key, value) not in (value, None):
            _LOGGER.warning(
                "%s: %s %s has no counterpart here; some texts are tokenized "
                "differently",
                path_of(_TOKENIZER_CONFIG),
                key,
                printable(settings[key])[:_SHOWN_CHARACTERS],
            )
    normalizer = tokenizer.get("normalizer") or {}
    lower_case = settings.get("do_lower_case")
    if lower_case is None:
        lower_case = normalizer.get("lowercase")
    # The Chinese models' vocabulary is lower-cased.
    return vocabulary, sentencepiece, lower_case is not False


def _vocabulary_of(model, path):
    """Returns the bytes of a `vocab.txt` from a WordPiece tokenizer.json, or None."""
    if model.get("type") != "WordPiece":
        return None
    ids = model["vocab"]
    tokens = sorted(ids, key=ids.get)
    if sorted(ids.values()) != list(range(len(tokens))):
        raise UserError(
            "{}: the ids of its vocabulary are not 0 to {}".format(
                path, len(tokens) - 1
            )
        )
    for token in tokens:
        if not token or set(token) & set("\r\n"):
            raise UserError(
                "{}: the token '{}' cannot be a line of vocab.txt".format(
                    path, printable(token)
                )
            )
    return "".join(token + "\n" for token in tokens).encode("utf-8")


def write(model, directory):
    """Writes the tokenizer of a `Model`, if it has one, into a directory."""
    for name, content in (
        (_VOCABULARY, model.vocabulary),
        (_SENTENCEPIECE, model.sentencepiece),
    ):
        if content is not None:
            files.write_bytes(content, os.path.join(directory, name))
    if model.vocabulary is None and model.sentencepiece is None:
        return
    # Chinese ALBERT has BERT's vocabulary: without this class, Hugging Face would
    # expect ALBERT's SentencePiece model.
    settings = {
        "tokenizer_class": "BertTokenizer" if model.vocabulary else "AlbertTokenizer",
        "do_lower_case": model.do_lower_case,
        "model_max_length": model.config.max_position_embeddings,
    }
    json_files.write(settings, os.path.join(directory, _TOKENIZER_CONFIG))
