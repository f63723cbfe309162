"""How ONNX Runtime is told to use the cores."""

import threading

import numpy as np
import pytest

from albert_zh.serving import onnx_backend, onnx_graph

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path):
    """Path of a model that negates int32 `x` [n]."""
    graph = onnx_graph.Graph({})
    graph.add("Neg", graph.add_input("x", ["n"]), name="y")
    graph.add_output("y", ["n"], np.int32)
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.build().SerializeToString())
    return str(path)


@pytest.mark.parametrize(
    "version, may_wait, waits",
    [((1, 0), True, "1"), ((1, 0), False, "0"), ((99, 0), True, "0")],
)
def test_threads_wait_for_moments_or_sleep(
    version, may_wait, waits, model, monkeypatch
):
    monkeypatch.setattr(onnx_backend, "_BOUNDS_WAITING", version)
    session = onnx_backend.open_session(model, may_wait)
    found = session.run(["y"], {"x": np.array([1, 2], np.int32)})[0]
    np.testing.assert_array_equal(found, [-1, -2])
    options = session.get_session_options()
    prefix = "session.intra_op."
    assert options.get_session_config_entry(prefix + "allow_spinning") == waits
    assert options.get_session_config_entry(prefix + "spin_duration_us") == "20"


@pytest.mark.parametrize(
    "shares_cores, cores, expected",
    [
        (False, 8, {"first": 0, "second": 0, "after": 0}),
        (True, 8, {"first": 0, "second": 7, "after": 0}),
        (True, 2, {"first": 0, "second": 1, "after": 0}),
        (True, 1, {"first": 0, "second": 0, "after": 0}),
    ],
)
def test_runs_at_the_same_time_have_a_thread_for_each_core(
    shares_cores, cores, expected, model, monkeypatch
):
    """`expected`: threads of a run, of one that begins meanwhile, of one after both."""
    used = {}
    has_begun, may_end = threading.Event(), threading.Event()
    open_session = onnx_backend.open_session

    class Session:
        def __init__(self, path, may_wait, num_threads=0):
            assert may_wait != shares_cores
            self._session = open_session(path, may_wait, num_threads)
            self.get_outputs = self._session.get_outputs
            options = self._session.get_session_options()
            self._num_threads = options.intra_op_num_threads

        def run(self, names, arrays):
            name = threading.current_thread().name
            used[name] = self._num_threads
            if name == "first":
                has_begun.set()
                assert may_end.wait(60)
            return self._session.run(names, arrays)

    monkeypatch.setattr(onnx_backend, "open_session", Session)
    monkeypatch.setattr(onnx_backend, "_num_cores", lambda: cores)
    sessions = onnx_backend.Sessions(model, shares_cores)
    assert sessions.output_names == ("y",)
    answers = {}

    def run(number):
        name = threading.current_thread().name
        answers[name] = sessions.run(["y"], {"x": np.array([number], np.int32)})

    def start(name, number):
        thread = threading.Thread(target=run, name=name, args=(number,))
        thread.start()
        return thread

    first = start("first", 1)
    assert has_begun.wait(60)
    start("second", 2).join()
    may_end.set()
    first.join()
    start("after", 3).join()
    assert used == expected
    assert {name: y.tolist() for name, (y,) in answers.items()} == {
        "first": [-1],
        "second": [-2],
        "after": [-3],
    }


def test_a_run_that_fails_is_over(model, monkeypatch):
    """The next one is alone again."""
    sessions = onnx_backend.Sessions(model, shares_cores=True)
    with pytest.raises(Exception, match="(?i)input"):
        sessions.run(["y"], {"no such input": np.array([1], np.int32)})
    monkeypatch.setattr(sessions, "_in_company", None)
    assert sessions.run(["y"], {"x": np.array([1], np.int32)})[0].tolist() == [-1]
