"""Runs independent tasks in this process, on local worker processes, or on Spark.

A task is deterministic, can be repeated without harm and needs nothing of another
one, so an engine may run tasks in any order, anywhere, and once more after a worker
was lost; results and errors come out the same. Engines know nothing of what a task
does, and import neither TensorFlow nor, until it is asked for, pyspark: workers start
fast and stay small.
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
