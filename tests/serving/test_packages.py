"""What is said where an optional package is missing."""

import re
import shlex
import sys

import pytest

from albert_zh.base.errors import UserError
from albert_zh.serving import packages


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxruntime.quantization"])
def test_the_advice_installs_a_version_that_goes_with_tensorflow(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="--format=onnx needs the package") as error:
        packages.require(name, "--format=onnx")
    (command,) = re.findall("`(.*)`", str(error.value))
    *start, versions, package = shlex.split(command)
    assert start == ["pip", "install", "-c"]
    with open(versions, encoding="utf-8") as file:
        bounds = [line for line in file if re.match(package + r"\b[=<>]", line)]
    assert len(bounds) == 2  # for Python 3.7, and later ones
