"""Fixtures that the tests of whole commands share."""

import generation_runs as runs
import pytest


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory):
    """Directory of two text files of about 20 shards together, and vocab.txt."""
    directory = tmp_path_factory.mktemp("corpus")
    runs.write_corpus(directory)
    return directory


@pytest.fixture(scope="session")
def undisturbed(corpus_dir, tmp_path_factory):
    """The digests of the output files of a run that nothing disturbs."""
    directory = tmp_path_factory.mktemp("undisturbed")
    result = runs.run(directory, *runs.flags(corpus_dir))
    assert result.returncode == 0, result.stderr
    assert len(runs.digests(directory)) == 3
    assert not (directory / "out.tfrecord.work").exists()
    return runs.digests(directory)
