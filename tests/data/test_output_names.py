"""Names of output files, and which of them may be a command's own."""

import pytest

from albert_zh.data import output_names


def test_names_come_from_the_first_output_file():
    outputs = output_names.Outputs("a/b.tfrecord", ("a/b.tfrecord",))
    assert outputs.summary_file == "a/b.tfrecord.summary.json"
    assert outputs.work_directory == "a/b.tfrecord.work"
    assert output_names.divided("a/b.records", 2) == [
        "a/b-00000-of-00002.records",
        "a/b-00001-of-00002.records",
    ]
    assert output_names.divided("b", 1) == ["b-00000-of-00001.tfrecord"]


@pytest.mark.parametrize("name", ["b.tfrecord", "b", "b(1).x", "数据.tfrecord"])
def test_what_a_name_is_divided_into_is_its_own(name):
    assert output_names.is_of(name, name)
    for number in (1, 128, output_names.MAX_OUTPUT_FILES):
        for divided in output_names.divided(name, min(number, 3)):
            assert output_names.is_of(name, divided)


@pytest.mark.parametrize(
    "other",
    [
        "../b.tfrecord",
        "../b-00000-of-00002.tfrecord",
        "/b-00000-of-00002.tfrecord",
        "x/b.tfrecord",
        "b-00000-of-00002.tfrecord\n",
        "b-00000-of-00002xtfrecord",
        "b-0-of-2.tfrecord",
        "c-00000-of-00002.tfrecord",
        "b.tfrecord.work",
        "b",
        "",
        "..",
    ],
)
def test_any_other_name_is_not(other):
    assert not output_names.is_of("b.tfrecord", other)
