"""Commands in processes that need not import TensorFlow: copies of one that has.

Importing TensorFlow is most of what a short command does. `CommandProcess` starts one
process that imports it and then copies itself (`fork`) for every command: the copy has
its own arguments, directory and streams, runs the script as `__main__` and ends as any
Python process does. Run as a script, this file is that process.
"""

import contextlib
import gc
import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
import tempfile


class CommandProcess:
    """A process that has imported TensorFlow and is copied for every command.

    Args:
        environment: `dict`, the environment variables of the process, and so of
            every command.

    Attributes:
        environment: `dict`, a copy of them.
    """

    def __init__(self, environment):
        self.environment = dict(environment)
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve())],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # `select` does not see what a buffer holds.
            bufsize=0,
        )

    def run(self, arguments, cwd, timeout):
        """Runs a command as `subprocess.run` does when it captures the output.

        Args:
            arguments: `list` of `str`, the script's path and its arguments.
            cwd: `str`, the directory that the command runs in.
            timeout: `float`, seconds after which the command is killed.

        Returns:
            `subprocess.CompletedProcess` with `stdout` and `stderr` as `str`.

        Raises:
            subprocess.TimeoutExpired: the command was killed.
        """
        with tempfile.TemporaryDirectory() as directory:
            outputs = [pathlib.Path(directory) / name for name in ("stdout", "stderr")]
            returncode = self._returncode(
                {
                    "arguments": arguments,
                    "cwd": cwd,
                    "outputs": [str(path) for path in outputs],
                },
                timeout,
            )
            stdout, stderr = (path.read_text(encoding="utf-8") for path in outputs)
        if returncode is None:
            raise subprocess.TimeoutExpired(arguments, timeout, stdout, stderr)
        return subprocess.CompletedProcess(arguments, returncode, stdout, stderr)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _returncode(self, request, timeout):
        """The exit code of a command; None if it had to be killed."""
        self._process.stdin.write(json.dumps(request).encode("utf-8") + b"\n")
        process_id = self._reply()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process_id, signal.SIGKILL)
            self._reply()
            return None
        status = self._reply()
        if os.WIFSIGNALED(status):
            return -os.WTERMSIG(status)
        return os.WEXITSTATUS(status)

    def _reply(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that runs the commands has ended")
        return int(line)


def _import_tensorflow():
    """Imports what takes the commands long; where it is missing they say so."""
    try:
        import tensorflow.compat.v1 as tf
    except ImportError:
        return
    if hasattr(tf, "estimator"):
        _ = tf.estimator.RunConfig  # loaded at its first use


def _next_command():
    """Runs commands until no more are asked for: in a copy, returns its arguments."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in requests:
        request = json.loads(line)
        process_id = os.fork()
        if not process_id:
            requests.close()
            replies.close()
            _take_over(request)
            return request["arguments"]
        replies.write("{}\n".format(process_id))
        replies.flush()
        replies.write("{}\n".format(os.waitpid(process_id, 0)[1]))
        replies.flush()
    return None


def _take_over(request):
    """Gives this process a command's directory, and its files for standard streams."""
    files = [os.open(os.devnull, os.O_RDONLY)]
    files += [
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for path in request["outputs"]
    ]
    for descriptor, opened in enumerate(files):
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])


if __name__ == "__main__":
    _import_tensorflow()
    # What is there now need not be looked through in every copy.
    gc.collect()
    gc.freeze()
    command = _next_command()
    if command:
        sys.argv = command
        sys.path[0] = str(pathlib.Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
