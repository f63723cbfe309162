"""The resident model: the commands' numbers, from any number of threads."""

import concurrent.futures
import math

import numpy as np
import pytest

import albert_zh
from albert_zh.tasks import fine_tuning
from albert_zh.tasks.reading import ExampleFile
from tests import served_models

TASKS = [name for name in served_models.TASKS if name != "encoder"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Dict name of `served_models.TASKS` -> model directory."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: served_models.write_model(folder / name, name)
        for name in served_models.TASKS
    }


def flat(value):
    """The numbers and the other values of nested lists, tuples, dicts and arrays."""
    if isinstance(value, dict):
        value = [item for pair in sorted(value.items()) for item in pair]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def assert_close(found, expected, tolerance=1e-6):
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        if isinstance(one, float):
            assert math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
        else:
            assert one == other


@pytest.mark.parametrize("name", TASKS)
def test_the_numbers_are_those_of_the_fine_tuning_loop(name, directories):
    instances = served_models.instances_of(name)
    with albert_zh.load(directories[name]) as predictor:
        answers = predictor(instances)
        form = predictor._form
        examples = [form.example(instance) for instance in instances]
        tuner = fine_tuning.FineTuner(
            predictor.files, None, model_dir=directories[name]
        )
        predictions = list(tuner.predict(ExampleFile("these", examples)))
        expected = [form.answer(*each) for each in predictions]
        assert_close(answers, expected)
        assert_close([predictor(instance) for instance in instances], answers)


@pytest.mark.parametrize("name", ["lcqmc", "ner-span", "multiple_choice"])
def test_threads_get_their_own_answers(name, directories):
    instances = served_models.instances_of(name)
    with albert_zh.load(directories[name]) as predictor:
        expected = predictor(instances)

        def ask(number):
            place = number % len(instances)
            return place, predictor(instances[place])

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            for place, answer in pool.map(ask, range(256)):
                assert_close(answer, expected[place])
