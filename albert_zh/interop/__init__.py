"""Models of other frameworks: read, check, write, without changing a digit.

`names` holds the tables of variable names. `checkpoint_format` (TensorFlow) and
`state_dict_format` (PyTorch; with `weights_files` and `tokenizer_files`) read and write
model directories. `conversion` joins them. In between a model is a `model.Model`:
TensorFlow's names and layout, NumPy arrays.
"""
