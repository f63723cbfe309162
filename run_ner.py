"""Fine-tunes, evaluates and applies a model that finds entities in texts.

Training keeps the checkpoint that scores best on the dev file in OUTPUT_DIR/best, a
complete model directory, which evaluation, prediction and `--text` use. Without
`--do_train`, `--model_dir` may name another fine-tuned model. Data files have a
character and its tag (BIO, BIOES or BMES) in each line, or are CLUENER's JSON lines:
train, dev, test in `--data_dir`, or named one by one.
"""

from albert_zh import command_line  # isort: split

from albert_zh import flags, task_command
from albert_zh.base.console import printable
from albert_zh.command_line import positive_number
from albert_zh.tasks import tag_decoders, tagged_texts, tagging


def _show(tuner, example, prediction):
    """An input, then a line for each of its entities: start, end, type, text."""
    del tuner
    lines = [printable(example.text)]
    for entity in prediction:
        row = "  {:>5} {:>5}  {}  {}"
        text = printable(entity.text)
        lines.append(row.format(entity.start, entity.end, entity.type, text))
    return "\n".join(lines)


def _options(args, task):
    """How the model to train decodes; a trained one says so itself."""
    del task
    return {"decoder": args.decoder} if args.do_train else None


COMMAND = task_command.Command(
    kinds=("tagging",),
    text_flags=("text",),
    readers={"do_train": ["decoder", "labels"], "decoder=crf": ["crf_learning_rate"]},
    reader=lambda args, task: tagged_texts.TagReader(task),
    from_command_line=lambda args, task: tagged_texts.from_command_line(
        task, args.text
    ),
    show=_show,
    options=_options,
    labels=lambda args: args.labels and tuple(sorted(args.labels)),
    training=lambda args: {"head_learning_rate": args.crf_learning_rate},
)


def build_parser():
    """Returns the command's parser, with flags named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    task_command.add_task_arguments(parser, COMMAND)
    parser.add_texts("--text", 1, "show the entities of this text")
    flags.add_task_file_arguments(parser)
    add = parser.add_argument
    text = "types of entities as a line of CSV; default: found in the training data"
    add("--labels", type=command_line.names, help=text)
    add(
        "--decoder",
        choices=tuple(tag_decoders.DECODERS),
        default=tagging.DEFAULT_DECODER,
        help="softmax and crf tag each character; span also finds nested entities",
    )
    text = "peak rate of the layers above the encoder, with --decoder=crf only"
    add("--crf_learning_rate", type=positive_number, help=text)
    task_command.add_training_arguments(parser)
    return parser


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task_command.run(args, COMMAND)


if __name__ == "__main__":
    command_line.run(main, build_parser())
