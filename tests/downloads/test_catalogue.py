"""The catalogue: names, addresses, sizes."""

import hashlib
import pathlib
import re

import pytest

import modeling
from albert_zh.base.errors import UserError
from albert_zh.downloads import catalogue
from albert_zh.downloads import fetch as downloads

HERE = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = HERE.parent / "albert_config"

STORAGE = "https://storage.googleapis.com/"
HUGGING_FACE = "https://huggingface.co/voidful/albert_chinese_"
# As the publishers link them.
MODELS = {
    ("albert_tiny_zh", "albert_zh"): STORAGE + "albert_zh/albert_tiny.zip",
    ("albert_tiny_zh_489k", "albert_zh"): STORAGE + "albert_zh/albert_tiny_489k.zip",
    ("albert_base_zh", "albert_zh"): STORAGE + "albert_zh/albert_base_zh.zip",
    ("albert_base_zh_additional_36k_steps", "albert_zh"): STORAGE
    + "albert_zh/albert_base_zh_additional_36k_steps.zip",
    ("albert_large_zh", "albert_zh"): STORAGE + "albert_zh/albert_large_zh.zip",
    ("albert_xlarge_zh_177k", "albert_zh"): STORAGE
    + "albert_zh/albert_xlarge_zh_177k.zip",
    ("albert_xlarge_zh_183k", "albert_zh"): STORAGE
    + "albert_zh/albert_xlarge_zh_183k.zip",
    ("albert_tiny_zh_google", "albert_zh"): STORAGE
    + "albert_zh/albert_tiny_zh_google.zip",
    ("albert_small_zh_google", "albert_zh"): STORAGE
    + "albert_zh/albert_small_zh_google.zip",
}
for _size in ("base", "large", "xlarge", "xxlarge"):
    MODELS["albert_{}_zh_google".format(_size), "google"] = (
        STORAGE + "albert_models/albert_{}_zh.tar.gz".format(_size)
    )
for _size in ("tiny", "small", "base", "large", "xlarge", "xxlarge"):
    MODELS["albert_{}_zh_google".format(_size), "huggingface"] = (
        HUGGING_FACE + _size + "/resolve/main"
    )
TASKS = {
    name: STORAGE + "cluebenchmark/tasks/{}_public.zip".format(name)
    for name in "afqmc tnews iflytek cmnli ocnli csl cmrc2018 drcd chid c3 "
    "cluener".split()
}
TASKS["wsc"] = STORAGE + "cluebenchmark/tasks/cluewsc2020_public.zip"


def entries(kind):
    return [entry for entry in catalogue.ENTRIES if entry.kind == kind]


def test_every_published_model_is_there():
    found = {(e.name, e.source): e.address for e in entries(catalogue.MODEL)}
    assert found == MODELS


def test_every_task_is_there():
    assert {e.name: e.address for e in entries(catalogue.TASK)} == TASKS


def test_hugging_face_models_are_all_their_files():
    entry = catalogue.find("albert_tiny_zh_google", "huggingface")
    assert not entry.is_archive
    assert [entry.base_url + "/" + file.path for file in entry.files] == [
        HUGGING_FACE + "tiny/resolve/main/" + name
        for name in ("config.json", "pytorch_model.bin", "vocab.txt")
    ]


@pytest.mark.parametrize("entry", entries(catalogue.MODEL))
def test_sizes_are_those_of_the_shipped_configs(entry):
    config = modeling.AlbertConfig.from_json_file(str(CONFIGS / entry.size.config))
    assert config.dialect == entry.size.dialect
    size = re.match("albert_([a-z]+)_zh", entry.name).group(1)
    assert "_{}".format(size) in entry.size.config
    table = {"albert_zh": "albert_zh_{}", "google": "google_{}_zh"}
    path = HERE / "variables" / (table[entry.size.dialect].format(size) + ".tsv")
    counted = re.search(r"#\s*encoder_parameters\t(\d+)", path.read_text())
    assert int(counted.group(1)) == entry.size.parameters


def test_names_and_sources_are_unambiguous():
    keys = [(entry.name, entry.source) for entry in catalogue.ENTRIES]
    assert len(set(keys)) == len(keys)
    for entry in catalogue.ENTRIES:
        assert catalogue.find(entry.name, entry.source) is entry
        for file in entry.files:
            assert re.match("[a-z0-9_.-]+$", file.name)


@pytest.mark.parametrize(
    "name, source, expected",
    [
        ("albert_tiny_zh_google", None, ("albert_tiny_zh_google", "albert_zh")),
        ("albert_tiny.zip", None, ("albert_tiny_zh", "albert_zh")),
        ("albert_tiny", None, ("albert_tiny_zh", "albert_zh")),
        # Two publishers use this name; the name itself comes first.
        ("albert_base_zh", None, ("albert_base_zh", "albert_zh")),
        ("albert_base_zh.tar.gz", None, ("albert_base_zh_google", "google")),
        ("albert_chinese_xlarge", None, ("albert_xlarge_zh_google", "huggingface")),
        ("cluewsc2020", None, ("wsc", "clue")),
        ("vocab", "keras_nlp", ("vocab", "keras_nlp")),
    ],
)
def test_publishers_own_names_are_found(name, source, expected):
    entry = catalogue.find(name, source)
    assert (entry.name, entry.source) == expected


@pytest.mark.parametrize(
    "name, source, words",
    [
        ("albert_tiny_zz", None, ["'albert_tiny_zz'", "albert_tiny_zh", "--list"]),
        ("gpt", None, ["'gpt'", "albert_tiny_zh", "cluener", "vocab"]),
        ("", None, ["''", "vocab"]),
        ("voidful/albert_chinese_tiny", None, ["is a path"]),
        ("..\\vocab", None, ["is a path"]),
        ("albert_tiny_zh", "google", ["--source=google", "expected albert_zh"]),
    ],
)
def test_other_names_are_one_line(name, source, words):
    with pytest.raises(UserError) as caught:
        catalogue.find(name, source)
    message = str(caught.value)
    assert "\n" not in message
    assert not [word for word in words if word not in message], message


def test_table_has_a_line_for_every_entry():
    head, *lines = catalogue.table()
    assert head.split() == "name size parameters dialect source address".split()
    assert len(lines) == len(catalogue.ENTRIES)
    for entry, line in zip(catalogue.ENTRIES, lines):
        words = line.split()
        assert words[0] == entry.name and words[-1] == entry.address
        assert ("unknown" in words) == (entry.megabytes is None)
        if entry.size:
            assert "{:,}".format(entry.size.parameters) in words
    assert "16 MB" in lines[0]


def test_checksums_are_well_formed():
    checksums = {f.checksum for e in catalogue.ENTRIES for f in e.files} - {None}
    lengths = {"md5": 32, "sha256": 64}
    for checksum in checksums:
        algorithm, digits = checksum.split(":")
        assert re.match("[0-9a-f]{%d}$" % lengths[algorithm], digits)
    assert len(checksums) == 3


def test_vocabulary_has_the_known_checksum(real_data):
    content = (real_data / "bert_zh_vocab" / "vocab.txt").read_bytes()
    assert content.count(b"\n") == 21128
    checksum = "md5:" + hashlib.md5(content).hexdigest()
    assert checksum == catalogue.VOCABULARY_CHECKSUM
    for entry in entries(catalogue.VOCABULARY):
        assert [file.checksum for file in entry.files] == [checksum]


def test_bounds_of_downloads_are_above_all_sizes_that_are_known():
    for entry in catalogue.ENTRIES:
        assert entry.max_bytes <= downloads.MAX_BYTES
        if entry.megabytes:
            assert 2e6 * entry.megabytes < entry.max_bytes < 4e6 * entry.megabytes + 2e6
        if entry.size and not entry.megabytes:
            # float32 with the two slots of the optimizer
            assert entry.max_bytes > 12 * entry.size.parameters
