"""serve.py as its users run it: start, answers of every kind of task, stop."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

import albert_zh
import serve
from albert_zh.serving import export
from tests import browser as browsers
from tests import served_models
from tests.conftest import REPOSITORY
from tests.http_service import running
from tests.served_models import is_close

TIMEOUT_SECONDS = 300
KINDS = ["lcqmc", "single", "multi_label", "regression", "ner-crf", "ner-span", "squad"]
KINDS += ["multiple_choice", "chid", "encoder"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Dict name of `served_models.TASKS` -> model directory."""
    return served_models.write_models(tmp_path_factory.mktemp("models"))


def start(*flags, **environment):
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "serve.py")] + list(flags),
        env=dict(os.environ, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@contextlib.contextmanager
def served(*flags, **environment):
    """Runs the command; yields (process, port, path of the model) when it is ready."""
    process = start("--port=0", *flags, **environment)
    try:
        page, model = process.stdout.readline(), process.stdout.readline()
        assert page, process.stderr.read()
        port = int(re.match(r"page: http://127\.0\.0\.1:(\d+)/\n", page).group(1))
        path = re.fullmatch(r"model: http://[^/]+(/v1/models/.*):predict\n", model)
        yield process, port, path.group(1)
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_SECONDS)


def post(port, path, instances):
    connection = http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps({"instances": instances}))
        response = connection.getresponse()
        return response.status, json.loads(response.read().decode("utf-8"))


def stop(process):
    """Ends it as a supervisor does; returns what it wrote last."""
    process.send_signal(signal.SIGTERM)
    shown, log = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    return shown


def test_it_serves_until_it_is_told_to_stop(directories):
    instances = served_models.instances_of("lcqmc")
    flags = ["--model_dir", directories["lcqmc"], "--max_instances=8"]
    with albert_zh.load(directories["lcqmc"]) as predictor:
        expected = predictor(instances)
    with served(*flags) as (process, port, path):
        assert path == "/v1/models/lcqmc"
        status, body = post(port, path + ":predict", instances)
        assert status == 200
        assert [a["label"] for a in body["predictions"]] == [
            a["label"] for a in expected
        ]
        for found, wanted in zip(body["predictions"], expected):
            assert found["probabilities"] == pytest.approx(
                wanted["probabilities"], 1e-6
            )
        assert post(port, path + ":predict", instances * 3)[0] == 400
        assert stop(process) == "stopped\n"


def test_a_model_that_changes_on_disk_is_served_as_it_was(directories, tmp_path):
    instances = served_models.instances_of("lcqmc")
    model_dir = str(tmp_path / "model")
    shutil.copytree(directories["lcqmc"], model_dir)
    flags = ["--model_dir", model_dir, "--name=m"]
    with served(*flags) as (process, port, path):
        before = post(port, path + ":predict", instances)
        # First another model in the same files, then none.
        other = served_models.write_model(tmp_path / "other", "lcqmc", seed=1)
        for name in os.listdir(other):
            shutil.copyfile(os.path.join(other, name), os.path.join(model_dir, name))
        for name in os.listdir(model_dir):
            with open(os.path.join(model_dir, name), "r+b") as file:
                file.truncate(3)
        assert post(port, path + ":predict", instances) == before
        shutil.rmtree(model_dir)
        assert post(port, path + ":predict", instances) == before
        stop(process)


def test_an_onnx_export_needs_no_tensorflow(directories, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    exported = str(tmp_path / "exported")
    export.export(directories["lcqmc"], exported, "onnx", "float32")
    instances = served_models.instances_of("lcqmc")
    with albert_zh.load(directories["lcqmc"]) as predictor:
        expected = predictor(instances)
    # Found before the installed one, which this interpreter then cannot import.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tensorflow.py").write_text("raise ImportError('not installed')")
    flags = ["--model_dir", exported]
    with served(*flags, PYTHONPATH=str(broken)) as (process, port, path):
        status, body = post(port, path + ":predict", instances)
        assert status == 200
        assert is_close(body["predictions"], expected, 1e-4)
        assert stop(process) == "stopped\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: --model_dir"),
        (["--model_dir=nowhere"], "nowhere"),
        (["--model_dir=M", "--name=a/b"], "--name: expected letters"),
        (["--model_dir=M", "--name=.."], "--name: expected letters"),
        (["--model_dir=M", "--port=65536"], "--port: expected 0 to 65535"),
        (
            ["--model_dir=M", "--host=no.such.host.invalid"],
            "no.such.host.invalid:8501: ",
        ),
        (["--model_dir=M", "--host=192.0.2.1"], "no address of this machine"),
        (["--model_dir=M", "--max_queue=9"], "--max_instances=256 is more than"),
        (["--model_dir=M", "--backend=tensorrt"], "--backend: invalid choice"),
    ],
)
def test_wrong_flags_are_one_line(directories, flags, message):
    flags = [flag.replace("=M", "=" + directories["lcqmc"]) for flag in flags]
    process = start(*flags)
    shown, log = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2 and not shown
    assert message in log.splitlines()[-1]
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--port=80x", "--port: expected 0 to 65535, received '80x'"),
        ("--port=-1", "--port: expected 0 to 65535, received '-1'"),
        ("--max_latency_ms=1e15", "expected at most 3600000 (an hour), received 1e15"),
        ("--drain_seconds=1e11", "expected at most 3600 (an hour), received 1e11"),
    ],
)
def test_values_that_no_flag_takes(capsys, flag, message):
    with pytest.raises(SystemExit):
        serve.build_parser().parse_args(["--model_dir=M", flag])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_address_may_be_as_in_a_url():
    parser = serve.build_parser()
    hosts = ["[::1]", "::1", "localhost", ""]
    parsed = [parser.parse_args(["--model_dir=M", "--host", host]) for host in hosts]
    assert [args.host for args in parsed] == ["::1", "::1", "localhost", ""]


@pytest.mark.parametrize("package", ["fastapi", "httptools", "prometheus_client"])
def test_a_missing_package_is_one_line(tmp_path, package):
    problem = "raise ModuleNotFoundError('no', name={!r})\n".format(package)
    (tmp_path / (package + ".py")).write_text(problem)
    process = start("--model_dir=nowhere", PYTHONPATH=str(tmp_path))
    _, log = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2 and "Traceback" not in log
    expected = "serve.py requires {}: run `pip install fastapi uvicorn httptools"
    assert expected.format(package) in log.splitlines()[-1]


@pytest.mark.parametrize(("host", "expected"), [("0.0.0.0", 1), ("127.0.0.1", 0)])
def test_a_port_open_to_others_is_a_warning(caplog, host, expected):
    serve._warn_of_others(host)
    assert caplog.text.count("whoever reaches the port") == expected


def test_a_port_in_use_is_one_line(directories):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--model_dir=nowhere", "--port={}".format(port))
        _, log = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2
    expected = "127.0.0.1:{}: in use by another process; give another --port"
    assert expected.format(port) in log.splitlines()[-1]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_task(name, directories):
    instances = served_models.instances_of(name)
    with albert_zh.load(directories[name]) as predictor:
        expected = json.loads(json.dumps(predictor(instances)))
        with running(predictor) as service:
            status, body = service.post({"instances": instances})
            assert status == 200 and is_close(body["predictions"], expected, 1e-5)
            # A value of the wrong type in any field, and a field too many.
            for field in instances[0]:
                for value in (None, 1, True, {}, [None], "", "\0", "\ud800", " "):
                    wrong = dict(instances[0], **{field: value})
                    status, body = service.post_ascii({"instances": [wrong]})
                    assert status == 400, (wrong, body)
            status, body = service.post({"instances": [dict(instances[0], other="a")]})
            assert (status, list(body)) == (400, ["error"])
            assert "other" in body["error"]


ODD = "今天北京#idiom1? \0\u200b\ufeff\u0301İ😀\n"
TEXTS = st.text(max_size=60) | st.text(ODD, max_size=90)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", KINDS)
def test_no_instance_is_an_internal_error(name, directories):
    with albert_zh.load(directories[name]) as predictor, running(predictor) as service:
        fields = served_models.instances_of(name)[0]
        texts = st.lists(TEXTS, min_size=1, max_size=5)
        right = {
            field: texts if isinstance(value, list) else TEXTS
            for field, value in fields.items()
        }
        instances = st.fixed_dictionaries(right) | st.fixed_dictionaries(
            {field: VALUES | strategy for field, strategy in right.items()}
        )

        @hypothesis.given(st.lists(instances | VALUES, min_size=1, max_size=3))
        def ask(sent):
            status, body = service.post_ascii({"instances": sent})
            assert status in (200, 400), body
            assert list(body) == ["predictions" if status == 200 else "error"]

        ask()


def test_words_for_masks(directories):
    text = "今天[MASK]气很[MASK]"
    with albert_zh.load(directories["encoder"]) as predictor:
        expected = json.loads(json.dumps(predictor.fill_mask(text)))
        with running(predictor) as service:
            status, body = service.post({"instances": [text, text]}, "fill_mask")
            assert status == 200 and is_close(body["predictions"], [expected] * 2, 1e-5)
            for wrong in ("今天", "", {"text": text}, None, [text], "[MASK]" * 99):
                body = {"instances": [text, wrong]}
                status, body = service.post(body, "fill_mask")
                assert status == 400, wrong
                assert body["error"].startswith("instances[1]: ")
    with albert_zh.load(directories["lcqmc"]) as predictor:
        with running(predictor) as service:
            assert service.post({"instances": [text]}, "fill_mask")[0] == 404


def test_long_texts_are_refused_or_judged_in_windows(directories):
    with albert_zh.load(directories["lcqmc"]) as predictor:
        with running(predictor) as service:
            instance = {"text_a": "今天" * 40, "text_b": "天"}
            status, body = service.post({"instances": [instance]})
            assert status == 400
            assert "longer than the 32 tokens" in body["error"]
            # What the message says can be done by whoever reads it.
            assert "predict.py" not in body["error"]
    with albert_zh.load(directories["ner-softmax"]) as predictor:
        with running(predictor) as service:
            status, body = service.post({"instances": [{"text": "今天" * 2000}]})
            assert status == 200
            ends = [entity["end"] for entity in body["predictions"][0]["entities"]]
            assert max(ends) > 3900


def test_concurrent_clients_of_a_real_model(directories):
    instances = served_models.instances_of("lcqmc")
    with albert_zh.load(directories["lcqmc"]) as predictor:
        expected = [json.loads(json.dumps(predictor(one))) for one in instances]
        with running(predictor) as service:
            wrong = []

            def ask(client):
                for number in range(client, client + 10):
                    place = number % len(instances)
                    status, body = service.post({"instances": [instances[place]]})
                    if status != 200 or not is_close(
                        body["predictions"], [expected[place]], 1e-5
                    ):
                        wrong.append((place, body))

            clients = [threading.Thread(target=ask, args=(i,)) for i in range(64)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert not wrong


@pytest.fixture(scope="module")
def phone():
    if browsers.missing():
        pytest.skip(browsers.missing())
    with browsers.driver() as port, browsers.window(port, 360, 740) as browser:
        yield browser


@pytest.mark.parametrize(
    "name", ["lcqmc", "ner-span", "squad", "multiple_choice", "chid", "encoder"]
)
def test_the_page_works_with_a_real_model(name, tmp_path, phone):
    model_dir = served_models.write_model(tmp_path / name, name, max_seq_length=64)
    with albert_zh.load(model_dir) as predictor, running(predictor) as service:
        phone.open("http://127.0.0.1:{}/".format(service.port))
        phone.find("#run").click()
        phone.find("#result > *")
        shown = phone.find("#result").text
        assert shown and not phone.find_all(".error"), shown
