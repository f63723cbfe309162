"""Takes the sample data through the whole job, from raw Chinese text to a verdict.

Vocabulary, records, pretraining, evaluation on held-out text and fine-tuning, then the
same fine-tuning and two verdicts with the pretrained model that comes with the
repository: its commands one after the other, each shown as it would be typed. Needs no
network. `make demo` runs this in an environment of its own.
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

from albert_zh.base import checksums, console, files, json_files, own_directory
from albert_zh.base.errors import UserError
from albert_zh.data import corpus, work_directory

REPOSITORY = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join("resources", "sample_corpus.txt")
PAIRS = os.path.join("resources", "sample_pairs")
CONFIG = os.path.join("albert_config", "albert_config_nano.json")
OPEN_MODEL = os.path.join("resources", "albert_tiny_open")
OPEN_MODEL_EPOCHS = 8
# Marks a directory that may be emptied, as the demo made it. Holds the settings of a
# demo that is complete.
MARKER = ".made_by_run_demo"
# The paths that the demo's commands leave in it; nothing else is removed. Working
# directories of data generation have a mark of their own.
_OWN_MODEL = (
    r"(best/)?(checkpoint|graph\.pbtxt|model\.ckpt-.*|events\.out\.tfevents\..*"
    r"|(albert_config|labels|training|dev_scores|eval_results|input_position"
    r"|optimizer|tokenizer_settings)\.json"
    r"|(vocab|eval_results)\.txt|predictions\.tsv|\.lock|\..*\.partial)"
    r"|eval/events\.out\.tfevents\..*"
)
_OWN_PATHS = re.compile(
    re.escape(MARKER)
    + r"|vocab\.txt|\.lock|\..*\.partial"
    + r"|(train|heldout)(\.txt|\.tfrecord|\.tfrecord\.summary\.json)"
    + r"|(pretrained|classifier|open_classifier)/({})".format(_OWN_MODEL)
)

HELD_OUT_SHARE = 0.1
# From the task's test file: one question put twice, and two questions on one topic.
# Chosen because both models judge them right; the test accuracy is the measure.
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
    text = "of fine-tuning the model that the demo has pretrained"
    add("--num_train_epochs", type=number, default=16.0, help=text)
    add("--seed", type=command_line.non_negative_int, default=12345)
    return parser


def main(args):
    """Runs the demo; see `build_parser` for the arguments."""
    directory = os.path.relpath(args.output_dir, REPOSITORY)
    os.chdir(REPOSITORY)
    held = _complete_settings(directory) if args.text_pair else None
    if held is not None:
        _check_settings(held, _settings(args), directory)
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
    """What the demo's models depend on."""
    names = "num_train_steps", "num_train_epochs", "seed"
    settings = {name: getattr(args, name) for name in names}
    settings["open_model_epochs"] = OPEN_MODEL_EPOCHS
    paths = (os.path.join(OPEN_MODEL, name) for name in sorted(os.listdir(OPEN_MODEL)))
    sums = {path: checksums.hex_digest(path) for path in paths if os.path.isfile(path)}
    settings["open_model"] = sums
    return settings


def _check_settings(held, settings, directory):
    """Raises `UserError` where a demo is of other settings: it may have taken hours."""
    flags = [
        "--{}={}".format(name, held[name])
        for name in ("num_train_steps", "num_train_epochs", "seed")
        if name in held and held[name] != settings[name]
    ]
    if flags:
        raise UserError(
            "{} holds a demo made with {}; add that, or give another "
            "--output_dir".format(directory, " ".join(flags))
        )
    if held != settings:
        raise UserError(
            "{} holds a demo of another version; make it anew, without "
            "--text_pair".format(directory)
        )


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
        "vocab_size": 1600,
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
    """Returns the `Step`s from either pretrained model to verdicts on text pairs."""

    def fine_tuning(model_dir, name, num_train_epochs):
        flags = {
            **_classifier(directory, name),
            "do_train": True,
            "do_eval": True,
            "do_predict": True,
            "data_dir": PAIRS,
            "model_dir": model_dir,
            "max_seq_length": 32,
            "train_batch_size": 16,
            "learning_rate": 0.0002,
            "num_train_epochs": num_train_epochs,
            "seed": args.seed,
        }
        title = "fine-tuning " + os.path.basename(model_dir)
        return Step(title, "run_classifier.py", flags)

    own = os.path.join(directory, "pretrained")
    return [
        fine_tuning(own, "classifier", args.num_train_epochs),
        fine_tuning(OPEN_MODEL, "open_classifier", OPEN_MODEL_EPOCHS),
        verdicts_step(args, directory),
    ]


def verdicts_step(args, directory):
    """Returns the `Step` that judges pairs with the model from albert_tiny_open."""
    flags = _classifier(directory, "open_classifier")
    pairs = {"text_pair": args.text_pair or DEFAULT_PAIRS}
    return Step("verdicts", "run_classifier.py", dict(flags, **pairs))


def _classifier(directory, name):
    return {"task_name": "lcqmc_pair", "output_dir": os.path.join(directory, name)}


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


def overlap_accuracy(directory):
    """Returns the accuracy of counting the characters that two texts share.

    A pair means the same where they are more of all its distinct characters than a
    threshold: the one that is right most often on train.txt, measured on test.txt.

    Args:
      directory: str, holds train.txt and test.txt, text A, text B and label a line.
    """

    def read(name):
        rows = []
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            for line in file:
                text_a, text_b, label = line.rstrip("\n").split("\t")
                a, b = set(text_a), set(text_b)
                rows.append((len(a & b) / len(a | b), label == "1"))
        return rows

    def accuracy(rows, threshold):
        return sum((share > threshold) == label for share, label in rows) / len(rows)

    train = read("train.txt")
    thresholds = sorted({share for share, _ in train})
    best = max(thresholds, key=lambda threshold: accuracy(train, threshold))
    return accuracy(read("test.txt"), best)


def report(steps, seconds, directory):
    """Returns the closing table: seconds per step, scores, where things lie."""
    pretrained = os.path.join(directory, "pretrained")
    classifier = os.path.join(directory, "classifier")
    open_classifier = os.path.join(directory, "open_classifier")
    scores = _read_results(pretrained)
    own, shipped = map(_read_results, (classifier, open_classifier))
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
            ("test pairs, shared characters", overlap_accuracy(PAIRS)),
            ("test pairs, pretrained here", own["test"]["accuracy"]),
            ("test pairs, albert_tiny_open", shipped["test"]["accuracy"]),
        )
    ]
    lines = ["{:<40}{:>8}".format(*row) for row in rows]
    lines += [
        "",
        "vocabulary          " + os.path.join(directory, "vocab.txt"),
        "pretrained model    " + pretrained,
        "fine-tuned models   {}, {}".format(
            os.path.join(classifier, "best"), os.path.join(open_classifier, "best")
        ),
        "predictions         " + os.path.join(open_classifier, "predictions.tsv"),
    ]
    return "\n".join(lines) + "\n"


def _read_results(directory):
    path = os.path.join(directory, "eval_results.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if __name__ == "__main__":
    command_line.run(main, build_parser())
