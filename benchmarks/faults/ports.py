"""Ports of workers and of a local Spark, and who reaches them.

Connects to this machine's own addresses alone.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys

from albert_zh.base.errors import UserError
from albert_zh.training import network
from benchmarks.faults.common import REPOSITORY, TIMEOUT_SECONDS, Fault, not_refused

# <linux/sockios.h>, <linux/prctl.h>, <linux/capability.h>, <linux/sched.h>
_SIOCGIFADDR = 0x8915
_PR_CAPBSET_DROP, _CAP_SYS_ADMIN = 24, 21
_CLONE_NEWUSER = 0x10000000
_LISTENS = "0A"  # a state in /proc/net/tcp
NOBODY = 65534

# A worker that listens on all interfaces, as TensorFlow's does, until SIGTERM.
_LISTENER = """
import json, os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
config = json.loads(os.environ["TF_CONFIG"])
address = config["cluster"]["worker"][config["task"]["index"]]
server = socket.socket()
server.bind(("", int(address.split(":")[1])))
server.listen(10)
print("listens")
signal.pause()
"""
_SPARK = """
import sys
sys.path.insert(0, {!r})
from albert_zh.engines.spark import SparkEngine
engine = SparkEngine({!r})
print("listens", engine._context._gateway.proc.pid, flush=True)
sys.stdin.read()
engine.close()
"""


def addresses():
    """Returns all addresses of this machine, the loopback interface's too (Linux)."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                request = struct.pack("40s", name.encode())
                answer = fcntl.ioctl(kernel, _SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(FileNotFoundError):  # a system without IPv6
        for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines():
            digits, *_, name = line.split()
            address = ipaddress.ip_address(bytes.fromhex(digits))
            scope = "%" + name if address.is_link_local else ""
            found.append(str(address) + scope)
    return found


def listening(pid):
    """Returns [(address, port)] of the TCP ports that a process listens on."""
    process = pathlib.Path("/proc/{}".format(pid))
    own = set()
    for descriptor in process.glob("fd/*"):
        with contextlib.suppress(FileNotFoundError):  # closed by now
            own.update(re.findall(r"socket:\[(\d+)\]", os.readlink(str(descriptor))))
    found = []
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in own:
                digits, port = fields[1].split(":")
                # Words of four bytes, each with the lowest first.
                words = re.findall("." * 8, digits)
                address = b"".join(bytes.fromhex(word)[::-1] for word in words)
                found.append((str(ipaddress.ip_address(address)), int(port, 16)))
    return found


def answers(address, port):
    """Whether anybody accepts a connection to a port of this machine."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def not_private(pids):
    """Says which port of workers answers outside their private network.

    Args:
      pids: list of int, processes that each listen on at least one port.

    Returns:
      None where none does; else what was wrong.
    """
    for pid in pids:
        ports = listening(pid)
        if not ports:
            return "process {} listens on no port".format(pid)
        for address in addresses():
            for _, port in ports:
                if answers(address, port):
                    return "port {} answers at {}".format(port, address)
    return None


def has_private_networks():
    """Whether this system lets this user make a private network."""
    with contextlib.suppress(OSError):
        network.PrivateNetwork().close()
        return True
    return False


def drop_system_rights():
    """Takes from this process, root's, the right to make networks without more."""
    if ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0):
        raise OSError("cannot drop CAP_SYS_ADMIN")


def become_nobody():
    """Takes all rights from this process, root's."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def forbid_networks():
    """Lets this process make no private network: the system's limit is reached."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None).unshare(_CLONE_NEWUSER):
        raise OSError("cannot make a user namespace")
    for name, text in (
        ("self/setgroups", "deny"),
        ("self/uid_map", "{0} {0} 1".format(user)),
        ("self/gid_map", "{0} {0} 1".format(group)),
        ("sys/user/max_net_namespaces", "0"),
    ):
        pathlib.Path("/proc", name).write_text(text)


def _launch(*arguments, before=None):
    """Starts launch_workers.py; its output goes to its `stdout`."""
    return subprocess.Popen(
        [sys.executable, "launch_workers.py", "--num_workers=2"] + list(arguments),
        cwd=str(REPOSITORY),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        preexec_fn=before,
    )


def _refused(*arguments, before, expected):
    """Says why launch_workers.py did not refuse its flags in one line."""
    process = _launch(*arguments, before=before)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    done = subprocess.CompletedProcess([], process.returncode, "", output)
    return not_refused(done, *expected)


def _workers(work):
    script = work / "listener.py"
    script.write_text(_LISTENER)
    users = [("this user", None)]
    if os.geteuid() == 0:
        users.append(("root without CAP_SYS_ADMIN", drop_system_rights))
    for name, before in users * 3:
        process = _launch(str(script), before=before)
        try:
            output = ""
            while output.count("] listens") < 2:
                line = process.stdout.readline()
                if not line:
                    break
                output += line
            pids = [int(pid) for pid in re.findall(r"is process (\d+)", output)]
            yield name, not_private(pids) if len(pids) == 2 else output
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT_SECONDS)


def _no_private_network(work):
    script = work / "listener.py"
    script.write_text(_LISTENER)
    problem = _refused(
        str(script),
        before=forbid_networks,
        expected=["cannot make a private network", "--allow_open_ports before"],
    )
    yield "limit of namespaces", problem if network.open_interfaces() else None


def _remote_paths(work):
    script = work / "listener.py"
    script.write_text(_LISTENER)
    for scheme in ("gs", "hdfs", "s3", "viewfs", "http", "grpc"):
        for value in ("{}://x/y", "a.tfrecord,{}://x/*"):
            flag = "--input_file=" + value.format(scheme)
            problem = _refused(
                str(script), flag, before=None, expected=[flag, "private network"]
            )
            yield flag, problem


_LOOPBACK_HOSTS = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1",
    "127.0.1.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0.0.0.0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::]",
]


def _by_hand(work):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from albert_zh.training import distribution

    found = network.open_interfaces
    network.open_interfaces = lambda: ["eth9"]
    try:
        for host in _LOOPBACK_HOSTS:
            yield host, _problem_by_hand(distribution, [host, "localhost"])
    finally:
        network.open_interfaces = found


def _problem_by_hand(distribution, hosts):
    """Says why workers of these hosts were not refused; None where they were."""
    workers = ["{}:{}".format(host, 23450 + n) for n, host in enumerate(hosts)]
    task = {"type": "worker", "index": 0}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    try:
        distribution.create("multi_worker", False, 1)
    except UserError as error:
        return None if "launch_workers.py" in str(error) else str(error)
    finally:
        del os.environ["TF_CONFIG"]
    return "not refused"


def not_on_loopback(master):
    """Says which port of a local Spark is open to the network; None where none is.

    Args:
      master: str, its master URL; None for Spark's default.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _SPARK.format(str(REPOSITORY), master)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    try:
        words = process.stdout.readline().split()
        if not words:
            return "Spark did not start"
        found = listening(process.pid) + listening(words[1])
        if len(found) < 4:
            return "found no more than {}".format(found)
        open_ports = [item for item in found if not network.is_loopback(item[0])]
        return "open: {}".format(open_ports) if open_ports else None
    finally:
        process.communicate(timeout=TIMEOUT_SECONDS)


def _spark(work):
    for master in ("local[2]", None):
        yield str(master), not_on_loopback(master)


FAULTS = [
    Fault("a worker's port is reached from outside", _workers),
    Fault("the system makes no private network", _no_private_network),
    Fault("remote files for workers in a private network", _remote_paths),
    Fault("workers on loopback addresses, started by hand", _by_hand),
    Fault("a port of a local Spark is reached from outside", _spark),
]
