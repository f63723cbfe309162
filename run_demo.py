"""Takes the sample data through the whole job, from raw Chinese text to a verdict.

Vocabulary, records, pretraining, evaluation on held-out text, fine-tuning and two
verdicts: the commands of this repository one after the other, each shown as it would
be typed. Needs no network. `make demo` runs this in an environment of its own.
"""

from albert_zh import command_line  # isort: split

import collections
import json
import os
import shlex
import shutil
import subprocess
import sys
import time

from albert_zh import corpus
from albert_zh.errors import UserError

REPOSITORY = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join("resources", "sample_corpus.txt")
PAIRS = os.path.join("resources", "sample_pairs")
CONFIG = os.path.join("albert_config", "albert_config_nano.json")
# Marks a directory that may be emptied, as the demo made it.
MARKER = ".made_by_run_demo"

HELD_OUT_SHARE = 0.1
DEFAULT_PAIRS = [
    ["绿萝的叶子黄了怎么办", "绿萝黄叶怎么解决"],
    ["如何蒸鸡蛋羹又嫩又滑", "冬天的北京有多冷"],
]

# One command of the job: title, script, flags (name -> value).
Step = collections.namedtuple("Step", ["title", "script", "flags"])


def build_parser():
    """Returns the demo's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--output_dir", default="demo", help="everything goes here")
    add(
        "--text_pair",
        nargs=2,
        action="append",
        metavar=("A", "B"),
        help="judge whether these two mean the same; may be repeated",
    )
    add(
        "--num_train_steps",
        type=command_line.positive_int,
        default=400,
        help="of pretraining",
    )
    add("--num_train_epochs", type=float, default=3.0, help="of fine-tuning")
    add("--seed", type=command_line.non_negative_int, default=12345)
    return parser


def main(args):
    """Runs the demo; see `build_parser` for the arguments."""
    directory = os.path.relpath(args.output_dir, REPOSITORY)
    os.chdir(REPOSITORY)
    prepare_output_dir(directory)
    split_corpus(CORPUS, directory)
    steps = plan(args, directory)
    seconds = [run_step(step) for step in steps]
    sys.stdout.write("\n" + report(steps, seconds, directory))


def prepare_output_dir(directory):
    """Makes the directory anew, if it is empty or an earlier demo's.

    Raises:
      UserError: it holds something else.
    """
    if os.path.isdir(directory) and os.listdir(directory):
        if not os.path.exists(os.path.join(directory, MARKER)):
            raise UserError(
                "--output_dir {} holds files that no demo has made; name a new "
                "directory".format(directory)
            )
        shutil.rmtree(directory)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, MARKER), "w"):
        pass


def split_corpus(corpus_file, directory):
    """Writes the last documents to heldout.txt, the others to train.txt."""
    documents = list(corpus.read_documents([corpus_file]))
    num_train = len(documents) - max(1, round(HELD_OUT_SHARE * len(documents)))
    parts = {"train": documents[:num_train], "heldout": documents[num_train:]}
    for name, part in parts.items():
        path = os.path.join(directory, name + ".txt")
        with open(path, "w", encoding="utf-8") as output:
            output.write("\n\n".join("\n".join(document) for document in part) + "\n")
