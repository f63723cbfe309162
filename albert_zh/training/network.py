"""Which networks this machine is on, and a private one for child processes (Linux).

Run as a script, this file is a small process between a program and its child, which
makes a private network or enters it: some of the system calls need a process without
further threads. So it imports the standard library alone.
"""

import ctypes
import ipaddress
import os
import socket
import struct
import subprocess
import sys

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# <linux/sched.h>, <linux/sockios.h>, <linux/if.h>
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
# char ifr_name[16], short ifr_flags, in a union of 24 bytes
_IFREQ = struct.Struct("16sh22x")

# Isolated (-I), or this folder's modules would hide those of the standard library.
_SCRIPT = [sys.executable, "-I", os.path.abspath(__file__)]


def is_loopback(host):
    """Whether a host is this machine by its loopback interface.

    Names are not looked up: only "localhost" counts.

    Args:
      host: str, a name or an IPv4 or IPv6 address without brackets.
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        # Takes all forms that connecting takes, such as "127.1".
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    address = ipaddress.ip_address(found[0][4][0].split("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    # Connecting to the unspecified address leads to this machine, too.
    return address.is_loopback or address.is_unspecified


def open_interfaces():
    """Returns the names of the interfaces by which others may reach this machine.

    On Linux these are all that are up, except loopback. Elsewhere all count as up.
    """
    names = [name for _, name in socket.if_nameindex()]
    if not sys.platform.startswith("linux"):
        return [name for name in names if not name.startswith("lo")]
    up = _IFF_UP
    return [name for name in names if _flags(name) & (up | _IFF_LOOPBACK) == up]


def _flags(interface):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        request = _IFREQ.pack(interface.encode(), 0)
        return _IFREQ.unpack(fcntl.ioctl(kernel, _SIOCGIFFLAGS, request))[1]


class PrivateNetwork:
    """A network without interfaces other than loopback, for children of this process.

    Nobody outside of it reaches their ports, and they reach nobody outside. Linux
    calls it a network namespace. It lasts until this is closed and all in it ended.
    """

    def __init__(self):
        """Makes the network.

        Raises:
          OSError: this system has no such thing, or forbids it.
        """
        self._namespaces = []
        maker = subprocess.Popen(
            _SCRIPT + ["make"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for this process to handle.
            start_new_session=True,
        )
        try:
            for kind in maker.stdout.readline().decode().split():
                path = "/proc/{}/ns/{}".format(maker.pid, kind)
                self._namespaces.append(os.open(path, os.O_RDONLY))
        finally:
            _, errors = maker.communicate()
        if not self._namespaces:
            raise OSError(errors.decode("utf-8", "replace").strip().split("\n")[-1])

    def start(self, command, **options):
        """Starts a command in the network.

        Args:
          command: list of str, the path of a program and its arguments.
          **options: of `subprocess.Popen`.

        Returns:
          `subprocess.Popen` of the command itself.
        """
        namespaces = ",".join(map(str, self._namespaces))
        return subprocess.Popen(
            _SCRIPT + ["enter", namespaces] + command,
            pass_fds=self._namespaces,
            **options,
        )

    def close(self):
        """Lets go of the network; processes that are in it stay there."""
        while self._namespaces:
            os.close(self._namespaces.pop())


def _make():
    """Puts this process into a new network; returns the kinds of namespaces made."""
    error = None
    # Root needs no namespace for users, and loses rights over files in one.
    for kinds in (["net"], ["user", "net"]):
        try:
            _unshare(with_user="user" in kinds)
            return kinds
        except PermissionError as refused:
            error = refused
    raise error


def _unshare(with_user):
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if with_user else 0)
    _call("unshare", flags)
    if with_user:
        # Every process keeps its user and group. The kernel demands the first line
        # of whoever is not root.
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", "{0} {0} 1".format(user)),
            ("gid_map", "{0} {0} 1".format(group)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(line)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        request = _IFREQ.pack(b"lo", _IFF_UP | _IFF_LOOPBACK)
        fcntl.ioctl(kernel, _SIOCSIFFLAGS, request)


def _call(name, *arguments):
    """Calls a function of the C library that sets errno.

    Raises:
      OSError: it failed, or this system has no such function.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise OSError("{} has no {}".format(sys.platform, name))
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def _main(action, *arguments):
    """Makes a network and waits, or enters one and becomes the given command."""
    try:
        if action == "make":
            sys.stdout.write(" ".join(_make()) + "\n")
            sys.stdout.flush()
            sys.stdin.read()  # until its owner has opened the namespaces, or ended
            return
        for namespace in map(int, arguments[0].split(",")):
            _call("setns", namespace, 0)
            os.close(namespace)
    except OSError as error:
        sys.exit(str(error))
    os.execv(arguments[1], arguments[1:])


if __name__ == "__main__":
    _main(*sys.argv[1:])
