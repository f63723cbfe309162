"""Optional packages of exports and indexes, with one line for whoever lacks one."""

import importlib
import os
import shlex

from albert_zh.base.errors import UserError

# The versions that go with TensorFlow's: the newest bring a NumPy that it excludes.
_VERSIONS = os.path.abspath(
    os.path.join(
        os.path.dirname(__file__), *[os.pardir] * 2, "requirements-optional.txt"
    )
)


def require(name, purpose, package=None, instead=""):
    """Imports an optional package.

    Args:
      name: of the module.
      purpose: the flag or command that needs it, for the message.
      package: what pip installs; by default of the module's name.
      instead: flag that does without it, if there is one, for the message.

    Returns:
      The module.

    Raises:
      UserError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "{} needs the package {}: run `pip install -c {} {}`{}".format(
                purpose,
                name,
                shlex.quote(_VERSIONS),
                package or name.split(".")[0],
                ", or give {}".format(instead) if instead else "",
            )
        ) from error
