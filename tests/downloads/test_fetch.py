"""Downloads from a server on loopback that misbehaves."""

import gzip
import hashlib
import json
import os
import random
import socket
import threading
import types

import pytest
import requests
from fault_server import Answer, FaultServer, RawServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albert_zh.base.errors import UserError
from albert_zh.downloads import fetch as downloads

# Longer than several of the chunks that are read.
BODY = random.Random(1).getrandbits(8 * 300000).to_bytes(300000, "big")
OTHER_BODY = random.Random(2).getrandbits(8 * 300000).to_bytes(300000, "big")
EXPECTED = downloads.Expected("sha256:" + hashlib.sha256(BODY).hexdigest(), "given")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached directly, whatever the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def server():
    with FaultServer() as fault_server:
        yield fault_server


def describe(content):
    """Says which body this is, or begins; pytest takes minutes over long bytes."""
    for name, body in (("BODY", BODY), ("OTHER_BODY", OTHER_BODY)):
        if content == body:
            return name
        if body.startswith(content):
            return "{}[:{}]".format(name, len(content))
    return "{} bytes of something else".format(len(content))


class Fetcher:
    """Fetches /file of a server, and keeps what was waited for."""

    def __init__(self, server, directory):
        self._server = server
        self.path = directory / "file.zip"
        self.partial = directory / "file.zip.partial"
        self.waits = []

    def __call__(self, *answers, **options):
        """Serves these answers; returns what the file then holds, see `describe`."""
        if answers:
            self._server.answers["/file"] = list(answers)
        address = options.pop("address", self._server.url + "/file")
        downloads.fetch(address, str(self.path), sleep=self.waits.append, **options)
        names = [path.name for path in self.path.parent.iterdir()]
        assert names == ["file.zip"]
        return describe(self.path.read_bytes())


@pytest.fixture
def fetch(server, tmp_path):
    return Fetcher(server, tmp_path)


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_comes_whole(server, fetch):
    assert fetch(Answer(BODY), expected=EXPECTED) == "BODY"
    assert ranges(server) == [None] and fetch.waits == []


def test_a_redirect_is_followed(server, fetch):
    server.answers["/elsewhere"] = [Answer(BODY)]
    assert fetch(Answer(status=302, headers={"Location": "/elsewhere"})) == "BODY"
    assert server.paths() == ["/file", "/elsewhere"]


def test_a_connection_that_breaks_off_goes_on_where_it_was(server, fetch):
    assert fetch(Answer(BODY, cut=200000), Answer(BODY), expected=EXPECTED) == "BODY"
    _, headers = server.requests[1]
    assert headers["If-Range"] == '"first"'
    start = int(headers["Range"][len("bytes=") : -1])
    assert 200000 - 2**15 <= start <= 200000
    assert fetch.waits == [1]


def test_a_later_run_goes_on_where_the_earlier_was(server, fetch):
    with pytest.raises(UserError) as caught:
        fetch(Answer(BODY, cut=200000), retries=0)
    size = fetch.partial.stat().st_size
    assert size > 100000
    assert describe(fetch.partial.read_bytes()) == "BODY[:{}]".format(size)
    assert not fetch.path.exists()
    kept = "{:,} bytes are kept in {}".format(size, fetch.partial)
    assert kept in str(caught.value) and "--from_file" in str(caught.value)
    assert fetch(Answer(BODY)) == "BODY"
    assert ranges(server)[1] is not None


def test_a_part_of_another_address_is_not_gone_on_with(server, fetch):
    with pytest.raises(UserError):
        fetch(Answer(BODY, cut=200000), retries=0)
    server.answers["/mirror"] = [Answer(OTHER_BODY)]
    assert fetch(address=server.url + "/mirror") == "OTHER_BODY"
    assert ranges(server) == [None, None]


ODD_JSON = [
    "",
    "[]",
    "{",
    "null",
    "NaN",
    "[" * 100000,
    "1" * 5000,
    "\xff",
    '"\\ud800"',
    '{"address": 1}',
    '{"address": 1, "validator": NaN}',
]


@pytest.mark.parametrize(
    "notes",
    ODD_JSON
    + ["{}", '{"address": "ADDRESS", "validator": "\\u000aX: 1"}']
    + ['{"address": "ADDRESS", "validator": 7}']
    + [json.dumps({"address": "ADDRESS", "validator": "x" * 5000})],
    ids=lambda notes: notes[:40],
)
def test_a_part_of_unknown_origin_is_not_gone_on_with(notes, server, fetch):
    fetch.partial.write_bytes(OTHER_BODY[:1000])
    notes = notes.replace("ADDRESS", server.url + "/file").encode("latin-1")
    (fetch.path.parent / "file.zip.partial.json").write_bytes(notes)
    assert fetch(Answer(BODY)) == "BODY"
    assert ranges(server) == [None]


def test_a_server_that_ignores_the_range_starts_over(server, fetch):
    first = Answer(BODY, cut=200000)
    assert fetch(first, Answer(BODY, knows_range=False)) == "BODY"
    assert ranges(server)[1] is not None


@pytest.mark.parametrize("knows_if_range, num_requests", [(True, 2), (False, 3)])
def test_a_file_that_changed_meanwhile_starts_over(
    knows_if_range, num_requests, server, fetch
):
    changed = Answer(OTHER_BODY, etag='"second"', knows_if_range=knows_if_range)
    assert fetch(Answer(BODY, cut=200000), changed) == "OTHER_BODY"
    assert len(server.requests) == num_requests


def test_a_file_that_became_shorter_starts_over(server, fetch):
    shorter = Answer(BODY[:1000], knows_if_range=False)
    assert fetch(Answer(BODY, cut=200000), shorter) == "BODY[:1000]"
    assert ranges(server)[2] is None


def test_another_range_than_asked_for_is_not_appended(server, fetch):
    shifted = Answer(BODY, range_shift=1000)
    assert fetch(Answer(BODY, cut=200000), shifted, Answer(BODY)) == "BODY"
    assert len(server.requests) == 3 and ranges(server)[2] is None


@pytest.mark.parametrize(
    "etag, last_modified, condition",
    [
        (None, "Mon, 02 Dec 2019 08:00:00 GMT", "Mon, 02 Dec 2019 08:00:00 GMT"),
        ('W/"weak"', "Mon, 02 Dec 2019 08:00:00 GMT", "Mon, 02 Dec 2019 08:00:00 GMT"),
        ('W/"weak"', None, None),
        (None, None, None),
    ],
)
def test_only_what_names_a_version_exactly_lets_go_on(
    etag, last_modified, condition, server, fetch
):
    whole = Answer(BODY, etag=etag, last_modified=last_modified)
    assert fetch(whole._replace(cut=200000), whole) == "BODY"
    _, headers = server.requests[1]
    assert headers.get("If-Range") == condition
    assert ("Range" in headers) == (condition is not None)


@pytest.mark.parametrize("stall", [0, 200000])
def test_a_connection_that_stalls_is_given_up(stall, server, fetch):
    answers = [Answer(BODY, stall=stall), Answer(BODY)]
    assert fetch(*answers, stall_seconds=0.2) == "BODY"
    with pytest.raises(UserError, match="received nothing for 0.2 s"):
        fetch(Answer(BODY, stall=stall), stall_seconds=0.2, retries=0)


def test_a_length_above_the_bodys_is_found_out(server, fetch):
    # Whether the last bytes are kept depends on urllib3.
    with pytest.raises(UserError, match="/file: (the connection broke off|.* 416) "):
        fetch(Answer(BODY, announced=len(BODY) + 1000), retries=1)
    assert not fetch.path.exists() and len(server.requests) == 2


def test_a_length_below_the_bodys_is_found_out_by_the_checksum(server, fetch):
    with pytest.raises(UserError, match="checksum") as caught:
        fetch(Answer(BODY, announced=len(BODY) - 1), expected=EXPECTED)
    received = hashlib.sha256(BODY[:-1]).hexdigest()
    assert received in str(caught.value) and EXPECTED.checksum in str(caught.value)
    assert list(fetch.path.parent.iterdir()) == []


def test_another_content_than_expected_never_gets_the_name(server, fetch):
    with pytest.raises(UserError, match="given"):
        fetch(Answer(OTHER_BODY), expected=EXPECTED)
    assert len(server.requests) == 1
    assert list(fetch.path.parent.iterdir()) == []


def test_waits_grow_while_the_server_is_busy(server, fetch):
    busy = [Answer(status=status) for status in (503, 429, 500, 502)]
    assert fetch(*(busy + [Answer(BODY)])) == "BODY"
    assert fetch.waits == [1, 2, 4, 8]
    del fetch.waits[:]
    with pytest.raises(UserError, match="503"):
        fetch(Answer(status=503), retries=2)
    assert fetch.waits == [1, 2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 501, 204])
def test_an_answer_that_will_not_change_is_final(status, server, fetch):
    with pytest.raises(UserError) as caught:
        fetch(Answer(status=status))
    assert server.url + "/file: the server answered {}".format(status) in str(
        caught.value
    )
    assert len(server.requests) == 1 and fetch.waits == []
    assert list(fetch.path.parent.iterdir()) == []


def test_a_web_page_is_not_taken_for_the_file(server, fetch):
    page = Answer(b"<html>Log in</html>", headers={"Content-Type": "text/html"})
    with pytest.raises(UserError, match="web page"):
        fetch(page)
    assert len(server.requests) == 1 and not fetch.path.exists()


def test_a_closed_network_is_one_line_with_the_address(fetch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "http://127.0.0.1:{}/file".format(unused.getsockname()[1])
        with pytest.raises(UserError) as caught:
            fetch(address=address, retries=2)
    message = str(caught.value)
    assert message.startswith(address + ": Connection refused")
    assert "--from_file" in message and "\n" not in message
    assert fetch.waits == [1, 2]


def test_an_address_that_is_none_is_final(fetch):
    with pytest.raises(UserError, match="http://"):
        fetch(address="http://")
    assert fetch.waits == []


def redirect(target):
    return Answer(status=302, headers={"Location": target})


@pytest.fixture
def encrypted(server, monkeypatch):
    """Makes https://first, https://second, ... lead to the paths of the server.

    Without TLS, which needs a certificate: only the addresses say https.
    """
    send = requests.adapters.HTTPAdapter.send

    def send_plain(adapter, request, **options):
        address = request.url
        request.url = address.replace("https://", server.url + "/")
        response = send(adapter, request, **options)
        request.url = response.url = address
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send_plain)


@pytest.mark.parametrize("first", ["https", "http"])
def test_encryption_is_not_given_up_by_a_redirect(first, encrypted, server, fetch):
    address = {"https": "https://first/", "http": server.url + "/first/"}[first]
    server.answers["/first/"] = [redirect("https://second/")]
    server.answers["/second/"] = [redirect(server.url + "/plain")]
    server.answers["/plain"] = [redirect("https://third/")]
    server.answers["/third/"] = [Answer(BODY)]
    with pytest.raises(UserError, match="/plain, which is not encrypted"):
        fetch(address=address)
    # The plain server is not even asked.
    assert server.paths() == ["/first/", "/second/"]
    assert list(fetch.path.parent.iterdir()) == []
    server.answers["/second/"] = [redirect("https://third/")]
    assert fetch(address=address) == "BODY"


def test_redirects_in_circles_come_to_an_end(server, fetch):
    with pytest.raises(UserError, match="redirected more than 10 times"):
        fetch(redirect("/file"))
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[", "//[::1"],
)
def test_redirects_that_lead_nowhere(target, server, fetch):
    with pytest.raises(UserError) as caught:
        fetch(redirect(target))
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.requests) == 1


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"H",
        HEAD + b"a",
        HEAD + b"Content-Length: 100000\r\n\r\nx",
        HEAD + b"\r\nx",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + bytes(1) + b"x",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx",
    ],
)
def test_a_byte_now_and_then_is_too_slow(content, fetch):
    with RawServer(content, pause=0.02) as server:
        with pytest.raises(UserError, match="received less than 32,768 bytes in 0.4 s"):
            fetch(address=server.url, stall_seconds=0.2, retries=0)
    assert not fetch.path.exists()


def test_slow_content_is_no_progress(fetch):
    with RawServer(HEAD + b"\r\nx", pause=0.02) as server:
        with pytest.raises(UserError):
            fetch(address=server.url, stall_seconds=0.1, retries=2)
    assert fetch.waits == [1, 2]


def test_the_time_in_all_has_a_limit(server, fetch):
    with pytest.raises(UserError, match="takes too long .* bytes are kept"):
        fetch(Answer(BODY), longest_seconds=0)
    assert len(server.requests) == 1 and fetch.waits == []
    assert fetch() == "BODY"


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def test_an_announced_size_has_a_limit(server, fetch):
    for announced in (len(BODY), 10**17):
        with pytest.raises(UserError, match="announces .* expected at most 200,000"):
            fetch(Answer(BODY, announced=announced), max_bytes=200000)
    assert list(fetch.path.parent.iterdir()) == []
    assert fetch(Answer(BODY), max_bytes=len(BODY)) == "BODY"


def chunked(*chunks):
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks + (b"",)]
    return CHUNKED + b"".join(parts)


def test_the_size_of_what_comes_has_a_limit(fetch):
    with RawServer(chunked(BODY)) as server:
        with pytest.raises(UserError, match="received more than 200,000 bytes"):
            fetch(address=server.url, max_bytes=200000)
        assert list(fetch.path.parent.iterdir()) == []
        assert fetch(address=server.url, max_bytes=len(BODY)) == "BODY"


def test_a_compressed_answer_is_no_bomb(server, fetch):
    bomb = gzip.compress(bytes(30000000))
    answer = Answer(bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(UserError, match="received more than 200,000 bytes"):
        fetch(answer, max_bytes=200000)
    assert list(fetch.path.parent.iterdir()) == []


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "deflate", "\x1b[31m"])
def test_an_unknown_encoding_is_refused(encoding, server, fetch):
    with pytest.raises(UserError, match="used the encoding") as caught:
        fetch(Answer(BODY, headers={"Content-Encoding": encoding}))
    assert "\x1b" not in str(caught.value)
    assert list(fetch.path.parent.iterdir()) == []


def test_a_damaged_compressed_answer_is_refused(server, fetch):
    with pytest.raises(UserError, match="incorrect header"):
        fetch(Answer(BODY, headers={"Content-Encoding": "gzip"}))
    assert not fetch.path.exists()


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: ²",
        "Content-Length: " + "1" * 5000,
        "Content-Length: -5",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 0x3",
        "Content-Length: \x1b[31m3",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n²\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n" + "f" * 100000,
        "X: " + "x" * 70000,
        "\r\n".join("X{}: 1".format(number) for number in range(200)),
        "Content-Range: bytes ²-3/4",
        "Location: \xff\xfe",
    ],
    ids=lambda head: repr(head[:50]),
)
@pytest.mark.parametrize("status", ["200 OK", "206 Partial", "302 Found"])
def test_malformed_answers_are_one_line(status, head, fetch):
    content = "HTTP/1.1 {}\r\n{}\r\n\r\nabc".format(status, head).encode("latin-1")
    with RawServer(content) as server:
        try:
            fetch(address=server.url, retries=1)
        except UserError as error:
            assert server.url in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 1000
        else:
            # What stands behind a wrong Content-Range is all the same the file.
            assert (status, head[:14]) == ("200 OK", "Content-Range:") or (
                status == "200 OK" and head.startswith("Location")
            )


def test_a_reason_is_shown_without_control_characters(fetch):
    with RawServer(b"HTTP/1.1 404 \x1b[31mred\x9b2J\r\n\r\n") as server:
        with pytest.raises(UserError) as caught:
            fetch(address=server.url)
    assert r"404 \x1b[31mred\x9b2J" in str(caught.value)
    assert str(caught.value).isprintable()


def test_room_is_looked_for_before_the_work(server, fetch, monkeypatch):
    usage = types.SimpleNamespace(free=len(BODY) - 1)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="no room in .* 300,000 bytes are needed"):
        fetch(Answer(BODY))
    usage.free += 1
    assert fetch() == "BODY"


def test_a_full_disk_is_one_line_and_the_part_is_kept(server, fetch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*file.zip.partial"):
            fetch(Answer(BODY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not fetch.path.exists()
    assert describe(fetch.partial.read_bytes()) == "BODY[:100000]"
    assert fetch() == "BODY"
    assert ranges(server) == [None, "bytes=100000-"]


@pytest.fixture
def victim(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "victim"
    path.write_bytes(BODY[:1000])
    return path


def notes_of(address):
    return json.dumps({"address": address, "validator": '"first"'})


@pytest.mark.parametrize("link", ["symlink", "link"])
def test_a_link_in_wait_is_not_written_through(link, server, fetch, victim):
    """Not even where notes beside it say that it is a part of the file."""
    getattr(os, link)(str(victim), str(fetch.partial))
    notes = fetch.path.parent / "file.zip.partial.json"
    notes.write_text(notes_of(server.url + "/file"))
    assert fetch(Answer(BODY)) == "BODY"
    assert ranges(server) == [None]
    assert victim.read_bytes() == BODY[:1000]


def test_a_link_to_nothing_is_not_followed(server, fetch, victim):
    victim.unlink()
    fetch.partial.symlink_to(victim)
    (fetch.path.parent / "file.zip.partial.json").symlink_to(victim)
    fetch.path.symlink_to(victim)
    assert fetch(Answer(BODY)) == "BODY"
    assert not victim.exists() and not fetch.path.is_symlink()


def test_a_part_that_nobody_knows_of_stays(server, fetch):
    fetch.partial.write_bytes(b"mine")
    with pytest.raises(UserError, match="partial is in the way: .* move it away"):
        fetch(Answer(BODY))
    assert fetch.partial.read_bytes() == b"mine" and server.requests == []


def test_pipes_do_not_hold_it_up(server, fetch, tmp_path):
    for name in ("file.zip.partial", "file.zip.partial.json"):
        os.mkfifo(str(tmp_path / name))
    assert fetch(Answer(BODY)) == "BODY"
    os.mkfifo(str(tmp_path / "pipe"))
    for function in (downloads.file_checksum, lambda path: downloads.copy(path, "x")):
        with pytest.raises(UserError, match="no ordinary file"):
            function(str(tmp_path / "pipe"))


def test_progress_counts_and_not_the_number_of_attempts(server, fetch):
    # Each connection brings 40000 bytes more; one retry is enough for all of them.
    step = Answer(BODY, cut=40000)
    assert fetch(step, retries=1) == "BODY"
    assert len(server.requests) >= 8 and set(fetch.waits) == {1}


def test_a_server_that_sends_less_than_asked_for_is_asked_again(server, fetch):
    whole = Answer(BODY, range_limit=40000)
    assert fetch(whole._replace(cut=200000), whole, retries=1) == "BODY"
    assert len(server.requests) == 4


def test_starting_over_again_and_again_comes_to_an_end(server, fetch):
    with pytest.raises(UserError):
        fetch(Answer(BODY, cut=200000, knows_range=False), retries=3)
    assert len(server.requests) == 4


def test_a_compressed_answer_is_decompressed(server, fetch):
    compressed = gzip.compress(BODY)
    answer = Answer(compressed, headers={"Content-Encoding": "gzip"})
    assert fetch(answer._replace(cut=200000), answer) == "BODY"
    assert ranges(server) == [None, None]


def test_a_place_that_cannot_be_written_to_is_named(server, tmp_path):
    server.answers["/file"] = [Answer(BODY)]
    path = tmp_path / "missing" / "file.zip"
    with pytest.raises(UserError, match="cannot write {}".format(path)):
        downloads.fetch(server.url + "/file", str(path))


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_sequence_of_faults_gives_the_file_or_an_error(data, tmp_path_factory):
    faults = st.fixed_dictionaries(
        {
            "cut": st.one_of(st.none(), st.integers(0, len(BODY))),
            "status": st.sampled_from([200, 200, 503]),
            "knows_range": st.booleans(),
            "range_shift": st.sampled_from([0, 0, 1, 299999]),
            "announced": st.sampled_from([None, None, len(BODY) + 1]),
        }
    )
    answers = [
        Answer(BODY, **fault) for fault in data.draw(st.lists(faults, max_size=5))
    ]
    directory = tmp_path_factory.mktemp("faults")
    with FaultServer() as fault_server:
        fetcher = Fetcher(fault_server, directory)
        last = data.draw(st.sampled_from([Answer(BODY), Answer(status=404)]))
        try:
            assert fetcher(*(answers + [last]), retries=8) == "BODY"
        except UserError:
            assert last.status == 404 and not fetcher.path.exists()


def test_copy_appears_whole_or_not_at_all(tmp_path):
    source, path = tmp_path / "by_hand.zip", tmp_path / "file.zip"
    source.write_bytes(OTHER_BODY)
    with pytest.raises(UserError, match=str(source)):
        downloads.copy(str(source), str(path), EXPECTED)
    assert [path.name for path in tmp_path.iterdir()] == ["by_hand.zip"]
    source.write_bytes(BODY)
    downloads.copy(str(source), str(path), EXPECTED)
    assert describe(path.read_bytes()) == "BODY" == describe(source.read_bytes())
    with pytest.raises(UserError, match="missing.zip"):
        downloads.copy(str(tmp_path / "missing.zip"), str(path), EXPECTED)
    assert describe(path.read_bytes()) == "BODY"


@given(st.binary(), st.sampled_from(["md5", "sha256"]))
def test_checksums_are_the_hash_of_the_content(tmp_path_factory, content, algorithm):
    path = tmp_path_factory.mktemp("checksum") / "file"
    path.write_bytes(content)
    checksum = "{}:{}".format(algorithm, hashlib.new(algorithm, content).hexdigest())
    assert downloads.file_checksum(str(path), algorithm) == checksum
    downloads.verify(str(path), downloads.Expected(checksum, "given"))
    path.write_bytes(content + b"x")
    with pytest.raises(UserError, match=checksum):
        downloads.verify(str(path), downloads.Expected(checksum, "given"))


def test_record_keeps_what_it_holds(tmp_path):
    checksums = downloads.Checksums(str(tmp_path))
    assert checksums.read() == {}
    checksums.add({"http://a": "sha256:00"})
    checksums.add({"http://b": "sha256:11"})
    assert downloads.Checksums(str(tmp_path)).read() == {
        "http://a": "sha256:00",
        "http://b": "sha256:11",
    }


@pytest.mark.parametrize(
    "text",
    ODD_JSON
    + ['{"http://a": 1}', '{"http://a": ""}', '{"http://a": "crc32:00"}']
    + ['{"http://a": "sha256:xyz"}', '{"http://a": "sha256:00\\n"}'],
    ids=lambda text: text[:40],
)
def test_damaged_record_is_named(text, tmp_path):
    path = tmp_path / "checksums.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="checksums.json: damaged") as caught:
        downloads.Checksums(str(tmp_path)).add({"http://b": "sha256:11"})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert path.read_bytes() == text.encode("latin-1")
    path.write_text(json.dumps({"http://a": "sha256:00"}))
    assert downloads.Checksums(str(tmp_path)).read() == {"http://a": "sha256:00"}


def test_records_of_several_downloads_at_a_time_are_all_kept(tmp_path):
    checksums = {"http://{}".format(number): "sha256:00" for number in range(20)}
    threads = [
        threading.Thread(
            target=lambda item=item: downloads.Checksums(str(tmp_path)).add(
                dict([item])
            )
        )
        for item in checksums.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads.Checksums(str(tmp_path)).read() == checksums
    assert [path.name for path in tmp_path.iterdir()] == ["checksums.json"]


def test_copy_does_not_write_through_a_link(tmp_path):
    (tmp_path / "by_hand").write_bytes(BODY)
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "file.partial").symlink_to(tmp_path / "victim")
    downloads.copy(str(tmp_path / "by_hand"), str(tmp_path / "file"))
    assert describe((tmp_path / "file").read_bytes()) == "BODY"
    assert (tmp_path / "victim").read_bytes() == b"precious"
