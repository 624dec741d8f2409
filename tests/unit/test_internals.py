"""Each private name of Ray that `on_ray/internals.py` uses is what this version of the package was written for.

A failure here after an update of Ray names what has changed; the function of internals.py that uses it has to follow.
"""

import ast
import inspect
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import ray
import ray.train
import ray.train.torch

from textcls.on_ray import internals

LIBRARY = Path(internals.__file__).parents[1]
PRIVATE = re.compile(
    r"\bray(\.\w+)*\._\w+|\bray\.core\.generated|RAY_(SERVE|TRAIN|USAGE|ENABLE)_\w+|_py_driver_sys_path"
)


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(module: ModuleType | type | Callable[..., Any]) -> str:
    return inspect.getsource(module)


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_private_names_of_ray_stand_in_one_file(path: Path) -> None:
    found = {match[0] for match in PRIVATE.finditer(path.read_text(encoding="utf-8"))}
    if path == Path(internals.__file__):
        assert len(found) > 20
    else:
        assert found == set()


# --- Ray Core --------------------------------------------------------------------------------------------------------


def test_ray_reads_the_variable_that_switches_its_usage_reports_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.usage import usage_lib

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    monkeypatch.delenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S")
    internals.set_driver_defaults()
    assert not usage_lib.usage_stats_enabled()


def test_a_variable_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    internals.set_driver_defaults()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"


def test_ray_reads_its_token_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._raylet import AuthenticationTokenLoader

    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    internals.set_auth_token("a" * 64)
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    assert loader.has_token(ignore_auth_mode=True)
    loader.reset_cache()


def test_ray_switches_tokens_on_by_this_function() -> None:
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    assert parameters(maybe_enable_token_auth_if_token_available) == ["warn_if_disabled"]
    internals.enable_existing_token()  # the mode is set: nothing happens


def test_ray_completes_addresses_by_this_function() -> None:
    assert internals.head_address("10.1.2.3:6379") == "10.1.2.3:6379"


def test_ray_makes_channels_by_this_function_and_asks_for_the_cluster_id() -> None:
    from ray._private.grpc_utils import init_grpc_channel

    assert parameters(init_grpc_channel)[:2] == ["address", "options"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with internals.head_channel(f"127.0.0.1:{nobody.getsockname()[1]}") as channel, pytest.raises(grpc.RpcError):
            internals.request_cluster_id(channel, timeout_s=0.2)


def test_a_job_config_takes_the_search_path_of_workers(tmp_path: Path) -> None:
    config = internals.job_config(tmp_path)
    assert list(config._get_proto_job_config().py_driver_sys_path) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("name", "call", "answer", "expected"),
    [
        ("available_resources_per_node", internals.free_resources, {"n": {"CPU": 1.0}}, {"n": {"CPU": 1.0}}),
        ("get_draining_nodes", internals.draining_nodes, {"n": 17}, {"n"}),
        ("get_max_resources_from_cluster_config", internals.max_resources, {"CPU": 8}, {"CPU": 8}),
        ("get_max_resources_from_cluster_config", internals.max_resources, None, {}),
    ],
)
def test_ray_tells_the_state_of_its_nodes_by_these_methods(
    monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[], Any], answer: Any, expected: Any
) -> None:
    from ray._private.state import GlobalState, state

    assert parameters(getattr(GlobalState, name)) == ["self"]
    monkeypatch.setattr(state, name, lambda: answer)
    assert call() == expected


# --- Ray Train -------------------------------------------------------------------------------------------------------


def test_ray_train_hands_its_timeouts_to_its_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    names = ("WORKER_GROUP_START_TIMEOUT_S", "WORKER_HEALTH_CHECK_TIMEOUT_S", "COLLECTIVE_TIMEOUT_S")
    for name in (*names, "HEALTH_CHECK_INTERVAL_S"):
        monkeypatch.setenv(f"RAY_TRAIN_{name}", "")
    internals.set_worker_timeouts(start_s=12.5, hang_s=34.5)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
    handed_on = get_env_vars_to_propagate()
    assert [handed_on[f"RAY_TRAIN_{name}"] for name in names] == ["12.5", "34.5", "34.5"]
    assert handed_on["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.3"


def test_a_trainer_takes_its_callbacks_and_its_sigint_handler_from_these_methods() -> None:
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    trainer = ray.train.torch.TorchTrainer(lambda: None)
    usual = trainer._create_default_callbacks()
    assert internals.end_at_once(trainer) is trainer
    changed = trainer._create_default_callbacks()
    assert [type(one) for one in changed] == [type(one) for one in usual if not isinstance(one, DatasetsCallback)]
    assert len(changed) == len(usual) - 1
    assert "dataset_shard_provider: Optional" in source(RayTrainWorker.init_train_context)
    (cleaner,) = [one for one in changed if isinstance(one, PlacementGroupCleanerCallback)]
    assert cleaner._get_actor_timeout_s == 1
    assert "callbacks=self._create_default_callbacks()" in source(DataParallelTrainer.fit)
    assert "self._register_sigint_handler(controller)" in source(DataParallelTrainer._initialize_and_run_controller)


def test_ray_train_raises_these_errors_for_workers_that_do_not_start_or_answer() -> None:
    from ray.train.v2._internal import exceptions
    from ray.train.v2._internal.execution.worker_group import poll, worker_group

    assert internals.is_start_timeout(exceptions.WorkerGroupStartupTimeoutError(2))
    assert internals.is_hang(exceptions.WorkerHealthCheckTimeoutError("silent"))
    assert not internals.is_start_timeout(ValueError())
    assert not internals.is_hang(ValueError())
    raised = source(worker_group) + source(poll)
    assert "WorkerGroupStartupTimeoutError(" in raised
    assert "WorkerHealthCheckTimeoutError(" in raised


def test_a_worker_s_storage_has_a_path_and_a_filesystem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray.train.v2._internal.execution.storage import StorageContext

    storage = StorageContext(storage_path=str(tmp_path), experiment_dir_name="attempt-0001", read_only=True)

    class Context:
        def get_storage(self) -> StorageContext:
            return storage

    assert "get_storage" in dir(ray.train.TrainContext)
    monkeypatch.setattr(ray.train, "get_context", Context)
    checkpoint = internals.reported_checkpoint("step-00000001")
    assert checkpoint.path == str(tmp_path / "attempt-0001" / "step-00000001")


# --- Ray Serve -------------------------------------------------------------------------------------------------------


def test_ray_serve_reads_each_variable(tmp_path: Path) -> None:
    from ray._private import ray_constants
    from ray.serve._private import constants

    read = {
        node.value
        for module in (constants, ray_constants)
        for node in ast.walk(ast.parse(source(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    variables = internals.serve_environment(tmp_path, haproxy=tmp_path / "haproxy", threads=2, on_listen="a:b")
    assert set(variables) - read == set()


def test_every_process_of_a_service_finds_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = internals.serve_environment(tmp_path, haproxy=tmp_path / "haproxy", threads=2, on_listen="a:b")
    for name in variables:
        monkeypatch.setenv(name, "")
    internals.set_serve_environment(variables)
    assert internals.serve_folder() == tmp_path


def test_ray_serve_listens_by_these_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import http_util, replica

    # That they listen where the service wants: tests/http/test_haproxy_settings.py.
    assert "socket.socket(" in source(http_util.start_asgi_http_server)
    assert 'add_port_to_grpc_server(self._server, "' in source(replica)
    for module, name in ((http_util, "socket"), (replica, "add_port_to_grpc_server")):
        monkeypatch.setattr(module, name, getattr(module, name))  # so that it is put back
    sockets = ModuleType("socket")

    def add_port(server: Any, address: str) -> int:
        return 1

    internals.replace_serve_sockets(sockets, add_port)
    assert http_util.socket is sockets
    assert replica.add_port_to_grpc_server is add_port
