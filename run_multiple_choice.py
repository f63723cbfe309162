"""Fine-tunes, evaluates and applies a model that answers multiple-choice questions.

Training keeps the checkpoint that scores best on the dev files in OUTPUT_DIR/best, a
complete model directory, which evaluation, prediction and `--text` use. Without
`--do_train`, `--model_dir` may name another fine-tuned model. Tasks: `c3`, `chid` and,
for files of one's own, `multiple_choice`.
"""

from albert_zh import command_line  # isort: split

import numpy as np

from albert_zh import flags, task_command
from albert_zh.tasks import choices


def _reader(args, task):
    return choices.ChoiceReader(task)


def _from_command_line(args, task):
    return choices.from_command_line(task, args.text)


def _show(tuner, example, prediction):
    """Choice and probability of an input."""
    index = prediction.argmax()
    shown = example.question.strip()
    return "{}  {:.4f}  {}".format(
        example.choices[index].strip(), np.exp(prediction[index]), shown
    )


COMMAND = task_command.Command(
    kinds=("multiple_choice", "cloze"),
    text_flags=("text",),
    readers={},
    reader=_reader,
    from_command_line=_from_command_line,
    show=_show,
)


def build_parser():
    """Returns the command's parser, with flags named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    task_command.add_task_arguments(parser, COMMAND)
    text = "answer: CONTEXT QUESTION CHOICES, the choices as a line of CSV"
    parser.add_texts("--text", 3, text)
    flags.add_task_file_arguments(parser)
    task_command.add_training_arguments(parser)
    return parser


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task_command.run(args, COMMAND)


if __name__ == "__main__":
    command_line.run(main, build_parser())
