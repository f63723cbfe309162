"""What a prediction by another back end imports needs no TensorFlow."""

import subprocess
import sys

from albert_zh.base import lazy

# None in `sys.modules` makes an import fail as where a package is not installed.
_WITHOUT = """
import sys
for name in "tensorflow tensorflow_estimator google.protobuf google_crc32c".split():
    sys.modules[name] = None
import tokenization
from albert_zh.models import directory, settings
from albert_zh.tasks import kinds, model_files, reading, squad_files, tagged_texts
config = settings.read_config(sys.argv[1])
print(config.hidden_size)
"""


def test_what_a_prediction_needs_is_imported_without_tensorflow(repository):
    path = repository / "albert_config" / "albert_config_nano.json"
    printed = subprocess.check_output(
        [sys.executable, "-c", _WITHOUT, str(path)], cwd=str(repository)
    )
    assert printed.decode() == "128\n"


def test_a_module_is_imported_at_its_first_use():
    module = lazy.LazyModule("wsgiref.headers")
    sys.modules.pop("wsgiref.headers", None)
    assert module.Headers.__name__ == "Headers"
    assert "wsgiref.headers" in sys.modules
