"""Exact conversion of models between frameworks.

`names` has the tables of variable names. `checkpoint_format` (TensorFlow) and
`state_dict_format` (PyTorch; with `weights_files` and `tokenizer_files`) read and write
model directories. `conversion` connects them through `model.Model`, which has NumPy
arrays in TensorFlow's names and layout.
"""
