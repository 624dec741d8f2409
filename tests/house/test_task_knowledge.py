"""Only tasks/ knows how many labels a row has; everywhere else a task is asked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTCLS = ROOT / "textcls"
# Attention has a softmax over tokens, whatever is predicted.
ATTENTION = {"modeling/cpu_layers.py", "modeling/cpu_training.py"}
# The network's loss, by the problem type that the task names.
LOSSES = {"training/optimizer.py"}
# The setting that names a task.
SETTING = {"settings/data.py"}
# The task of a bundle that names none.
DEFAULT = re.compile(r"SINGLE_LABEL|tasks\.single_label")
HAVE_DEFAULT = {"manifest.py"}
OTHERS = sorted(
    path
    for path in TEXTCLS.rglob("*.py")
    if path.relative_to(TEXTCLS).parts[0] != "tasks" and path.relative_to(TEXTCLS).as_posix() not in ATTENTION
)


def lines_with(path: Path, pattern: str) -> list[str]:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    default = path.relative_to(TEXTCLS).as_posix() in HAVE_DEFAULT
    found = ((n, line, DEFAULT.sub("", line) if default else line) for n, line in lines)
    return [f"line {n}: {line.strip()}" for n, line, rest in found if re.search(pattern, rest)]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.relative_to(TEXTCLS).as_posix())
def test_nothing_but_a_task_knows_that_a_row_has_one_label(path: Path) -> None:
    assert lines_with(path, r"softmax|sigmoid|argmax|label_id") == []
    if path.relative_to(TEXTCLS).as_posix() not in LOSSES | SETTING:
        assert lines_with(path, r"SINGLE_LABEL|MULTI_LABEL|single_label|multi_label|cross_entropy") == []


def test_what_the_rule_leaves_out_is_still_there() -> None:
    assert all(lines_with(TEXTCLS / name, "softmax") for name in ATTENTION)
    assert all(lines_with(TEXTCLS / name, "single_label_classification") for name in LOSSES)
    assert all(lines_with(TEXTCLS / name, "multi_label") for name in SETTING)
