"""Fine-tuning commands in this process, and the line that ends a refused one."""

import pytest

from albert_zh import command_line


def run(command, *flags):
    """Runs a command, such as the module `run_ner`, with flags of any type."""
    command_line.run(command.main, command.build_parser(), list(map(str, flags)))


def refused(command, capsys, *flags):
    """The only line on standard error of a run that these flags end with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(command, *flags)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line
