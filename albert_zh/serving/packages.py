"""Optional packages of exports, with one line for whoever lacks one."""

import importlib

from albert_zh.base.errors import UserError


def require(name, purpose):
    """Imports an optional package.

    Args:
      name: of the module, which is also what pip installs.
      purpose: the flag or command that needs it, for the message.

    Returns:
      The module.

    Raises:
      UserError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "{} needs the package {}: run `pip install {}`".format(
                purpose, name, name.split(".")[0]
            )
        ) from error
