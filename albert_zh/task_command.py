"""What the fine-tuning commands share: flags, their checks, the order of work.

A command says in a `Command` what its kinds of task do in their own way, adds the flags
that only they have, and calls `run`.
"""

from typing import Any, Callable, Dict, NamedTuple, Tuple

import optimization
from albert_zh import command_line, flags
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import non_negative_int, positive_int, positive_number
from albert_zh.models import directory as model_directory
from albert_zh.models.settings import MIN_SEQ_LENGTH
from albert_zh.tasks import fine_tuning, model_files
from albert_zh.tasks.kind import Kind
from albert_zh.tasks.kinds import kind_of
from albert_zh.tasks.objective import Objective
from albert_zh.tasks.registry import TASKS, get_task
from albert_zh.tasks.splits import SPLITS, TaskData
from albert_zh.training import distribution as distributions
from albert_zh.training import estimator as estimators
from albert_zh.training import numerics

# What must be on for a flag to have an effect; see `flags.check_read`.
_READERS = {
    "do_train": (
        "train_file train_batch_size learning_rate num_train_epochs warmup_proportion "
        "optimizer dropout recompute save_checkpoints_steps allow_missing seed "
        "data_dir dev_file eval_batch_size early_stopping adversarial r_drop"
    ).split(),
    "adversarial=fgm": ("adversarial_epsilon",),
    "do_eval": "data_dir dev_file test_file eval_batch_size".split(),
    "do_predict": "data_dir test_file predict_file predict_batch_size".split(),
    "use_tpu": flags.TPU_FLAGS,
}
# Flags that are fields of `fine_tuning.Training`.
_TRAINING = "learning_rate warmup_proportion optimizer save_checkpoints_steps seed"


class Command(NamedTuple):
    """What one command does in its own way.

    Attributes:
      kinds: tuple of keys of `kinds.KINDS`, whose tasks it takes.
      text_flags: tuple of the flags that give inputs on the command line.
      readers: dict mode -> list of the command's own flags, as `flags.check_read`
        takes it.
      reader: function (args, task) -> what `splits.TaskData` reads files with.
      from_command_line: function (args, task) -> `reading.ExampleFile` of the inputs on
        the command line, or None.
      show: function (tuner, example, prediction) -> str, a line for such an input.
      options: function (args, task) -> dict of `model_files.TaskFiles.options` that the
        flags give, or None where they say nothing.
      labels: function of args -> tuple of labels that the flags give, or None.
      objective: function (args, files, train data) -> dict of the fields of
        `objective.Objective` that the command's own flags give.
      training: function of args -> dict of further fields of `fine_tuning.Training`.
    """

    kinds: Tuple[str, ...]
    text_flags: Tuple[str, ...]
    readers: Dict[str, Any]
    reader: Callable[..., Any]
    from_command_line: Callable[..., Any]
    show: Callable[..., str]
    options: Callable[..., Any] = lambda args, task: None
    labels: Callable[..., Any] = lambda args: None
    objective: Callable[..., Any] = lambda args, files, train_data: {}
    training: Callable[..., Any] = lambda args: {}

    def task_names(self):
        """Returns the sorted names of its tasks."""
        return sorted(name for name, task in TASKS.items() if task.kind in self.kinds)


def add_task_arguments(parser, command):
    """Adds the flags that say what to do."""
    add = parser.add_argument
    text = "one of {}; default: the fine-tuned model's"
    add("--task_name", help=text.format(", ".join(command.task_names())))
    text = "checkpoints, best/; or a model's folder; not needed to judge --text with"
    add("--output_dir", help=text + " --model_dir")
    parser.add_bool("--do_train", False, "fine-tune, scoring dev after every epoch")
    parser.add_bool("--do_eval", False, "score the best checkpoint on dev and test")
    parser.add_bool("--do_predict", False, "write predictions for the test file")


def add_training_arguments(parser):
    """Adds the flags of the model, of training and of the device."""
    flags.add_model_arguments(parser)
    add = parser.add_argument
    add("--train_batch_size", type=positive_int, default=32, help="of a step")
    add("--eval_batch_size", type=positive_int, default=64, help="of a step")
    add("--predict_batch_size", type=positive_int, default=64, help="of a step")
    add("--learning_rate", type=positive_number, default=5e-5, help="the peak")
    add("--num_train_epochs", type=positive_number, default=3.0, help="such as 2.5")
    add("--warmup_proportion", type=command_line.share, default=0.1, help="of steps")
    add("--optimizer", choices=optimization.OPTIMIZERS, default="adamw")
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=positive_int, default=1000, help="steps")
    add("--seed", type=non_negative_int, default=12345, help="of weights, input order")
    text = "end after so many epochs without a new best on dev"
    add("--early_stopping", type=positive_int, help=text)
    _add_objective_arguments(parser)
    flags.add_device_arguments(parser)
    flags.add_numerics_arguments(parser)


def _add_objective_arguments(parser):
    add = parser.add_argument
    text = "fgm: also minimize the loss with word embeddings moved along their gradient"
    add("--adversarial", choices=("none", "fgm"), default="none", help=text)
    add("--adversarial_epsilon", type=positive_number, default=1.0, help="how far")
    text = "weight of the divergence between two passes with different dropout"
    add("--r_drop", type=positive_number, help=text)


def run(args, command):
    """Trains, evaluates and predicts as the flags say.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`.
      command: `Command`.

    Raises:
      UserError: flags, files or checkpoints that cannot be used.
    """
    _check_flags(args, command)
    task = _task(args, command)
    inputs = command.from_command_line(args, task)
    estimators.set_up_process()
    device = estimators.create_device(**flags.device_settings(args))
    # Estimator would take this process for one of several workers.
    distributions.leave_cluster()
    named = {name: getattr(args, name + "_file") for name in SPLITS}
    data = TaskData(task, args.data_dir, named, command.reader(args, task))
    if args.output_dir:
        names = kind_of(task).prediction_files
        fine_tuning.check_inputs(args.output_dir, names, data.paths())
    train_data = data.read_labelled("train", task.labels) if args.do_train else None
    options = command.options(args, task)
    files, init_checkpoint = _resolve_files(args, task, train_data, options)
    scored = data.read_for_scoring(files.labels) if args.do_eval else {}
    predicted = data.read_for_prediction(files.labels) if args.do_predict else None
    how = numerics.choose(use_tpu=args.use_tpu, **flags.numerics_settings(args))
    tuner = fine_tuning.FineTuner(
        files,
        args.output_dir,
        estimators.Runtime(device, how),
        args.eval_batch_size,
        args.predict_batch_size,
        None if args.do_train else args.model_dir,
    )
    if args.do_train:
        dev_data = scored.get("dev") or data.read_dev(files.labels)
        objective = _objective(args, command, files, train_data)
        training = _training(args, command, init_checkpoint, objective)
        tuner.train(train_data, dev_data, training)
    if scored:
        for name, scores in tuner.write_scores(scored).items():
            console.show(tuner.kind.report(name, scores))
    if predicted:
        path = tuner.write_predictions(predicted)
        console.show("Predictions saved to {}\n".format(path))
    if inputs:
        for example, prediction in tuner.predict(inputs):
            console.show(command.show(tuner, example, prediction) + "\n")
    console.show("Model in {}\n".format(tuner.best_dir))


def _task(args, command):
    """The `registry.Task` that the flags, or the model's directory, name."""
    directories = args.model_dir, args.output_dir
    names = command.task_names()
    name = args.task_name or model_files.find_task_name(directories, names)
    task = get_task(name, command.labels(args))
    if task.kind not in command.kinds:
        raise UserError(
            "--task_name={}: not a task of this command; expected one of {}".format(
                name, ", ".join(names)
            )
        )
    return task


def _check_flags(args, command):
    """Raises `UserError` for flags that are wrong whatever the files hold."""
    modes = ("do_train", "do_eval", "do_predict") + command.text_flags
    if not any(getattr(args, mode) for mode in modes):
        choices = ", ".join("--" + mode for mode in modes)
        raise UserError("nothing to do: give one or more of {}".format(choices))
    readers = {mode: list(names) for mode, names in _READERS.items()}
    for mode in command.text_flags:
        readers[mode] = ["predict_batch_size"]
    for mode, names in command.readers.items():
        readers.setdefault(mode, []).extend(names)
    flags.check_read(args, readers)
    if not args.output_dir:
        if args.do_train or args.do_eval or args.do_predict or not args.model_dir:
            raise UserError(
                "--output_dir is missing; only texts judged with "
                "--model_dir need none"
            )
    length = args.max_seq_length
    if length is not None and length < MIN_SEQ_LENGTH:
        message = "--max_seq_length={}: expected at least {}"
        raise UserError(message.format(length, MIN_SEQ_LENGTH))


def _resolve_files(args, task, train_data, options):
    """Returns `TaskFiles`, and the checkpoint that training starts from."""
    chosen = model_directory.choose(
        args.model_dir if args.do_train else None,
        config_file=args.bert_config_file,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
        checkpoint=args.init_checkpoint,
    )
    given = {
        name: getattr(args, name)
        for name in ("do_lower_case", "normalize_punctuation", "max_seq_length")
        if getattr(args, name) is not None
    }
    if options is not None:
        given["options"] = options
    if args.do_train:
        files = model_files.for_training(chosen, task, train_data, given, args.dropout)
        return files, chosen.checkpoint
    directories = args.output_dir, args.model_dir
    has_results = args.do_eval or args.do_predict
    files = model_files.load_trained(*directories, task, chosen, given, has_results)
    return files, None


def _objective(args, command, files, train_data):
    """The `objective.Objective` that the flags describe."""
    has_divergence = kind_of(files.task).divergence is not Kind.divergence
    if args.r_drop and not has_divergence:
        raise UserError("--r_drop: not for the task {}".format(files.task.name))
    is_adversarial = args.adversarial == "fgm"
    return Objective(
        adversarial_epsilon=args.adversarial_epsilon if is_adversarial else 0.0,
        r_drop=args.r_drop or 0.0,
        **command.objective(args, files, train_data),
    )


def _training(args, command, init_checkpoint, objective):
    return fine_tuning.Training(
        batch_size=args.train_batch_size,
        num_epochs=args.num_train_epochs,
        init_checkpoint=init_checkpoint,
        allow_missing=args.allow_missing,
        objective=objective,
        early_stopping=args.early_stopping,
        **{name: getattr(args, name) for name in _TRAINING.split()},
        **command.training(args),
    )
