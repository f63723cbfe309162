"""Peak memory of the commands at two sizes of their input: it must not grow with it.

    python benchmarks/memory.py --work=/tmp/memory

Runs the commands as a user would, on the sample data and on text that is made here,
with a model of albert_config_nano.json, and prints the peak resident memory of each
process as a Markdown table.
"""

import pathlib
import random
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.base.errors import UserError
from benchmarks.work_directory import work_directory

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "resources" / "sample_corpus.txt"
PAIRS = REPOSITORY / "resources" / "sample_pairs"
EPOCHS = (2, 60)
LINE_MEGABYTES = (1, 16)
PREDICTED_ROWS = (1000, 100000)

_MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
status, usage = os.wait4(child.pid, 0)[1:]
print(usage.ru_maxrss // 1024)
sys.exit(os.WEXITSTATUS(status))
"""


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    parser.add_argument("--work", type=work_directory, required=True, help="folder")
    return parser


def main(args):
    """Runs everything; prints the table."""
    vocab_file = args.work / "vocab.txt"
    peak(
        "build_vocab.py",
        input_file=SAMPLE,
        output_file=vocab_file,
        vocab_size=1600,
        min_count=2,
    )
    lines = ["| what | small | MB | large | MB |", "|---|---|---|---|---|"]
    for title, sizes, measure in (
        ("fine-tuning, epochs", EPOCHS, fine_tune),
        ("records of one line, megabytes", LINE_MEGABYTES, make_records),
        ("prediction, rows", PREDICTED_ROWS, predict),
    ):
        cells = [title]
        for size in sizes:
            cells += ["{:,}".format(size), "{:,}".format(measure(args.work, size))]
        lines.append("| " + " | ".join(cells) + " |")
    console.show("\n{}\n".format("\n".join(lines)))


def peak(script, **flags):
    """Runs a command; returns its peak memory in MB, that of its largest process.

    Raises:
      UserError: it failed.
    """
    command = [sys.executable, "-c", _MEASURE, sys.executable, str(REPOSITORY / script)]
    command += ["--{}={}".format(*item) for item in flags.items()]
    result = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if result.returncode:
        raise UserError("{} failed".format(script))
    return int(result.stdout)


def fine_tune(work, epochs):
    """Peak memory of so many epochs over the sample pairs, dev scored after each."""
    return peak(
        "run_classifier.py",
        do_train=True,
        task_name="lcqmc",
        data_dir=PAIRS,
        output_dir=work / "epochs_{}".format(epochs),
        albert_config_file=REPOSITORY / "albert_config" / "albert_config_nano.json",
        vocab_file=work / "vocab.txt",
        max_seq_length=32,
        num_train_epochs=epochs,
        train_batch_size=32,
        learning_rate=5e-5,
    )


def predict(work, num_rows):
    """Peak memory of predicting so many pairs with the model of `fine_tune`."""
    path = work / "{}.tsv".format(num_rows)
    path.write_text("花呗怎么还款\t怎么还花呗\n" * num_rows, encoding="utf-8")
    return peak(
        "run_classifier.py",
        do_predict=True,
        model_dir=work / "epochs_{}".format(EPOCHS[0]) / "best",
        predict_file=path,
        predict_batch_size=1000,
        output_dir=work / "predictions_{}".format(num_rows),
    )


def make_records(work, megabytes):
    """Peak memory of making records of one line."""
    words = [line for line in SAMPLE.read_text(encoding="utf-8").split() if line]
    rng, parts, size = random.Random(1), [], 0
    while size < megabytes * 10**6:
        parts.append(rng.choice(words))
        size += len(parts[-1].encode())
    path = work / "line_{}.txt".format(megabytes)
    path.write_text("".join(parts) + "\n", encoding="utf-8")
    return peak(
        "create_pretraining_data.py",
        input_file=path,
        output_file=work / "line_{}.tfrecord".format(megabytes),
        vocab_file=work / "vocab.txt",
        max_seq_length=64,
        dupe_factor=1,
        overwrite=True,
    )


if __name__ == "__main__":
    command_line.run(main, build_parser())
