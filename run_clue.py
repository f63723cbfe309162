"""Fine-tunes a model on the tasks of CLUE: one table of scores, one submission.

Data that are missing are downloaded where possible. Each task runs by its recipe, in
OUTPUT_DIR/TASK; the same command resumes where it stopped. OUTPUT_DIR/results.md has
the scores beside the published ones of the model's size; OUTPUT_DIR/submission.zip is
what CLUE's judge takes, checked against the test files. Flags after `--` go to the
commands of all tasks.
"""

from albert_zh import command_line  # isort: split

import importlib
import logging
import os
import shlex
import signal
import sys

from albert_zh import task_command
from albert_zh.base import children, console, files
from albert_zh.base.errors import Stopped, UserError
from albert_zh.command_line import non_negative_int, positive_int
from albert_zh.downloads import catalogue, installation
from albert_zh.models import output_directory
from albert_zh.tasks import clue, kinds

_LOGGER = logging.getLogger(__name__)
_FOLDER = os.path.dirname(os.path.abspath(__file__))


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="folder of the pretrained model")
    add("--output_dir", default="clue", help="gets a folder for each task")
    names, others = (
        ", ".join(task.name for task in some)
        for some in (clue.tasks(), clue.other_tasks())
    )
    text = "names with commas, of {} (default: all whose data are there), or of {}"
    add("--tasks", type=command_line.names, help=text.format(names, others))
    text = "has a folder for each task, with its files train, dev and test"
    add("--data_dir", default="CLUEdatasets", help=text)
    parser.add_bool("--download", True, "get the data of tasks that have no folder")
    text = "trainings of each task, with --seed and the seeds after it"
    add("--num_trials", type=positive_int, default=1, help=text)
    add("--seed", type=non_negative_int, default=12345, help="of the first training")
    text = "flags of all the tasks' commands, such as --num_train_epochs=1"
    parser.add_passed_on("passed", text)
    return parser


def main(args):
    """Fine-tunes what is left, then writes table and submission of all that is done."""
    chosen = clue.choose_tasks(args.tasks)
    flags = _check_passed(chosen, args)
    size = clue.size_of(args.model_dir)
    if args.download:
        _download(chosen, args.data_dir)
    runs, missing = clue.plan(chosen, args.data_dir, args.output_dir)
    if missing and (args.tasks or not runs):
        raise UserError("--data_dir={}: {}".format(args.data_dir, " | ".join(missing)))
    for line in missing:
        _LOGGER.warning("left out: %s", line)
    seeds = range(args.seed, args.seed + args.num_trials)
    for run in runs:
        run.check_model(seeds, args.model_dir)
    flags = clue.settle_flags(runs, seeds, flags)
    held = clue.find_completed(chosen, args.data_dir, args.output_dir, args.model_dir)

    def describe(run):
        return run.describe(seeds, flags[run.task.name])

    left = [run for run in runs if not run.is_complete(describe(run))]
    for run in left[1:]:  # the command of the first one checks its own at once
        _check_training(run, args)
    with output_directory.hold(args.output_dir):
        for run in runs:
            made = describe(run)
            if run.is_complete(made):
                _LOGGER.info("%s is complete: %s", run.task.name, run.output_dir)
            else:
                with run.making(made):
                    _fine_tune(run, args)
        _write_results(runs + held, size, args.output_dir)


def _write_results(runs, size, output_dir):
    """Writes the table and the submission of complete runs."""
    known = clue.known_tasks()
    runs = sorted(runs, key=lambda run: known.index(run.task))
    table = clue.format_table(runs, size)
    path = os.path.join(output_dir, clue.TABLE_FILE)
    files.write_text(table, path)
    console.show(table)
    submission = clue.write_submission(runs, output_dir)
    console.show("Table saved to {}\n".format(path))
    if submission:
        console.show("Submission saved to {}\n".format(submission))


def _check_passed(chosen, args):
    """Returns a dict name of a task -> `task_command.check_passed` of its flags."""
    found = {}
    for task in chosen:
        parser, command = _command_of(task)
        own = _own_flags(clue.Run(task, args.data_dir, args.output_dir), args)
        found[task.name] = task_command.check_passed(parser, command, own, args.passed)
    return found


def _command_of(task):
    """Returns the parser and the `task_command.Command` that a task is trained by."""
    script = kinds.COMMANDS[task.kind]
    # Loaded here, not only started: the last task's flags must be right, too.
    module = importlib.import_module(script[: -len(".py")])
    parser = module.build_parser()
    parser.prog = "{}: flags after -- for {}".format(parser.prog, script)
    return parser, module.COMMAND


def _check_training(run, args):
    """Raises `UserError` where the flags do not fit a task's files or the model."""
    _LOGGER.info("%s: checking its flags and files", run.task.name)
    parser, command = _command_of(run.task)
    given = parser.parse_args(_own_flags(run, args) + args.passed)
    try:
        task_command.check_training(given, command)
    except UserError as error:
        raise UserError("{}: {}".format(run.task.name, error)) from error


def _download(chosen, data_dir):
    """Downloads the data of tasks that have no folder, as long as that works."""
    for task in chosen:
        folders = clue.folders_of(task, data_dir)
        if task.archive is None or any(map(files.is_directory, folders)):
            continue
        _LOGGER.info("%s: downloading its data to %s", task.name, folders[0])
        try:
            entry = catalogue.find(task.archive)
            installation.install(entry, folders[0], installation.Origin())
        except UserError as error:  # the others are at the same place
            text = "`python3 download_model.py %s --output_dir=%s` fails: %s; no more "
            text += "data are downloaded now"
            _LOGGER.warning(text, task.archive, shlex.quote(folders[0]), error)
            return


def _own_flags(run, args):
    """Returns the list of the flags that the command of a run gets in any case."""
    flags = {
        "task_name": run.task.name,
        "data_dir": run.data_dir,
        "model_dir": args.model_dir,
        "output_dir": run.output_dir,
        "num_trials": args.num_trials,
        "seed": args.seed,
    }
    modes = ["--do_train", "--do_eval", "--do_predict"]
    return modes + ["--{}={}".format(*item) for item in flags.items()]


def _fine_tune(run, args):
    """Runs the command of a task in a process of its own.

    Raises:
      UserError: it failed; its own last line says why.
      Stopped: it was told to stop.
    """
    script = kinds.COMMANDS[run.task.kind]
    command = [sys.executable, os.path.join(_FOLDER, script)]
    command += _own_flags(run, args) + args.passed
    _LOGGER.info("%s: %s", run.task.name, " ".join(map(shlex.quote, command[1:])))
    before = run.stamps()  # of fewer trials, or of other data
    code = children.run_to_end(command)
    # Outside of training, where nothing is lost, SIGTERM ends it at once.
    stops = {-signal.SIGTERM: 0, -signal.SIGINT: command_line.EXIT_INTERRUPTED}
    was_stopped, code = code in stops, stops.get(code, code)
    if code not in (0, command_line.EXIT_INTERRUPTED):
        reason = "its last line says why"
        if code < 0:
            reason = "the system, or somebody, ended it; often it lacks memory"
        if code != command_line.EXIT_USER_ERROR:
            reason += ". Rerun the same command to resume"
        raise UserError(
            "{}: {} ended with {}; {}".format(
                run.task.name, script, children.describe_exit(code), reason
            )
        )
    is_written = [now and now != before[path] for path, now in run.stamps().items()]
    if was_stopped or code or not all(is_written):
        text = "{}: stopped; rerun the same command to resume"
        raise Stopped(text.format(run.task.name), code)


if __name__ == "__main__":
    command_line.run(main, build_parser())
