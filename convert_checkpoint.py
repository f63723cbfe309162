"""Converts a model directory between TensorFlow and PyTorch, exactly or not at all.

    python3 convert_checkpoint.py --from=huggingface --to=google \\
        --input=./albert_chinese_tiny --output=./albert_tiny_zh_google

Formats: `google`, `albert_zh` and `bert` are TensorFlow checkpoints of these dialects;
`huggingface` is for the transformers package; `albert_pytorch` is for albert_pytorch's
bright variant. `huggingface` converts to and from `google` and `bert`,
`albert_pytorch` to and from `albert_zh`; a format to itself makes a clean copy.
"""

from albert_zh import command_line  # isort: split

from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.interop import conversion
from albert_zh.interop.model import Options
from albert_zh.tasks.registry import TASKS, get_task


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    formats = sorted(conversion.FORMATS)
    add("--from", dest="source_format", choices=formats, required=True, help="format")
    add("--to", dest="target_format", choices=formats, required=True, help="format")
    add("--input", required=True, help="model directory to read")
    add("--output", required=True, help="model directory to write; must be new")
    parser.add_bool("--keep_slots", False, "keep optimizer state, TensorFlow only")
    add(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="dtype of the weights in a PyTorch file",
    )
    parser.add_bool("--allow_missing", False, "convert a model without a pooler, too")
    parser.add_bool("--drop_masked_lm", False, "leave out the MLM head")
    add("--task_name", help="task of a fine-tuned model, such as pair or ner")
    text = "its labels, as a line of CSV; default: the input's"
    add("--labels", type=command_line.names, help=text)
    add(
        "--max_seq_length",
        type=command_line.positive_int,
        help="its sequence length; default: the input's, else 128",
    )
    return parser


def main(args):
    """Converts a model directory; see `build_parser` for the arguments."""
    for flag in ("labels", "max_seq_length"):
        if getattr(args, flag) and not args.task_name:
            raise UserError("--{} requires --task_name".format(flag))
    task = get_task(args.task_name, args.labels) if args.task_name else None
    options = Options(
        keep_slots=args.keep_slots,
        dtype=args.dtype,
        allow_missing=args.allow_missing,
        drop_masked_lm=args.drop_masked_lm,
        task=_task_settings(task, args.max_seq_length) if task else None,
        kind=task.kind if task else None,
        kinds={name: task.kind for name, task in TASKS.items()},
    )
    model = conversion.convert(
        args.source_format, args.target_format, args.input, args.output, options
    )
    console.show(
        "{} tensors, {:,} parameters, heads: {}\nModel saved to {}\n".format(
            len(model.weights),
            model.num_parameters(),
            ", ".join(model.heads) or "none",
            args.output,
        )
    )


def _task_settings(task, max_seq_length):
    settings = {"task_name": task.name}
    if max_seq_length:
        settings["max_seq_length"] = max_seq_length
    if task.labels:
        settings["labels"] = list(task.labels)
    return settings


if __name__ == "__main__":
    command_line.run(main, build_parser())
