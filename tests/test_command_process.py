"""Commands that the tests run are processes like any other."""

import subprocess

import pytest


@pytest.fixture
def run(command_process, tmp_path):
    def run_script(text, *arguments, timeout=60):
        path = tmp_path / "script.py"
        path.write_text(text, encoding="utf-8")
        return command_process.run([str(path), *arguments], str(tmp_path), timeout)

    return run_script


def test_a_script_has_its_arguments_directory_and_streams(run, tmp_path):
    (tmp_path / "beside.py").write_text("NAME = '旁'")
    result = run(
        "import os, sys, beside\n"
        "print(__name__, sys.argv[1:], os.getcwd(), beside.NAME, sys.stdin.read())\n"
        "print('second', file=sys.stderr)",
        "--flag=甲",
    )
    assert result.returncode == 0
    assert result.stdout == "__main__ ['--flag=甲'] {} 旁 \n".format(tmp_path)
    assert result.stderr == "second\n"


@pytest.mark.parametrize(
    "text, code",
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("import os; os._exit(200)", 200),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_a_script_ends_as_it_ends(run, text, code):
    for _ in range(5):  # none waits for the next
        assert run(text).returncode == code


def test_what_runs_at_exit_runs(run):
    result = run("import atexit; atexit.register(print, 'bye'); 1 / 0")
    assert result.stdout == "bye\n"
    assert "ZeroDivisionError" in result.stderr


def test_one_command_leaves_nothing_to_the_next(run):
    run("import json; json.left = 1")
    assert run("import json; print(hasattr(json, 'left'))").stdout == "False\n"


def test_a_script_that_takes_too_long_is_killed(run):
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run("import signal; print('began', flush=True); signal.pause()", timeout=2)
    assert caught.value.output == "began\n"
    assert run("print(1)").stdout == "1\n"
