"""What each choice of fine-tuning does for a task's score, beside none of them.

    python benchmarks/fine_tuning_choices.py --model_dir=MODEL --work=/tmp/choices \\
        --task=lcqmc=DATA/lcqmc --task=chnsenticorp=DATA/chnsenticorp

A row is `run_classifier.py` with one flag more, the same seeds for every row
(`--num_trials`). Dev chooses the epoch, test gives the score. A difference is that of
equal seeds: its mean and standard deviation say more than those of the scores. The row
`r_drop` is compared with `dropout`, which it needs; the others with `none`.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.command_line import positive_int
from benchmarks import rows, task_files
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
    add("--num_train_epochs", type=positive_int, default=3, help="of each training")
    add("--max_seq_length", type=positive_int, default=128, help="tokens of a text")
    add("--train_rows", type=positive_int, help="of a training file at most")
    add("--test_rows", type=positive_int, help="of dev and test, each, at most")
    return parser


def main(args):
    """Fine-tunes row by row; prints the table of each task.

    Raises:
      UserError: a file is missing, or a training failed.
    """
    for task in args.task:
        task_files.find(*task, required=("train", "dev", "test"))
    for task, folder in args.task:
        found = {}
        for name, (flags, _) in ROWS.items():
            found[name] = fine_tune(args, task, folder, name, flags)
            console.show("{}\n{}\n\n".format(task, table(found)))


def fine_tune(args, task, folder, name, flags):
    """Trains the seeds of one row, or goes on with them.

    Args:
      args: the benchmark's flags.
      task, folder: as `task_files.task_argument` returns them.
      name: of the row.
      flags: list of str, of the row.

    Returns:
      (list of the test scores of the seeds, seconds).

    Raises:
      UserError: run_classifier.py failed.
    """
    output_dir = args.work / task / name
    limits = {"train": args.train_rows, "dev": args.test_rows, "test": args.test_rows}
    files = [
        "--{}_file={}".format(
            split,
            task_files.first_rows(path, limits[split], args.work / "files" / task),
        )
        for split, path in task_files.find(task, folder).items()
    ]
    line = ["run_classifier.py", "--do_train", "--do_eval", "--task_name=" + task]
    line += ["--model_dir=" + args.model_dir] + files + flags
    line.append("--output_dir={}".format(output_dir / "trials"))
    for flag in ("num_trials", "num_train_epochs", "max_seq_length"):
        line.append("--{}={}".format(flag, getattr(args, flag)))
    seconds = rows.run_once(line, output_dir)
    trials = json.loads((output_dir / "trials" / "trials.json").read_text())
    by_seed = trials["splits"]["test"]["by_seed"]
    return [by_seed[seed] for seed in sorted(by_seed)], seconds


def table(found):
    """Returns a Markdown table.

    Args:
      found: dict, row -> what `fine_tune` returns.
    """
    lines = ["| row | flags | test | difference | seconds |", "|---" * 5 + "|"]
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
