"""State dicts on disk: safetensors and PyTorch's pickles, whole or in parts.

Torch is needed for pickles only. Pickles can contain code, so downloaded ones are only
read with versions of torch that have no known way to run it.
"""

import os
import pickle
import re
import warnings

import numpy as np

from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

# Before 2.6 `torch.load(weights_only=True)` can run code hidden in a file
# (CVE-2025-32434), before 2.10 it can corrupt memory (CVE-2026-24747).
SAFE_TORCH = (2, 10)

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"

# bfloat16 is the upper half of float32.
_SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}
_COPY_AGAIN = "copy or download it again"
_INDEX_SCHEMA = {
    "type": "object",
    "required": ["weight_map"],
    "properties": {
        "weight_map": {"type": "object", "additionalProperties": {"type": "string"}}
    },
}


def read_state(directory, is_trusted=False):
    """Reads the weights file of a directory; safetensors has precedence.

    Args:
      directory: path.
      is_trusted: bool; whether this process wrote it.

    Returns:
      dict parameter name -> ndarray; bfloat16 as float32.

    Raises:
      UserError: there is none, it is damaged, a pickle has more than tensors, or this
        version of torch could run code hidden in it.
    """

    def load_pickle(path):
        return _load_pickle(path, is_trusted)

    for base, load in ((SAFETENSORS, _load_safetensors), (PICKLE, load_pickle)):
        path = os.path.join(directory, base)
        if os.path.exists(path):
            return load(path)
        if os.path.exists(path + ".index.json"):
            return _load_parts(path + ".index.json", load)
    raise UserError(
        "--input={}: holds no {} or {}".format(directory, SAFETENSORS, PICKLE)
    )


def _load_parts(index_file, load):
    """Returns the parameters of all files that an index names."""
    parts = json_files.read(index_file, _INDEX_SCHEMA, _COPY_AGAIN)["weight_map"]
    state = {}
    for name in sorted(set(parts.values())):
        path = os.path.join(os.path.dirname(index_file), os.path.basename(name))
        if not os.path.isfile(path):
            raise UserError(
                "{}: names {}, which does not exist".format(index_file, printable(path))
            )
        state.update(load(path))
    return state


def _load_safetensors(path):
    try:
        from safetensors import deserialize
    except ImportError as error:
        raise UserError(
            "{} requires safetensors: run `pip install safetensors`".format(path)
        ) from error
    data = files.read_bytes(path)
    try:
        content = deserialize(data)
    # A wrong header may raise more than SafetensorError.
    except Exception as error:
        raise UserError(
            "{}: truncated or no safetensors file ({}); {}".format(
                path, printable(error), _COPY_AGAIN
            )
        ) from error
    return {name: _from_bytes(path, name, **tensor) for name, tensor in content}


def _from_bytes(path, name, dtype, shape, data):
    if dtype == "BF16":
        value = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return value.view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS_DTYPES:
        raise UserError(
            "{}: {} has dtype {}, expected one of BF16, {}".format(
                path, printable(name), dtype, ", ".join(_SAFETENSORS_DTYPES)
            )
        )
    return np.frombuffer(data, _SAFETENSORS_DTYPES[dtype]).reshape(shape)


def _load_pickle(path, is_trusted):
    torch = import_torch(path, "1.13" if is_trusted else "{}.{}".format(*SAFE_TORCH))
    if not is_trusted:
        _require_safe_torch(torch.__version__, path)
    files.require_regular(path)
    try:
        with warnings.catch_warnings():
            # About unusual protocols; unreadable files raise anyway.
            warnings.simplefilter("ignore")
            # Tensors only: a pickle could run any code.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "{}: holds more than tensors, or is damaged; refused, because loading it "
            "could run code".format(path)
        ) from error
    # Damaged or crafted files may raise any exception.
    except Exception as error:
        raise UserError(
            "{}: truncated or no PyTorch file; {}".format(path, _COPY_AGAIN)
        ) from error
    is_state = isinstance(state, dict) and all(
        isinstance(name, str) and torch.is_tensor(value)
        for name, value in state.items()
    )
    if not is_state:
        raise UserError("{}: no state dict (name -> tensor)".format(path))
    return {name: _to_numpy(torch, path, name, state[name]) for name in state}


def _require_safe_torch(version, path):
    """Raises `UserError` for versions of torch that can run code hidden in a file."""
    numbers = tuple(map(int, re.findall("[0-9]+", version)[:2]))
    if numbers < SAFE_TORCH:
        raise UserError(
            "{}: reading it with PyTorch {} could run code hidden in it "
            "(CVE-2025-32434, CVE-2026-24747); use PyTorch {}.{} or later, which needs "
            "Python 3.10 or later, or {} in its place".format(
                path, version, SAFE_TORCH[0], SAFE_TORCH[1], SAFETENSORS
            )
        )


def _to_numpy(torch, path, name, value):
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64)
    # Models have no sparse tensors, and no small ones that claim to be huge. torch
    # 1.13 has only `storage`.
    storage = getattr(value, "untyped_storage", None) or value.storage
    is_plain = (
        value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in kinds
        and value.numel() * value.element_size() <= storage().nbytes()
    )
    if not is_plain:
        raise UserError(
            "{}: {} is no ordinary tensor of real numbers".format(path, printable(name))
        )
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def import_torch(what, version="1.13"):
    """Returns the torch module; raises `UserError` that `what` requires it."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "{} requires PyTorch {} or later: run `pip install 'torch>={}'`".format(
                what, version, version
            )
        ) from error
    return torch


def write_state(state, path, dtype):
    """Writes a state dict in the file format of the path's name.

    Args:
      state: dict parameter name -> ndarray.
      path: ends in `SAFETENSORS` or `PICKLE`.
      dtype: "float32" or "float16".

    Raises:
      UserError: a value exceeds the dtype, or the file cannot be written.
    """
    state = {name: _store(state[name], name, dtype) for name in sorted(state)}
    write = _write_pickle if path.endswith(PICKLE) else _write_safetensors
    try:
        write(state, path)
    # For a full disk, both packages raise exceptions of their own.
    except Exception as error:
        reason = getattr(error, "strerror", None) or printable(error)
        raise files.cannot_write(path, reason) from error


def _write_pickle(state, path):
    torch = import_torch(path)
    torch.save({name: torch.from_numpy(state[name]) for name in state}, path)


def _write_safetensors(state, path):
    from safetensors.numpy import save_file

    # Hugging Face's loader requires the framework.
    save_file(state, path, metadata={"format": "pt"})


def _store(value, name, dtype):
    """Returns a contiguous copy in a dtype; `UserError` if a value exceeds it."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(value, dtype)
    if np.any(np.isinf(stored) & np.isfinite(value)):
        raise UserError(
            "--dtype={}: {} has {:g}, which exceeds it".format(
                dtype, name, np.abs(value).max()
            )
        )
    return stored
