"""Fine-tunes, evaluates and applies a model that answers questions about a text.

Answers are cut from the text. Data files have SQuAD's JSON form, as those of CMRC 2018
and DRCD: train, dev, test in `--data_dir`, or named one by one. Training keeps the
checkpoint that scores best on the dev file in OUTPUT_DIR/best, which evaluation,
prediction and `--text_pair` use. Without `--do_train`, `--model_dir` may name another
fine-tuned model.
"""

from albert_zh import command_line  # isort: split

from albert_zh import flags, task_command
from albert_zh.command_line import positive_int
from albert_zh.tasks import model_files, squad_files
from albert_zh.tasks.span_extraction import Settings


def _reader(args, task):
    return squad_files.SquadReader(
        bool(args.version_2_with_negative), args.skip_unanswerable
    )


def _from_command_line(args, task):
    return squad_files.from_command_line(args.text_pair)


def _show(tuner, example, prediction):
    """Answer and its probability."""
    return "{}  {:.4f}  {}".format(
        prediction.text or "(no answer)", prediction.probability, example.question
    )


def _options(args, task):
    """The options of the kind; a new model keeps those that are not given, too."""
    given = {name: getattr(args, name) for name in Settings._fields}
    given = {name: value for name, value in given.items() if value is not None}
    if not args.do_train:
        return given
    length = args.max_seq_length or model_files.DEFAULT_MAX_SEQ_LENGTH
    return Settings.for_length(length, given)._asdict()


COMMAND = task_command.Command(
    kinds=("span_extraction",),
    text_flags=("text_pair",),
    readers={"do_train": ["skip_unanswerable"]},
    reader=_reader,
    from_command_line=_from_command_line,
    show=_show,
    options=_options,
)


def build_parser():
    """Returns the command's parser, with flags named as in the published scripts."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    task_command.add_task_arguments(parser, COMMAND)
    parser.add_texts("--text_pair", 2, "answer this QUESTION by this text")
    flags.add_task_file_arguments(parser)
    _add_question_arguments(parser)
    task_command.add_training_arguments(parser)
    return parser


def _add_question_arguments(parser):
    """Adds the flags of the kind; without them a fine-tuned model keeps its own."""
    add, defaults = parser.add_argument, Settings()
    for name, text in (
        (
            "doc_stride",
            "tokens from one window of a text to the next; default: {}, or "
            "half of a window where that is less",
        ),
        (
            "max_query_length",
            "tokens of a question, longer ones are cut; default: {}, "
            "or half of --max_seq_length where that is less",
        ),
        ("n_best_size", "answers of a question in nbest_predictions.json; default: {}"),
        ("max_answer_length", "tokens of an answer at most; default: {}"),
    ):
        text = text.format(getattr(defaults, name))
        add("--" + name, type=positive_int, help=text)
    text = "questions may have no answer, as in SQuAD 2; default: False"
    parser.add_bool("--version_2_with_negative", None, text)
    text = "no answer if its score is above the best answer's by this; default: 0"
    add("--null_score_diff_threshold", type=command_line.finite_number, help=text)
    text = "train without questions whose answer does not stand in the text"
    parser.add_bool("--skip_unanswerable", False, text)


def main(args):
    """Trains, evaluates and predicts as the flags say."""
    task_command.run(args, COMMAND)


if __name__ == "__main__":
    command_line.run(main, build_parser())
