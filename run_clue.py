"""Fine-tunes a model on the tasks of CLUE: one table of scores, one submission.

Each task runs by its published recipe, in OUTPUT_DIR/TASK; the same command resumes
where it stopped. OUTPUT_DIR/results.md has the scores beside the published ones of the
model's size; OUTPUT_DIR/submission.zip is what CLUE's judge takes, checked against the
test files.
"""

from albert_zh import command_line  # isort: split

import contextlib
import logging
import os
import signal
import subprocess
import sys

from albert_zh.base import console, files
from albert_zh.base.errors import Stopped, UserError
from albert_zh.command_line import non_negative_int, positive_int
from albert_zh.tasks import clue

_LOGGER = logging.getLogger(__name__)
_FOLDER = os.path.dirname(os.path.abspath(__file__))


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--model_dir", required=True, help="folder of the pretrained model")
    add("--output_dir", required=True, help="gets a folder for each task")
    names = ", ".join(task.name for task in clue.tasks())
    text = "some of {}, with commas; default: those whose data are there".format(names)
    add("--tasks", type=command_line.names, help=text)
    text = "has a folder for each task, with its files train, dev and test"
    add("--data_dir", default="CLUEdatasets", help=text)
    text = "trainings of each task, with --seed and the seeds after it"
    add("--num_trials", type=positive_int, default=1, help=text)
    add("--seed", type=non_negative_int, default=12345, help="of the first training")
    return parser


def main(args):
    """Fine-tunes the tasks one after the other, then writes table and submission."""
    chosen = clue.choose_tasks(args.tasks)
    size = clue.size_of(args.model_dir)
    runs, missing = clue.plan(chosen, args.data_dir, args.output_dir)
    if missing and (args.tasks or not runs):
        raise UserError("--data_dir={}: {}".format(args.data_dir, " | ".join(missing)))
    for line in missing:
        _LOGGER.warning("left out: %s", line)
    seeds = range(args.seed, args.seed + args.num_trials)
    for run in runs:
        if run.is_complete(seeds):
            _LOGGER.info("%s is complete: %s", run.task.name, run.output_dir)
        else:
            _fine_tune(run, args)
    table = clue.format_table(runs, size)
    path = os.path.join(args.output_dir, clue.TABLE_FILE)
    files.write_text(table, path)
    console.show(table)
    submission = clue.write_submission(runs, args.output_dir)
    console.show("Table saved to {}\n".format(path))
    console.show("Submission saved to {}\n".format(submission))


def _fine_tune(run, args):
    """Runs the command of a task in a process of its own.

    Raises:
      UserError: it failed; its own last line says why.
      Stopped: it was told to stop.
    """
    script = clue.COMMANDS[run.task.kind]
    flags = {
        "task_name": run.task.name,
        "data_dir": run.data_dir,
        "model_dir": args.model_dir,
        "output_dir": run.output_dir,
        "num_trials": args.num_trials,
        "seed": args.seed,
    }
    command = [sys.executable, os.path.join(_FOLDER, script)]
    command += ["--do_train", "--do_eval", "--do_predict"]
    command += ["--{}={}".format(*item) for item in flags.items()]
    _LOGGER.info("%s: %s", run.task.name, " ".join(command[1:]))
    with _passing_on_sigterm(command) as child:
        code = child.wait()
    seeds = range(args.seed, args.seed + args.num_trials)
    if code not in (0, command_line.EXIT_INTERRUPTED):
        raise UserError(
            "{}: {} ended with exit code {}; its last line says why. Rerun the same "
            "command to resume".format(run.task.name, script, code)
        )
    if code or not run.is_complete(seeds):
        text = "{}: stopped; rerun the same command to resume"
        raise Stopped(text.format(run.task.name), code)


@contextlib.contextmanager
def _passing_on_sigterm(command):
    """Starts a process that receives SIGTERM when this one does, in the block."""
    child = subprocess.Popen(command)
    previous = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        yield child
    except KeyboardInterrupt:  # Ctrl-C reaches the child, too
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    command_line.run(main, build_parser())
