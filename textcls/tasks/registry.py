"""Task names -> tasks.

In: the name that a bundle's manifest holds. Out: the task. Not here: what a task does (task.py).

A process knows the tasks of this folder. One that is defined elsewhere is known after `register`; jobs send the tasks
they use to their workers.
"""

from textcls.settings.data import DataSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.tasks.task import Task

_TASKS: dict[str, Task] = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL)}


def register(task: Task) -> None:
    """Makes a task known to this process under its name."""
    _TASKS[task.name] = task


def task_named(name: str) -> Task | None:
    """The task of that name, None if this process knows none."""
    return _TASKS.get(name)


def task_of(data: DataSpec) -> Task:
    """The task that data settings ask for."""
    return _TASKS[data.task_name]


def known_names() -> list[str]:
    """Names of the tasks that this process knows, sorted."""
    return sorted(_TASKS)
