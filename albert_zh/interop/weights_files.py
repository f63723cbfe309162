"""State dicts on disk: safetensors and PyTorch's pickles, whole or in parts.

Torch is needed for pickles only.
"""

import os
import pickle

import numpy as np
import tensorflow.compat.v1 as tf

from albert_zh import json_files
from albert_zh.errors import UserError
from albert_zh.model_directory import read_bytes

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
_OBJECT = {"type": "object"}

# bfloat16 is the upper half of float32.
_SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read_state(directory, flag):
    """Reads whatever weights file a directory has.

    Args:
      directory: path.
      flag: the flag that named it, for messages.

    Returns:
      dict parameter name -> ndarray; bfloat16 as float32.

    Raises:
      UserError: there is none, it is damaged, or a pickle holds more than tensors.
    """
    for base, load in ((SAFETENSORS, _load_safetensors), (PICKLE, _load_pickle)):
        path = os.path.join(directory, base)
        if os.path.exists(path):
            return load(path)
        if os.path.exists(path + ".index.json"):
            return _load_parts(path + ".index.json", load, flag)
    raise UserError(
        "{}={}: no {} or {} there".format(flag, directory, SAFETENSORS, PICKLE)
    )


def _load_parts(index_file, load, flag):
    """Returns the parameters of all the files that an index names."""
    parts = read_json(index_file, flag).get("weight_map")
    if not isinstance(parts, dict):
        raise UserError("{}: no weight_map there".format(index_file))
    state = {}
    for name in sorted(set(map(str, parts.values()))):
        path = os.path.join(os.path.dirname(index_file), os.path.basename(name))
        if not os.path.exists(path):
            raise UserError("{}: names {}, which is not there".format(index_file, path))
        state.update(load(path))
    return state


def _load_safetensors(path):
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise UserError(
            "{} needs safetensors: run `pip install safetensors`".format(path)
        ) from error
    try:
        content = deserialize(read_bytes(path))
    except (OSError, tf.errors.OpError, SafetensorError) as error:
        raise UserError(
            "{}: truncated or no safetensors file ({}); copy or download it "
            "again".format(path, error)
        ) from error
    return {name: _from_bytes(path, name, **tensor) for name, tensor in content}


def _from_bytes(path, name, dtype, shape, data):
    if dtype == "BF16":
        value = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return value.view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS_DTYPES:
        raise UserError(
            "{}: {} has dtype {}, expected one of BF16, {}".format(
                path, name, dtype, ", ".join(_SAFETENSORS_DTYPES)
            )
        )
    return np.frombuffer(data, _SAFETENSORS_DTYPES[dtype]).reshape(shape)


def _load_pickle(path):
    torch = import_torch(path)
    try:
        # Nothing but tensors: a pickle could run any code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "{}: holds more than tensors, or is damaged; refused, because loading it "
            "could run code".format(path)
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise UserError(
            "{}: truncated or no PyTorch file; copy or download it again".format(path)
        ) from error
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise UserError("{}: no state dict (name -> tensor)".format(path))
    return {name: _to_numpy(torch, value) for name, value in state.items()}


def _to_numpy(torch, value):
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
      UserError: a value is beyond the dtype.
    """
    state = {name: _store(state[name], name, dtype) for name in sorted(state)}
    if path.endswith(PICKLE):
        torch = import_torch(path)
        torch.save({name: torch.from_numpy(state[name]) for name in state}, path)
        return
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


def read_json(path, flag, schema=_OBJECT):
    """Returns the object in a JSON file.

    Args:
      path: file.
      flag: the flag that named its directory, for the message.
      schema: dict, JSON Schema draft 7.

    Raises:
      UserError: it cannot be read or does not match the schema.
    """
    try:
        return json_files.read(path, schema, "copy or download it again")
    except UserError as error:
        raise UserError("{}: {}".format(flag, error)) from error
