"""Builds a WordPiece vocabulary for Chinese from text files.

Reads text files with one sentence per line, three times, and writes a vocabulary for
`create_pretraining_data.py`: special tokens with the ids of BERT's Chinese vocabulary,
digits and letters, characters by frequency, learned pieces of Latin and other scripts.
The same text gives the same file. If the text yields somewhat fewer than `--vocab_size`
entries, [unused] entries are added, so that the file fits a config of that
`vocab_size`; a text that leaves more than a tenth of them unused is an error. An
existing output file is replaced, but only by a complete one.
"""

from albert_zh import command_line  # isort: split

import tokenization
from albert_zh import flags
from albert_zh.base import console, files, progress
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, sources, vocabulary_builder


def build_parser():
    """Returns the command's flags."""
    parser = command_line.ArgumentParser(description=__doc__)
    add = parser.add_argument
    positive_int = command_line.positive_int
    flags.add_text_file_arguments(parser)
    add("--output_file", required=True, help="vocabulary to write, one token per line")
    add(
        "--vocab_size",
        type=positive_int,
        default=21128,
        help="number of entries; the default is that of BERT's Chinese vocabulary",
    )
    add(
        "--min_count",
        type=positive_int,
        default=5,
        help="least occurrences of a character or pair of pieces to be learned",
    )
    parser.add_bool("--do_lower_case", True, "lower-case the text and strip accents")
    return parser


def main(args):
    """Builds the vocabulary; see `build_parser` for the arguments."""
    vocabulary_builder.check_size(args.vocab_size, args.do_lower_case)
    form = sources.Form.of_flags(args.encoding, args.encoding_errors, args.text_field)
    paths = corpus.expand_input_files(args.input_file, takes_directories=True)
    output_files = files.output_files(args.output_file, paths)
    if len(output_files) > 1:
        raise UserError("--output_file={}; expected one name".format(args.output_file))
    output_file = output_files[0]
    corpus.file_sizes(paths)  # raises where all are empty
    stamps = list(map(files.stamp, paths))
    has_tokens = tokenization.BasicTokenizer(args.do_lower_case).has_tokens
    with sources.as_plain(form, paths, has_tokens) as plain_paths:
        num_bytes = sum(map(files.size, plain_paths))

        def read_lines():
            documents = corpus.read_documents(
                plain_paths, args.encoding_errors, has_tokens, names=paths
            )
            for document in progress.show(documents, num_bytes):
                yield from document.sentences

        entries = vocabulary_builder.build_vocabulary(
            read_lines, args.vocab_size, args.min_count, args.do_lower_case
        )
        # Read several times: all counts must be from the same text.
        corpus.require_unchanged(paths, stamps)
        entries = vocabulary_builder.fill(
            entries, args.vocab_size, args.min_count, args.do_lower_case
        )
        vocabulary_builder.write(entries, output_file)
        tokenizer = tokenization.FullTokenizer(output_file, args.do_lower_case)
        share = vocabulary_builder.coverage(read_lines(), tokenizer)
    console.show(
        "{} entries, {} of them [unused], cover {:.4%} of the corpus's tokens: "
        "{}\n".format(
            len(entries),
            sum(entry.startswith("[unused") for entry in entries),
            share,
            output_file,
        )
    )


if __name__ == "__main__":
    command_line.run(main, build_parser())
