"""Model files of other tools that are damaged or mean harm, and their conversion."""

import json
import os
import pickle
import random
import shutil

import convert_checkpoint
import modeling
from albert_zh import command_line
from albert_zh.base import locks
from albert_zh.base.errors import UserError
from albert_zh.interop import conversion, model
from benchmarks import head_to_head
from benchmarks.faults.common import Fault, not_refused, run, run_with_little_room

_SETTINGS = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=12,
    embedding_size=4,
)
_FORMATS = {"google": dict(num_hidden_groups=1, inner_group_num=1)}
_FORMATS["albert_zh"] = dict(ln_type="postln")


def _write_model(directory, dialect):
    """Writes a small TensorFlow model."""
    config = modeling.AlbertConfig(**dict(_SETTINGS, **_FORMATS[dialect]))
    head_to_head.write_random_model(str(directory), config, ("masked_lm",))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(0x4E00 + index) for index in range(30 - len(tokens))]
    text = "".join(token + "\n" for token in tokens)
    (directory / "vocab.txt").write_text(text, encoding="utf-8")


def _convert(source_format, target_format, source, target):
    options = model.Options()
    conversion.convert(source_format, target_format, str(source), str(target), options)


def _problem(source_format, source, allowed=False):
    """Says what is wrong with how a conversion reads its input, or None.

    Args:
      source_format: key of `conversion.FORMATS`.
      source: directory.
      allowed: bool, whether it may also accept the input.
    """
    try:
        content = conversion.FORMATS[source_format].read(str(source))
        model.check(model.without_unknown(content), str(source))
        return None if allowed else "accepted"
    except UserError as error:
        message = str(error)
        if message.isprintable() and len(message) < 2000:
            return None
        return "no single short line: {!r}".format(message[:200])
    except BaseException as error:  # what a user would see as a traceback
        return "{}: {}".format(type(error).__name__, str(error)[:200])


def _hugging_face(work):
    _write_model(work / "tf", "google")
    _convert("google", "huggingface", work / "tf", work / "there")
    return work / "there"


def _odd_json(work):
    there = _hugging_face(work)
    texts = ["", "[]", "{", "null", "NaN", "[" * 100000, "1" * 5000, '"\\ud800"', "\0"]
    texts += ["{}", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"\\n": "/"}}']
    texts += ['{"do_lower_case": "no"}', '{"do_lower_case": NaN}']
    texts += [
        '{"model": {"type": "WordPiece", "vocab": ' + vocab + "}}"
        for vocab in ("[]", '{"a": 1.5}', '{"a\\nb": 0}', '{"": 0}', "7", '{"a": -1}')
    ]
    for name, gone in (
        ("config.json", []),
        ("tokenizer_config.json", []),
        ("tokenizer.json", ["vocab.txt"]),
        ("model.safetensors.index.json", ["model.safetensors"]),
    ):
        for text in texts:
            place = work / "place"
            shutil.copytree(str(there), str(place))
            for each in gone:
                (place / each).unlink()
            (place / name).write_text(text, encoding="utf-8")
            is_harmless = text == "{}" or "tokenizer" in name and text[:2] == '{"'
            problem = _problem("huggingface", place, is_harmless)
            yield "{} {!r}".format(name, text[:40]), problem
            shutil.rmtree(str(place))


def _odd_settings(work):
    there = _hugging_face(work)
    config = json.loads((there / "config.json").read_text())
    values = ["8\n", 0, -1, 10**30, True, None, [], {}]
    for key in sorted(config):
        for value in values:
            (there / "config.json").write_text(json.dumps(dict(config, **{key: value})))
            problem = _problem("huggingface", there, allowed=True)
            yield "{}={!r}".format(key, value), problem


def _lying_headers(whole):
    """Yields (name, safetensors file) made from one that is right."""
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length].decode()), whole[8 + length :]
    name = min(name for name in header if "word_embeddings" in name)
    for key, values in (
        ("dtype", ["F31", "BOOL", "F64", "U8", "F8_E4M3", 7]),
        ("shape", [[], [-1], [2**62, 8], [1.5], "x", [31, 4]]),
        ("data_offsets", [[0, 0], [8, 0], [0, 2**63], [-1, 4], [0], [0, 4]]),
    ):
        for value in values:
            changed = dict(header, **{name: dict(header[name], **{key: value})})
            text = json.dumps(changed).encode()
            content = len(text).to_bytes(8, "little") + text + data
            yield "{}={!r}".format(key, value), content
    for size in (0, 1, length + 1, 10**8, 2**40, 2**63, 2**64 - 1):
        yield "length {}".format(size), size.to_bytes(8, "little") + whole[8:]


def _damaged(whole, end):
    """Yields (name, content) with bytes changed before `end`, or cut."""
    draw = random.Random(3)
    for number in range(60):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 3, 10))):
            content[draw.randrange(end)] = draw.randrange(256)
        yield "bytes {}".format(number), bytes(content)
    for number in range(20):
        yield "cut {}".format(number), whole[: draw.randrange(len(whole))]


def _safetensors(work):
    there = _hugging_face(work)
    path = there / "model.safetensors"
    whole = path.read_bytes()
    contents = list(_lying_headers(whole))
    contents += _damaged(whole, 8 + int.from_bytes(whole[:8], "little"))
    for name, content in contents:
        path.write_bytes(content)
        # Other names of tensors are no damage.
        yield name, _problem("huggingface", there, name.startswith("bytes"))


class _Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _pickles(work):
    try:
        import torch
    except ImportError:
        return
    _write_model(work / "tf", "albert_zh")
    _convert("albert_zh", "albert_pytorch", work / "tf", work / "there")
    path, trap = work / "there" / "pytorch_model.bin", work / "trap"
    whole = path.read_bytes()
    contents = [("attack", pickle.dumps({"a": _Attack(str(trap))}))]
    contents += [("protocol {}".format(n), pickle.dumps([1], n)) for n in range(5)]
    contents += _damaged(whole, len(whole))
    for name, content in contents:
        path.write_bytes(content)
        problem = _problem("albert_pytorch", work / "there", name[:5] == "bytes")
        yield name, "code was run" if trap.exists() else problem
    path.write_bytes(whole)
    version = torch.__version__
    try:
        for torch.__version__ in ("1.13.1", "2.5.1", "2.6.0", "2.9.1+cu128"):
            problem = _problem("albert_pytorch", work / "there")
            yield "PyTorch " + torch.__version__, problem
    finally:
        torch.__version__ = version


def _commands(work):
    _write_model(work / "tf", "google")
    flags = ["--from=google", "--input={}".format(work / "tf")]
    flags += ["--output={}".format(work / "refused")]
    for target_format in ("google", "huggingface"):
        done = run_with_little_room(
            2000, "convert_checkpoint.py", "--to=" + target_format, *flags
        )
        problem = not_refused(done, "cannot write")
        if not problem and os.listdir(str(work)) != ["tf"]:
            problem = "left behind: {}".format(os.listdir(str(work)))
        yield "full disk, " + target_format, problem
    with locks.hold(str(work / ".refused.lock"), ""):
        done = run("convert_checkpoint.py", "--to=google", *flags)
        yield "two at a time", not_refused(done, "in use by another process")
    parser = convert_checkpoint.build_parser()
    command_line.run(convert_checkpoint.main, parser, flags + ["--to=google"])
    yield "again with room", None if (work / "refused").exists() else "not written"


FAULTS = [
    Fault("JSON files of other tools that are damaged or odd", _odd_json),
    Fault("settings of a config.json that cannot be", _odd_settings),
    Fault("safetensors files with headers that lie, changed or cut", _safetensors),
    Fault("pickles that were changed or cut, attack, or meet an old PyTorch", _pickles),
    Fault("conversions on a full disk and two at a time", _commands),
]
