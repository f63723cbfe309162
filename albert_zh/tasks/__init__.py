"""Fine-tuning tasks: what a task is, its files, features and metrics.

`registry` holds the table of tasks, `reading` turns their files into examples,
`features` turns examples into model inputs, `metrics` scores predictions.
"""

from albert_zh.tasks.registry import TASKS, Task, find_data_file, get_task

__all__ = ["TASKS", "Task", "find_data_file", "get_task"]
