"""Runs independent tasks in this process, on local worker processes, or on Spark.

A task is deterministic, can be repeated without harm and needs nothing of another
one, so an engine may run tasks in any order, anywhere, and once more after a worker
was lost; results and errors come out the same. Engines know nothing of what a task
does, and import neither TensorFlow nor, until it is asked for, pyspark: workers start
fast and stay small.
"""

from albert_zh.engines.local import LocalEngine
from albert_zh.engines.spark import SparkEngine, pack_own_modules

__all__ = ["LocalEngine", "SparkEngine", "pack_own_modules"]
