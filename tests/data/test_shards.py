"""The tasks of data generation by themselves."""

import resource

import pytest

from albert_zh.base import checksums
from albert_zh.base.errors import UserError
from albert_zh.data import instances, text_tools
from albert_zh.data import shards as sharding

NUM_SHARDS, NUM_OUTPUTS = 8, 3


def ignore(amount):
    """Stands in for a progress function."""


@pytest.fixture
def job(tmp_path):
    """A job all of whose shards are made; a part holds its shard's number."""
    work = tmp_path / "work"
    work.mkdir()
    job = sharding.Job(
        settings=instances.Settings(),
        text=text_tools.TextSettings(vocabulary=b""),
        random_seed=1,
        output_files=tuple(str(tmp_path / str(i)) for i in range(NUM_OUTPUTS)),
        work_directory=str(work),
    )
    for shard in range(NUM_SHARDS):
        for output in range(NUM_OUTPUTS):
            with open(job.part(shard, output), "w") as file:
                file.write("{}:{} ".format(shard, output))
    return job


@pytest.fixture
def outputs(job):
    """The output files, with the checksums of the parts that are there."""
    return [
        sharding.Output(
            output,
            tuple(
                sharding.Section(
                    shard, 0, checksums.of_file(job.part(shard, output), ignore)
                )
                for shard in range(NUM_SHARDS)
            ),
        )
        for output in range(NUM_OUTPUTS)
    ]


def test_outputs_have_every_shard_in_an_order_of_their_own(job, outputs, tmp_path):
    orders = set()
    for output in range(NUM_OUTPUTS):
        reported = []
        sharding.merge_output(job, outputs[output], reported.append)
        text = (tmp_path / str(output)).read_text()
        assert sum(reported) == len(text)
        shards, numbers = zip(*(entry.split(":") for entry in text.split()))
        assert set(numbers) == {str(output)}
        assert sorted(map(int, shards)) == list(range(NUM_SHARDS))
        orders.add(shards)
    assert len(orders) == NUM_OUTPUTS
    assert not list((tmp_path / "work").glob("*.part"))


def test_a_merge_can_be_repeated(job, outputs, tmp_path):
    sharding.merge_output(job, outputs[0], ignore)
    before = (tmp_path / "0").read_text()
    sharding.merge_output(job, outputs[0], ignore)
    assert (tmp_path / "0").read_text() == before


def test_a_missing_part_is_named_and_nothing_is_written(job, outputs, tmp_path):
    (tmp_path / "work" / "shard-00002-of-00001.part").unlink()
    with pytest.raises(UserError, match="shard-00002-of-00001.part"):
        sharding.merge_output(job, outputs[1], ignore)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("content", ["", "2:", "2:2 "], ids=["blank", "cut", "other"])
def test_a_part_that_is_not_as_it_was_made_is_named(job, outputs, tmp_path, content):
    (tmp_path / "work" / "shard-00002-of-00001.part").write_text(content)
    with pytest.raises(UserError, match="shard-00002-of-00001.part has changed since"):
        sharding.merge_output(job, outputs[1], ignore)
    assert not (tmp_path / "1").exists()
    assert not list(tmp_path.rglob(".*.partial"))


def test_a_file_of_that_name_is_not_replaced(job, outputs, tmp_path):
    (tmp_path / "1").write_text("precious")
    with pytest.raises(UserError, match="is not from this run"):
        sharding.merge_output(job, outputs[1], ignore)
    assert (tmp_path / "1").read_text() == "precious"


def test_a_file_that_was_made_just_before_the_end_is_taken(job, outputs, tmp_path):
    before = {path.name: path.read_bytes() for path in (tmp_path / "work").iterdir()}
    sharding.merge_output(job, outputs[1], ignore)
    made = (tmp_path / "1").read_bytes()
    # As if the run had been killed before the mark was written.
    for name, content in before.items():
        (tmp_path / "work" / name).write_bytes(content)
    (tmp_path / "work" / "output-00001.json").unlink()
    sharding.merge_output(job, outputs[1], ignore)
    assert (tmp_path / "1").read_bytes() == made
    assert (tmp_path / "work" / "output-00001.json").exists()


def test_a_full_disk_is_a_failure_to_write(job, outputs, tmp_path):
    """A limit on the size of files stands for the full disk."""
    big = b"x" * 2**22
    part = tmp_path / "work" / "shard-00002-of-00001.part"
    part.write_bytes(big)
    sections = list(outputs[1].sections)
    sections[2] = sharding.Section(2, 0, checksums.of_file(str(part), ignore))
    output = outputs[1]._replace(sections=tuple(sections))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, old[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*/1: File too large"):
            sharding.merge_output(job, output, ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not (tmp_path / "1").exists()


def test_shards_cover_the_files(tmp_path):
    contents = [checksums.Content(size, 0, (size,)) for size in (10, 0, 7)]
    shards = sharding.plan_shards(["a", "b", "c"], contents, 4)
    assert [shard.number for shard in shards] == list(range(5))
    assert [(s.path, s.begin, s.end, s.num_bytes) for s in shards] == [
        ("a", 0, 4, 4),
        ("a", 4, 8, 4),
        ("a", 8, 12, 2),
        ("c", 0, 4, 4),
        ("c", 4, 8, 3),
    ]
    assert str(shards[2]) == "shard 2 (a, bytes 8 to 10)"
