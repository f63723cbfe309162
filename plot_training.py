"""Draws the curves of training runs into one picture.

    python3 plot_training.py --run_dir=my_model,other_model --output_file=training.png

Shows loss, accuracy of both pretraining tasks, learning rate, gradient norm and
throughput, as far as the runs have them, from the event files in their --output_dir.
It can be called while they train. Needs matplotlib.
"""

from albert_zh import command_line  # isort: split

import os

from albert_zh.base import console, files, pictures
from albert_zh.base.errors import UserError
from albert_zh.training import curves


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--run_dir", required=True, help="--output_dir of one or more runs, by commas")
    add("--output_file", required=True, help="PNG file to write")
    add("--label", help="names for the legend, by commas; default: the directories'")
    return parser


def main(args):
    """Draws the runs; see `build_parser` for the arguments."""
    pictures.require_matplotlib("plot_training.py")
    directories = _split(args.run_dir)
    if not directories:
        raise UserError("--run_dir {!r} names no directory".format(args.run_dir))
    labels = _split(args.label) if args.label else _labels(directories)
    if len(labels) != len(directories):
        raise UserError(
            "--label {!r} has {} names for the {} directories of --run_dir".format(
                args.label, len(labels), len(directories)
            )
        )
    output_file = _output_file(args.output_file)
    runs = [curves.read_run(*run) for run in zip(directories, labels)]
    curves.draw(runs, output_file)
    console.show("Picture saved to {}\n".format(output_file))


def _split(names):
    return [name.strip() for name in names.split(",") if name.strip()]


def _labels(directories):
    """The directories' own names, or their paths where two have the same name."""
    names = [os.path.basename(os.path.normpath(path)) for path in directories]
    return names if len(set(names)) == len(names) else directories


def _output_file(name):
    if not name.lower().endswith(".png"):
        raise UserError("--output_file {!r}: expected a name in .png".format(name))
    paths = files.output_files(name, [])
    if len(paths) > 1:
        raise UserError("--output_file {!r}: expected one name".format(name))
    return paths[0]


if __name__ == "__main__":
    command_line.run(main, build_parser())
