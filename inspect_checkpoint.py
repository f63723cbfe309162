"""Shows what a TensorFlow checkpoint holds, and which config it belongs to.

    python3 inspect_checkpoint.py albert_tiny_zh/

The .index file alone is enough: names and shapes of the variables determine dialect,
sizes, sharing and heads. They do not determine the number of attention heads, the place
of LayerNorm, the activation, or the number of shared layers.
"""

from albert_zh import command_line  # isort: split

import glob
import os

from albert_zh.base import console, files
from albert_zh.base.errors import UserError
from albert_zh.models import architecture, checkpoints, model_graph
from albert_zh.models import directory as model_directory
from albert_zh.models import settings as model_settings

REPOSITORY = os.path.dirname(os.path.abspath(__file__))
# How many of the variables that belong to no known part are named.
SHOWN_OTHERS = 3
CONFIG_FILES = os.path.join(REPOSITORY, "albert_config", "*.json")


def build_parser():
    """Returns the command's flags."""
    parser = command_line.ArgumentParser(__doc__.split("\n")[0])
    parser.add_argument(
        "path", metavar="PATH", help="directory, path prefix or .index file"
    )
    parser.add_bool("--variables", False, "also list names and shapes of all variables")
    return parser


def main(args):
    """Shows the report; see `build_parser` for the arguments."""
    checkpoint = find_checkpoint(args.path)
    shapes = checkpoints.read_shapes(checkpoint, "PATH")
    if args.variables:
        for name in sorted(shapes):
            console.show("{}\t{}\n".format(name, _join(shapes[name])))
    for title, text in report(checkpoint, shapes):
        console.show("{:<26}{}\n".format(title, text))


def find_checkpoint(path):
    """Returns the path prefix of the checkpoint at a directory, file or prefix.

    Raises:
      UserError: a directory has no checkpoint, or several.
    """
    if not files.is_directory(path):
        return checkpoints.prefix_of(path) or checkpoints.without_ending(path)
    directory = model_directory.resolve(path)
    checkpoint = model_directory.find_checkpoint(directory, needs_data=False)
    if checkpoint is None:
        raise UserError("{}: holds no TensorFlow checkpoint".format(directory))
    return checkpoint


def report(checkpoint, shapes):
    """Describes a checkpoint.

    Args:
      checkpoint: path prefix.
      shapes: dict variable name -> list of int.

    Returns:
      List of (title, text).

    Raises:
      UserError: it holds no ALBERT or BERT encoder, or its .data file is damaged.
    """
    found = architecture.infer(shapes, checkpoint)
    rows = [("checkpoint", checkpoint), ("dialect", found.dialect)]
    rows += [
        (name, "{:,}".format(getattr(found, name)))
        for name in (
            "vocab_size",
            "embedding_size",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        )
    ]
    rows += _layer_rows(found)
    rows += [
        ("encoder parameters", "{:,}".format(found.encoder_parameters)),
        ("parameters with heads", "{:,}".format(found.parameters)),
        ("pooler", "yes" if found.has_pooler else "none"),
        ("heads", _join(found.heads)),
        ("optimizer slots", "{:,}".format(found.slots)),
        ("other variables", _others(found.others)),
    ]
    rows += _file_rows(checkpoint, checkpoints.STEP in shapes)
    return rows + _config_rows(checkpoint, found)


def _others(names):
    if not names:
        return "none"
    more = ", ..." if len(names) > SHOWN_OTHERS else ""
    return "{:,}: {}{}".format(len(names), _join(names[:SHOWN_OTHERS]), more)


def _layer_rows(found):
    rows = [("cross_layer_sharing", found.cross_layer_sharing)]
    if found.dialect == "google":
        groups = "{:,}".format(found.num_hidden_groups)
        if found.num_hidden_groups > 1:
            groups += " (or as many layers without sharing)"
        rows.append(("num_hidden_groups", groups))
        rows.append(("inner_group_num", "{:,}".format(found.inner_group_num)))
    layers = found.num_hidden_layers
    rows.append(("num_hidden_layers", layers or "not visible where layers are shared"))
    return rows


def _file_rows(checkpoint, has_step):
    """Returns the rows of global step and size, as far as the files exist."""
    missing = checkpoints.missing_files(checkpoint)
    step = "none"
    if has_step and missing:
        step = "unknown without the .data file"
    elif has_step:
        step = "{:,}".format(checkpoints.read_step(checkpoint, "PATH"))
    sizes = list(map(files.size, checkpoints.find_files(checkpoint)))
    size = "{:,} bytes ({:.1f} MB)".format(sum(sizes), sum(sizes) / 1e6)
    if missing:
        names = [os.path.basename(path) for path in missing]
        size += "; {} is missing".format(", ".join(names))
    return [("global step", step), ("size on disk", size)]


def _config_rows(checkpoint, found):
    """Returns rows on whether the config beside it and this repository's fit."""
    try:
        beside = model_directory.find_config(os.path.dirname(checkpoint) or ".")
        fit = _fit(found, beside, checkpoint) if beside else "none"
    except UserError as error:
        fit = str(error)
    fitting = []
    for path in sorted(glob.glob(CONFIG_FILES)):
        try:
            config = model_settings.read_config(path)
        except UserError:
            continue  # somebody's file that is no config
        if not architecture.differences(found, config):
            fitting.append(os.path.basename(path))
    return [("config beside it", fit), ("fits of albert_config/", _join(fitting))]


def _fit(found, config_file, checkpoint):
    """Describes in one line how a config fits a checkpoint and its `Architecture`."""
    try:
        config = model_settings.read_config(config_file)
    except UserError as error:
        return str(error)
    problems = [
        "{} is {} here, {} there".format(name, seen, given)
        for name, seen, given in architecture.differences(found, config)
    ]
    if found.scope != architecture.SCOPE:
        problems.append(architecture.scope_problem(found))
    elif not problems:
        variables = checkpoints.read_variables(checkpoint, "PATH")
        missing = model_graph.missing_variables(config, variables)
        problems = ["lacks " + _others(missing)] if missing else []
        problem = architecture.type_problem(variables, found)
        problems += [problem] if problem else []
    return "{} {}".format(
        os.path.basename(config_file),
        "does not fit: " + "; ".join(problems) if problems else "fits",
    )


def _join(values):
    return ", ".join(map(str, values)) or "none"


if __name__ == "__main__":
    command_line.run(main, build_parser())
