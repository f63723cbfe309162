"""The tasks of data generation by themselves."""

import pytest

from albert_zh import generation, instances
from albert_zh.errors import UserError

NUM_SHARDS, NUM_OUTPUTS = 8, 3


def ignore(amount):
    """Stands in for a progress function."""


@pytest.fixture
def job(tmp_path):
    """A job all of whose shards are made; a part holds its shard's number."""
    work = tmp_path / "work"
    work.mkdir()
    job = generation.Job(
        settings=instances.Settings(),
        vocabulary=b"",
        sentencepiece=False,
        do_lower_case=True,
        normalize_punctuation=False,
        segmenter=None,
        encoding_errors="strict",
        random_seed=1,
        output_files=tuple(str(tmp_path / str(i)) for i in range(NUM_OUTPUTS)),
        work_directory=str(work),
    )
    for shard in range(NUM_SHARDS):
        for output in range(NUM_OUTPUTS):
            with open(job.part(shard, output), "w") as file:
                file.write("{}:{} ".format(shard, output))
    return job


def test_outputs_have_every_shard_in_an_order_of_their_own(job, tmp_path):
    orders = set()
    for output in range(NUM_OUTPUTS):
        reported = []
        generation.merge_output(job, NUM_SHARDS, output, reported.append)
        text = (tmp_path / str(output)).read_text()
        assert sum(reported) == len(text)
        shards, outputs = zip(*(entry.split(":") for entry in text.split()))
        assert set(outputs) == {str(output)}
        assert sorted(map(int, shards)) == list(range(NUM_SHARDS))
        orders.add(shards)
    assert len(orders) == NUM_OUTPUTS
    assert not list((tmp_path / "work").glob("*.part"))


def test_a_merge_can_be_repeated(job, tmp_path):
    generation.merge_output(job, NUM_SHARDS, 0, ignore)
    before = (tmp_path / "0").read_text()
    generation.merge_output(job, NUM_SHARDS, 0, ignore)
    assert (tmp_path / "0").read_text() == before


def test_a_missing_part_is_named_and_nothing_is_written(job, tmp_path):
    (tmp_path / "work" / "shard-00002-of-00001.part").unlink()
    with pytest.raises(UserError, match="shard-00002-of-00001.part"):
        generation.merge_output(job, NUM_SHARDS, 1, ignore)
    assert not (tmp_path / "1").exists()


def test_shards_cover_the_files(tmp_path):
    shards = generation.plan_shards(["a", "b", "c"], [10, 0, 7], 4)
    assert [shard.number for shard in shards] == list(range(5))
    assert [(s.path, s.begin, s.end, s.num_bytes) for s in shards] == [
        ("a", 0, 4, 4),
        ("a", 4, 8, 4),
        ("a", 8, 12, 2),
        ("c", 0, 4, 4),
        ("c", 4, 8, 3),
    ]
    assert str(shards[2]) == "shard 2 (a, bytes 8 to 10)"
