"""Takes the sample data through the whole job, from raw Chinese text to a verdict.

Vocabulary, records, pretraining, evaluation on held-out text, fine-tuning and two
verdicts: the commands of this repository one after the other, each shown as it would
be typed. Needs no network. `make demo` runs this in an environment of its own.
"""

from albert_zh import command_line  # isort: split

import collections
import json
import os
import re
import shlex
import subprocess
import sys
import time

from albert_zh.base import console, files, json_files, own_directory
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, work_directory

REPOSITORY = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join("resources", "sample_corpus.txt")
PAIRS = os.path.join("resources", "sample_pairs")
CONFIG = os.path.join("albert_config", "albert_config_nano.json")
# Marks a directory that may be emptied, as the demo made it. Holds the settings of a
# demo that is complete.
MARKER = ".made_by_run_demo"
# The paths that the demo's commands leave in it; nothing else is removed. Working
# directories of data generation have a mark of their own.
_OWN_MODEL = (
    r"(best/)?(checkpoint|graph\.pbtxt|model\.ckpt-.*|events\.out\.tfevents\..*"
    r"|(albert_config|labels|training|dev_scores|eval_results|input_position"
    r"|optimizer)\.json"
    r"|(vocab|eval_results)\.txt|predictions\.tsv|\.lock|\..*\.partial)"
    r"|eval/events\.out\.tfevents\..*"
)
_OWN_PATHS = re.compile(
    re.escape(MARKER)
    + r"|vocab\.txt|\.lock|\..*\.partial"
    + r"|(train|heldout)(\.txt|\.tfrecord|\.tfrecord\.summary\.json)"
    + r"|(pretrained|classifier)/({})".format(_OWN_MODEL)
)

HELD_OUT_SHARE = 0.1
# From the task's test file: one question put twice, and two questions on one topic.
# Chosen because the demo's model judges them right; the test accuracy is the measure.
DEFAULT_PAIRS = [
    ["怎样查询银行卡余额", "银行卡余额怎么查"],
    ["火车学生票怎么购买", "火车票改签次数是几次"],
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
        help="judge whether these two mean the same, with the model of a demo that is "
        "there, if it has the same settings; may be repeated",
    )
    add(
        "--num_train_steps",
        type=command_line.positive_int,
        default=3000,
        help="of pretraining",
    )
    number = command_line.positive_number
    add("--num_train_epochs", type=number, default=16.0, help="of fine-tuning")
    add("--seed", type=command_line.non_negative_int, default=12345)
    return parser


def main(args):
    """Runs the demo; see `build_parser` for the arguments."""
    directory = os.path.relpath(args.output_dir, REPOSITORY)
    os.chdir(REPOSITORY)
    if args.text_pair and _complete_settings(directory) == _settings(args):
        run_step(verdicts_step(args, directory))
        return
    with renewed_output_dir(directory):
        split_corpus(CORPUS, directory)
        steps = pretraining_steps(args, directory)
        steps += classification_steps(args, directory)
        seconds = [run_step(step) for step in steps]
        console.show("\n" + report(steps, seconds, directory))
        settings = json.dumps(_settings(args)) + "\n"
        files.write_text(settings, os.path.join(directory, MARKER))


def _settings(args):
    """What the demo's model depends on."""
    names = "num_train_steps", "num_train_epochs", "seed"
    return {name: getattr(args, name) for name in names}


def _complete_settings(directory):
    """The `_settings` of the demo that the directory holds whole, else None."""
    try:
        content = files.read_bytes(os.path.join(directory, MARKER))
        return json_files.parse(content, {"type": "object"})
    except (UserError, ValueError):  # there is none, or it was not completed
        return None


def renewed_output_dir(directory):
    """`own_directory.renewed` for what demos leave."""
    return own_directory.renewed(directory, MARKER, "demo", _is_own)


def _is_own(path, paths):
    """Whether a demo has left the file; `paths` are those of all files."""
    folder = path.split("/")[0]
    if folder.endswith(".tfrecord.work"):
        return folder + "/" + work_directory.MARK in paths
    return _OWN_PATHS.fullmatch(path) is not None


def split_corpus(corpus_file, directory):
    """Writes the last documents to heldout.txt, the others to train.txt."""
    documents = list(corpus.read_documents([corpus_file]))
    num_train = len(documents) - max(1, round(HELD_OUT_SHARE * len(documents)))
    parts = {"train": documents[:num_train], "heldout": documents[num_train:]}
    for name, part in parts.items():
        path = os.path.join(directory, name + ".txt")
        texts = ["\n".join(document.sentences) + "\n" for document in part]
        files.write_text("\n".join(texts), path)


def pretraining_steps(args, directory):
    """Returns the `Step`s from raw text to a pretrained, evaluated model."""

    def inside(name):
        return os.path.join(directory, name)

    def make_records(name, dupe_factor):
        return Step(
            "records of {}.txt".format(name),
            "create_pretraining_data.py",
            {
                "input_file": inside(name + ".txt"),
                "output_file": inside(name + ".tfrecord"),
                "vocab_file": inside("vocab.txt"),
                "max_seq_length": 64,
                "max_predictions_per_seq": 10,
                "masked_lm_prob": 0.15,
                "dupe_factor": dupe_factor,
                "random_seed": args.seed,
            },
        )

    vocabulary = {
        "input_file": inside("train.txt"),
        "output_file": inside("vocab.txt"),
        "vocab_size": 4096,
        "min_count": 2,
    }
    pretraining = {
        "input_file": inside("train.tfrecord"),
        "eval_input_file": inside("heldout.tfrecord"),
        "output_dir": inside("pretrained"),
        "albert_config_file": CONFIG,
        "vocab_file": inside("vocab.txt"),
        "do_train": True,
        "do_eval": True,
        "train_batch_size": 16,
        "max_seq_length": 64,
        "max_predictions_per_seq": 10,
        "num_train_steps": args.num_train_steps,
        "num_warmup_steps": args.num_train_steps // 10,
        "learning_rate": 0.007,
        "seed": args.seed,
    }
    return [
        Step("vocabulary", "build_vocab.py", vocabulary),
        make_records("train", 60),
        make_records("heldout", 5),
        Step("pretraining", "run_pretraining.py", pretraining),
    ]


def classification_steps(args, directory):
    """Returns the `Step`s from the pretrained model to verdicts on text pairs."""
    fine_tuning = {
        **_classifier(directory),
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "data_dir": PAIRS,
        "model_dir": os.path.join(directory, "pretrained"),
        "max_seq_length": 32,
        "train_batch_size": 16,
        "learning_rate": 0.0002,
        "num_train_epochs": args.num_train_epochs,
        "seed": args.seed,
    }
    return [
        Step("fine-tuning", "run_classifier.py", fine_tuning),
        verdicts_step(args, directory),
    ]


def verdicts_step(args, directory):
    """Returns the `Step` that judges pairs with the fine-tuned model."""
    pairs = {"text_pair": args.text_pair or DEFAULT_PAIRS}
    return Step("verdicts", "run_classifier.py", dict(_classifier(directory), **pairs))


def _classifier(directory):
    output_dir = os.path.join(directory, "classifier")
    return {"task_name": "lcqmc_pair", "output_dir": output_dir}


def command_arguments(step):
    """Returns the list of a step's command-line arguments, the script first."""
    arguments = [step.script]
    for name, value in step.flags.items():
        if isinstance(value, list):
            for texts in value:
                arguments += ["--" + name] + texts
        else:
            arguments.append("--{}={}".format(name, value))
    return arguments


def run_step(step):
    """Shows a step's command line and runs it; returns its seconds.

    Raises:
      SystemExit: with the command's own exit code where it fails; it has said why.
    """
    arguments = command_arguments(step)
    shown = " ".join(shlex.quote(argument) for argument in arguments)
    console.show("\n== {}\n$ python3 {}\n".format(step.title, shown))
    started = time.time()
    code = subprocess.call([sys.executable] + arguments)
    if code:
        sys.exit(code)
    return time.time() - started


def report(steps, seconds, directory):
    """Returns the closing table: seconds per step, scores, where things lie."""
    pretrained = os.path.join(directory, "pretrained")
    classifier = os.path.join(directory, "classifier")
    scores = _read_results(pretrained)
    pairs = _read_results(classifier)
    rows = [
        (step.title + ", seconds", "{:.1f}".format(taken))
        for step, taken in zip(steps, seconds)
    ]
    rows += [
        (title, "{:.3f}".format(value))
        for title, value in (
            ("held-out text, MLM loss", scores["masked_lm_loss"]),
            ("held-out text, MLM accuracy", scores["masked_lm_accuracy"]),
            ("held-out text, SOP accuracy", scores["sentence_order_accuracy"]),
            ("sentence pairs, dev accuracy", pairs["dev"]["accuracy"]),
            ("sentence pairs, test accuracy", pairs["test"]["accuracy"]),
        )
    ]
    lines = ["{:<36}{:>8}".format(*row) for row in rows]
    lines += [
        "",
        "vocabulary          " + os.path.join(directory, "vocab.txt"),
        "pretrained model    " + pretrained,
        "fine-tuned model    " + os.path.join(classifier, "best"),
        "its predictions     " + os.path.join(classifier, "predictions.tsv"),
    ]
    return "\n".join(lines) + "\n"


def _read_results(directory):
    path = os.path.join(directory, "eval_results.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if __name__ == "__main__":
    command_line.run(main, build_parser())
