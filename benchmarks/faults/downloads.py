"""Servers and archives that mean harm, links in wait, two at a time, full disks."""

import contextlib
import functools
import gzip
import io
import json
import multiprocessing.pool
import os
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile

from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.downloads import archives, catalogue, installation
from albert_zh.downloads import fetch as downloads
from benchmarks.faults.common import (
    REPOSITORY,
    Fault,
    not_done,
    not_refused,
    run,
    run_with_little_room,
)

# The servers that the tests have.
sys.path.insert(0, str(REPOSITORY / "tests"))
from fault_server import Answer, FaultServer, RawServer

_BODY = random.Random(1).getrandbits(8 * 200000).to_bytes(200000, "big")
_HEAD = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_ENTRY = catalogue.find("afqmc")


def _problem(function, *args, seconds=20, allowed=False, **options):
    """Says what is wrong with how a function refuses its input, or None.

    Args:
      function: called with `args` and `options`.
      seconds: it may take.
      allowed: bool, whether it may also accept the input.
    """
    started = time.monotonic()
    try:
        function(*args, **options)
        problem = None if allowed else "accepted"
    except UserError as error:
        message = str(error)
        problem = None
        if not message.isprintable() or len(message) > 2000:
            problem = "no single short line: {!r}".format(message[:200])
    except Exception as error:  # what a user would see as a traceback
        problem = "{}: {}".format(type(error).__name__, str(error)[:200])
    if time.monotonic() - started > seconds:
        return "took {:.0f} s".format(time.monotonic() - started)
    return problem


def _fetch(url, path, **options):
    downloads.fetch(url, str(path), retries=1, sleep=lambda seconds: None, **options)


def _refused_fetch(url, work, **options):
    """As `_problem`, and nothing may be under the final name."""
    path = work / "file"
    problem = _problem(_fetch, url, path, **options)
    if not problem and path.exists():
        problem = "half-made under its final name"
    for left in work.iterdir():
        left.unlink()
    return problem


def _answers(work):
    heads = [
        "Content-Length: " + text for text in ("²", "-5", "1" * 5000, "0x3", "3 4")
    ]
    heads += ["Content-Length: {}".format(10**power) for power in (6, 12, 17, 30)]
    heads += [
        "Content-Encoding: " + text for text in ("gzip", "br", "gzip, gzip", "\x9b")
    ]
    heads += [
        "Transfer-Encoding: chunked\r\n\r\n" + text + "\r\nabc"
        for text in ("-1", "-5", "²", "f" * 100000, "7fffffffffffffff", "x")
    ]
    heads += ["Content-Type: text/html", "X: " + "x" * 70000, "X\r\n" * 200, "\x00: 1"]
    for status in ("200 OK", "206 Part", "302 Found", "404 \x1b[31m\x9b2J", "500 \r"):
        for head in heads:
            content = "HTTP/1.1 {}\r\n{}\r\n\r\nabc".format(status, head)
            with RawServer(content.encode("latin-1")) as server:
                problem = _refused_fetch(server.url, work, max_bytes=2)
            yield "{!r} {!r}".format(status, head[:40]), problem
    for content in (b"", b"\n", b"HTTP", b"\xff" * 100, b"HTTP/1.1 " + b"9" * 5000):
        with RawServer(content) as server:
            yield repr(content[:20]), _refused_fetch(server.url, work)


def _redirects(work):
    targets = ["/file", "http://[", "//", "file:///etc/passwd", "ftp://h/", "\xff", "?"]
    targets += ["http://127.0.0.1:1/", "http://..:x/", "http://" + "a" * 300 + "/"]
    for target in targets:
        for status in (301, 302, 303, 307, 308):
            with FaultServer() as server:
                answer = Answer(status=status, headers={"Location": target})
                server.answers["/file"] = server.answers["/"] = [answer]
                problem = _refused_fetch(server.url + "/file", work)
                if not problem and len(server.requests) > 30:
                    problem = "{} requests".format(len(server.requests))
            yield "{} {!r}".format(status, target[:30]), problem


def _certificate(work):
    """Makes a certificate for loopback; returns (its file, its key's)."""
    paths = [str(work / name) for name in ("cert.pem", "key.pem")]
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1".split()
        + ["-out", paths[0], "-keyout", paths[1]],
        check=True,
        capture_output=True,
    )
    return paths


@contextlib.contextmanager
def _encrypted(server, certificate):
    """Yields an https address that leads to the same answers as a `FaultServer`."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with FaultServer() as encrypted:
        encrypted.answers = server.answers
        encrypted._server.socket = context.wrap_socket(
            encrypted._server.socket, server_side=True
        )
        yield encrypted.url.replace("http://", "https://")


def _plain_hops(work):
    certificate = _certificate(work)
    before = os.environ.get("REQUESTS_CA_BUNDLE")
    os.environ["REQUESTS_CA_BUNDLE"] = certificate[0]
    try:
        for status in (301, 302, 303, 307, 308):
            with FaultServer() as plain, _encrypted(plain, certificate) as secure:
                for name, target in (("/a", plain.url + "/c"), ("/c", secure + "/d")):
                    plain.answers[name] = [
                        Answer(status=status, headers={"Location": target})
                    ]
                plain.answers["/b"] = [
                    Answer(status=status, headers={"Location": secure + "/a"})
                ]
                plain.answers["/d"] = [Answer(_BODY)]
                path = work / "file"
                for start in (secure + "/a", secure + "/b", plain.url + "/b"):
                    problem = _problem(_fetch, start, path)
                    if not problem and "/c" in plain.paths():
                        problem = "the plain server was asked"
                    yield "{} {}".format(status, start[:5] + start[-2:]), problem
                path.unlink() if path.exists() else None
                yield "https", _problem(_fetch, secure + "/d", path, allowed=True)
                yield "https whole", None if path.exists() else "not downloaded"
    finally:
        if before is None:
            del os.environ["REQUESTS_CA_BUNDLE"]
        else:
            os.environ["REQUESTS_CA_BUNDLE"] = before


def _slow(work):
    for content in (
        b"H",
        _HEAD + b"a",
        _HEAD + b"Content-Length: 100000\r\n\r\nx",
        _HEAD + b"\r\nx",
        _CHUNKED + b"5",
        _CHUNKED + b"1;x",
        _CHUNKED + b"0\r\nx",
        _HEAD + b"Content-Encoding: gzip\r\n\r\nx",
    ):
        for pause in (0.001, 0.01, 0.1):
            with RawServer(content, pause) as server:
                problem = _refused_fetch(server.url, work, stall_seconds=0.2)
            yield "{!r} {}".format(content[-30:], pause), problem


def _sizes(work):
    bomb = gzip.compress(bytes(10**8), 9)
    for size in (1, 1000, 10**6, 10**7):
        with FaultServer() as server:
            for name, answer in (
                ("bomb", Answer(bomb, headers={"Content-Encoding": "gzip"})),
                ("bomb again", Answer(bomb, headers={"Content-Encoding": "x-gzip"})),
                ("announced", Answer(_BODY, announced=size + 1)),
            ):
                server.answers["/file"] = [answer]
                problem = _problem(
                    _fetch, server.url + "/file", work / "file", max_bytes=size
                )
                left = sum(path.stat().st_size for path in work.iterdir())
                if not problem and left > 2000:
                    problem = "{:,} bytes are left".format(left)
                yield "{} {}".format(name, size), problem
        many = b"%x\r\n%s\r\n" % (len(_BODY), _BODY) * 60 + b"0\r\n\r\n"
        with RawServer(_CHUNKED + many) as server:
            yield "chunks", _refused_fetch(server.url, work, max_bytes=size)


def _links(work):
    answer = Answer(_BODY)
    names = ["file", "file.partial", "file.partial.json", "checksums.json"]
    names += [".checksums.json.lock", ".file.lock"]
    for name in names:
        for kind in ("symlink", "link", "dangling", "fifo", "folder"):
            for has_notes in (False, True):
                place = work / "{}-{}-{}".format(name, kind, has_notes)
                place.mkdir()
                victim = place / "victim"
                victim.write_bytes(b"precious")
                with FaultServer() as server:
                    server.answers["/file"] = [answer]
                    if has_notes and name != "file.partial.json":
                        _write_notes(place, server.url + "/file")
                    _lay(kind, place / name, victim, place)
                    problem = _problem(
                        _fetch, server.url + "/file", place / "file", allowed=True
                    ) or _problem(
                        downloads.Checksums(str(place)).add,
                        {"a": "sha256:00"},
                        allowed=True,
                    )
                if victim.read_bytes() != b"precious" or (place / "none").exists():
                    problem = "written through a link"
                yield "{} {} {}".format(name, kind, has_notes), problem


def _write_notes(place, address):
    notes = {"address": address, "validator": '"first"'}
    (place / "file.partial.json").write_text(json.dumps(notes))


def _lay(kind, path, victim, place):
    """Lays something in wait at a path."""
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "link":
        os.link(str(victim), str(path))
    elif kind == "dangling":
        path.symlink_to(place / "none")
    elif kind == "fifo":
        os.mkfifo(str(path))
    else:
        path.mkdir()
        (path / "mine").write_text("mine")


def _block(name, content, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    padding = bytes(-len(content) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _pax(header):
    return gzip.compress(
        _block("pax", header, tarfile.XHDTYPE) + _block("file", b"1") + bytes(1024)
    )


def _zip(members, kind=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as writer:
        for name, content in members:
            writer.writestr(name, content)
    return buffer.getvalue()


def _tar(members):
    parts = []
    for name, content in members:
        if len(name) >= 100:
            parts.append(_block("long name", name.encode() + b"\0", b"L"))
        parts.append(_block(name[:99], content))
    return gzip.compress(b"".join(parts) + bytes(1024), 9)


def _hostile_archives():
    """Yields (name, bytes)."""
    for digits in (100, 10000, 60000, 900000):
        yield "pax of {} digits".format(digits), _pax(b"1" * digits)
    for header in (b"0 a=1\n", b"9 a=1\n", b" 6 a=1\n", b"-6 a=1\n", b"6 a:1\n"):
        yield "pax {!r}".format(header), _pax(header)
    yield "pax name", _pax(b"12 path=\xff\xfe\n")
    yield "pax sparse", _pax(b"22 GNU.sparse.major=1\n")
    yield "empty headers", gzip.compress(_block("p", b"", tarfile.XHDTYPE) * 20000, 9)
    for make in (_zip, _tar):
        kind = make.__name__
        yield kind + " deep", make([("d/" * 1800 + "f", b"1")])
        names = ["{}/".format(n) + "a/" * 30 + "f" for n in range(2700)]
        yield kind + " folders", make([(name, b"") for name in names])
        yield kind + " bomb", make([("f", bytes(10**8))])
        yield kind + " bombs", make([(str(n), bytes(10**6)) for n in range(100)])
        yield kind + " members", make([(str(n), b"") for n in range(20000)])
        for name in ("../x", "/x", "a/../../x", "..\\x", "c:x", "a/..", "x" * 300):
            yield "{} {!r}".format(kind, name[:9]), make([("a", b""), (name, b"")])
    yield "zip64", _zip([("a", b"")])[:-22] + b"PK\6\7" + bytes(16) + bytes(22)
    whole = bytearray(_zip([("a", bytes(100)), ("b", b"1")], zipfile.ZIP_STORED))
    second = whole.rindex(b"PK\1\2")
    struct.pack_into("<I", whole, second + 42, 0)
    yield "zip overlap", bytes(whole)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        yield (
            "tar {!r}".format(kind),
            gzip.compress(_block("a", b"", kind) + bytes(1024)),
        )
    yield "tar without end", gzip.compress(_block("a", b"1"))


def _bad_archives(work):
    for number, (name, content) in enumerate(_hostile_archives()):
        place = work / str(number)
        (place / "target").mkdir(parents=True)
        archive = place / "archive"
        archive.write_bytes(content)
        problem = _problem(archives.extract, str(archive), str(place / "target"))
        if not problem and sorted(os.listdir(str(place))) != ["archive", "target"]:
            problem = "wrote outside of its target"
        yield name, problem


def _damaged_archives(work):
    files = [("config.json", b"{}\n"), ("model.index", bytes(range(256)) * 30)]
    whole = {"zip": _zip(files), "tar.gz": _tar(files)}
    draw = random.Random(7)
    for number in range(200):
        kind = draw.choice(sorted(whole))
        content = bytearray(whole[kind])
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        else:
            for _ in range(draw.choice((1, 1, 3, 20))):
                content[draw.randrange(len(content))] = draw.randrange(256)
        place = work / str(number)
        (place / "target").mkdir(parents=True)
        (place / "archive").write_bytes(content)
        target = str(place / "target")
        problem = _problem(
            archives.extract, str(place / "archive"), target, allowed=True
        )
        yield "{} {}".format(kind, number), problem


def _installer(server):
    """Returns a function that installs from a server into a directory."""

    def fetch(*args):
        downloads.fetch(*args, retries=0)

    def install(target):
        origin = installation.Origin(fetch, server.url)
        installation.install(_ENTRY, target, origin)

    return install


def _odd_json(work):
    texts = ["", "[]", "{", "null", "NaN", "[" * 100000, "1" * 5000, '"\\ud800"', "\0"]
    texts += ['{"a": 1}', '{"a": "crc32:00"}', '{"name": 7}', '{"files": []}']
    texts += [
        json.dumps({"name": "afqmc", "source": "clue", "files": {name: "sha256:00"}})
        for name in ("../victim", "/etc/passwd", "a/../../victim", "c:x", "x")
    ]
    with FaultServer() as server:
        server.answers["/afqmc_public.zip"] = [Answer(_zip([("a", b"1")]))]
        install = _installer(server)
        for number, text in enumerate(texts):
            for name in ("checksums.json", "target/.download.json"):
                place = work / "{}-{}".format(number, name[:3])
                (place / "target").mkdir(parents=True)
                (place / "victim").write_text("precious")
                (place / name).write_text(text)
                problem = _problem(install, str(place / "target"))
                if (place / "victim").read_text() != "precious":
                    problem = "what is outside was lost"
                if (place / name).read_text() != text:
                    problem = "the damaged file was replaced"
                yield "{} {!r}".format(name, text[:30]), problem


def _several_at_a_time(work):
    archive = _zip([("train.json", _BODY)])
    for number in range(5):
        place = work / str(number)
        place.mkdir()
        with FaultServer() as server:
            server.answers["/afqmc_public.zip"] = [Answer(archive)]
            targets = [str(place / name) for name in "aabbab"]
            install = functools.partial(_problem, _installer(server), allowed=True)
            with multiprocessing.pool.ThreadPool(len(targets)) as pool:
                problems = pool.map(install, targets)
        problem = next(filter(None, problems), None)
        for target in (place / "a", place / "b"):
            if target.exists() and (target / "train.json").read_bytes() != _BODY:
                problem = "a target is not whole"
        left = set(os.listdir(str(place))) - {"a", "b", "checksums.json"}
        if not problem and left:
            problem = "left behind: {}".format(sorted(left))
        yield "six at a time, round {}".format(number), problem
    with locks.hold(str(work / ".t.lock"), ""):
        done = run("download_model.py", "afqmc", "--output_dir={}".format(work / "t"))
        yield "command", not_refused(done, "another process is downloading")


def _kills(work):
    """kill -9 in the middle, then the same command again."""
    archive = _zip([("train.json", _BODY)])
    for stall in (0, 50000, 150000):
        place = work / str(stall)
        with FaultServer() as server:
            whole = Answer(archive)
            server.answers["/afqmc_public.zip"] = [whole._replace(stall=stall), whole]
            command = [sys.executable, str(REPOSITORY / "download_model.py"), "afqmc"]
            command += ["--base_url=" + server.url]
            command += ["--output_dir={}".format(place / "target")]
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            deadline = time.monotonic() + 60
            while not server.requests and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
            process.kill()
            process.wait()
            problem = "half-made" if (place / "target").exists() else None
            done = subprocess.run(command, capture_output=True, encoding="utf-8")
            problem = problem or not_done(done)
            left = sorted(os.listdir(str(place)))
            if not problem and left != ["checksums.json", "target"]:
                problem = "left behind: {}".format(left)
        yield "killed after {} bytes".format(stall), problem


def _full_disks(work):
    archive = _zip([("small", b"1"), ("train.json", bytes(400000))])
    stored = _zip([("train.json", _BODY)], zipfile.ZIP_STORED)
    for name, content in (("while extracting", archive), ("downloading", stored)):
        place = work / name.replace(" ", "_")
        with FaultServer() as server:
            server.answers["/afqmc_public.zip"] = [Answer(content)]
            flags = ["afqmc", "--retries=0", "--base_url=" + server.url]
            flags += ["--output_dir={}".format(place / "target")]
            done = run_with_little_room(100000, "download_model.py", *flags)
            problem = not_refused(done, "written" if "ex" in name else "cannot write")
            if not problem and (place / "target").exists():
                problem = "half-made under its final name"
            yield name, problem
            yield name + ", again with room", not_done(run("download_model.py", *flags))


FAULTS = [
    Fault("answers of servers that are malformed", _answers),
    Fault("redirects round in circles or to nowhere", _redirects),
    Fault("redirects from https to http and back", _plain_hops),
    Fault("servers that send a byte now and then", _slow),
    Fault("downloads above their bound, announced, sent or compressed", _sizes),
    Fault("links, pipes and folders under the names of temporary files", _links),
    Fault("archives that mean harm", _bad_archives),
    Fault("archives that were cut or changed", _damaged_archives),
    Fault("records and receipts of downloads that are damaged", _odd_json),
    Fault("several downloads of one thing at a time", _several_at_a_time),
    Fault("kill -9 while downloading", _kills),
    Fault("full disk while downloading and extracting", _full_disks),
]
