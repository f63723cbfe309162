"""The launcher of local workers, by scripts that need no TensorFlow."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from albert_zh.base.errors import UserError
from albert_zh.training import launcher, network
from benchmarks.faults import ports

TIMEOUT_SECONDS = 120
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent

# Runs a worker's code with its rank, like `launch_workers.py` without TensorFlow.
_LAUNCH = """
import logging, signal, sys
# The tests themselves may have been started with these ignored, as by nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from albert_zh.base.errors import UserError
from albert_zh.training import launcher
logging.basicConfig(level=logging.INFO, format="%(message)s")
launcher.GRACE_SECONDS = 0.5
sys.exit(launcher.run_workers([sys.executable, "-c", sys.argv[1]], 2, {}))
"""
LAUNCH_PRIVATELY, LAUNCH_OPENLY = _LAUNCH.format(False), _LAUNCH.format(True)
# As users do; where the system forbids it, openly: these workers open no port.
LAUNCH = LAUNCH_PRIVATELY if ports.has_private_networks() else LAUNCH_OPENLY
RANK = "import json, os, signal, sys, time\n" + (
    "rank = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
)


def start(code, launch=LAUNCH):
    return subprocess.Popen(
        [sys.executable, "-c", launch, RANK + textwrap.dedent(code)],
        cwd=str(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def read_until_two(process, count):
    """What it prints up to the line with which `count` of all that is 2."""
    output = ""
    while count(output) < 2:
        line = process.stdout.readline()
        assert line, output
        output += line
    return output


def run(code, launch=LAUNCH):
    process = start(code, launch)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, output


def is_running(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def pids_in(output):
    return [int(pid) for pid in re.findall(r"is process (\d+)", output)]


def test_workers_find_each_other_and_show_who_says_what():
    code, output = run("print('ready'); print(os.environ['TF_CONFIG'])")
    assert code == 0
    configs = []
    for rank in range(2):
        prefix = "[worker {}] ".format(rank)
        lines = [
            line[len(prefix) :]
            for line in output.splitlines()
            if line.startswith(prefix)
        ]
        assert lines[0] == "ready"
        configs.append(json.loads(lines[1]))
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 2
    assert [config["task"]["index"] for config in configs] == [0, 1]


@pytest.mark.parametrize(
    "failure, expected",
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)],
)
def test_all_end_when_one_fails(failure, expected):
    # The other one does not listen to SIGTERM, as one that waits in TensorFlow.
    code, output = run(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if rank == 1:
            {}
        while True:
            time.sleep(1)
        """.format(failure)
    )
    assert code == expected
    assert "worker 1 ended with code" in output
    assert len(pids_in(output)) == 2
    assert not any(map(is_running, pids_in(output)))


def test_workers_are_in_one_private_network(private_network):
    code = "print('network', os.readlink('/proc/self/ns/net'), sys.argv[1:])"
    status, output = run(code, LAUNCH_PRIVATELY)
    assert status == 0, output
    networks = re.findall(r"network (\S+) \[\]", output)
    assert len(networks) == 2 and len(set(networks)) == 1
    assert networks[0] != os.readlink("/proc/self/ns/net")


def test_allowed_workers_are_in_this_network_and_told_so():
    code = "print('network', os.readlink('/proc/self/ns/net'), sys.argv[1:])"
    status, output = run(code, LAUNCH_OPENLY)
    assert status == 0, output
    own = os.readlink("/proc/self/ns/net")
    assert output.count("network {} ['--allow_open_ports']".format(own)) == 2


def refuse(*_):
    raise OSError("Operation not permitted: 'unshare'")


def test_workers_on_open_ports_are_refused(monkeypatch):
    monkeypatch.setattr(network, "PrivateNetwork", refuse)
    monkeypatch.setattr(network, "open_interfaces", lambda: ["eth0", "wlan0"])
    words = r"Operation not permitted: 'unshare'.*by eth0, wlan0, .*" + (
        "give --allow_open_ports before run_pretraining.py"
    )
    with pytest.raises(UserError, match=words):
        launcher.run_workers([sys.executable, "run_pretraining.py"], 2)


def test_workers_need_no_private_network_where_there_is_no_other(monkeypatch, capfd):
    monkeypatch.setattr(network, "PrivateNetwork", refuse)
    monkeypatch.setattr(network, "open_interfaces", list)
    command = [sys.executable, "-c", "import sys; print(sys.argv)"]
    assert launcher.run_workers(command, 2) == 0
    assert capfd.readouterr().out.count("['-c']") == 2


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--input_file=a,gs://b/c"], ["--input_file=a,gs://b/c", "private network"]),
        (["--output_dir", "hdfs://b/c"], ["hdfs://b/c", "--allow_open_ports before"]),
        (["--allow_open_ports"], ["--allow_open_ports after listener.py"]),
        (["--allow_open_ports=True"], ["give it before"]),
    ],
)
def test_flags_that_a_private_network_forbids_are_one_line(
    run_command, assert_user_error, private_network, tmp_path, flags, words
):
    (tmp_path / "listener.py").write_text("raise SystemExit('ran')")
    arguments = ["--num_workers=2", "listener.py"] + flags
    assert_user_error(run_command("launch_workers.py", *arguments), *words)


def test_local_addresses_of_files_are_not_remote():
    assert not launcher._is_remote("--input_file=file:///a,/b//c")
    assert launcher._is_remote("--input_file=file:///a,s3://b")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_a_system_without_private_networks_is_one_line(tmp_path, assert_user_error):
    if not network.open_interfaces():
        pytest.skip("this machine has no open interface")
    (tmp_path / "listener.py").write_text("raise SystemExit('ran')")
    command = [str(REPOSITORY / "launch_workers.py"), "--num_workers=2", "listener.py"]
    try:
        result = subprocess.run(
            [sys.executable] + command,
            cwd=str(tmp_path),
            preexec_fn=ports.forbid_networks,
            capture_output=True,
            encoding="utf-8",
        )
    except subprocess.SubprocessError:
        pytest.skip("this system forbids namespaces of users")
    assert_user_error(result, "cannot make a private network", "--allow_open_ports")


def test_signals_are_passed_on():
    process = start(
        """
        def stop(number, frame):
            print("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("listens")
        while True:
            time.sleep(1)
        """
    )
    output = read_until_two(process, lambda text: text.count("listens"))
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    assert "[worker 0] saved" in rest and "[worker 1] saved" in rest
    assert not any(map(is_running, pids_in(output + rest)))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_the_first_start_is_passed_on(name):
    launch = """
import os, signal
from albert_zh.training import launcher
find = launcher._free_addresses
def interrupted(number):
    os.kill(os.getpid(), signal.{})
    return find(number)
launcher._free_addresses = interrupted
""".format(name)
    # Once it has been passed on, a worker that does not handle it yet ends.
    code, output = run("while True: time.sleep(1)", launch + LAUNCH)
    # Python turns SIGINT into an exception once it has started, and 3.7 aborts where
    # the signal comes while it starts.
    expected = [128 + getattr(signal, name)]
    if name == "SIGINT":
        expected += [1, 128 + signal.SIGABRT]
    assert code in expected, output
    assert len(pids_in(output)) == 2
    assert not any(map(is_running, pids_in(output)))


def test_sighup_ends_workers_that_do_not_handle_it():
    process = start("print('ready')\nwhile True: time.sleep(1)")
    output = read_until_two(process, lambda text: text.count("ready"))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 128 + signal.SIGHUP
    assert len(pids_in(output)) == 2
    assert not any(map(is_running, pids_in(output)))


def test_a_closed_output_ends_all():
    process = start("while True: print('x' * 1000)")
    output = read_until_two(process, lambda text: len(pids_in(text)))
    process.stdout.close()
    assert process.wait(TIMEOUT_SECONDS) != 0
    assert not any(map(is_running, pids_in(output)))


@pytest.mark.parametrize("command", [[], ["no_script.py"], ["--input_file=x"]])
def test_command_without_a_script_is_refused(command):
    with pytest.raises(UserError, match="expected a script to start"):
        launcher.check_command(command)


@pytest.mark.parametrize("flags", [["--num_workers=0", "run_pretraining.py"], ["x.py"]])
def test_bad_flags_are_one_line(run_command, assert_user_error, flags):
    assert_user_error(run_command("launch_workers.py", *flags), "--num_workers")
