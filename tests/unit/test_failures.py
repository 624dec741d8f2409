"""Workers are started again after what may be the machine's, and after nothing else."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from pyarrow import ArrowInvalid
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError

from textcls.errors import ModelError, StorageError, TextclsError, TrainingError
from textcls.tracking.events import Event
from textcls.training.failures import final_error, would_recur


def raised_by(code: str) -> Exception:
    """What torch really raises."""
    table, rows = torch.nn.Embedding(4, 2), torch.zeros(3, 2)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        {
            "an id beyond the embeddings": lambda: table(torch.tensor([9])),
            "positions beyond the table": lambda: rows[:, :2] + torch.zeros(3, 5),
            "a product of wrong shapes": lambda: rows @ torch.zeros(3, 2),
            "a view of a wrong shape": lambda: rows.view(5, 5),
            "products of different types": lambda: rows @ torch.zeros(2, 2, dtype=torch.float64),
            "no gradient": lambda: rows.sum().backward(),
        }[code]()
    return caught.value


CODE = [
    "an id beyond the embeddings",
    "positions beyond the table",
    "a product of wrong shapes",
    "a view of a wrong shape",
    "products of different types",
    "no gradient",
]


@pytest.mark.parametrize("code", CODE)
def test_what_torch_raises_of_wrong_ids_and_shapes_would_be_raised_again(code: str) -> None:
    assert would_recur(raised_by(code))


@pytest.mark.parametrize(
    "error",
    [
        IndexError("index 66 is out of bounds for dimension 1 with size 66"),
        KeyError("label"),
        TypeError("unhashable"),
        ValueError("bad"),
        ZeroDivisionError(),
        AssertionError("a bug"),
        ModelError("no such layer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_python_code_would_be_raised_again(error: Exception) -> None:
    assert would_recur(error)
    carried = pickle.loads(pickle.dumps(error))  # as Ray carries it
    assert isinstance(final_error({0: carried}), ModelError | TrainingError)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ConnectionResetError("by peer"),
        TimeoutError("late"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234"),
        RuntimeError("Timed out waiting 600000ms for recv operation to complete"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1"),
        ArrowInvalid("Truncated response"),
        StorageError("s3://bucket: 503"),
        TrainingError("rank 1 did not answer for 600 s"),
        ActorDiedError(),
        OutOfMemoryError("the node's memory monitor killed it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_be_the_machine_s_is_tried_again(error: Exception) -> None:
    assert not would_recur(error)
    assert final_error({0: error}) is None


def test_an_input_at_fault_ends_the_run_as_itself() -> None:
    error = ModelError("no such layer", todo="another model")
    assert final_error({0: ValueError("later"), 1: error, 2: IndexError("x")}) is not error
    assert final_error({0: error, 1: IndexError("x")}) is error


def test_errors_beside_a_worker_that_died_may_come_from_that() -> None:
    errors: dict[int, Exception] = {0: ValueError("no process group"), 1: NodeDiedError("gone")}
    assert final_error(errors) is None
    assert isinstance(final_error({0: errors[0]}), TextclsError)


def test_ray_train_s_controller_learns_that_the_run_ends() -> None:
    from textcls.training.attempts import _FailureReporter

    # A board that must not be told: the run does not go on.
    with pytest.raises(TrainingError, match="rank 1 failed: IndexError: x"):
        _FailureReporter(None, 3).after_exception(None, {1: IndexError("x")})


class _Posts:
    """A coordinator's handle that keeps what is posted to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.post_progress = SimpleNamespace(remote=lambda _, line: self.lines.append(line))
        self.post_event = SimpleNamespace(remote=self.events.append)


def test_failures_before_a_preemption_count_after_it() -> None:
    from textcls.training.attempts import _Attempts, _FailureReporter

    posts, died = _Posts(), {0: RuntimeError("the worker died")}
    attempts = _Attempts.__new__(_Attempts)
    attempts._elastic, attempts._failures_left = False, 2
    for _ in range(2):  # an attempt each, which ends by preemption
        reporter = _FailureReporter(posts, attempts._failures_left)
        reporter.after_exception(None, died)
        attempts._count_failures(posts.events[-1:])
    assert attempts._failures_left == 0
    _FailureReporter(posts, attempts._failures_left).after_exception(None, died)
    assert [line.rpartition("; ")[2] for line in posts.lines] == [
        "resuming from the last checkpoint, 1 more may fail",
        "resuming from the last checkpoint, 0 more may fail",
        "giving up",
    ]
