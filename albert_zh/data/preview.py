"""Shows records, the summary and pictures of the distributions."""

import contextlib
import itertools
import os

from albert_zh.base import console, files, pictures
from albert_zh.data import record_format

_MAX_SHOWN_FILES = 4

_TITLES = {
    "sequence_lengths": ("sequence length", "tokens, special ones included"),
    "masks_per_instance": ("masks per instance", "masked tokens"),
    "ngram_lengths": ("n-gram lengths", "words masked in a row"),
    "unk_percent_of_documents": ("[UNK] by document", "percent of its tokens"),
}


def show_records(path, tokenizer, number):
    """Shows the first records of a file as text.

    `[是->MASK]` is a masked token and its replacement. In records that are masked in
    training, `/` precedes each word.

    Args:
      path: TFRecord file.
      tokenizer: the `tokenization.FullTokenizer` that the file was made with.
      number: int, how many records.
    """
    from albert_zh.data import (
        input_pipeline,  # TensorFlow's Example is needed for this alone
    )

    with contextlib.closing(record_format.read_records(path)) as records:
        for place, record in enumerate(itertools.islice(records, number)):
            features = input_pipeline.decode_example(record)
            console.show("record {} of {}\n".format(place, path))
            for name, text in describe(features, tokenizer):
                console.show("  {:<9} {}\n".format(name, text))


def describe(features, tokenizer):
    """Describes a record.

    Args:
      features: dict of `input_pipeline.decode_example`.
      tokenizer: `tokenization.FullTokenizer`.

    Returns:
      List of (name, text).
    """
    length = int(features["input_mask"].sum())
    tokens = tokenizer.convert_ids_to_tokens(features["input_ids"][:length].tolist())
    labels = {}
    if "masked_lm_ids" in features:
        real = features["masked_lm_weights"] > 0
        positions = features["masked_lm_positions"][real].tolist()
        originals = tokenizer.convert_ids_to_tokens(
            features["masked_lm_ids"][real].tolist()
        )
        labels = dict(zip(positions, originals))
        shown = [
            "[{}->{}]".format(labels[i], token.strip("[]") or token)
            if i in labels
            else token
            for i, token in enumerate(tokens)
        ]
    else:
        lengths = features["word_lengths"][:length].tolist()
        shown = ["/" + t if n else t for t, n in zip(tokens, lengths)]
    second = length - int(features["segment_ids"].sum())
    is_swapped = bool(features["next_sentence_labels"][0])
    rows = [
        ("segment A", " ".join(shown[:second])),
        ("segment B", " ".join(shown[second:])),
        ("order", "swapped: B comes first" if is_swapped else "as in the text"),
        ("tokens", "{} of {}".format(length, len(features["input_ids"]))),
    ]
    if labels:
        rows.append(("masked", "{}: {}".format(len(labels), " ".join(originals))))
    return rows


def show_summary(summary, outputs):
    """Shows the summary of a run and, last, where its files are.

    Args:
      summary: dict of `run.generate`.
      outputs: `output_names.Outputs`.
    """
    for warning in summary["warnings"]:
        console.show("warning: {}\n".format(warning))
    for name, value in summary.items():
        if not isinstance(value, (list, dict)):
            console.show("{:<28} {}\n".format(name, value))
    records = ", ".join(outputs.records)
    if len(outputs.records) > _MAX_SHOWN_FILES:
        records = "{} to {}".format(outputs.records[0], outputs.records[-1])
    console.show("records in {}\nsummary in {}\n".format(records, outputs.summary_file))


def picture_files(directory):
    """Returns the paths of the pictures that `draw_distributions` may write."""
    return [os.path.join(directory, name + ".png") for name in _TITLES]


def draw_distributions(distributions, directory):
    """Draws one picture, `NAME.png`, of each distribution.

    Args:
      distributions: dict name -> dict value (str) -> count, from the summary.
      directory: local folder, created if absent.

    Returns:
      List of the pictures' paths.
    """
    pictures.require_matplotlib("--report")
    files.make_directory(directory)
    paths = []
    for name, histogram in distributions.items():
        title, label = _TITLES[name]
        figure = pictures.new_figure(6, 4)
        axes = figure.add_subplot()
        axes.bar([int(value) for value in histogram], list(histogram.values()), 1.0)
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylabel("count")
        axes.set_ylim(bottom=0)
        figure.tight_layout()
        path = os.path.join(directory, name + ".png")
        pictures.save(figure, path)
        paths.append(path)
    return paths
