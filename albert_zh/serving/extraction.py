"""Vectors of the lines of a file, of each token or of each line."""

import json
import re
from typing import NamedTuple, Optional, Tuple

import numpy as np

from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings
from albert_zh.serving import backends, encoder, exported, inputs, onnx_backend
from albert_zh.serving.predictor import Predictor, check_encoder, kind_of
from albert_zh.tasks import reading, text_lines
from albert_zh.tasks.features import chunked
from albert_zh.training import numerics

# As in BERT's script.
_DEFAULT_LENGTH = 128
_PAIR = re.compile(r"(.*) \|\|\| (.*)", re.DOTALL)
# Lines whose tokens' vectors, or whose features, are in memory together.
_LINES_OF_TOKENS = 256
_LINES_OF_VECTORS = 10000


class EncoderSettings(NamedTuple):
    """What of a model to apply, and how.

    Attributes:
      max_seq_length: int, tokens of a line; what is longer is cut. None for 128, or
        less where the model takes less.
      do_lower_case, normalize_punctuation: bool; None for the model's own.
      pooling: one of `encoder.POOLINGS`.
    """

    max_seq_length: Optional[int]
    do_lower_case: Optional[bool] = None
    normalize_punctuation: Optional[bool] = None
    pooling: str = encoder.DEFAULT_POOLING


def load_encoder(chosen, settings):
    """Loads an encoder, also that of a fine-tuned model.

    Args:
      chosen: `model_directory.ModelDirectory`; an export of an encoder with
        --format=onnx needs no TensorFlow.
      settings: `EncoderSettings`.

    Returns:
      `Predictor` that cuts what is too long.

    Raises:
      UserError: a file is missing, damaged, or does not go with the others.
    """
    is_export = bool(
        chosen.directory
        and not chosen.checkpoint
        and exported.is_export(chosen.directory)
    )
    needed = ("config_file", "vocab_file") + (() if is_export else ("checkpoint",))
    model_directory.require(chosen, *needed)
    length = settings.max_seq_length
    config = model_settings.load_config(chosen.config_file, length or 0)
    length = length or min(_DEFAULT_LENGTH, config.max_position_embeddings)
    marks = settings.normalize_punctuation
    if marks is None and chosen.directory:
        marks = model_directory.read_normalize_punctuation(chosen.directory)
    files = encoder.files_of(
        config,
        None if chosen.spm_model_file else chosen.vocab_file,
        chosen.spm_model_file,
        model_directory.choose_do_lower_case(settings.do_lower_case, chosen.directory),
        bool(marks),
        length,
    )
    kind = kind_of(files, None, settings.pooling)
    if is_export:
        backend = onnx_backend.OnnxBackend(kind, chosen.directory)
        return Predictor(kind, backend, chosen.directory, truncate=True)
    check_encoder(chosen.checkpoint, config, "--init_checkpoint")
    # Vectors are kept, and compared with others that another machine may have made.
    precision = numerics.choose("float32")
    backend = backends.TensorFlowBackend(kind, chosen.checkpoint, precision)
    return Predictor(kind, backend, chosen.checkpoint, truncate=True)


def read_lines(path):
    """Returns the list of a file's lines, in BERT's form: a pair has " ||| " in it.

    Blank lines have a vector, too: that of [CLS] [SEP].

    Raises:
      UserError: it cannot be read, is empty, is not UTF-8, or has lines joined by CR.
    """
    lines = text_lines.read_lines(path)
    return [text_lines.without_returns(path, *line).strip() for line in lines]


def parse_line(line) -> reading.Example:
    """Makes the example of a line."""
    match = _PAIR.fullmatch(line)
    texts: Tuple[str, Optional[str]] = match.groups() if match else (line, None)
    return reading.Example(*texts, None)


def pooled_vectors(predictor, lines, batch_size=inputs.MOST_WINDOWS):
    """The vectors of lines.

    Args:
      predictor: `Predictor` of an encoder.
      lines: list of str.
      batch_size: int, lines of a step at most.

    Returns:
      float32 [N, H], and the number of lines that were cut.
    """
    vectors, num_cut = [], 0
    for some in chunked(lines, _LINES_OF_VECTORS):
        prepared = [predictor.prepare_example(parse_line(line)) for line in some]
        num_cut += sum(each.windows[0].is_truncated for each in prepared)
        vectors += predictor.predict(prepared, batch_size)
    return np.stack(vectors), num_cut


def token_records(predictor, lines, layers, batch_size):
    """The vectors of the tokens of lines, in the form of BERT's extract_features.py.

    Args:
      predictor: `Predictor` of an encoder.
      lines: list of str.
      layers: list of int, 0 is the first layer, -1 the last one.
      batch_size: int, lines of a step.

    Yields:
      (dict of a line, whether it was cut), in order.
    """
    number = predictor.files.config.num_hidden_layers
    names = [encoder.layer_name(index % number) for index in layers]
    numbered = enumerate(lines)
    for some in chunked(numbered, _LINES_OF_TOKENS):
        prepared = [predictor.prepare_example(parse_line(line)) for _, line in some]
        windows = [each.windows[0] for each in prepared]
        held = [None] * len(some)
        length = predictor.max_seq_length
        for places, batch in inputs.batches(windows, length, batch_size):
            outputs = predictor.run(batch, names)
            for i, place in enumerate(places):
                held[place] = [outputs[name][i] for name in names]
        for (index, _), window, vectors in zip(some, windows, held):
            tokens = predictor.kind.tokenizer.convert_ids_to_tokens(window.input_ids)
            yield _record(index, tokens, layers, vectors), window.is_truncated


def _record(line_index, tokens, layers, vectors):
    """One line of BERT's file; `linex_index` is spelled as there."""
    return {
        "linex_index": line_index,
        "features": [
            {
                "token": token,
                "layers": [
                    {"index": layer, "values": _rounded(values[place])}
                    for layer, values in zip(layers, vectors)
                ],
            }
            for place, token in enumerate(tokens)
        ],
    }


def vector_lines(found):
    """Yields the lines of a file of a vector a line, bytes, for float32 [N, H]."""
    for index, vector in enumerate(found):
        yield json_line({"linex_index": index, "values": _rounded(vector)})


def _rounded(values):
    return [round(value, 6) for value in values.astype(float).tolist()]


def json_line(record):
    """A record as bytes of a file of JSON lines."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
