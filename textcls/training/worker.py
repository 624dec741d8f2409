"""What Ray Train runs in each worker: it builds the model, loads the token rows, and runs the training loop.

In: a `WorkerArguments`, the same on every rank. Out: on rank 0 what the loop returns, or an error that a restart of the
workers would meet again. Not here: the loop (loop.py), its connection to Ray Train (ray_context.py), starting workers
(attempts.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch
import torch.distributed

from textcls.errors import InputError
from textcls.modeling.build import build_model, freeze_untrained, freeze_unused, head_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.modeling.precision import bf16_support, refuse_bf16_without_support
from textcls.modeling.pretrained import Pretrained
from textcls.settings.recipe import Recipe
from textcls.slices.findings import RowStudy
from textcls.slices.groups import SlicePlan
from textcls.tasks.task import Task
from textcls.text.tokenizer import tokenizer_of
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.training.loop import TrainingLoop
from textcls.training.loop_result import Stopped, TrainOutcome
from textcls.training.model_files import model_here
from textcls.training.private.budget import Budget, require_opacus
from textcls.training.ray_context import RayContext
from textcls.training.studied_rows import StudiedRows
from textcls.training.token_rows import TokenRows

# Tokens of the made-up text that shows which weights take part.
_SAMPLE_TOKENS = 8
# Token tables come from other nodes, at most 128 MB each; if none arrives for this long, the rest is considered lost.
_BLOCKS_ARRIVE_S = 20.0


@dataclass(frozen=True)
class WorkerArguments:
    """The arguments of a worker; everything else it computes.

    Attributes:
        recipe: the resolved recipe.
        task: what is predicted.
        labels: label names in id order.
        model: the pretrained model as the driver found it.
        driver_node: Ray's id of the driver's node, where its files lie.
        tokenizer: its padding id fills batches.
        blocks: split name -> object references of token tables.
        slices: the slices of the test split.
        class_counts: training rows of each class, in id order.
        fingerprint: of recipe and data; names the run in its checkpoints.
        attempt_uri: where Ray Train keeps this attempt's checkpoints.
        resume_uri: checkpoint of an earlier attempt to resume from, or "".
        threads: CPU threads of this worker.
        run_id: names the run among Ray's metrics, as in its events.
        coordinator: handle of the `Coordinator` actor.
        budget: of private training; None trains without privacy.
    """

    recipe: Recipe
    task: Task
    labels: tuple[str, ...]
    model: Pretrained
    driver_node: str
    tokenizer: TokenizerFiles
    blocks: dict[str, list[Any]]
    slices: SlicePlan
    class_counts: list[int]
    fingerprint: str
    attempt_uri: str
    resume_uri: str
    threads: int
    run_id: str
    coordinator: Any
    budget: Budget | None = None


class BlocksLost(Exception):
    """Token tables died with their node, and have to be recomputed before anything else. Holds their number."""


def train_worker(config: dict[str, Any]) -> TrainOutcome | Stopped | BlocksLost | InputError:
    """Trains on this rank; the function that Ray Train calls. Returns an error that a restart would meet again."""
    arguments: WorkerArguments = config["arguments"]
    context = RayContext(
        arguments.coordinator,
        run_id=arguments.run_id,
        attempt_uri=arguments.attempt_uri,
        resume_uri=arguments.resume_uri,
        hang_timeout_s=arguments.recipe.scale.hang_timeout_s,
    )
    try:
        loop = _prepared(arguments, context)
    except (InputError, BlocksLost) as error:
        return error
    try:
        return loop.run()
    except RuntimeError as error:
        raise context.peer_timeout(error) or error from error.__cause__


def _prepared(arguments: WorkerArguments, context: RayContext) -> TrainingLoop:
    """The loop, ready to run.

    Raises:
        InputError: on some rank the model or the device cannot be used.
        BlocksLost: some rank waits for token tables that do not arrive.
    """
    torch.set_num_threads(arguments.threads)  # Ray leaves one thread a process where OMP_NUM_THREADS is not set
    _on_all_ranks(lambda: _wait_for_blocks(arguments.blocks), context.world_size)
    tables = {name: ray.get(blocks) for name, blocks in arguments.blocks.items()}
    data = {name: TokenRows(of_split) for name, of_split in tables.items()}
    study = RowStudy(arguments.task, arguments.labels, arguments.slices)
    model, head = _on_all_ranks(lambda: _built(arguments, context), context.world_size)
    if context.device.type == "cpu":
        # Gradients of rows are computed layer by layer, with plain embeddings.
        adapt_to_cpu(model, alone=context.world_size == 1 and arguments.budget is None)
    return TrainingLoop(
        context,
        arguments.recipe,
        arguments.task,
        arguments.labels,
        model,
        data,
        class_counts=arguments.class_counts,
        pad_id=arguments.tokenizer.pad_id,
        head=head,
        fingerprint=arguments.fingerprint,
        test_rows=StudiedRows(tables["test"], study, arguments.recipe.text),
        budget=arguments.budget,
    )


def _on_all_ranks(build: Callable[[], Any], world_size: int) -> Any:
    """What this rank builds, if every rank could build it; otherwise each raises the first error of ours."""
    built = error = None
    try:
        built = build()
    except (InputError, BlocksLost) as found:
        error = found
    errors = [error] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(errors, error)
    if first := next(filter(None, errors), None):
        raise first
    return built


def _wait_for_blocks(blocks: dict[str, list[Any]]) -> None:
    """Waits for the token tables for as long as they arrive.

    Raises:
        BlocksLost: they do not. Those that died with a node are recomputed on CPUs, and the workers may hold all.
    """
    waiting = [block for tables in blocks.values() for block in tables]
    while waiting:
        arrived, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_BLOCKS_ARRIVE_S)
        if not arrived:
            raise BlocksLost(len(waiting))


def _built(arguments: WorkerArguments, context: RayContext) -> tuple[Any, str]:
    """The bare module, and the name of the layer that a temperature is folded into ("" without calibration).

    Raises:
        InputError: now, not after hours: a model that could not be calibrated, bf16 that this device cannot compute, or
            no opacus.
    """
    train, head = arguments.recipe.train, ""
    if arguments.budget is not None:
        require_opacus()
    refuse_bf16_without_support(train.precision, bf16_support(context.device), "a worker's device")
    model = build_model(
        model_here(arguments.model, arguments.driver_node),
        arguments.labels,
        arguments.recipe.model,
        problem_type=arguments.task.problem_type,
        pad_id=arguments.tokenizer.pad_id,
        seed=train.seed,
        new_ids=arguments.tokenizer.new_ids,
    )
    if arguments.recipe.calibration.temperature:
        head = head_of(model, len(arguments.labels))
    if context.world_size > 1 or arguments.budget is not None:
        freeze_unused(model, tokenizer_of(arguments.tokenizer).sample(_SAMPLE_TOKENS))
    if arguments.budget is not None:
        freeze_untrained(model, arguments.recipe.privacy.weights)
    return model, head
