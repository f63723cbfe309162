"""Downloads published models, CLUE's task data and BERT's Chinese vocabulary by name.

    python3 download_model.py --list
    python3 download_model.py vocab
    python3 download_model.py albert_tiny_zh
    python3 download_model.py afqmc --output_dir=./data/afqmc

A model becomes a directory for the --model_dir of the other commands. To resume an
interrupted download, rerun the same command. Checksums are recorded at the first
download, in checksums.json beside the directories, and verified at later ones. Without
network access, download the file by other means and give it with --from_file.
"""

from albert_zh import command_line  # isort: split

import argparse
import functools
import logging
import re
import shlex

from albert_zh.base import console
from albert_zh.base.errors import UserError
from albert_zh.downloads import catalogue, installation
from albert_zh.downloads import fetch as downloads

_LOGGER = logging.getLogger(__name__)


def build_parser():
    """Returns the command's parser."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="what to download, one of --list")
    parser.add_bool("--list", False, "show the catalogue and exit")
    add(
        "--output_dir",
        help="directory to install it in; default: ./prev_trained_model/NAME for a "
        "model, ./CLUEdatasets/NAME for a task, albert_config of this repository for "
        "the vocabulary",
    )
    add(
        "--source",
        choices=catalogue.SOURCES,
        help="publisher; default: the first in --list, and the others if it fails "
        "to give the vocabulary",
    )
    add("--base_url", help="mirror to use in place of the publisher's base URL")
    add(
        "--from_file",
        help="archive or file downloaded by hand, or the folder of a Hugging Face "
        "model's files",
    )
    add(
        "--retries",
        type=command_line.non_negative_int,
        default=downloads.RETRIES,
        help="retries after a failed attempt; the count restarts after progress",
    )
    add(
        "--timeout",
        type=_positive_seconds,
        default=downloads.STALL_SECONDS,
        help="seconds without a byte after which an attempt fails; 32 kB may take "
        "twice as long",
    )
    return parser


def _positive_seconds(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("expected seconds above 0, received " + text)
    return value


def main(args):
    """Downloads one entry; see `build_parser` for the arguments."""
    if args.list:
        if args.name:
            raise UserError("give NAME or --list, not both")
        _refuse(args, args.given - {"list"}, "--list, which shows everything")
        console.show("\n".join(catalogue.table()) + "\n")
        return
    if not args.name:
        raise UserError("give the NAME of what to download; --list shows them")
    if args.base_url and args.from_file:
        raise UserError("--base_url and --from_file exclude each other")
    if args.from_file:
        _refuse(args, {"retries", "timeout"}, "--from_file, which downloads nothing")
    if args.base_url and not re.match("https?://[^/]", args.base_url):
        raise UserError(
            "--base_url={}; expected http://... or https://...".format(args.base_url)
        )
    entry = catalogue.find(args.name, args.source)
    directory = args.output_dir or installation.default_directory(entry)
    fetch = functools.partial(
        downloads.fetch, retries=args.retries, stall_seconds=args.timeout
    )
    is_free = not (args.source or args.base_url or args.from_file)
    others = catalogue.others(entry) if is_free else ()
    origin = installation.Origin(fetch, args.base_url, args.from_file, others)
    if not installation.install(entry, directory, origin):
        _LOGGER.info("nothing to download: it exists, complete and undamaged")
    console.show(_summary(entry, directory))


def _refuse(args, names, other):
    """Raises `UserError` for a flag given that has no effect beside another."""
    for name in sorted(args.given & names):
        raise UserError("--{}: has no effect with {}; remove it".format(name, other))


def _summary(entry, directory):
    """Returns what to do with an entry, and where it is."""
    lines = []
    if entry.source == "huggingface" and entry.kind == catalogue.MODEL:
        lines.append(
            "PyTorch weights; convert them with python3 convert_checkpoint.py "
            "--from=huggingface --to=google --input={} --output={}".format(
                shlex.quote(directory), shlex.quote(directory + "_tf")
            )
        )
    elif entry.kind == catalogue.MODEL:
        lines.append("Use it with --model_dir={}".format(shlex.quote(directory)))
    lines.append("{} saved to {}".format(entry.name, directory))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line.run(main, build_parser())
