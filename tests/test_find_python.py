"""The interpreter search that the Makefile and CI begin with, on made-up machines."""

import os
import pathlib
import shutil
import subprocess

import pytest

# All that the search may find on PATH besides interpreters.
TOOLS = ("dirname", "grep", "tr")

WORKING = """#!/bin/sh
case "$2" in
    *version_info*) echo {version} ;;
    *ensurepip*) {ensurepip} ;;
    *) exit 1 ;;
esac
"""
SHIM = '#!/bin/sh\necho "pyenv: command not found" >&2\nexit 127\n'


class Machine:
    """A PATH of two directories, an empty home, and nothing else."""

    def __init__(self, root, repository):
        self.first = root / "first bin"
        self.second = root / "second"
        self.home = root / "home"
        for directory in (self.first, self.second, self.home):
            directory.mkdir()
        for tool in TOOLS:
            (self.second / tool).symlink_to(shutil.which(tool))
        # A copy, so that what it makes does not lie in the repository.
        scripts = root / ".ci"
        scripts.mkdir()
        self.script = shutil.copy(str(repository / ".ci/find_python.sh"), str(scripts))

    def add(self, path, text):
        """Writes an executable; the path of it as a string."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def add_python(self, path, version, has_ensurepip=True):
        ensurepip = "echo {}".format(path.name) if has_ensurepip else "exit 1"
        text = WORKING.format(version=version, ensurepip=ensurepip)
        return self.add(path, text)

    def search(self, *versions):
        return subprocess.run(
            ["/bin/sh", self.script] + list(versions),
            env={
                "PATH": os.pathsep.join([str(self.first), str(self.second)]),
                "HOME": str(self.home),
            },
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path, repository):
    return Machine(pathlib.Path(str(tmp_path)), repository)


def test_passes_over_a_shim_and_a_newer_version(machine):
    shim = machine.add(machine.first / "python3.11", SHIM)
    machine.add_python(machine.first / "python3", "3.12")
    machine.add_python(machine.second / "python3.9", "3.9")
    machine.add_python(machine.second / "python3.7", "3.7")

    result = machine.search("3.11", "3.10", "3.9", "3.7")

    assert result.returncode == 0, result.stderr
    assert result.stdout == "python3.9\n"
    assert result.stderr == "passing over {}: it does not run\n".format(shim)


def test_tries_the_next_directory_after_a_shim(machine):
    machine.add(machine.first / "python3.11", SHIM)
    machine.add_python(machine.second / "python3.11", "3.11")
    assert machine.search("3.11").stdout == "python3.11\n"


def test_versions_are_tried_in_the_order_given(machine):
    machine.add_python(machine.first / "python3.10", "3.10")
    machine.add_python(machine.second / "python3.11", "3.11")
    assert machine.search("3.11", "3.10").stdout == "python3.11\n"


def test_takes_plain_python3_of_the_right_version(machine):
    machine.add_python(machine.first / "python3", "3.10")
    assert machine.search("3.11", "3.10").stdout == "python3\n"


def test_passes_over_an_interpreter_without_ensurepip(machine):
    bare = machine.add_python(machine.first / "python3.11", "3.11", False)
    machine.add_python(machine.second / "python3.10", "3.10")

    result = machine.search("3.11", "3.10")

    assert result.stdout == "python3.10\n"
    assert result.stderr.count("\n") == 1
    assert bare in result.stderr and "ensurepip" in result.stderr


def test_finds_versions_that_pyenv_has_installed(machine):
    machine.add(machine.first / "python3.7", SHIM)
    installed = machine.home / ".pyenv/versions/3.7.16/bin/python"
    machine.add_python(installed, "3.7")
    assert machine.search("3.7").stdout == "python\n"


def test_asks_uv_where_only_newer_interpreters_run(machine):
    machine.add_python(machine.first / "python3", "3.12")
    machine.add(
        machine.first / "uv",
        '#!/bin/sh\n[ "$2" = install ] || echo "$UV_PYTHON_INSTALL_DIR/$3"\n',
    )

    result = machine.search("3.11", "3.10")

    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("/.venv-uv/pythons/3.11\n")


@pytest.mark.parametrize("uv", [None, "#!/bin/sh\nexit 1\n"])
def test_says_one_line_where_everything_fails(machine, uv):
    machine.add_python(machine.first / "python3", "3.12")
    if uv:
        machine.add(machine.first / "uv", uv)

    result = machine.search("3.11", "3.7")

    assert result.returncode == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1]
    assert "3.11 3.7" in errors[0] and "install" in errors[0]
