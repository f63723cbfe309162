"""What each choice of fine-tuning does for a task's score, beside none of them.

    python benchmarks/fine_tuning_choices.py --model_dir=MODEL --work=/tmp/choices \\
        --task=lcqmc=DATA/lcqmc --task=chnsenticorp=DATA/chnsenticorp

A row is `run_classifier.py` with one flag more, with `--flags` and the same seeds
(`--num_trials`) for every row. Dev chooses the epoch, test gives the score; dev gives
both where no test file has labels. A difference is that of equal seeds: its mean and
standard deviation say more than those of the scores. The row `r_drop` is compared with
`dropout`, which it needs; the others with `none`.

Rerun the same command to resume; finished rows are shown again.
"""

import json
import pathlib
import shlex
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.command_line import positive_int
from albert_zh.tasks.trials import TRIALS_FILE
from benchmarks import model_scores, rows, task_files
from benchmarks.work_directory import work_directory

# Row -> its flags, and the row that it is compared with.
ROWS = {
    "none": ([], None),
    "dropout": (["--dropout=0.1"], "none"),
    "class_weights": (["--class_weights=balanced"], "none"),
    "label_smoothing": (["--label_smoothing=0.1"], "none"),
    "layerwise_decay": (["--layerwise_decay=0.9"], "none"),
    "fgm": (["--adversarial=fgm"], "none"),
    "r_drop": (["--dropout=0.1", "--r_drop=1"], "dropout"),
    "early_stopping": (["--early_stopping=1"], "none"),
    "freeze_embeddings": (["--freeze=embeddings"], "none"),
    "freeze_encoder": (["--freeze=encoder"], "none"),
}


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="pretrained model")
    add("--work", type=work_directory, required=True, help="folder for all of it")
    help_text = "TASK_NAME=DATA_DIR of a task for run_classifier.py; may be repeated"
    task = task_files.task_argument
    add("--task", action="append", required=True, type=task, help=help_text)
    add("--num_trials", type=positive_int, default=3, help="seeds")
    add("--flags", type=shlex.split, default=[], help="further flags of each command")
    add("--train_rows", type=positive_int, help="of a training file at most")
    add("--test_rows", type=positive_int, help="of dev and test, each, at most")
    return parser


def main(args):
    """Fine-tunes row by row; prints the table of each task.

    Raises:
      UserError: a flag or a file is wrong, the work folder holds results of other
        settings or files, or a training failed.
      Stopped: it was told to stop.
    """
    task_files.check_names(args.task)
    model_scores.find_model(args.model_dir)
    for task in args.task:
        for name in ROWS:
            rows.check(fine_tuning(args, *task, name))
    for task, folder in args.task:
        found = {}
        for name in ROWS:
            job = fine_tuning(args, task, folder, name)
            seconds = rows.run_once(job)
            split, scores = read_scores(job.result)
            found[name] = scores, seconds
            console.show("{}\n{}\n\n".format(task, table(split, found)))


def fine_tuning(args, task, folder, name):
    """Returns the `rows.Job` that trains the seeds of one row.

    Args:
      args: the benchmark's flags.
      task, folder: as `task_files.task_argument` returns them.
      name: of the row.

    Raises:
      UserError: a file is missing or cannot be read.
    """
    output_dir = args.work / task / name
    limits = {"train": args.train_rows, "dev": args.test_rows, "test": args.test_rows}
    files = [
        "--{}_file={}".format(
            split,
            task_files.first_rows(
                task, path, limits[split], args.work / "files" / task
            ),
        )
        for split, path in task_files.find(task, folder).items()
    ]
    line = ["run_classifier.py", "--do_train", "--do_eval", "--task_name=" + task]
    line += ["--model_dir=" + args.model_dir] + files + ROWS[name][0]
    line += args.flags + ["--num_trials={}".format(args.num_trials)]
    line.append("--output_dir={}".format(output_dir / "trials"))
    return rows.Job(line, output_dir, output_dir / "trials" / TRIALS_FILE)


def read_scores(path):
    """Reads the scores of one row.

    Args:
      path: `pathlib.Path` of its `trials.json`.

    Returns:
      ("test", or "dev" where no test file has labels; list of the seeds' scores).
    """
    splits = json.loads(path.read_text())["splits"]
    split = "test" if "test" in splits else "dev"
    by_seed = splits[split]["by_seed"]
    return split, [by_seed[seed] for seed in sorted(by_seed)]


def table(split, found):
    """Returns a Markdown table.

    Args:
      split: what the scores are of.
      found: dict, row -> (list of the scores of the seeds, seconds).
    """
    lines = ["| row | flags | {} | difference | seconds |".format(split)]
    lines.append("|---" * 5 + "|")
    for name, (scores, seconds) in found.items():
        flags, other = ROWS[name]
        difference = "" if other is None else "beside `{}` ".format(other)
        if other is not None:
            pairs = zip(scores, found[other][0])
            difference += rows.mean_and_deviation([a - b for a, b in pairs], "{:+.1%}")
        lines.append(
            "| {} | {} | {} | {} | {:.0f} |".format(
                name,
                "`{}`".format(" ".join(flags)) if flags else "",
                rows.mean_and_deviation(scores),
                difference,
                seconds,
            )
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main, build_parser())
