"""Models of other frameworks: read, check, write, without changing a digit.

`names` holds the tables of variable names, `checkpoint_format` and
`state_dict_format` read and write model directories of TensorFlow and of PyTorch,
`conversion` joins them. In between a model is a `model.Model`: TensorFlow's names
and layout, NumPy arrays.
"""
