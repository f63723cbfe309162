"""A service over real HTTP, with a stand-in for the model."""

import pytest

from albert_zh.serving import http
from tests.fake_predictor import FakePredictor
from tests.http_service import running

SMALL = http.Limits(max_body_bytes=20000, max_instances=4, max_text_chars=100)


@pytest.fixture(scope="module")
def service():
    with running(FakePredictor(), SMALL) as started:
        yield started


@pytest.fixture
def predictor():
    predictor = FakePredictor()
    yield predictor
    predictor.gate.set()
