"""Tests of `albert_zh.downloads` against a server on loopback that misbehaves."""

import gzip
import hashlib
import json
import random
import socket
import types

import pytest
import requests
from fault_server import Answer, FaultServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albert_zh import downloads
from albert_zh.errors import UserError

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


@pytest.mark.parametrize("notes", ["", "[]", "{}", "{", '{"address": 1}', "null"])
def test_a_part_of_unknown_origin_is_not_gone_on_with(notes, server, fetch):
    fetch.partial.write_bytes(OTHER_BODY[:1000])
    (fetch.path.parent / "file.zip.partial.json").write_text(notes)
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
    with pytest.raises(UserError, match="nothing came for 0.2 s"):
        fetch(Answer(BODY, stall=stall), stall_seconds=0.2, retries=0)


def test_a_length_above_the_bodys_is_found_out(server, fetch):
    with pytest.raises(UserError, match="/file: the connection broke off "):
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


def test_encryption_is_not_given_up_by_a_redirect(monkeypatch, fetch):
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.com/file"
    response.raw = types.SimpleNamespace(close=lambda: None, release_conn=lambda: None)
    monkeypatch.setattr(requests.Session, "get", lambda *args, **kwargs: response)
    with pytest.raises(UserError, match="not encrypted"):
        fetch(address="https://example.com/file")
    assert not fetch.partial.exists()


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


@pytest.mark.parametrize("text", ["", "[]", "{", '{"http://a": 1}', '{"http://a": ""}'])
def test_damaged_record_is_named(text, tmp_path):
    path = tmp_path / "checksums.json"
    path.write_text(text)
    with pytest.raises(UserError, match="checksums.json: damaged"):
        downloads.Checksums(str(tmp_path)).add({"http://b": "sha256:11"})
    assert path.read_text() == text
    path.write_text(json.dumps({"http://a": "sha256:00"}))
    assert downloads.Checksums(str(tmp_path)).read() == {"http://a": "sha256:00"}
