"""Real tasks from one model: the command, the scores and the seconds of each.

    python benchmarks/tasks.py --data=DATA --model_dir=MODEL --work=/tmp/tasks

DATA holds the folders that `ROWS` names. Every task is fine-tuned by the recipe of its
entry and the model's size, where the row says nothing else. The best epoch is chosen
on dev, of rows that have it; a test file is scored where it has labels. Finished rows
are shown again.

`--start=scratch,model` also trains each task from random weights, with the model's
config and vocabulary, to show what its pretraining gains. With `--num_trials=3`, the
scores are means and standard deviations of three seeds, by the metric that the task is
ranked by. `--flags="--num_train_epochs=1 --learning_rate=2e-4"` sets flags of every
command, before those of the rows and recipes.
"""

import json
import pathlib
import shlex
import sys
from typing import NamedTuple, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int
from albert_zh.models import directory as model_directory
from albert_zh.tasks.trials import TRIALS_FILE
from benchmarks import model_scores, rows
from benchmarks.work_directory import work_directory

# What is shown of eval_results.json: the first of these that it has.
SCORES = (("exact_match", "f1"), ("pearson", "spearman"), ("accuracy",), ("f1",))
STARTS = ("scratch", "model")


class Row(NamedTuple):
    """A task and how it is run.

    Attributes:
      script: name of the command.
      task_name: as the flag.
      files: tuple of (flag, path below DATA).
      flags: tuple of further flags.
    """

    script: str
    task_name: str
    files: Tuple[Tuple[str, str], ...]
    flags: Tuple[str, ...] = ()


def _of_folder(script, task_name, folder, *flags):
    return Row(script, task_name, (("data_dir", folder),), flags)


def _of_files(script, task_name, train, dev=None, test=None):
    files = (("train_file", train), ("dev_file", dev), ("test_file", test))
    return Row(script, task_name, tuple(item for item in files if item[1]))


ROWS = {
    "lcqmc": _of_folder("run_classifier.py", "lcqmc", "lcqmc", "--max_seq_length=64"),
    "cluener softmax": _of_folder("run_ner.py", "cluener", "cluener"),
    "cluener crf": _of_folder("run_ner.py", "cluener", "cluener", "--decoder=crf"),
    "cluener span": _of_folder("run_ner.py", "cluener", "cluener", "--decoder=span"),
    "resume_ner": _of_folder("run_ner.py", "resume_ner", "tasks/resume_ner"),
    "cmrc2018": _of_files(
        "run_squad.py",
        "cmrc2018",
        "cmrc2018/cmrc2018_trial.json",
        test="cmrc2018/cmrc2018_dev.json",
    ),
    "c3": _of_folder("run_multiple_choice.py", "c3", "tasks/c3"),
    "tnews": _of_files(
        "run_classifier.py", "tnews", "tasks/tnews/train.json", "tasks/tnews/test.json"
    ),
    "afqmc": _of_files(
        "run_classifier.py", "afqmc", "tasks/afqmc/train.txt", "tasks/afqmc/dev.txt"
    ),
    "ocnli": _of_files(
        "run_classifier.py", "ocnli", "ocnli/train.10k.json", "ocnli/dev.json"
    ),
    "chnsenticorp": _of_folder("run_classifier.py", "chnsenticorp", "chnsenticorp"),
    "stsb": _of_files(
        "run_classifier.py",
        "stsb",
        "tasks/stsb/train.txt",
        "tasks/stsb/dev.txt",
        "tasks/stsb/test.txt",
    ),
}


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True, help="folder of the tasks' folders")
    add("--model_dir", required=True, help="pretrained model")
    add("--work", type=work_directory, required=True, help="folder for all of it")
    add("--rows", default="all", help="names, comma-separated")
    add("--start", default="model", help="scratch, model, or both, comma-separated")
    add("--num_trials", type=positive_int, default=1, help="seeds of each task")
    add("--flags", type=shlex.split, default=[], help="further flags of each command")
    return parser


def main(args):
    """Fine-tunes what is not done yet of the rows; prints the table.

    Raises:
      UserError: a row, a start or a file is wrong, the work folder holds results of
        other settings or files, or a command failed.
      Stopped: it was told to stop.
    """
    names = rows.choose(args.rows, ROWS)
    starts = rows.choose(args.start, STARTS, "--start")
    for name in names:
        for flag, path in ROWS[name].files:
            if not (args.data / path).exists():
                raise UserError(
                    "--rows={}: --{}={}: no such file or folder".format(
                        name, flag, args.data / path
                    )
                )
        if args.num_trials > 1 and not _has_dev(ROWS[name]):
            raise UserError(
                "--num_trials={}: {} has no dev file, by which trials are compared; "
                "leave --num_trials away".format(args.num_trials, name)
            )
        for start in starts:
            rows.check(fine_tuning(args, name, start))
    lines = ["| task | start | dev | test | seconds | command |", "|---" * 6 + "|"]
    for name in names:
        for start in starts:
            lines.append(fine_tune(args, name, start))
            console.show("\n".join(lines) + "\n\n")


def _has_dev(row):
    """Whether a row's epochs are scored on dev."""
    return {"data_dir", "dev_file"}.intersection(flag for flag, _ in row.files)


def fine_tuning(args, name, start):
    """Returns the `rows.Job` of one row."""
    folder = args.work / start / name.replace(" ", "_")
    line = command(name, args.data, model_flags(args.model_dir, start), args.flags)
    if args.num_trials > 1:
        line.append("--num_trials={}".format(args.num_trials))
    line.append("--output_dir={}".format(folder / "model"))
    result = TRIALS_FILE if args.num_trials > 1 else model_scores.SCORES_FILE
    return rows.Job(line, folder, folder / "model" / result)


def fine_tune(args, name, start):
    """Fine-tunes one row, unless that is done; returns its line of the table."""
    job = fine_tuning(args, name, start)
    seconds = rows.run_once(job)
    dev, test = read_scores(job.result, args.num_trials)
    model = model_flags(args.model_dir, start, shown_as="MODEL")
    shown = command(name, pathlib.Path("DATA"), model, args.flags)
    return "| {} | {} | {} | {} | {:.0f} | `{}` |".format(
        name, start, dev, test, seconds, " ".join(map(shlex.quote, shown))
    )


def model_flags(model_dir, start, shown_as=None):
    """Returns the flags of a start.

    Args:
      model_dir: str.
      start: one of `STARTS`.
      shown_as: str, in place of the model's directory; default: where it is.

    Raises:
      UserError: there is no such directory, or it lacks a file.
    """
    if start == "model":
        model_scores.find_model(model_dir)
        flags = {"--model_dir": shown_as or model_dir}
    else:
        found = model_directory.find(model_dir)
        model_directory.require(found, "config_file", "vocab_file", has_flags=False)
        vocabulary = "--spm_model_file" if found.spm_model_file else "--vocab_file"
        flags = {
            "--albert_config_file": found.config_file,
            vocabulary: found.spm_model_file or found.vocab_file,
        }
        if shown_as:
            flags = {flag: _renamed(path, shown_as) for flag, path in flags.items()}
    flags.update(model_scores.tokenizer_flags(model_dir))
    return ["{}={}".format(*flag) for flag in flags.items()]


def _renamed(path, folder):
    return "{}/{}".format(folder, pathlib.Path(path).name)


def command(name, data, start, flags=()):
    """Returns the command of a row without its output directory, a list of str.

    Args:
      name: of the row.
      data: `pathlib.Path`, the folder of the tasks' folders.
      start: list of str, as `model_flags` returns them.
      flags: list of str, in place of flags of the row and besides.
    """
    row = ROWS[name]
    line = [row.script, "--task_name=" + row.task_name, "--do_train", "--do_eval"]
    line += ["--{}={}".format(flag, data / path) for flag, path in row.files]
    given = {flag.split("=")[0] for flag in flags}
    kept = [flag for flag in row.flags if flag.split("=")[0] not in given]
    return line + start + kept + list(flags)


def read_scores(path, num_trials):
    """Returns the scores of dev and of test as text, "" where there is none."""
    results = json.loads(path.read_text())
    if num_trials == 1:
        return [scores(results.get(split, {})) for split in ("dev", "test")]
    splits = results["splits"]
    by_seed = [splits.get(split, {}).get("by_seed", {}) for split in ("dev", "test")]
    return [rows.mean_and_deviation(list(found.values())) for found in by_seed]


def scores(split):
    """Returns the `SCORES` of a split as text, "" where it has none."""
    for names in SCORES:
        if all(name in split for name in names):
            return ", ".join("{} {:.4f}".format(name, split[name]) for name in names)
    return ""


if __name__ == "__main__":
    command_line.run(main, build_parser())
