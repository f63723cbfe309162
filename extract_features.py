"""Vectors of the lines of a file, from a pretrained or fine-tuned model.

Each token has a vector of each layer, as in BERT's script and in its form; with
`--pooling` each line has one. `--search` finds the lines nearest to a text. A line is a
text, or a pair with " ||| " between them.
"""

from albert_zh import command_line  # isort: split

import argparse
import contextlib
import logging

import numpy as np

from albert_zh import flags
from albert_zh.base import console, files
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int
from albert_zh.models import directory as model_directory
from albert_zh.models.settings import MIN_SEQ_LENGTH
from albert_zh.serving import encoder, extraction, vectors
from albert_zh.tasks.reading import command_line_text

_LOGGER = logging.getLogger(__name__)
_LAYERS = "-1,-2,-3,-4"
_READERS = {
    "pooling": ["whiten", "whitening_file", "search"],
    "whiten": ["whiten_size"],
    "search": ["top_k", "index"],
}


def build_parser():
    """Returns the command's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--input_file", required=True, help="UTF-8 text, a text or a pair in each line")
    text = "JSON lines, as BERT's script writes them; with --pooling also .npy"
    add("--output_file", help=text)
    add("--model_dir", help="folder of a model, in place of the next three flags")
    add("--bert_config_file", "--albert_config_file", help="sizes of the model")
    add("--vocab_file", help="WordPiece vocabulary")
    add("--init_checkpoint", help="checkpoint of the model")
    add("--spm_model_file", help="SentencePiece model instead of --vocab_file")
    text = "lower-case the text; default: as the model's folder says, else True"
    parser.add_bool("--do_lower_case", None, text)
    parser.add_bool("--normalize_punctuation", None, "map marks the vocabulary lacks")
    text = "longer lines are cut; default: 128, or less where the model takes less"
    add("--max_seq_length", type=positive_int, help=text)
    add("--batch_size", type=positive_int, default=32, help="lines of a step at most")
    parser.add_bool("--use_tpu", False, "of BERT's script; only False is possible here")
    text = "of which the tokens have vectors; 0 is the first, -1 the last one"
    add("--layers", type=_integers, default=_LAYERS, help=text)
    text = "a vector for each line: of [CLS], or the mean of all tokens, of the last "
    text += "layer, or of the first and the last one"
    add("--pooling", choices=encoder.POOLINGS, help=text)
    text = "move the mean of the vectors to 0, make their covariance the identity"
    parser.add_bool("--whiten", False, text)
    add("--whiten_size", type=positive_int, help="numbers of a vector then kept")
    text = "with --whiten: saves what was fitted, as .npz; else: applies what was saved"
    add("--whitening_file", help=text)
    parser.add_texts("--search", 1, "show the lines nearest to this; may be repeated")
    add("--top_k", type=positive_int, default=10, help="lines to show for each")
    text = "compare with all lines, or build a graph of neighbours with this package"
    add("--index", choices=vectors.INDEXES, default="exact", help=text)
    return parser


def _integers(text):
    """An `argparse` type: a list of integers."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        message = "expected integers such as -1,-2; received {!r}".format(text)
        raise argparse.ArgumentTypeError(message) from None


def main(args):
    """Writes vectors; see `build_parser` for the arguments."""
    _check_flags(args)
    chosen = model_directory.choose(
        args.model_dir,
        config_file=args.bert_config_file,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
        checkpoint=args.init_checkpoint,
    )
    _check_files(args, chosen)
    lines = extraction.read_lines(args.input_file)
    settings = extraction.EncoderSettings(
        args.max_seq_length,
        args.do_lower_case,
        args.normalize_punctuation,
        args.pooling or encoder.DEFAULT_POOLING,
    )
    with extraction.load_encoder(chosen, settings) as predictor:
        if args.pooling:
            num_cut = _write_vectors(args, predictor, lines)
        else:
            num_cut = _write_tokens(args, predictor, lines)
        length = predictor.max_seq_length
    if num_cut:
        text = "%d of %d lines cut to %d tokens (--max_seq_length)"
        _LOGGER.warning(text, num_cut, len(lines), length)
    if args.output_file:
        console.show("Vectors saved to {}\n".format(args.output_file))


def _check_flags(args):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    flags.check_read(args, _READERS)
    if args.use_tpu:
        raise UserError("--use_tpu: no vectors are computed on TPU; give False")
    length = args.max_seq_length
    if length is not None and length < MIN_SEQ_LENGTH:
        message = "--max_seq_length={}: expected at least {}"
        raise UserError(message.format(length, MIN_SEQ_LENGTH))
    if args.pooling and "layers" in args.given:
        raise UserError("--layers: --pooling has layers of its own; remove one of them")
    if not (args.output_file or args.search):
        raise UserError("nothing to do: give --output_file or --search")
    if args.output_file and args.output_file.endswith(".npy") and not args.pooling:
        raise UserError("--output_file: .npy has a vector a line; give --pooling")
    vectors.check_index(args.index)


def _check_files(args, chosen):
    """Raises `UserError` where an output is an input."""
    outputs = [args.output_file, args.whitening_file if args.whiten else None]
    inputs = [args.input_file, *chosen[1:4]]
    if not args.whiten:
        inputs.append(args.whitening_file)
    names = ", ".join(filter(None, outputs))
    files.require_separate(names, *(list(filter(None, p)) for p in (outputs, inputs)))


def _write_tokens(args, predictor, lines):
    """Writes the vectors of the tokens; returns how many lines were cut."""
    number = predictor.files.config.num_hidden_layers
    for layer in args.layers:
        if not -number <= layer < number:
            text = "--layers: {0}; the model has {1} layers, -{1} to {2}"
            raise UserError(text.format(layer, number, number - 1))
    num_cut = 0
    with files.whole(args.output_file) as target:
        for record, is_cut in extraction.token_records(
            predictor, lines, args.layers, args.batch_size
        ):
            target.write(extraction.json_line(record))
            num_cut += is_cut
    return num_cut


def _opened(path):
    """A new file, see `files.whole`, or None without a path."""
    return files.whole(path) if path else contextlib.nullcontext()


def _write_vectors(args, predictor, lines):
    """Writes, or searches, the vectors of lines; returns how many were cut."""
    queries = [command_line_text("--search", text) for (text,) in args.search]
    width = predictor.files.config.hidden_size
    whitening = None
    if args.whiten:
        vectors.check_whitening(len(lines), width, args.whiten_size)
    elif args.whitening_file:
        whitening = vectors.load_whitening(args.whitening_file, width, args.pooling)
    # Opened before the work, which a file that cannot be written would waste.
    fitted = args.whitening_file if args.whiten else None
    with _opened(args.output_file) as target, _opened(fitted) as whitening_target:
        found, num_cut = extraction.pooled_vectors(predictor, lines, args.batch_size)
        if args.whiten:
            whitening = vectors.fit_whitening(found, args.whiten_size, args.pooling)
            if whitening_target:
                whitening.save(whitening_target)
        found = whitening.apply(found) if whitening else found
        if target and args.output_file.endswith(".npy"):
            np.save(target, found)
        elif target:
            for line in extraction.vector_lines(found):
                target.write(line)
    if queries:
        asked, num_cut_queries = extraction.pooled_vectors(predictor, queries)
        if num_cut_queries:
            text = "--search: %d of %d texts cut to %d tokens (--max_seq_length)"
            length = predictor.max_seq_length
            _LOGGER.warning(text, num_cut_queries, len(queries), length)
        asked = whitening.apply(asked) if whitening else asked
        _show_nearest(args, queries, asked, lines, found)
    return num_cut


def _show_nearest(args, queries, asked, lines, found):
    """Shows the nearest lines of each query, as JSON lines."""
    index = vectors.build_index(args.index, found)
    number = min(args.top_k, len(lines))
    for query, places, cosines in zip(
        queries, *index.search(vectors.normalized(asked), number)
    ):
        nearest = [
            {"line": int(place) + 1, "text": lines[place], "cosine": float(cosine)}
            for place, cosine in zip(places, cosines)
            if place >= 0  # faiss may find fewer
        ]
        if not console.show_json([{"query": query, "nearest": nearest}]):
            return


if __name__ == "__main__":
    command_line.run(main, build_parser())
