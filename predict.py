"""Answers with a trained model: one JSON object for each text, pair, row or line.

The texts come from flags, from a file in a form that the task's command reads, or from
standard input, a JSON object a line. The answers are in the same order, and appear as
they are computed. `albert_zh.load` is the same from Python.
"""

from albert_zh import command_line  # isort: split

import logging
import sys

import albert_zh
from albert_zh.base import console, files
from albert_zh.base.errors import UserError
from albert_zh.serving import encoder, streams
from albert_zh.serving.predictor import BACKENDS, TooLong
from albert_zh.tasks.reading import command_line_text

_LOGGER = logging.getLogger(__name__)


def build_parser():
    """Returns the command's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="a fine-tuned, pretrained or exported model")
    parser.add_texts("--text", 1, "judge this text; may be repeated")
    parser.add_texts("--text_pair", 2, "judge these two texts; may be repeated")
    text = "words for [MASK] in this text, of a pretrained model; may be repeated"
    parser.add_texts("--fill_mask", 1, text)
    add("--top_k", type=command_line.positive_int, default=5, help="words of a [MASK]")
    add("--input_file", help="judge the rows of this file; default: standard input")
    text = "what computes; default: onnx for an export, else tensorflow"
    add("--backend", choices=BACKENDS, help=text)
    text = "cut texts over the model's length; else they are refused"
    parser.add_bool("--truncate", False, text)
    text = "the vector of a text, of a pretrained model; default: " + (
        encoder.DEFAULT_POOLING
    )
    add("--pooling", choices=encoder.POOLINGS, help=text)
    return parser


def main(args):
    """Answers; see `build_parser` for the arguments."""
    _check_flags(args)
    with albert_zh.load(
        args.model_dir,
        backend=args.backend,
        truncate=args.truncate,
        pooling=args.pooling,
    ) as predictor:
        if args.truncate and not predictor.may_cut:
            message = "--truncate: {} reads a text of any length in windows; remove it"
            raise UserError(message.format(args.model_dir))
        for answers in _answers(args, predictor):
            if not console.show_json(answers):
                return


def _check_flags(args):
    sources = ["text", "text_pair", "fill_mask", "input_file"]
    given = ["--" + name for name in sources if name in args.given]
    if len(given) > 1:
        raise UserError("{} cannot be combined; give one".format(" and ".join(given)))
    for name in ("truncate", "pooling"):
        if args.fill_mask and name in args.given:
            message = "--{}: has no meaning for --fill_mask; remove it"
            raise UserError(message.format(name))
    if not given and sys.stdin is None:
        raise UserError("standard input is closed; give --input_file or --text")
    if "top_k" in args.given and not args.fill_mask:
        raise UserError("--top_k requires --fill_mask")
    if "input_file" in args.given and not files.exists(args.input_file):
        raise UserError("--input_file={}: no such file".format(args.input_file))


def _answers(args, predictor):
    """Yields lists of answers."""
    if args.fill_mask:
        for (text,) in args.fill_mask:
            text = command_line_text("--fill_mask", text)
            yield [{"masks": predictor.fill_mask(text, args.top_k)}]
    elif args.text or args.text_pair:
        yield predictor.answer(list(_from_flags(args, predictor)))
    elif args.input_file:
        yield from streams.answers_of_file(predictor, args.input_file)
    else:
        _LOGGER.info("reading standard input, one JSON value a line")
        yield from streams.answers_of_input(predictor)


def _from_flags(args, predictor):
    """Yields what the model takes of --text and --text_pair."""
    flag = "--text" if args.text else "--text_pair"
    if not predictor.takes_texts(1 if args.text else 2):
        advice = "give such objects with --input_file or on standard input"
        if predictor.takes_texts(2 if args.text else 1):
            advice = "give --text_pair A B" if args.text else "give --text A"
        fields = ", ".join('"{}": ...'.format(name) for name in predictor.fields)
        text = "{}: this model takes {{{}}}; {}"
        raise UserError(text.format(flag, fields, advice))
    for texts in args.text or args.text_pair:
        texts = [command_line_text(flag, text) for text in texts]
        try:
            yield predictor.prepare(texts[0] if args.text else texts)
        except TooLong as error:
            text = "{}: {}, or give --truncate to cut it"
            raise UserError(text.format(flag, error)) from error
        except UserError as error:
            raise UserError("{}: {}".format(flag, error)) from error


if __name__ == "__main__":
    command_line.run(main, build_parser())
