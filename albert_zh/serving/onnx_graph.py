"""Writes ONNX graphs: nodes, and initializers that are stored once.

The operators are ONNX's own (opset 12), in the forms that ONNX Runtime fuses when it
loads a model: LayerNorm, LayerNorm of a sum, GELU, products with a bias, attention. Not
fused is that of a first layer that follows no LayerNorm, of a last layer that computes
the first token alone, of layers that are outputs, and of int8.
"""

import collections
import math

import numpy as np

from albert_zh.base.errors import UserError
from albert_zh.serving import packages

# Every ONNX Runtime from 1.10 on, the last for Python 3.7 beside TensorFlow 1.15, knows
# it. Attention of later opsets is not fused: of those, its mask is not recognized.
OPSET = 12
_IR_VERSION = 7
PRECISIONS = ("float32", "float16", "int8")

_LARGEST_INT8 = 127


class Graph:
    """A graph that is being written.

    Every name of a tensor is a str. Weights have the names of the checkpoint's
    variables, so that layers that share a variable share an initializer.

    Attributes:
      weights: dict variable name -> float32 array.
    """

    def __init__(self, weights, precision="float32"):
        """Begins an empty graph.

        Args:
          weights: dict variable name -> array.
          precision: one of `PRECISIONS`. "float16" stores matrices as float16 and
            computes in float32, which every CPU does. "int8" stores the rows of
            lookup tables as int8 with a scale for each row; ONNX Runtime's quantiser
            does the same with the columns of matrices, later.
        """
        self.weights = weights
        self._precision = precision
        self._nodes = []
        self._initializers = collections.OrderedDict()
        self._inputs, self._outputs, self._shapes = [], [], []
        self._halves = {}  # float16 variable -> the same as float32
        self._count = 0

    # --- Tensors ---

    def add_input(self, name, shape, default=None):
        """Declares an int32 input; with a `default` array it need not be given."""
        self._inputs.append((name, np.int32, shape))
        if default is not None:
            self._initializers[name] = default
        return name

    def add_output(self, name, shape, dtype=np.float32):
        """Declares a tensor that nodes compute as an output."""
        self._outputs.append((name, dtype, shape))

    def set_shape(self, name, shape):
        """States the shape of a float32 tensor, without which a fusion may not occur.

        Args:
          name: of the tensor.
          shape: list of int and of names of dimensions.
        """
        self._shapes.append((name, np.float32, shape))

    def constant(self, name, array):
        """Stores an array under a name, once; returns the name."""
        self._initializers.setdefault(name, np.asarray(array))
        return name

    def number(self, value):
        """A float32 scalar."""
        return self.constant("float_{:g}".format(value), np.float32(value))

    def integers(self, *values):
        """An int64 vector."""
        name = "ints_" + "_".join(map(str, values))
        return self.constant(name, np.array(values, np.int64))

    def weight(self, name):
        """A variable as float32."""
        array = self.weights[name]
        if self._precision != "float16" or array.ndim < 2:
            return self.constant(name, array)
        half = self.constant(name, _to_float16(name, array))
        if name not in self._halves:
            self._halves[name] = self.to_float(half)
        return self._halves[name]

    def to_float(self, x):
        """x as float32."""
        return self.add("Cast", x, to=_TYPES[np.float32])

    # --- Nodes ---

    def add(self, operator, *inputs, name=None, **attributes):
        """Adds a node with one output; returns the output's name.

        Args:
          operator: its ONNX name.
          *inputs: names.
          name: of the output, or None.
          **attributes: of the operator.
        """
        self._count += 1
        output = name or "{}_{}".format(operator, self._count)
        self._nodes.append((operator, inputs, (output,), attributes))
        return output

    def dense(self, x, scope):
        """x W + b: [..., in] -> [..., out]."""
        product = self.add("MatMul", x, self.weight(scope + "/kernel"))
        return self.add("Add", product, self.weight(scope + "/bias"))

    def linear(self, x, weights, bias, name=None):
        """x W^T + b for W [out, in]: [..., in] -> [..., out].

        The quantiser leaves it alone: a head's few numbers decide.
        """
        kernel = self.add("Transpose", self.weight(weights), perm=[1, 0])
        product = self.add("MatMul", x, kernel)
        return self.add("Add", product, self.weight(bias), name=name)

    def layer_norm(self, x, scope, epsilon):
        """LayerNorm over the last axis, in the form that ONNX Runtime fuses."""
        mean = self.add("ReduceMean", x, axes=[-1], keepdims=1)
        centered = self.add("Sub", x, mean)
        square = self.add("Pow", centered, self.number(2))
        variance = self.add("ReduceMean", square, axes=[-1], keepdims=1)
        deviation = self.add("Sqrt", self.add("Add", variance, self.number(epsilon)))
        scaled = self.add("Div", centered, deviation)
        scaled = self.add("Mul", scaled, self.weight(scope + "/gamma"))
        return self.add("Add", scaled, self.weight(scope + "/beta"))

    def unsqueeze(self, x, axis):
        """x with an axis of length 1 more."""
        return self.add("Unsqueeze", x, axes=[axis])

    def sum(self, x, axis):
        """The sum of x over an axis, which is dropped."""
        return self.add("ReduceSum", x, axes=[axis], keepdims=0)

    def activation(self, name, x):
        """An activation of `modeling.get_activation`, by its name."""
        return _ACTIVATIONS[name](self, x)

    def slice(self, x, axis, begin, end):
        """x[begin:end] along an axis; `begin` and `end` are int or names."""
        begin, end = (
            self.integers(place) if isinstance(place, int) else place
            for place in (begin, end)
        )
        return self.add("Slice", x, begin, end, self.integers(axis))

    def rows(self, table, ids):
        """Rows of a table: [V, E] and int [...] -> float32 [..., E]."""
        return self._read(table, lambda part: self.add("Gather", part, ids, axis=0))

    def first_rows(self, table, number):
        """The first rows of a table: [V, E] and int64 [1] -> float32 [number, E]."""
        return self._read(table, lambda part: self.slice(part, 0, 0, number))

    def whole_table(self, table):
        """A table as one float32 tensor [V, E]."""
        return self._read(table, lambda part: part)

    def _read(self, table, pick):
        """What `pick` takes from a table, as float32, whatever it is stored as."""
        array = self.weights[table]
        if self._precision == "float16":
            return self.to_float(pick(self.constant(table, _to_float16(table, array))))
        if self._precision != "int8":
            return pick(self.constant(table, array))
        rows, scales = quantize_rows(array)
        rows = pick(self.constant(table, rows))
        scales = pick(self.constant(table + "/scales", scales))
        return self.add("Mul", self.to_float(rows), scales)

    # --- The model ---

    def build(self):
        """Returns the `onnx.ModelProto`, checked.

        Raises:
          UserError: the package onnx is missing.
        """
        onnx = packages.require("onnx", "--format=onnx")
        helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array

        def describe(tensors):
            return [
                helper.make_tensor_value_info(name, _TYPES[dtype], shape)
                for name, dtype, shape in tensors
            ]

        graph = helper.make_graph(
            [
                helper.make_node(
                    operator, inputs, outputs, name="node_" + outputs[0], **attributes
                )
                for operator, inputs, outputs, attributes in self._nodes
            ],
            "albert",
            describe(self._inputs),
            describe(self._outputs),
            [to_tensor(array, name) for name, array in self._initializers.items()],
            value_info=describe(self._shapes),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], producer_name="albert_zh"
        )
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model)
        return model


# ONNX's numbers of types.
_TYPES = {np.float32: 1, np.int32: 6}


def quantize_rows(table):
    """A table as int8 with a scale for each row.

    Args:
      table: float32 [V, E].

    Returns:
      (int8 [V, E], float32 [V, 1]), whose product is the table, but for half a scale.
    """
    scales = np.abs(table).max(axis=1, keepdims=True) / _LARGEST_INT8
    divisors = np.where(scales > 0, scales, 1)  # a row of zeros stays one
    return np.rint(table / divisors).astype(np.int8), scales.astype(np.float32)


def _to_float16(name, array):
    """An array as float16.

    Raises:
      UserError: a number is too large for it.
    """
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            "--precision=float16: {} has {:g}, more than the largest float16, 65504; "
            "export it as float32".format(name, np.abs(array).max())
        )
    return half


def _gelu(graph, x):
    """The tanh form, as `modeling.gelu`, in the order that ONNX Runtime fuses."""
    cube = graph.add("Pow", x, graph.number(3))
    inner = graph.add("Add", x, graph.add("Mul", cube, graph.number(0.044715)))
    scale = graph.constant("gelu_scale", np.float32(math.sqrt(2 / math.pi)))
    tanh = graph.add("Tanh", graph.add("Mul", inner, scale))
    half = graph.add("Mul", x, graph.number(0.5))
    return graph.add("Mul", half, graph.add("Add", tanh, graph.number(1)))


def _gelu_exact(graph, x):
    """The exact form, as `modeling.gelu_exact`, in the order that is fused."""
    root = graph.constant("root_2", np.float32(math.sqrt(2)))
    erf = graph.add("Erf", graph.add("Div", x, root))
    share = graph.add("Mul", x, graph.add("Add", erf, graph.number(1)))
    return graph.add("Mul", share, graph.number(0.5))


def _same(graph, x):
    return x


_ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_exact": _gelu_exact,
    "relu": lambda graph, x: graph.add("Relu", x),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "linear": _same,
    "": _same,
    None: _same,
}
