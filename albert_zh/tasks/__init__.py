"""Fine-tuning tasks: what a task is, its files, features and metrics.

`registry` holds the table of tasks, `reading` turns files into examples, `splits`
finds the files a run needs, `features` turns examples into model inputs, `metrics`
scores predictions, `model_files` keeps what belongs to a trained classifier and
`training_settings` what its training was started with.
"""

from albert_zh.tasks.registry import TASKS, Task, get_task

__all__ = ["TASKS", "Task", "get_task"]
