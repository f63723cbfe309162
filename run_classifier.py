"""Fine-tunes, evaluates and applies a classifier of sentence pairs or single texts.

Training keeps the checkpoint that scores best on the dev file in OUTPUT_DIR/best, a
complete model directory, which evaluation, prediction, `--text` and `--text_pair` use.
Without `--do_train`, `--model_dir` may name another fine-tuned model. Data files are
TSV, CSV or JSON lines: train, dev, test in `--data_dir`, or named one by one.
"""

from albert_zh import command_line  # isort: split

from albert_zh import flags, task_command
from albert_zh.base import name_lists
from albert_zh.base.errors import UserError
from albert_zh.tasks import reading
from albert_zh.tasks.classification import balanced_weights
from albert_zh.tasks.columns import Columns

_COLUMN_FLAGS = [name + "_column" for name in Columns._fields]


def _check(args, task):
    """Raises `UserError` for flags that are not for a task's rows."""
    for name in ("ignore_labels", "label_smoothing", "class_weights"):
        if name in args.given and task.kind != "classification":
            raise UserError(
                "--{}: rows of {} do not have one label each; remove it".format(
                    name, task.name
                )
            )
    if args.text_b_column is not None and not task.is_pair:
        raise UserError(
            "--text_b_column={}: {} has one text a row; remove it, or give a task of "
            "pairs, such as --task_name=pair".format(args.text_b_column, task.name)
        )


def _reader(args, task):
    columns = Columns(args.text_a_column, args.text_b_column, args.label_column)
    return reading.TableReader(task, args.ignore_labels, columns)


def _from_command_line(args, task):
    return reading.from_command_line(task, args.text, args.text_pair)


def _class_weights(text):
    """ "balanced", or a tuple of non-negative numbers."""
    if text == "balanced":
        return text
    return tuple(map(command_line.number_between(0, 1e6), text.split(",")))


def _objective(args, files, train_data):
    weights = args.class_weights or ()
    if weights == "balanced":
        weights = balanced_weights(train_data.examples, files.labels)
    if weights and len(weights) != len(files.labels):
        raise UserError(
            "--class_weights: {} numbers for the labels {}".format(
                len(weights), name_lists.join(files.labels)
            )
        )
    factors = dict(zip(files.labels, weights))
    if weights and not any(factors[each.label] for each in train_data.examples):
        text = "--class_weights: every example of {} would weigh 0"
        raise UserError(text.format(train_data.path))
    return {"label_smoothing": args.label_smoothing, "class_weights": weights}


def _show(tuner, example, prediction):
    """The prediction of an input, and its texts."""
    texts = filter(None, (example.text_a, example.text_b))
    return "{}  {}".format(tuner.kind.show(prediction), "  |  ".join(texts))


COMMAND = task_command.Command(
    kinds=("classification", "multi_label", "regression"),
    text_flags=("text_pair", "text"),
    readers={
        "do_train": _COLUMN_FLAGS
        + ["ignore_labels", "label_smoothing", "class_weights"],
        "do_eval": _COLUMN_FLAGS + ["ignore_labels"],
        "do_predict": _COLUMN_FLAGS,
    },
    reader=_reader,
    from_command_line=_from_command_line,
    show=_show,
    labels=lambda args: args.labels,
    check=_check,
    objective=_objective,
)


def build_parser():
    """Returns the command's parser, with flags named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    task_command.add_task_arguments(parser, COMMAND)
    parser.add_texts("--text_pair", 2, "judge this pair")
    parser.add_texts("--text", 1, "judge this single text")
    _add_data_arguments(parser)
    task_command.add_training_arguments(parser)
    return parser


def _add_data_arguments(parser):
    add, names = parser.add_argument, command_line.names
    flags.add_task_file_arguments(parser)
    for column in Columns._fields:
        text = "its name in the first row or JSON, or number; default: found"
        add("--{}_column".format(column), help=text)
    add("--labels", type=names, help="class names as a line of CSV; default: found")
    add("--ignore_labels", type=names, default=(), help="leave these rows out")
    text = "of a label's probability, spread over all classes in training"
    add("--label_smoothing", type=command_line.share, default=0.0, help=text)
    text = "factors of the classes' losses, in the order of the labels, or balanced"
    add("--class_weights", type=_class_weights, help=text)


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task_command.run(args, COMMAND)


if __name__ == "__main__":
    command_line.run(main, build_parser())
