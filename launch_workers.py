"""Starts several workers of one training command on this machine.

    python3 launch_workers.py --num_workers=2 run_pretraining.py \
        --distribution=multi_worker --input_file='data/*.tfrecord' ...

Every worker is told of the others by TF_CONFIG. They share a private network (a
network namespace of Linux) with nothing in it but loopback: nobody else reaches their
ports, and they reach nobody else. Where the system has no such network or forbids it,
workers are started only if this machine's interfaces are all down but loopback, or
with --allow_open_ports, which has them train in this machine's network, on ports
open to it without authentication.

Their output is shown line by line, each with its worker's number. If one fails, all
are ended; signals are passed on to all.
"""

from albert_zh import command_line  # isort: split

import argparse
import sys

from albert_zh.training import launcher


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    parser.add_argument(
        "--num_workers",
        type=command_line.positive_int,
        required=True,
        help="processes to start; --train_batch_size is shared among them",
    )
    parser.add_argument(
        "--allow_open_ports",
        action="store_true",  # a value would be looked for in the script's name
        help="start them in this machine's network, where whoever reaches their ports "
        "can read and write files as you",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        help="a command of this folder with its flags",
    )
    return parser


def main(args):
    """Runs the workers and exits with 0, or with the code of the first that failed."""
    launcher.check_command(args.command)
    command = [sys.executable] + args.command
    sys.exit(launcher.run_workers(command, args.num_workers, args.allow_open_ports))


if __name__ == "__main__":
    command_line.run(main, build_parser())
