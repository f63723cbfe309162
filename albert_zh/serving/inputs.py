"""Features of windows, of any lengths, to the arrays that a back end takes.

A batch has windows of like length, padded to one of few lengths: what TensorFlow and
ONNX Runtime prepare for a shape is used again.
"""

import numpy as np

from albert_zh.tasks.features import SEQUENCE_LENGTHS

# The encoder's inputs, int32 [B, T]; 0 where there is padding.
NAMES = ("input_ids", "input_mask", "segment_ids")

# Bound a batch: padded tokens, and windows.
_MOST_TOKENS = 8192
MOST_WINDOWS = 64
# The most padding of a batch, in tokens: beyond it, another batch is begun, as far as
# the padding comes from its longest window. benchmarks/serving_batches.py compares.
WASTED_TOKENS = 64


def has_several_sequences(kind):
    """Whether a window of a `kind.Kind` is several sequences, as questions have."""
    return any(field.name == SEQUENCE_LENGTHS for field in kind.target_fields)


def names_of(kind):
    """The names of the inputs that the model of a kind takes, all int32 [B, ...].

    With several sequences a window, the encoder's are [B * C, T], those of a window in
    consecutive rows, and `sequence_lengths` is [B, C], 0 for absent sequences.
    """
    return NAMES + ((SEQUENCE_LENGTHS,) if has_several_sequences(kind) else ())


def batches(windows, most_tokens, most_windows=MOST_WINDOWS):
    """Divides windows into batches, each of like length.

    Args:
      windows: list of `features.Features`.
      most_tokens: the longest sequence that the model takes.
      most_windows: of a batch.

    Yields:
      (list of positions in `windows`, dict of `assemble`).
    """
    lengths = [_lengths(window) for window in windows]
    order = sorted(range(len(windows)), key=lambda i: (max(lengths[i]), i))
    padded = [_padded(max(each), most_tokens) for each in lengths]
    begin = 0
    while begin < len(order):
        end = begin + _batch_size(
            [(len(lengths[i]), padded[i]) for i in order[begin : begin + most_windows]]
        )
        places = order[begin:end]
        yield places, assemble([windows[i] for i in places], padded[places[-1]])
        begin = end


def _batch_size(windows):
    """Returns how many of the first windows make a batch, at least one.

    Args:
      windows: list of (number of sequences, length that they need), by length.
    """
    most, needed = 0, 0
    for size, (num_sequences, length) in enumerate(windows):
        most = max(most, num_sequences)
        needed += length
        computed = (size + 1) * length
        is_wasteful = (computed - needed) * most > WASTED_TOKENS
        if size and (computed * most > _MOST_TOKENS or is_wasteful):
            return size
    return len(windows)


def assemble(windows, length):
    """Pads windows to a batch.

    Args:
      windows: list of `features.Features`; of all or of none, `targets` has
        `sequence_lengths`.
      length: T, of the padded sequences.

    Returns:
      Dict name -> int32 array: those of `names_of`.
    """
    lengths = [_lengths(window) for window in windows]
    most = max(map(len, lengths))
    arrays = {name: np.zeros([len(windows) * most, length], np.int32) for name in NAMES}
    for i, (window, sizes) in enumerate(zip(windows, lengths)):
        begin = 0
        for row, size in enumerate(sizes, start=i * most):
            part = slice(begin, begin + size)
            arrays["input_ids"][row, :size] = window.input_ids[part]
            arrays["segment_ids"][row, :size] = window.segment_ids[part]
            arrays["input_mask"][row, :size] = 1
            begin += size
    if SEQUENCE_LENGTHS in windows[0].targets:
        padded = [sizes + [0] * (most - len(sizes)) for sizes in lengths]
        arrays[SEQUENCE_LENGTHS] = np.array(padded, np.int32)
    return arrays


def _lengths(window):
    """The list of the lengths of a window's sequences."""
    return window.targets.get(SEQUENCE_LENGTHS) or [len(window.input_ids)]


def _padded(length, most_tokens):
    """The length that sequences are padded to: 16 different ones up to 64."""
    multiple = 4 if length <= 64 else 16
    return min(-(-length // multiple) * multiple, max(most_tokens, length))
