"""State dicts on disk: safetensors and PyTorch's pickles, whole or in parts.

Torch is needed for pickles only. Pickles can hold code, so from elsewhere they are
read by versions of torch only that are not known to be tricked into running it.
"""

import os
import pickle
import re
import warnings

import numpy as np

from albert_zh.base import files, json_files
from albert_zh.base.console import printable
from albert_zh.base.errors import UserError

# `torch.load(weights_only=True)` runs code that a file hides before 2.6
# (CVE-2025-32434), and corrupts memory so that it may before 2.10 (CVE-2026-24747).
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
    """Reads whatever weights file a directory has, safetensors first.

    Args:
      directory: path.
      is_trusted: bool; whether this process wrote it.

    Returns:
      dict parameter name -> ndarray; bfloat16 as float32.

    Raises:
      UserError: there is none, it is damaged, a pickle holds more than tensors, or
        this version of torch could be made to run code by it.
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
    """Returns the parameters of all the files that an index names."""
    parts = json_files.read(index_file, _INDEX_SCHEMA, _COPY_AGAIN)["weight_map"]
    state = {}
    for name in sorted(set(parts.values())):
        path = os.path.join(os.path.dirname(index_file), os.path.basename(name))
        if not os.path.isfile(path):
            raise UserError(
                "{}: names {}, which is not there".format(index_file, printable(path))
            )
        state.update(load(path))
    return state


def _load_safetensors(path):
    try:
        from safetensors import deserialize
    except ImportError as error:
        raise UserError(
            "{} needs safetensors: run `pip install safetensors`".format(path)
        ) from error
    data = files.read_bytes(path)
    try:
        content = deserialize(data)
    # SafetensorError, and whatever else a wrong header leads to.
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
    torch = import_torch(path)
    if not is_trusted:
        _require_safe_torch(torch.__version__, path)
    files.require_regular(path)
    try:
        with warnings.catch_warnings():
            # Of unusual protocols; what cannot be read is an error anyway.
            warnings.simplefilter("ignore")
            # Nothing but tensors: a pickle could run any code.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "{}: holds more than tensors, or is damaged; refused, because loading it "
            "could run code".format(path)
        ) from error
    # A damaged or crafted file leads to any exception.
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
    """Raises `UserError` where a version of torch runs code that a file hides."""
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
    # Sparse tensors, and small ones that say that they are huge, are nothing that
    # models hold. The second name is that of torch 1.13.
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


def import_torch(what):
    """Returns the module; `UserError` says that `what` needs it."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "{} needs PyTorch 1.13 or later: run `pip install torch`".format(what)
        ) from error
    return torch


def write_state(state, path, dtype):
    """Writes a state dict as the kind of file that its name says.

    Args:
      state: dict parameter name -> ndarray.
      path: ends in `SAFETENSORS` or `PICKLE`.
      dtype: "float32" or "float16".

    Raises:
      UserError: a value is beyond the dtype, or the file cannot be written.
    """
    state = {name: _store(state[name], name, dtype) for name in sorted(state)}
    write = _write_pickle if path.endswith(PICKLE) else _write_safetensors
    try:
        write(state, path)
    # Both packages have exceptions of their own for a full disk.
    except Exception as error:
        reason = getattr(error, "strerror", None) or printable(error)
        raise UserError(
            "cannot write {}: {}; expected a place with room that can be written "
            "to".format(path, reason)
        ) from error


def _write_pickle(state, path):
    torch = import_torch(path)
    torch.save({name: torch.from_numpy(state[name]) for name in state}, path)


def _write_safetensors(state, path):
    from safetensors.numpy import save_file

    # Hugging Face's loader asks for the framework it was written for.
    save_file(state, path, metadata={"format": "pt"})


def _store(value, name, dtype):
    """Returns a contiguous copy in this dtype; `UserError` where it has no room."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(value, dtype)
    if np.any(np.isinf(stored) & np.isfinite(value)):
        raise UserError(
            "--dtype={}: {} holds {:g}, which is beyond it".format(
                dtype, name, np.abs(value).max()
            )
        )
    return stored
