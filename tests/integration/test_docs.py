"""The commands of README and docs/, read from the pages, in both languages.

Pages for users begin by activating the environment. Their blocks of code run here, in
order and as written, unless the first line is a comment that says what the block needs
("Needs: a TPU"). A block that needs only packages runs where they are installed. The
flags of all commands of all pages are parsed by the commands' own parsers.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import List, NamedTuple, Optional

import pytest

import run_demo
from albert_zh.base import own_directory

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
# Each page in English; the Chinese one has the same name without "_en".
PAGES = ["README_en.md"] + sorted(
    "docs/" + path.name for path in REPOSITORY.glob("docs/*_en.md")
)

ACTIVATION = "source .venv/bin/activate"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"# (?:Needs: |需要：)(.*)\n")
PACKAGES = re.compile(r"pip install (?:-c requirements-optional.txt )?([\w -]+)")
COMMENT = re.compile(r"(?:^|\s+)#.*$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FLAG = re.compile(r"--[a-z]\w*")
# Programs whose flags no parser of this repository checks.
OTHER_PROGRAMS = {"source", "git", "cd", "pip", "curl", "docker", "sed"}
# Flags of other programs that the text mentions.
OTHER_FLAGS = {"--logdir"}

# What a user's folder holds after `make demo`.
CONTENT = ("*.py", "albert_zh", "albert_config/*.json", "examples", "resources")
# `make demo` takes minutes; with these settings it makes the same files.
SHORT_DEMO = {
    "dupe_factor": 1,
    "num_train_steps": 10,
    "num_warmup_steps": 1,
    "num_train_epochs": 0.1,
}
TIMEOUT_SECONDS = 600


class Block(NamedTuple):
    """One fenced block of code.

    Attributes:
      language: "bash" or "python".
      code: its text.
      needs: what it says it needs, None where it runs as it is.
    """

    language: str
    code: str
    needs: Optional[str]

    @property
    def runs_here(self):
        if self.needs is None:
            return True
        packages = PACKAGES.fullmatch(self.needs)
        return bool(packages) and all(
            importlib.util.find_spec(name) for name in packages.group(1).split()
        )


def in_chinese(page):
    return page.replace("_en.md", ".md")


def read(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page) -> List[Block]:
    """The blocks of commands and of Python on a page, in their order."""
    found = []
    for language, code in FENCE.findall(read(page)):
        if language in ("bash", "python"):
            needs = NEEDS.match(code)
            found.append(Block(language, code, needs and needs.group(1)))
    return found


def commands(block) -> List[List[str]]:
    """The words of each command of a shell block, the page's variables filled in."""
    words, variables, pending = [], {}, ""
    for line in COMMENT.sub("", block.code).replace("\\\n", " ").splitlines():
        pending += line + "\n"
        try:
            command = shlex.split(pending)
        except ValueError:  # a quotation goes on in the next line
            continue
        pending = ""
        for name, value in variables.items():
            command = [word.replace("$" + name, value) for word in command]
        while command and re.match(r"[A-Z_]+=", command[0]):
            name, _, variables[name] = command.pop(0).partition("=")
        if command and command[0] != "export":
            words.append(command)
    assert not pending, "a quotation is not closed: " + pending
    return words


def parser_of(script):
    """The parser of a command, None where its file has no `build_parser`."""
    name = script.replace("/", "_")[: -len(".py")]
    spec = importlib.util.spec_from_file_location(name, str(REPOSITORY / script))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_parser() if hasattr(module, "build_parser") else None


def parse(command) -> List[argparse.Namespace]:
    """Parses the flags of a command, and of the one that it starts, if any.

    Returns:
      The flags that this repository's parsers know.

    Raises:
      SystemExit: a flag or value is wrong; the parser has said which.
    """
    program = command[0]
    if program in OTHER_PROGRAMS:
        return []
    if program == "make":
        return _parse_make(command)
    if program == "spark-submit":
        start = next(i for i, word in enumerate(command) if word.endswith(".py"))
        return parse(["python"] + command[start:])
    assert program == "python", "unknown program: " + " ".join(command)
    if command[1:3] == ["-m", "pytest"]:
        assert (REPOSITORY / command[3]).exists()
        return []
    parser = parser_of(command[1])
    if parser is None:
        return []
    args = parser.parse_args(command[2:])
    started = getattr(args, "command", None)
    return [args] + (parse(["python"] + started) if started else [])


def _parse_make(command):
    """Lets make say what it would run; of `make demo` the flags are parsed."""
    lines = subprocess.check_output(
        ["make", "-n", "-C", str(REPOSITORY)] + command[1:], encoding="utf-8"
    ).splitlines()
    demo = [line for line in lines if "run_demo.py" in line]
    assert bool(demo) == (command[1] == "demo")
    return [args for line in demo for args in parse(["python"] + shlex.split(line)[1:])]


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_commands(page):
    english, chinese = (
        [
            (block.language, block.runs_here, COMMENT.sub("", block.code))
            for block in blocks(name)
        ]
        for name in (page, in_chinese(page))
    )
    assert english == chinese


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_numbers_in_their_tables(page):
    english, chinese = (
        [NUMBER.findall(row) for row in re.findall(r"^\|.*", read(name), re.MULTILINE)]
        for name in (page, in_chinese(page))
    )
    assert english == chinese


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_a_command_is_one(page):
    for block in blocks(page):
        if block.language == "bash":
            for command in commands(block):
                parse(command)
        else:
            compile(block.code, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_in_the_text_is_one(page):
    known = set(OTHER_FLAGS)
    for script in REPOSITORY.glob("*.py"):
        parser = parser_of(script.name)
        known.update(parser._option_string_actions if parser else ())
    for name in (page, in_chinese(page)):
        text = FENCE.sub("", read(name))
        mentioned = set(FLAG.findall(" ".join(re.findall(r"`[^`\n]+`", text))))
        assert mentioned <= known


@pytest.mark.parametrize("page", PAGES)
def test_shell_variables_are_defined_on_the_page(page):
    defined = set()
    for block in blocks(page):
        if block.language == "bash":
            defined.update(re.findall(r"^(?:export )?([A-Z_]+)=", block.code, re.M))
            assert set(re.findall(r"\$\{?([A-Za-z_]+)", block.code)) <= defined


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    for name in (page, in_chinese(page)):
        for target, anchor in LINK.findall(read(name)):
            path = (REPOSITORY / name).parent / target
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target + "#" + anchor


def anchors(path):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory):
    """A user's folder after `make demo`: environment, vocabulary, pretrained model."""
    folder = tmp_path_factory.mktemp("docs") / "repository"
    for pattern in CONTENT:
        for source in REPOSITORY.glob(pattern):
            target = folder / source.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(
                str(source), str(target)
            )
    environment = folder / ".venv"
    subprocess.check_call(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "installed.pth").write_text("\n".join(installed))
    _run_short_demo(folder, environment / "bin" / "python")
    return folder


def _run_short_demo(folder, python):
    """Runs the demo up to its classifier, which is all that the pages use."""
    (folder / "demo").mkdir()
    run_demo.split_corpus(str(REPOSITORY / run_demo.CORPUS), str(folder / "demo"))
    args = run_demo.build_parser().parse_args([])
    steps = run_demo.pretraining_steps(args, "demo")
    steps.append(run_demo.classification_steps(args, "demo")[0])
    for step in steps:
        flags = {
            name: SHORT_DEMO.get(name, value) for name, value in step.flags.items()
        }
        command = run_demo.command_arguments(step._replace(flags=flags))
        run(folder, " ".join(map(shlex.quote, [str(python)] + command)))


def run(folder, script):
    """Runs a shell script, which is to end well; returns what it shows."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", script],
        cwd=str(folder),
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
    )
    shown = result.stdout.decode("utf-8")
    assert result.returncode == 0, shown
    return shown


def outputs(block):
    """Globs of what the commands of a block are to write."""
    for command in commands(block):
        for args in parse(command):
            for name in ("output_dir", "output_file", "output"):
                path = getattr(args, name, None)
                if path and getattr(args, "num_output_files", None):
                    path = path.replace(".tfrecord", "-*.tfrecord")
                if path:
                    yield path


def test_the_demo_can_run_again_after_the_demo(after_demo, tmp_path):
    """It removes what its commands leave; a file that it does not know stops it."""
    directory = tmp_path / "demo"
    shutil.copytree(str(after_demo / "demo"), str(directory))
    (directory / run_demo.MARKER).write_text("")
    with run_demo.renewed_output_dir(str(directory)):
        assert {path.name for path in directory.iterdir()} == {
            run_demo.MARKER,
            own_directory.LOCK,
        }


def _pages_with_commands():
    """The pages for users; on both TensorFlows the one with an example of each task."""
    for page in PAGES:
        if ACTIVATION in read(page):
            both = page == "docs/fine_tuning_en.md"
            yield pytest.param(page, marks=[] if both else pytest.mark.once)


@pytest.mark.parametrize("page", _pages_with_commands())
def test_commands_run_after_the_demo(page, after_demo, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(str(after_demo), str(folder), symlinks=True)
    lines, expected = [], []
    for number, block in enumerate(filter(lambda block: block.runs_here, blocks(page))):
        if block.language == "python":
            name = "snippet{}.py".format(number)
            (folder / name).write_text(block.code, encoding="utf-8")
            lines.append("python " + name)
        elif not block.code.startswith("make "):
            lines.append(block.code)
            expected += outputs(block)
    run(folder, "\n".join(lines))
    for pattern in expected:
        assert list(folder.glob(pattern)), pattern
