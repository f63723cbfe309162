"""Standard output that is closed, full or narrow, and text that terminals act on."""

import subprocess
import sys

from benchmarks.faults.common import REPOSITORY, Fault, not_done, run

# What a terminal acts on; a NUL byte cannot be in an argument.
_ESCAPES = ["\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\r", "\b", "\u202e", "\x01"]


def _with_output(redirection, *arguments):
    """Runs a command whose standard output a shell redirects."""
    command = '"$@" ' + redirection
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable] + list(map(str, arguments)),
        cwd=str(REPOSITORY),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def _outputs(work):
    corpus, vocabulary = work / "a.txt", work / "vocab.txt"
    corpus.write_text("今天天气很好。\n我们去公园玩。\n\n" * 20, encoding="utf-8")
    flags = ["--input_file={}".format(corpus), "--vocab_size=180"]
    for number, redirection in enumerate((">&-", "| true", "2>&-", ">&- 2>&-")):
        vocabulary = work / "vocab{}.txt".format(number)
        arguments = flags + ["--output_file={}".format(vocabulary)]
        done = _with_output(redirection, "build_vocab.py", *arguments)
        problem = not_done(done)
        if not problem and not vocabulary.exists():
            problem = "nothing was written"
        yield redirection, problem
    done = _with_output(
        ">/dev/full", "build_vocab.py", "--output_file={}".format(work / "v"), *flags
    )
    is_right = "error: cannot write to standard output" in done.stderr
    yield ">/dev/full", None if is_right else done.stderr[-200:]


def _escapes(work):
    for escape in _ESCAPES:
        for script, flag in (
            ("run_pretraining.py", "--input_file"),
            ("run_classifier.py", "--task_name"),
            ("inspect_checkpoint.py", None),
            ("download_model.py", None),
        ):
            value = "no{}such".format(escape)
            arguments = ["{}={}".format(flag, value)] if flag else [value]
            if flag:
                arguments += ["--output_dir={}".format(work), "--do_train"]
            done = run(script, *arguments)
            shown = done.stdout + done.stderr.replace("\n", "")
            is_raw = any(not c.isprintable() and c in shown for c in escape)
            yield "{} {!r}".format(script, escape), "raw" if is_raw else None


FAULTS = [
    Fault("standard output or error closed, full, or no longer read", _outputs),
    Fault("control characters in flags' values reach the terminal", _escapes),
]
