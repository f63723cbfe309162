"""What a model gains while it is pretrained: held-out text and one task, as a picture.

    python benchmarks/learning_curve.py --model=80000=one --model=240000=two \\
        --held_out=heldout.txt --task=lcqmc=DATA/lcqmc --work=/tmp/curve \\
        --output_file=curve.png

Each `--model` is a model directory after so many sequences, all with one vocabulary.
Every model is scored on the held-out text, masked once, and fine-tuned on the task with
the same seed and settings; so are random weights of the last model's config, at 0
sequences. Finished points are shown again; with other settings or files, they are
refused.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from albert_zh import command_line  # isort: split

from albert_zh.base import console, files, pictures
from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int
from albert_zh.data import corpus
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
      UserError: a flag or a file is wrong, the work folder holds results of other
        settings or files, a command failed, or matplotlib is missing.
      Stopped: it was told to stop.
    """
    pictures.require_matplotlib("learning_curve.py")
    texts = corpus.expand_input_files(args.held_out)
    args.held_out = ",".join(texts)
    read = [*texts, *map(str, task_files.find(*args.task).values())]
    files.require_separate(args.output_file, [args.output_file], read)
    files.make_folders([args.output_file])
    models = find_models(args.model)
    # Random weights take the last one's config.
    points = [(0, models[-1][1]), *models]
    for point in points:
        for job in [*scoring(args, *point), fine_tuning(args, *point)]:
            rows.check(job)
    title = "| sequences | MLM loss | MLM accuracy | SOP accuracy | {} dev | test |"
    lines = [title.format(args.task[0]), "|---" * 6 + "|"]
    drawn = []
    for sequences, found in points:
        for job in scoring(args, sequences, found):
            rows.run_once(job)
        held_out = model_scores.read(job.result) if sequences else {}
        job = fine_tuning(args, sequences, found)
        rows.run_once(job)
        task = model_scores.read_accuracies(job.result)
        split = "test" if "test" in task else "dev"
        drawn.append((sequences, held_out.get("masked_lm_accuracy"), task[split]))
        cells = ["{:,}".format(sequences)]
        cells.append(_cell("{:.3f}", held_out.get("masked_lm_loss")))
        shares = [held_out.get("masked_lm_accuracy")]
        shares.append(held_out.get("sentence_order_accuracy"))
        shares += [task.get("dev"), task.get("test")]
        cells += [_cell("{:.1%}", share) for share in shares]
        lines.append("| " + " | ".join(cells) + " |")
        console.show("\n".join(lines) + "\n\n")
    draw(drawn, "{} {}".format(args.task[0], split), args.output_file)


def _cell(form, number):
    return "" if number is None else form.format(number)


def find_models(flags):
    """Returns sorted (sequences, `ModelDirectory`) of the values of `--model`.

    All have the same `vocab_file`, and the same settings of the tokenizer.

    Raises:
      UserError: two have the same number, one lacks a file, or vocabularies or settings
        differ.
    """
    numbers = [sequences for sequences, _ in flags]
    for number in numbers:
        if numbers.count(number) > 1:
            raise UserError("--model={}=...: given twice".format(number))
    models = []
    for sequences, directory in sorted(flags):
        found = model_scores.find_model(directory)
        if found.spm_model_file:
            raise UserError("--model: {} has no vocab.txt".format(directory))
        vocab_file = models[0][1].vocab_file if models else found.vocab_file
        if files.read_bytes(vocab_file) != files.read_bytes(found.vocab_file):
            raise UserError(
                "--model: {} and {} differ; expected models of one vocabulary".format(
                    vocab_file, found.vocab_file
                )
            )
        first = models[0][1].directory if models else found.directory
        tokenizer = model_scores.tokenizer_flags(first)
        if model_scores.tokenizer_flags(found.directory) != tokenizer:
            raise UserError(
                "--model: {} and {} differ in do_lower_case or normalize_punctuation; "
                "expected models of one tokenizer".format(first, found.directory)
            )
        models.append((sequences, found._replace(vocab_file=vocab_file)))
    return models


def scoring(args, sequences, found):
    """The `rows.Job`s of the held-out records and of a model's scores on them."""
    if not sequences:
        return
    folder = args.work / "held_out"
    records = folder / "held_out.tfrecord"
    tokenizer = model_scores.tokenizer_flags(found.directory)
    command = model_scores.make_held_out(
        args.held_out, found.vocab_file, records, tokenizer
    )
    yield rows.Job(command, folder, records)
    folder = args.work / str(sequences) / "held_out"
    command = model_scores.score_held_out(
        records, folder / "scores", found.config_file, found.checkpoint
    )
    yield rows.Job(command, folder, folder / "scores" / model_scores.SCORES_FILE)


def fine_tuning(args, sequences, found):
    """The `rows.Job` of the task, from random weights at 0 sequences."""
    task, data_dir = args.task
    folder = args.work / str(sequences) / task
    flags = {
        "--output_dir": folder / "model",
        "--albert_config_file": found.config_file,
        "--vocab_file": found.vocab_file,
        "--init_checkpoint": found.checkpoint if sequences else None,
        "--num_train_epochs": args.num_train_epochs,
        "--seed": 1,
        **model_scores.tokenizer_flags(found.directory),
    }
    copies_dir = args.work / "files"
    command = model_scores.fine_tune(task, data_dir, args.train_rows, copies_dir, flags)
    return rows.Job(command, folder, folder / "model" / model_scores.SCORES_FILE)


def draw(points, task, path):
    """Draws both accuracies over the sequences seen.

    Args:
      points: list of (sequences, masked accuracy, accuracy of the task); None for one
        that is not known.
      task: its name and split.
      path: PNG file to write.
    """
    figure = pictures.new_figure(7.0, 3.2)
    for number, label in ((1, "held-out text, masked tokens"), (2, task)):
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
