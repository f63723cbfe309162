"""What the fine-tuning commands share: flags, their checks, the order of work.

A command says in a `Command` what its kinds of task do in their own way, adds the flags
that only they have, and calls `run`.
"""

import argparse
import logging
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import optimization
from albert_zh import command_line, flags
from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.command_line import non_negative_int, positive_int, positive_number
from albert_zh.models import directory as model_directory
from albert_zh.models import output_directory
from albert_zh.models import settings as model_settings
from albert_zh.models.settings import MIN_SEQ_LENGTH
from albert_zh.tasks import (
    distillation,
    fine_tuning,
    learning_rates,
    model_files,
    recipes,
    training_settings,
    trials,
)
from albert_zh.tasks.kinds import COMMANDS, kind_of
from albert_zh.tasks.objective import Objective
from albert_zh.tasks.registry import TASKS, get_task
from albert_zh.tasks.splits import SPLITS, TaskData
from albert_zh.training import distribution as distributions
from albert_zh.training import estimator as estimators
from albert_zh.training import numerics, results

_LOGGER = logging.getLogger(__name__)

# What must be on for a flag to have an effect; see `flags.check_read`.
_READERS = {
    "do_train": (
        "train_file train_batch_size learning_rate num_train_epochs warmup_proportion "
        "optimizer dropout recompute save_checkpoints_steps allow_missing seed "
        "data_dir dev_file eval_batch_size early_stopping adversarial r_drop "
        "layerwise_decay freeze metric num_trials teacher_model_dir"
    ).split(),
    "teacher_model_dir": ("distill_alpha", "distill_temperature"),
    "adversarial=fgm": ("adversarial_epsilon",),
    "do_eval": "data_dir dev_file test_file eval_batch_size".split(),
    "do_predict": "data_dir test_file predict_file predict_batch_size".split(),
    "use_tpu": flags.TPU_FLAGS,
}
# What `check_passed` refuses: what several tasks cannot share.
_OF_ONE_TASK = (
    "train_file dev_file test_file predict_file bert_config_file vocab_file "
    "spm_model_file init_checkpoint"
).split()
# What may change when a training is resumed; all other flags decide its result.
_OF_ONE_RUN = (
    "eval_batch_size predict_batch_size save_checkpoints_steps allow_missing "
    "precision xla recompute use_tpu master"
).split() + list(flags.TPU_FLAGS)
# Those that follow from a length: they are for a window of it.
_OF_LENGTH = ("doc_stride", "max_query_length")
# Flags that are fields of `fine_tuning.Training`.
_TRAINING = (
    "learning_rate warmup_proportion optimizer save_checkpoints_steps seed "
    "early_stopping layerwise_decay freeze"
)


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
      check: function (args, task) that raises `UserError` where the command's own flags
        do not go with the task.
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
    check: Callable[..., None] = lambda args, task: None
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
    text = "folder of the checkpoints, the best model and the results; with --model_dir"
    add("--output_dir", help=text + ", --text needs none")
    parser.add_bool("--do_train", False, "fine-tune, scoring dev after every epoch")
    parser.add_bool("--do_eval", False, "score the best checkpoint on dev and test")
    parser.add_bool("--do_predict", False, "write predictions for the test file")


def add_training_arguments(parser):
    """Adds the flags of the model, of training and of the device."""
    flags.add_model_arguments(parser)
    add = parser.add_argument
    or_recipe = ", unless --task_name has a recipe for the model's size"
    text = "of a step" + or_recipe
    add("--train_batch_size", type=positive_int, default=32, help=text)
    add("--eval_batch_size", type=positive_int, default=64, help="of a step")
    add("--predict_batch_size", type=positive_int, default=64, help="of a step")
    text = "the peak" + or_recipe
    add("--learning_rate", type=positive_number, default=5e-5, help=text)
    text = "such as 2.5" + or_recipe
    add("--num_train_epochs", type=positive_number, default=3.0, help=text)
    add("--warmup_proportion", type=command_line.share, default=0.1, help="of steps")
    add("--optimizer", choices=optimization.OPTIMIZERS, default="adamw")
    add("--metric", help="score on dev that decides which epoch is the best")
    flags.add_dropout_argument(parser)
    add("--save_checkpoints_steps", type=positive_int, default=1000, help="steps")
    add("--seed", type=non_negative_int, default=12345, help="of weights, input order")
    text = "end after so many epochs without a new best on dev"
    add("--early_stopping", type=positive_int, help=text)
    _add_objective_arguments(parser)
    text = "the rate of each layer below the head is that of the next times this"
    add("--layerwise_decay", type=_decay, default=1.0, help=text)
    text = "train all else only; encoder: the embeddings and all layers"
    add("--freeze", choices=learning_rates.FREEZE, default="none", help=text)
    text = "trainings with --seed and the seeds after it; the best is kept as best/"
    add("--num_trials", type=positive_int, help=text)
    flags.add_device_arguments(parser)
    flags.add_numerics_arguments(parser)


def _decay(text):
    """An `argparse` type: a number above 0, up to 1."""
    value = positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError("expected at most 1, received " + text)
    return value


def _add_objective_arguments(parser):
    add = parser.add_argument
    text = "fgm: also minimize the loss with word embeddings moved along their gradient"
    add("--adversarial", choices=("none", "fgm"), default="none", help=text)
    factor = command_line.number_between(1e-6, 1e6)
    add("--adversarial_epsilon", type=factor, default=1.0, help="how far")
    text = "weight of the divergence between two passes with different dropout"
    add("--r_drop", type=factor, help=text)
    text = "folder of a fine-tuned model whose outputs are learned, too"
    add("--teacher_model_dir", help=text)
    text = "share of its outputs in the loss, from 0 to 1; the rest is the labels'"
    share = command_line.number_between(0, 1)
    add("--distill_alpha", type=share, default=0.5, help=text)
    text = "what the logits of both are divided by"
    temperature = command_line.number_between(0.01, 1000)
    add("--distill_temperature", type=temperature, default=2.0, help=text)


def run(args, command):
    """Trains, evaluates and predicts as the flags say.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`.
      command: `Command`.

    Raises:
      UserError: flags, files or checkpoints that cannot be used.
    """
    task = _check_flags(args, command)
    inputs = command.from_command_line(args, task)
    work = _prepare(args, command, task, _set_up(args))
    if args.num_trials:
        # Each trial has a directory of its own; what is of all is in this one.
        with output_directory.hold(args.output_dir):
            tuner = _run_trials(args, work)
    else:
        tuner = work.tuner(args.output_dir)
        if args.do_train:
            tuner.train(work.train_data, work.dev_data, work.training)
        elif work.scored or work.predicted:
            output_directory.prepare(args.output_dir, work.files.config)
        if work.scored:
            for name, scores in tuner.write_scores(work.scored).items():
                console.show(tuner.kind.report(name, scores))
    if work.predicted:
        _write_predictions(tuner, work.predicted)
    if inputs:
        for example, prediction in tuner.predict(inputs):
            console.show(command.show(tuner, example, prediction) + "\n")
    console.show("Model in {}\n".format(tuner.best_dir))


class _Work(NamedTuple):
    """What the flags ask for, read and checked.

    Attributes:
      files: `model_files.TaskFiles`.
      train_data, dev_data: labelled data to train with, or None.
      training: `fine_tuning.Training`, or None.
      scored: dict as `splits.TaskData.read_for_scoring` returns it, {} for none.
      predicted: list as `_read_for_prediction` returns it, [] for none.
      tuner: function of an output directory that builds a `fine_tuning.FineTuner`.
    """

    files: model_files.TaskFiles
    train_data: Any
    dev_data: Any
    training: Optional[fine_tuning.Training]
    scored: Dict[str, Any]
    predicted: List[Any]
    tuner: Callable[..., fine_tuning.FineTuner]


def _set_up(args):
    """Prepares this process; returns the `estimators.Runtime` of the flags."""
    estimators.set_up_process()
    device = estimators.create_device(**flags.device_settings(args))
    # Estimator would take this process for one of several workers.
    distributions.leave_cluster()
    how = numerics.choose(use_tpu=args.use_tpu, **flags.numerics_settings(args))
    return estimators.Runtime(device, how)


def _prepare(args, command, task, runtime):
    """Returns the `_Work` that the flags ask for; sets those of a recipe."""
    if args.num_trials:
        trials.check_directory(args.output_dir)
    # First of all: files are read as the model needs them.
    taken = _take_flags_of_model(args, task)
    named = {name: getattr(args, name + "_file") for name in SPLITS}
    data = TaskData(task, args.data_dir, named, command.reader(args, task))
    if args.output_dir:
        names = set(kind_of(task).prediction_files)
        names.update(submission.file for submission in task.submissions)
        names.add(distillation.LOGITS_FILE)
        fine_tuning.check_inputs(args.output_dir, names, data.paths(_splits_read(args)))
    train_data = data.read_labelled("train", task.labels) if args.do_train else None
    chosen = _chosen_model(args)
    recipe = _take_recipe(args, command, task, chosen) if args.do_train else None
    _settle_taken(args, taken, chosen)
    _check_batches(args)
    options = command.options(args, task)  # some follow from the recipe's length
    files = _resolve_files(args, task, chosen, train_data, options)
    scored = data.read_for_scoring(files.labels) if args.do_eval else {}
    predicted = _read_for_prediction(data, files.labels) if args.do_predict else []
    dev_data, training = None, None
    if args.do_train:
        dev_data = scored.get("dev") or data.read_dev(files.labels)
        if dev_data is None:
            _check_needs_no_dev(args)
        objective = _objective(args, command, files, train_data)
        training = _training(args, command, chosen.checkpoint, recipe, objective)
        training = _with_teacher(args, files, runtime, training)

    def tuner(output_dir):
        return fine_tuning.FineTuner(
            files,
            output_dir,
            runtime,
            args.eval_batch_size,
            args.predict_batch_size,
            None if args.do_train else args.model_dir,
        )

    return _Work(files, train_data, dev_data, training, scored, predicted, tuner)


def _check_batches(args):
    """Raises `UserError` for batches that the cores of a TPU cannot share evenly."""
    batches = {
        "train_batch_size": args.do_train,
        "eval_batch_size": args.do_train or args.do_eval,
        "predict_batch_size": args.do_predict,
    }
    for name, is_read in batches.items():
        if args.use_tpu and is_read:
            size = getattr(args, name)
            distributions.check_divisible(size, args.num_tpu_cores, "--" + name)


def _splits_read(args):
    """Returns the list of the `SPLITS` whose files the modes read."""
    read = set()
    if args.do_train:
        read.update(("train", "dev"))
    if args.do_eval:
        read.update(("dev", "test"))
    if args.do_predict:
        read.add("predict" if args.predict_file else "test")
    return [split for split in SPLITS if split in read]


def _run_trials(args, work):
    """Trains and scores with one seed after the other; returns the best one's tuner."""
    metric, found, all_scores = work.files.task.metric, [], {}
    trainings = {
        seed: (work.train_data, work.dev_data, work.training._replace(seed=seed))
        for seed in range(args.seed, args.seed + args.num_trials)
    }
    for seed, training in trainings.items():  # before the first one trains
        directory = trials.directory_of(args.output_dir, seed)
        work.tuner(directory).check_training(*training)
    for seed, training in trainings.items():
        directory = trials.directory_of(args.output_dir, seed)
        _LOGGER.info("trial with --seed=%d in %s", seed, directory)
        tuner = work.tuner(directory)
        tuner.train(*training)
        scores = {"dev": trials.read_dev_scores(directory)}
        if work.scored:
            scores = tuner.write_scores(work.scored)
        rank = tuner.kind.rank(scores["dev"])
        by_metric = {split: values[metric] for split, values in scores.items()}
        found.append(trials.Trial(seed, directory, rank, by_metric))
        all_scores[seed] = scores
    summary = trials.save(args.output_dir, metric, found)
    tuner = work.tuner(args.output_dir)
    best_scores = all_scores[summary["best_seed"]]
    results.write_results(args.output_dir, best_scores)
    for name, scores in best_scores.items():
        console.show(tuner.kind.report(name, scores))
    console.show(trials.format_summary(summary))
    return tuner


def _read_for_prediction(data, labels):
    """Checks the files to predict: first the one asked for, then what judges want, too.

    Returns:
      List of (`reading.TextFile`, name of the file for a judge or None).
    """
    asked = data.read_for_prediction(labels)
    submissions = {path: name for name, path in data.find_submissions().items()}
    found = [(asked, submissions.pop(asked.path, None))]
    for path, name in submissions.items():
        found.append((data.reader.read_texts(path, labels), name))
    return found


def _write_predictions(tuner, predicted):
    """Writes what `_read_for_prediction` found: predictions, and files for judges."""
    (asked, submission), *others = predicted
    path = tuner.write_predictions(asked, submission)
    for texts, name in others:
        tuner.write_submission(texts, name)
    for _, name in predicted:
        if name:
            console.show("Submission saved to {}\n".format(tuner.path_of(name)))
    console.show("Predictions saved to {}\n".format(path))


def _task(args, command):
    """The `registry.Task` that the flags, or the model's directory, name."""
    name = args.task_name
    if not name:
        directories = {
            flag: getattr(args, flag) for flag in ("model_dir", "output_dir")
        }
        name, flag = model_files.find_task_name(directories, command.task_names())
    kind = get_task(name).kind
    if kind not in command.kinds:
        names = ", ".join(command.task_names())
        script = COMMANDS[kind]
        if args.task_name:
            text = (
                "--task_name={}: a task of {}, not of this command; expected one of {}"
            )
            raise UserError(text.format(name, script, names))
        advice = "run that, or give another --{}".format(flag)
        if args.do_train and flag == "model_dir":
            advice = "to start from it, give --task_name, one of " + names
        raise UserError(
            "--{}={} holds a model for {}, a task of {}; {}".format(
                flag, directories[flag], name, script, advice
            )
        )
    task = get_task(name, command.labels(args))
    if not args.metric:
        return task
    metrics = kind_of(task).metrics
    if args.metric not in metrics:
        raise UserError(
            "--metric={}: expected one of {} for {}".format(
                args.metric, ", ".join(metrics), task.name
            )
        )
    return task._replace(metric=args.metric)


def readers_of(command):
    """Which mode of a `Command` reads which flags, as `flags.check_read` takes it."""
    readers = {mode: list(names) for mode, names in _READERS.items()}
    for mode in command.text_flags:
        readers[mode] = ["predict_batch_size"]
    for mode, names in command.readers.items():
        readers.setdefault(mode, []).extend(names)
    return readers


def check_passed(parser, command, own, passed):
    """Checks flags that another command passes on to one of fine-tuning.

    Args:
      parser: of the command to start; it ends the process where a flag is wrong.
      command: `Command`.
      own: list of the arguments that the other command gives itself.
      passed: list of the arguments that it passes on.

    Returns:
      Dict flag -> its value as text, of those passed that decide the result.
    """
    given = parser.parse_args(passed).given
    fixed = parser.parse_args(own).given.union(_OF_ONE_TASK, command.text_flags)
    for name in sorted(given & fixed):
        parser.error("--{}: not for all tasks alike; remove it".format(name))
    args = parser.parse_args(own + passed)
    try:
        _check_flags(args, command)
    except UserError as error:
        parser.error(str(error))
    deciding = sorted(given.difference(_OF_ONE_RUN))
    return {"--" + name: str(getattr(args, name)) for name in deciding}


def check_training(args, command):
    """Checks flags, data and model as a training does before it begins.

    Nothing is written, and no device is looked for.

    Args:
      args: Namespace of `command_line.ArgumentParser.parse_args`; changed.
      command: `Command`.

    Raises:
      UserError: flags, files or checkpoints that cannot be used.
    """
    task = _check_flags(args, command)
    work = _prepare(args, command, task, estimators.DEFAULT_RUNTIME)
    work.tuner(args.output_dir)


def _check_flags(args, command):
    """Checks flags that are wrong whatever the files hold.

    Returns:
      The `registry.Task` that they, or the model's directory, name.

    Raises:
      UserError: names the flag.
    """
    modes = ("do_train", "do_eval", "do_predict") + command.text_flags
    if not any(getattr(args, mode) for mode in modes):
        choices = ", ".join("--" + mode for mode in modes)
        raise UserError("nothing to do: give one or more of {}".format(choices))
    flags.check_read(args, readers_of(command))
    _check_combinations(args)
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
    task = _task(args, command)
    _check_task(args, task)
    command.check(args, task)
    return task


def _check_task(args, task):
    """Raises `UserError` for flags of training that are not for the kind of a task."""
    if "distill_temperature" in args.given and not kind_of(task).has_temperature:
        raise UserError(
            "--distill_temperature: not for {}, whose outputs are no probabilities; "
            "remove it".format(task.name)
        )


def _check_combinations(args):
    """Raises `UserError` for flags that others leave without effect."""
    if args.test_file and args.predict_file and not args.do_eval:
        raise UserError(
            "--test_file={}: without --do_eval, --predict_file={} alone is read; "
            "remove one of the two".format(args.test_file, args.predict_file)
        )
    if args.num_trials and args.seed + args.num_trials > 2**31:
        raise UserError(
            "--num_trials={}: the seeds from --seed={} on would pass 2**31 - 1; give a "
            "smaller --seed".format(args.num_trials, args.seed)
        )
    if args.allow_missing and not (args.init_checkpoint or args.model_dir):
        raise UserError(
            "--allow_missing requires --init_checkpoint or --model_dir; add one or "
            "remove --allow_missing"
        )
    if args.freeze == "encoder" and args.layerwise_decay != 1:
        raise UserError(
            "--layerwise_decay: --freeze=encoder trains pooler and head alone, whose "
            "rate it leaves as it is; remove one of the two"
        )
    if "distill_temperature" in args.given and not args.distill_alpha:
        raise UserError(
            "--distill_temperature: --distill_alpha=0 leaves nothing of the teacher's "
            "outputs; remove it or give a larger --distill_alpha"
        )
    if args.teacher_model_dir and args.distill_alpha == 1:
        for name in ("label_smoothing", "class_weights"):
            if getattr(args, name, None):
                raise UserError(
                    "--{0}: --distill_alpha=1 leaves nothing of the labels' loss; "
                    "remove --{0} or give less".format(name)
                )


def _chosen_model(args):
    """Returns the `model_directory.ModelDirectory` of what the flags name."""
    return model_directory.choose(
        args.model_dir if args.do_train else None,
        config_file=args.bert_config_file,
        vocab_file=args.vocab_file,
        spm_model_file=args.spm_model_file,
        checkpoint=args.init_checkpoint,
    )


def _resolve_files(args, task, chosen, train_data, options):
    """Returns the `TaskFiles` of the model to train, or to apply."""
    given = {
        name: getattr(args, name)
        for name in ("do_lower_case", "normalize_punctuation", "max_seq_length")
        if getattr(args, name) is not None
    }
    if options is not None:
        given["options"] = options
    if args.do_train:
        return model_files.for_training(chosen, task, train_data, given, args.dropout)
    directories = args.output_dir, args.model_dir
    has_results = args.do_eval or args.do_predict
    return model_files.load_trained(*directories, task, chosen, given, has_results)


def _take_flags_of_model(args, task):
    """Sets what the user does not give as in a fine-tuned model to start from.

    Returns:
      Dict name -> value of what it set.
    """
    held = {}
    if args.do_train and args.model_dir:
        directory = model_directory.resolve(args.model_dir, has_flags=True)
        held = model_files.flags_of(directory, task)
    free = set(vars(args)) - args.given
    if "max_seq_length" not in free:
        free.difference_update(_OF_LENGTH)
    taken = {name: value for name, value in held.items() if name in free}
    for name, value in taken.items():
        setattr(args, name, value)
    return taken


def _settle_taken(args, taken, chosen):
    """Says what is taken, now that a recipe may have set another length.

    Args:
      args: Namespace; changed.
      taken: what `_take_flags_of_model` returned; changed.
      chosen: `model_directory.ModelDirectory` of the model.
    """
    if args.max_seq_length != taken.get("max_seq_length", args.max_seq_length):
        del taken["max_seq_length"]
        for name in set(_OF_LENGTH).intersection(taken):
            del taken[name]
            setattr(args, name, None)
    if taken:
        text = " ".join("--{}={}".format(name, taken[name]) for name in sorted(taken))
        _LOGGER.info("as the model in %s: %s", chosen.directory, text)


def _take_recipe(args, command, task, chosen):
    """Sets what the user does not give as published for the task and the model's size.

    A training that is resumed keeps the recipe that it began with.

    Returns:
      Dict as `training_settings.read_recipe` returns it, None without a recipe.
    """
    directory = args.output_dir
    if args.num_trials:
        directory = trials.directory_of(directory, args.seed)
    has_begun, recipe = training_settings.read_recipe(directory)
    if not has_begun and task.recipes and chosen.config_file:
        config = model_settings.read_config(chosen.config_file)
        recipe = recipes.choose(task.name, config)
    if recipe is None:
        return None
    readers = readers_of(command)
    settings = {
        name: value
        for name, value in recipe["settings"].items()
        if flags.is_read(name, args, readers)  # one decoder has a rate of its own
    }
    taken = {n: value for n, value in settings.items() if n not in args.given}
    for name, value in taken.items():
        setattr(args, name, value)
    shown = ["--{}={:g}".format(name, taken[name]) for name in sorted(taken)]
    _LOGGER.info(
        "recipe of %s for size %s: %s (%s)%s",
        task.name,
        recipe["size"],
        " ".join(shown) or "no setting is left to it",
        recipe["source"],
        "; flags given win" if len(taken) < len(settings) else "",
    )
    return dict(recipe, settings=taken)


def _check_needs_no_dev(args):
    """Raises `UserError` for flags that mean nothing without a dev file."""
    for name in ("num_trials", "metric", "early_stopping"):
        if getattr(args, name):
            raise UserError(
                "--{} compares epochs or trainings on dev: give --dev_file, or "
                "--data_dir with a dev file".format(name)
            )


def _check_r_drop(files):
    """Raises `UserError` for models whose passes cannot differ, or be compared."""
    kind, config = kind_of(files.task), files.config
    kind.check_has_soft_losses(files, "--r_drop")
    dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    if not kind.has_head_dropout and not any(dropout):
        raise UserError(
            "--r_drop: the model has no dropout, without which two passes are the "
            "same; add --dropout=0.1, or remove --r_drop"
        )


def _objective(args, command, files, train_data):
    """The `objective.Objective` that the flags describe.

    Raises:
      UserError: the model cannot be trained so.
    """
    if args.r_drop:
        _check_r_drop(files)
    is_adversarial = args.adversarial == "fgm"
    return Objective(
        adversarial_epsilon=args.adversarial_epsilon if is_adversarial else 0.0,
        r_drop=args.r_drop or 0.0,
        **command.objective(args, files, train_data),
    )


def _with_teacher(args, files, runtime, training):
    """Returns the `fine_tuning.Training` with the teacher that the flags may name."""
    if not args.teacher_model_dir:
        return training
    teacher = distillation.load(
        args.teacher_model_dir, files, args.output_dir, runtime, args.eval_batch_size
    )
    if not args.distill_alpha:
        _LOGGER.info("--distill_alpha=0: training as without a teacher")
        return training
    has_temperature = kind_of(files.task).has_temperature
    objective = training.objective._replace(
        distill_alpha=args.distill_alpha,
        distill_temperature=args.distill_temperature if has_temperature else 0.0,
    )
    return training._replace(objective=objective, teacher=teacher)


def _training(args, command, init_checkpoint, recipe, objective):
    return fine_tuning.Training(
        batch_size=args.train_batch_size,
        num_epochs=args.num_train_epochs,
        init_checkpoint=init_checkpoint,
        allow_missing=args.allow_missing,
        recipe=recipe,
        objective=objective,
        **{name: getattr(args, name) for name in _TRAINING.split()},
        **command.training(args),
    )
