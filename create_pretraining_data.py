"""Turns raw text into pretraining records for `run_pretraining.py`.

Reads text files with one sentence per line and a blank line between documents,
makes sentence-order pairs with whole-word masks, and writes TFRecord files plus a
summary, `<first output file>.summary.json`. The same seed gives the same bytes.
Output files that exist are overwritten, but only by complete ones.
"""

import json
import logging
import sys
import time

from albert_zh import command_line  # isort: split

import numpy as np

import tokenization
from albert_zh import (
    corpus,
    estimators,
    instances,
    model_directory,
    records,
    segmentation,
)
from albert_zh.errors import as_user_error
from albert_zh.statistics import Statistics

_LOGGER = logging.getLogger(__name__)


def build_parser():
    """Returns the command's flags; the defaults are the published command's."""
    parser = command_line.ArgumentParser(description=__doc__)
    add, add_bool = parser.add_argument, parser.add_bool
    positive_int = command_line.positive_int
    add("--input_file", required=True, help="text files or globs, comma-separated")
    add("--output_file", required=True, help="TFRecord files, comma-separated")
    add("--model_dir", help="folder of a model, for vocabulary and casing")
    add("--vocab_file", help="WordPiece vocabulary, one token per line")
    add("--spm_model_file", help="SentencePiece model, in place of a vocabulary")
    add_bool(
        "--do_lower_case",
        None,
        "lower-case the text and strip accents; default: as --model_dir, else True",
    )
    add_bool("--normalize_punctuation", False, "map “ ” ‘ ’ … — to known tokens")
    add(
        "--encoding_errors",
        choices=corpus.ENCODING_ERRORS,
        default="strict",
        help="stop at bytes that are not UTF-8, or replace and count them",
    )
    add("--max_seq_length", type=positive_int, default=512, help="tokens in a record")
    add(
        "--max_predictions_per_seq",
        type=positive_int,
        default=51,
        help="masked tokens in a record at most",
    )
    add("--masked_lm_prob", type=float, default=0.1, help="share of tokens masked")
    add("--short_seq_prob", type=float, default=0.1, help="share of short records")
    add("--dupe_factor", type=positive_int, default=10, help="uses of each document")
    add_bool("--do_whole_word_mask", True, "mask all tokens of a word together")
    add_bool("--non_chinese", False, "words from the tokenizer's marks, not from jieba")
    add("--ngram", type=positive_int, default=1, help="words masked in a row at most")
    add("--random_seed", type=command_line.non_negative_int, default=12345, help="seed")
    return parser


def main(args):
    """Makes the records; see `build_parser` for the arguments."""
    started = time.time()
    files = model_directory.choose(
        args.model_dir,
        config_file=None,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
    )
    model_directory.require(files, "vocab_file")
    args.do_lower_case = model_directory.choose_do_lower_case(
        args.do_lower_case, files.directory
    )
    with as_user_error(ValueError, OSError, ImportError):
        settings = instances.Settings(
            *(getattr(args, name) for name in instances.Settings._fields)
        )
        settings.check()
        rng, shuffle_rng = _random_generators(args.random_seed)
        input_files = corpus.expand_input_files(args.input_file)
        output_files = records.expand_output_files(
            args.output_file, input_files + [files.vocab_file, files.spm_model_file]
        )
        num_bytes = corpus.total_bytes(input_files)
        tokenizer = _load_tokenizer(args, files)
        vocabulary = instances.Vocabulary.from_tokenizer(tokenizer)
    statistics = Statistics(settings, vocabulary)
    for warning in statistics.warnings():
        _LOGGER.warning("%s", warning)

    documents = corpus.read_documents(input_files, args.encoding_errors)
    documents = corpus.show_progress(documents, num_bytes)
    boundaries = _word_boundaries(args, bool(files.spm_model_file))
    generated = instances.generate_instances(
        documents, tokenizer, boundaries, vocabulary, statistics, rng
    )
    lengths = settings.max_seq_length, settings.max_predictions_per_seq
    serialized = (records.encode_instance(instance, *lengths) for instance in generated)
    shuffled = records.shuffle_records(serialized, shuffle_rng)
    records.write_records(shuffled, output_files)
    summary = statistics.summary()
    summary["vocab_size"] = tokenizer.vocab_size
    summary["seconds"] = round(time.time() - started, 1)
    summary.update(input_files=input_files, output_files=output_files, flags=vars(args))
    _report(summary)


def _random_generators(seed):
    """Returns one generator for the instances and one for their order."""
    return np.random.RandomState(seed), np.random.RandomState([seed, 1])


def _load_tokenizer(args, files):
    tokenizer = tokenization.FullTokenizer(
        files.vocab_file,
        do_lower_case=args.do_lower_case,
        spm_model_file=files.spm_model_file,
        normalize_punctuation=args.normalize_punctuation,
    )
    if files.config_file:
        model_directory.check_vocabulary(
            tokenizer.vocab_size,
            files.spm_model_file or files.vocab_file,
            estimators.load_config(files.config_file, args.max_seq_length),
            exact=True,
        )
    return tokenizer


def _word_boundaries(args, is_sentencepiece):
    """Returns `segmentation.WordBoundaries`, or None to mask single tokens."""
    if not args.do_whole_word_mask:
        return None
    segment = None if args.non_chinese else segmentation.load_jieba()
    return segmentation.WordBoundaries(segment, is_sentencepiece)


def _report(summary):
    """Shows the summary and writes it beside the first output file."""
    path = summary["output_files"][0] + ".summary.json"
    records.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", path)
    for warning in summary["warnings"]:
        sys.stdout.write("warning: {}\n".format(warning))
    for name, value in summary.items():
        if not isinstance(value, list) and name not in ("settings", "flags"):
            sys.stdout.write("{:<28} {}\n".format(name, value))
    output_files = ", ".join(summary["output_files"])
    sys.stdout.write("records in {}\nsummary in {}\n".format(output_files, path))


if __name__ == "__main__":
    command_line.run(main, build_parser())
