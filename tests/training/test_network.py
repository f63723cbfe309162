"""Private networks: who reaches whom, for which users, and what is told without."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from albert_zh.training import network
from benchmarks.faults import ports

# Listens on all interfaces, says so, and ends with its standard input.
LISTENER = """
import os, socket, sys
server = socket.socket()
server.bind(("", 0))
server.listen(10)
print(server.getsockname()[1], os.geteuid(), flush=True)
sys.stdin.read()
"""
# The same in a private network, started by a process with less rights.
IN_A_PRIVATE_NETWORK = """
import contextlib, subprocess, sys
from albert_zh.training import network
with contextlib.closing(network.PrivateNetwork()) as private:
    process = private.start([sys.executable, "-c", sys.argv[1]])
process.wait()
"""


@contextlib.contextmanager
def started(start, command, **options):
    """Yields the words of the first line that a command prints, then ends it."""
    process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        yield [int(word) for word in process.stdout.readline().split()]
    finally:
        process.communicate()


def reached(port):
    """The addresses of this machine at which a port answers."""
    return [address for address in ports.addresses() if ports.answers(address, port)]


def pythons_of_everybody():
    """Interpreters that any user can run; one in a home directory is not."""

    def is_usable(path):
        test = [path, "-c", "import albert_zh.training.network"]
        options = {"cwd": str(ports.REPOSITORY), "preexec_fn": ports.become_nobody}
        try:
            return subprocess.run(test, **options).returncode == 0
        except OSError:
            return False

    return list(filter(is_usable, [sys.executable, "/usr/bin/python3"]))


def check_private_network(python, lose_rights, expected_user):
    """Makes a private network as another user, where the system has that at all."""
    options = {"cwd": str(ports.REPOSITORY), "preexec_fn": lose_rights}
    # Does nearly the same, by code of its own.
    code = "from benchmarks.faults import ports; ports.forbid_networks()"
    if subprocess.run([python, "-c", code], **options).returncode:
        pytest.skip("this system forbids namespaces of users")
    command = [python, "-c", IN_A_PRIVATE_NETWORK, LISTENER]
    with started(subprocess.Popen, command, **options) as (port, user):
        assert not reached(port)
        assert user == expected_user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_rights_makes_a_private_network():
    pythons = pythons_of_everybody()
    if not pythons:
        pytest.skip("every Python is for its owner alone")
    check_private_network(pythons[0], ports.become_nobody, ports.NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's rights are root's to lose")
def test_root_without_the_right_makes_a_private_network():
    check_private_network(sys.executable, ports.drop_system_rights, 0)


def test_nobody_outside_reaches_a_private_network(private_network):
    command = [sys.executable, "-c", LISTENER]
    with started(subprocess.Popen, command) as (port, _):
        assert "127.0.0.1" in reached(port)
    with started(private_network.start, command) as (port, user):
        assert not reached(port)
        assert user == os.geteuid()


def test_nobody_outside_is_reached_from_a_private_network(private_network):
    code = "import socket, sys; socket.create_connection(('127.0.0.1', sys.argv[1]))"
    with started(subprocess.Popen, [sys.executable, "-c", LISTENER]) as (port, _):
        command = [sys.executable, "-c", code, str(port)]
        assert subprocess.run(command).returncode == 0
        process = private_network.start(command, stderr=subprocess.PIPE)
        assert b"refused" in process.communicate()[1]


def test_those_in_a_private_network_reach_each_other(private_network):
    code = "import socket, sys; socket.create_connection(('localhost', sys.argv[1]))"
    command = [sys.executable, "-c", LISTENER]
    with started(private_network.start, command) as (port, _):
        other = private_network.start([sys.executable, "-c", code, str(port)])
        assert other.wait() == 0


def test_a_command_runs_as_it_would_outside(private_network):
    code = (
        "import os, sys; print(sys.argv[1:], os.listdir('/proc/self/fd'), os.getpid())"
    )
    command = [sys.executable, "-c", code, "-x", "a b", "", "é"]
    options = {"stdout": subprocess.PIPE, "encoding": "utf-8"}
    inside = private_network.start(command, **options)
    outside = subprocess.Popen(command, **options)
    outputs = [process.communicate()[0] for process in (inside, outside)]
    assert outputs[0].split("]")[:2] == outputs[1].split("]")[:2]
    assert outputs[0].split()[-1] == str(inside.pid)
    code = "import os; os.kill(os.getpid(), 15)"
    assert private_network.start([sys.executable, "-c", code]).wait() == -15


def test_what_forbids_a_private_network_is_told(monkeypatch):
    reason = "[Errno 1] Operation not permitted: 'unshare'"
    script = [sys.executable, "-c", "import sys; sys.exit({!r})".format(reason)]
    monkeypatch.setattr(network, "_SCRIPT", script)
    with pytest.raises(OSError) as caught:
        network.PrivateNetwork()
    assert str(caught.value) == reason


def test_a_system_call_that_is_missing_is_told():
    with pytest.raises(OSError, match="has no unshare_nothing"):
        network._call("unshare_nothing")


def test_open_interfaces_are_up_and_not_loopback(monkeypatch):
    flags = {"lo": 0x49, "eth0": 0x1043, "eth1": 0x1002, "tun0": 0x1}
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(flags)))
    monkeypatch.setattr(network, "_flags", flags.get)
    monkeypatch.setattr(sys, "platform", "linux")
    assert network.open_interfaces() == ["eth0", "tun0"]
    # Elsewhere nobody asks whether they are up.
    monkeypatch.setattr(sys, "platform", "darwin")
    assert network.open_interfaces() == ["eth0", "eth1", "tun0"]


def test_a_private_network_has_no_open_interface(private_network):
    code = "from albert_zh.training import network; print(network.open_interfaces())"
    process = private_network.start(
        [sys.executable, "-c", code],
        cwd=str(ports.REPOSITORY),
        stdout=subprocess.PIPE,
    )
    assert process.communicate()[0] == b"[]\n"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.1", "::1", "::", "0.0.0.0"]
)
def test_hosts_that_are_this_machine(host):
    assert network.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["host0", "localhost.example", "10.0.0.1", "128.0.0.1", "fe80::1%lo", "é"]
)
def test_hosts_that_may_be_others(host):
    assert not network.is_loopback(host)
