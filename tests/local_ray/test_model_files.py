"""A worker fine-tunes the very files that the driver found. `pytest tests/local_ray/test_model_files.py`"""

from pathlib import Path

import pytest
import ray

from textcls.errors import ModelError
from textcls.modeling.pretrained import Pretrained, find_model, hashes
from textcls.settings.recipe import ModelSpec
from textcls.training import model_files
from textcls.training.model_files import model_here


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretrained:
    """A model that this process, unlike tasks on the driver's node, does not find in its place."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "bert"}')
    (directory / "model.safetensors").write_bytes(bytes(range(256)) * 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "_PIECE_BYTES", 1000)
    monkeypatch.setattr(model_files, "hashes", lambda place: {} if place == str(directory) else hashes(place))
    return find_model(ModelSpec(pretrained=str(directory)))


def here() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def test_files_that_lie_where_the_driver_found_them_are_used_there(tiny_model_dir: Path) -> None:
    model = find_model(ModelSpec(pretrained=str(tiny_model_dir)))
    assert model_here(model, "no node is asked") == model.directory


def test_a_node_without_the_files_gets_them_once_under_their_hash(elsewhere: Pretrained, tmp_path: Path) -> None:
    copy = model_here(elsewhere, here())
    assert copy == str(tmp_path / "cache" / "textcls" / "models" / elsewhere.digest[:32])
    assert hashes(copy) == elsewhere.files
    assert model_here(elsewhere, "no node is asked again") == copy
    (Path(copy) / "model.safetensors").write_bytes(b"damaged")
    assert hashes(model_here(elsewhere, here())) == elsewhere.files


def test_files_that_change_while_workers_start_are_refused(elsewhere: Pretrained) -> None:
    (Path(elsewhere.directory) / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="have changed since the run looked at them"):
        model_here(elsewhere, here())
