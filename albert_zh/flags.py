"""Groups of flags that several commands share, and which mode reads which flag."""

from albert_zh.base.errors import UserError
from albert_zh.command_line import positive_int, share
from albert_zh.data import corpus, masking

# Flags of `add_device_arguments` that have no meaning without a TPU.
TPU_FLAGS = (
    "tpu_name",
    "tpu_zone",
    "gcp_project",
    "num_tpu_cores",
    "iterations_per_loop",
)


# Flags of `add_mask_arguments`.
MASK_FLAGS = ("masked_lm_prob", "ngram", "mask_token_share")


def check_read(args, readers):
    """Refuses flags that the modes asked for do not read.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`.
      readers: dict mode -> tuple of flags, names without their dashes. A mode is the
        name of a flag, which turns it on by any value that is true, or "name=value".
        A flag may stand under several modes; what stands under none is read by all.

    Raises:
      UserError: names a flag that was given and is not read, and what reads it.
    """
    for name in sorted(args.given):
        if not is_read(name, args, readers):
            modes = [mode for mode, flags in readers.items() if name in flags]
            raise UserError(
                "--{} requires {}; add it or remove --{}".format(
                    name, " or ".join("--" + mode for mode in modes), name
                )
            )


def is_read(name, args, readers):
    """Whether a mode that is on reads the flag `name`; arguments as of `check_read`."""
    modes = [mode for mode, flags in readers.items() if name in flags]
    return not modes or any(_is_on(args, mode) for mode in modes)


def _is_on(args, mode):
    name, _, value = mode.partition("=")
    held = getattr(args, name)
    return str(held) == value if value else bool(held)


def add_task_file_arguments(parser):
    """Adds the flags of a task's files, which `splits.TaskData` takes."""
    parser.add_argument("--data_dir", help="folder of the files train, dev and test")
    for split in ("train", "dev", "test"):
        text = "instead of the one in --data_dir"
        parser.add_argument("--{}_file".format(split), help=text)
    text = "file to predict, labelled or not; default: test"
    parser.add_argument("--predict_file", help=text)


def add_model_arguments(parser):
    """Adds the flags of the model that is fine-tuned, or applied."""
    add = parser.add_argument
    text = "folder of the model to start from; without --do_train, of the fine-tuned "
    add("--model_dir", help=text + "one to use, by default --output_dir's")
    add("--bert_config_file", "--albert_config_file", help="sizes; needed to train")
    add("--vocab_file", help="WordPiece vocabulary; needed to train")
    add("--spm_model_file", help="SentencePiece model instead of --vocab_file")
    text = "lower-case the text; default: as the model's folder says, else True"
    parser.add_bool("--do_lower_case", None, text)
    parser.add_bool("--normalize_punctuation", None, "map marks the vocabulary lacks")
    add("--max_seq_length", type=positive_int, help="to train: the recipe's, else 128")
    add("--init_checkpoint", help="pretrained checkpoint to start from")
    parser.add_bool("--allow_missing", False, "start a pooler that it lacks anew")


def add_mask_arguments(parser, condition):
    """Adds the flags of how masks are drawn, absent where they are not given.

    Args:
      parser: `ArgumentParser`.
      condition: str, when they are read.
    """
    defaults = masking.MaskSettings()
    for name, kind, text in (
        ("masked_lm_prob", float, "share of tokens masked"),
        ("ngram", positive_int, "words masked in a row at most"),
        ("mask_token_share", float, "share of masked tokens that become [MASK]"),
    ):
        text = "{}, {}; default: {}".format(text, condition, getattr(defaults, name))
        parser.add_argument("--" + name, type=kind, help=text)


def add_text_file_arguments(parser):
    """Adds the flags of the text files to read; `sources.Form.of_flags` takes them."""
    add = parser.add_argument
    add(
        "--input_file",
        required=True,
        help="text files, also .gz, directories or globs, comma-separated",
    )
    add(
        "--text_field",
        help="the files are JSON lines, one document each: field with the text, or "
        "fields, comma-separated; empty: plain text, even if it looks like JSON",
    )
    add(
        "--encoding",
        default="utf-8",
        help="of the files, such as gb18030 (with GBK), big5, utf-16",
    )
    add(
        "--encoding_errors",
        choices=corpus.ENCODING_ERRORS,
        default="strict",
        help="stop at bytes that are not of the encoding, or replace and count them",
    )


def given_mask_settings(args):
    """Returns the dict of those fields of `masking.MaskSettings` that are given."""
    values = {name: getattr(args, name) for name in masking.MaskSettings._fields}
    return {name: value for name, value in values.items() if value is not None}


def check_no_masks_given(args):
    """Refuses the flags of `add_mask_arguments` for records that hold their masks."""
    for name in MASK_FLAGS:
        if name in args.given:
            raise UserError(
                "--{}: these records hold their masks; set it in create_pretraining_"
                "data.py, or create records with --masking=dynamic".format(name)
            )


def add_dropout_argument(parser):
    """Adds the flag that turns the encoder's dropout on or off."""
    parser.add_argument(
        "--dropout",
        type=share,
        help="share of activations and attention zeroed in training, 0 for none; the "
        "model's config goes along with it; default: as that config says",
    )


def add_device_arguments(parser):
    """Adds the TPU flags, under the names of the published scripts."""
    parser.add_bool("--use_tpu", False, "train on TPU instead of CPU or one GPU")
    parser.add_argument("--tpu_name", help="name or grpc:// address of the TPU")
    parser.add_argument("--tpu_zone", help="zone of the TPU; detected when absent")
    parser.add_argument("--gcp_project", help="project of the TPU; detected likewise")
    parser.add_argument("--master", help="TensorFlow master URL")
    parser.add_argument(
        "--num_tpu_cores", type=positive_int, default=8, help="TPU cores to use"
    )
    parser.add_argument(
        "--iterations_per_loop",
        type=positive_int,
        default=1000,
        help="training steps between two returns to the host, TPU only",
    )


def device_settings(args):
    """Returns a dict of the values of `add_device_arguments`, by their names."""
    return {name: getattr(args, name) for name in ("use_tpu", "master") + TPU_FLAGS}


def add_numerics_arguments(parser):
    """Adds the flags of how a model computes; `numerics.choose` takes them."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the matrix products; default: bfloat16 where the device has products "
        "of it, else float32",
    )
    parser.add_bool(
        "--xla",
        None,
        "let XLA compile the element-wise parts, anew for every new shape; default: "
        "where it pays",
    )
    parser.add_argument(
        "--recompute",
        choices=("none", "layers"),
        default="none",
        help="layers: keep only each layer's input for the backward pass and compute "
        "the layer again there; slower, in much less memory",
    )


def numerics_settings(args):
    """Returns a dict of `numerics.choose`'s arguments that the flags give."""
    return {
        "precision": args.precision,
        "use_xla": args.xla,
        "recompute": args.recompute == "layers",
    }


def add_distribution_arguments(parser):
    """Adds the flags of training on several devices, as `distribution.create` takes."""
    parser.add_argument(
        "--distribution",
        choices=("none", "mirrored", "multi_worker"),
        default="none",
        help="what a batch is distributed over: mirrored, the GPUs of this machine; "
        "multi_worker, the workers that TF_CONFIG names (see launch_workers.py)",
    )
    parser.add_argument(
        "--worker_timeout",
        type=positive_int,
        help="seconds to wait for the other workers, multi_worker only; default: 300",
    )
    parser.add_bool(
        "--allow_open_ports",
        False,
        "let workers that are all on this machine open their ports to the network: "
        "whoever reaches them can read and write files as you; multi_worker only",
    )
