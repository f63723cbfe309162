"""What a model gains while it is pretrained: held-out text and one task, as a picture.

    python benchmarks/learning_curve.py --model=80000=one --model=240000=two \\
        --held_out=heldout.txt --task=lcqmc=DATA/lcqmc --work=/tmp/curve \\
        --output_file=curve.png

Each `--model` is a model directory after so many sequences, all with one vocabulary.
Every model is scored on the held-out text, masked once, and fine-tuned on the task with
the same seed and settings; so are random weights, at 0 sequences. Finished points are
shown again.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console, pictures
from albert_zh.command_line import positive_int
from albert_zh.models import directory as model_directory
from benchmarks import model_scores, rows, task_files
from benchmarks.work_directory import work_directory


def model_argument(text):
    """Type of a flag `--model=SEQUENCES=DIR`; returns (int, str)."""
    sequences, _, directory = text.partition("=")
    if not directory:
        raise ValueError
    return positive_int(sequences), directory


def build_parser():
    """Returns the benchmark's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    text = "SEQUENCES=DIR, may be repeated"
    add("--model", action="append", required=True, type=model_argument, help=text)
    add("--held_out", required=True, help="text file that no model was trained on")
    task = task_files.task_argument
    add("--task", required=True, type=task, help="TASK_NAME=DATA_DIR")
    add("--train_rows", type=positive_int, help="of the task's training file at most")
    add("--num_train_epochs", type=positive_int, default=2, help="of fine-tuning")
    add("--work", type=work_directory, required=True, help="folder for all of it")
    add("--output_file", required=True, help="PNG file to write")
    return parser


def main(args):
    """Scores what is not scored yet; prints the table and draws the picture.

    Raises:
      UserError: a command failed, or matplotlib is missing.
    """
    pictures.require_matplotlib("learning_curve.py")
    title = "| sequences | MLM loss | MLM accuracy | SOP accuracy | {} dev | test |"
    lines = [title.format(args.task[0]), "|---" * 6 + "|"]
    points = []
    for sequences, directory in [(0, args.model[0][1]), *sorted(args.model)]:
        held_out = score(args, sequences, directory) if sequences else {}
        task = fine_tune(args, sequences, directory)
        points.append((sequences, held_out.get("masked_lm_accuracy"), task["test"]))
        lines.append(
            "| {:,} | {:.3f} | {:.1%} | {:.1%} | {:.1%} | {:.1%} |".format(
                sequences,
                held_out["masked_lm_loss"],
                held_out["masked_lm_accuracy"],
                held_out["sentence_order_accuracy"],
                task["dev"],
                task["test"],
            )
            if held_out
            else "| 0 | | | | {dev:.1%} | {test:.1%} |".format(**task)
        )
        console.show("\n".join(lines) + "\n\n")
    draw(points, args.task[0], args.output_file)


def score(args, sequences, directory):
    """Returns the losses and accuracies on held-out text, a dict."""
    found = model_directory.find(directory)
    records = args.work / "held_out.tfrecord"
    if not model_scores.is_made(records):
        making = model_scores.make_held_out(args.held_out, found.vocab_file, records)
        rows.run(making, args.work / "held_out")
    folder = args.work / str(sequences) / "held_out"
    scores = folder / "scores"
    rows.run_once(
        model_scores.score_held_out(
            records, scores, found.config_file, found.checkpoint
        ),
        folder,
    )
    return model_scores.read(scores)


def fine_tune(args, sequences, directory):
    """Returns the accuracies of dev and test, a dict; from scratch at 0 sequences."""
    task, data_dir = args.task
    found = model_directory.find(directory)
    folder = args.work / str(sequences) / task
    flags = {
        "--output_dir": folder / "model",
        "--albert_config_file": found.config_file,
        "--vocab_file": found.vocab_file,
        "--init_checkpoint": found.checkpoint if sequences else None,
        "--num_train_epochs": args.num_train_epochs,
        "--seed": 1,
    }
    copies_dir = args.work / "files"
    rows.run_once(
        model_scores.fine_tune(task, data_dir, args.train_rows, copies_dir, flags),
        folder,
    )
    return model_scores.read_accuracies(folder / "model")


def draw(points, task, path):
    """Draws both accuracies over the sequences seen.

    Args:
      points: list of (sequences, masked accuracy or None, accuracy of the task).
      task: its name.
      path: PNG file to write.
    """
    figure = pictures.new_figure(7.0, 3.2)
    for number, label in ((1, "held-out text, masked tokens"), (2, task + " test")):
        axes = figure.add_subplot(1, 2, number)
        known = [point for point in points if point[number] is not None]
        axes.plot(
            [point[0] / 1000 for point in known],
            [100 * point[number] for point in known],
            marker="o",
        )
        axes.set_title(label)
        axes.set_xlabel("thousand sequences")
        axes.set_ylabel("accuracy, %")
        axes.grid(True, alpha=0.3)
    figure.tight_layout()
    pictures.save(figure, path)


if __name__ == "__main__":
    command_line.run(main, build_parser())
