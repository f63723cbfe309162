"""How ONNX Runtime is told to use the cores."""

import numpy as np
import pytest

from albert_zh.serving import onnx_backend, onnx_graph

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "version, shares_cores, waits",
    [((1, 0), False, "1"), ((1, 0), True, "0"), ((99, 0), False, "0")],
)
def test_threads_wait_for_moments_or_sleep(
    version, shares_cores, waits, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_backend, "_BOUNDS_WAITING", version)
    graph = onnx_graph.Graph({})
    graph.add("Neg", graph.add_input("x", ["n"]), name="y")
    graph.add_output("y", ["n"], np.int32)
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.build().SerializeToString())
    session = onnx_backend.open_session(str(path), shares_cores)
    found = session.run(["y"], {"x": np.array([1, 2], np.int32)})[0]
    np.testing.assert_array_equal(found, [-1, -2])
    options = session.get_session_options()
    prefix = "session.intra_op."
    assert options.get_session_config_entry(prefix + "allow_spinning") == waits
    assert options.get_session_config_entry(prefix + "spin_duration_us") == "20"
