"""Runs independent tasks in this process, on local worker processes, or on Spark.

Tasks are deterministic, independent of each other and can be repeated. So an engine
may run them in any order, anywhere, and again after a worker was lost, with the same
results and errors. Engines do not know what a task does. They do not import
TensorFlow, and pyspark only for Spark: workers start fast and stay small.
"""

from albert_zh.engines.local import LocalEngine
from albert_zh.engines.spark import SparkEngine, pack_own_modules

__all__ = ["LocalEngine", "SparkEngine", "create", "pack_own_modules"]


def create(name, num_workers=None, spark_master=None):
    """Returns an engine, for use in a `with` statement.

    Args:
      name: "local" or "spark", which takes seconds to start.
      num_workers: int, processes of the local engine; default: 1.
      spark_master: str, Spark's master URL; default: what Spark is configured to.

    Raises:
      UserError: Spark is not installed or cannot be started.
    """
    if name == "spark":
        return SparkEngine(spark_master)
    return LocalEngine(num_workers or 1)
