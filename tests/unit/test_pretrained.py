"""What textcls/modeling/pretrained.py accepts as a model, and that each refusal names it."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from textcls import storage
from textcls.directories import cache_directory
from textcls.errors import InputError, ModelError
from textcls.modeling.pretrained import find_model, read_config
from textcls.settings.recipe import ModelSpec


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A directory that looks like a model."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "bert"}')
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def spec(pretrained: object, **more: str) -> ModelSpec:
    return ModelSpec(pretrained=str(pretrained), **more)


def refusal(spec: ModelSpec) -> str:
    with pytest.raises(InputError) as caught:
        find_model(spec)
    return str(caught.value)


def test_a_local_directory_is_used_where_it_lies(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_dir.parent)
    monkeypatch.setenv("HOME", str(model_dir.parent))
    (model_dir.parent / "link").symlink_to(model_dir)
    (model_dir.parent / "org").mkdir()
    (model_dir.parent / "org" / "name").symlink_to(model_dir)
    names = (model_dir, "model", "./model", "model/", "./model/../model", "~/model", "~/model/", "link", "org/name")
    for name in (*names, f"file://{model_dir}"):
        assert find_model(spec(name)).directory == str(model_dir)
    assert read_config(str(model_dir)) == {"model_type": "bert"}


def test_a_model_is_known_by_its_content(model_dir: Path) -> None:
    (model_dir / "pytorch_model.bin").write_bytes(b"never read")
    (model_dir / "checkpoints").mkdir()
    found = find_model(spec(model_dir))
    assert sorted(found.files) == ["config.json", "model.safetensors"]
    pinned = found.pinned(spec(model_dir, revision="main"))
    assert (pinned.revision, pinned.sha256) == ("main", hashlib.sha256(b"weights").hexdigest())
    assert find_model(pinned).digest == found.digest
    (model_dir / "config.json").write_text('{"model_type": "roberta"}')
    assert find_model(spec(model_dir)).digest != found.digest


def test_a_hub_s_revision_is_resolved_to_a_commit_once(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    commits, asked, caches = {"main": "a" * 40}, [], []
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_dir.parent / "cache"))
    # A cache for all programs; then none, as for a user without a home.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(model_dir.parent / "hub"))

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str], cache_dir: str | None) -> str:
        asked.append(revision)
        caches.append(cache_dir)
        snapshot = model_dir.parent / "snapshots" / commits.get(revision, revision)
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in model_dir.iterdir():
            (snapshot / path.name).write_bytes(path.read_bytes())
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = find_model(spec("org/name"))
    commits["main"] = "b" * 40  # the branch moves on
    assert found.commit == found.pinned(spec("org/name")).revision == "a" * 40
    assert find_model(spec("org/name"), commit=found.commit).commit == "a" * 40
    assert find_model(found.pinned(spec("org/name"))).digest == found.digest
    assert asked == ["main", "a" * 40, "a" * 40]
    assert caches == [None] * 3
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/dev/null/hub")
    find_model(spec("org/name"))
    assert caches[-1] == cache_directory("hub")


def test_a_package_s_model_is_used_where_it_lies(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir.rename(model_dir.parent / "textcls_test_model")
    monkeypatch.syspath_prepend(model_dir.parent)
    (model_dir.parent / "textcls_test_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    assert find_model(spec("package://textcls_test_model")).directory == str(model_dir.parent / "textcls_test_model")
    assert "textcls_test_model" not in sys.modules


def test_a_remote_model_is_copied_whole_and_once(
    model_dir: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for path in model_dir.iterdir():
        storage.write_bytes(f"{s3}/m/{path.name}", path.read_bytes())
    copy = find_model(spec(f"{s3}/m")).directory
    assert copy.startswith(str(tmp_path / "cache"))
    assert {name: Path(copy, name).read_bytes() for name in os.listdir(copy)} == {
        path.name: path.read_bytes() for path in model_dir.iterdir()
    }
    assert find_model(spec(f"{s3}/m")).directory == copy


def test_weights_in_several_files_are_a_model(model_dir: Path) -> None:
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00001.safetensors")
    (model_dir / "model.safetensors.index.json").write_text("{}")
    assert find_model(spec(model_dir)).directory == str(model_dir)


def test_weights_with_another_hash_are_refused_with_both(model_dir: Path) -> None:
    right = hashlib.sha256(b"weights").hexdigest()
    assert find_model(spec(model_dir, sha256=right)).directory == str(model_dir)
    (model_dir / "model.safetensors").write_bytes(b"others!")
    text = refusal(spec(model_dir, sha256=right))
    for part in (str(model_dir / "model.safetensors"), right, hashlib.sha256(b"others!").hexdigest(), "model.sha256"):
        assert part in text


def test_weights_that_would_have_to_be_unpickled_are_refused(model_dir: Path) -> None:
    (model_dir / "model.safetensors").rename(model_dir / "pytorch_model.bin")
    text = refusal(spec(model_dir))
    for part in ("no model.safetensors in", str(model_dir), "never unpickled"):
        assert part in text


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(missing: str, model_dir: Path) -> None:
    (model_dir / missing).unlink()
    assert f"no {missing} in {model_dir}" in refusal(spec(model_dir))


def test_a_missing_configuration_is_refused_whatever_the_weights_look_like(model_dir: Path) -> None:
    (model_dir / "config.json").unlink()
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00001.safetensors")
    (model_dir / "model.safetensors.index.json").write_text("{}")
    assert "no config.json" in refusal(spec(model_dir))


def test_a_hash_of_weights_in_several_files_is_refused_and_not_a_crash(model_dir: Path) -> None:
    (model_dir / "model.safetensors").rename(model_dir / "model-00001-of-00001.safetensors")
    (model_dir / "model.safetensors.index.json").write_text("{}")
    text = refusal(spec(model_dir, sha256="0" * 64))
    for part in (str(model_dir), "model.sha256", "several"):
        assert part in text


@pytest.mark.parametrize("name", ["./nothing", "../nothing", "/no/such/place", "~/nothing", "a/b/c", "file:///nothing"])
def test_a_path_that_leads_nowhere_is_never_asked_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it would fail
    text = refusal(spec(name))
    assert name in text
    assert "no such directory" in text or "no directory" in text


@pytest.mark.parametrize("name", ["package://no_such_package/model", "s3://", "http://host/model"])
def test_a_place_that_cannot_be_is_refused(name: str) -> None:
    assert name in refusal(spec(name))


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "bert-base-uncased", "not a name/at all"])
def test_a_hub_name_without_a_network_is_refused_with_a_way_out(name: str, tmp_path: Path) -> None:
    import subprocess

    # A process of its own: the hub's client reads its settings once, at import.
    code = (
        "import sys, time\n"
        "from textcls.errors import ModelError\n"
        "from textcls.modeling.pretrained import find_model\n"
        "from textcls.settings.recipe import ModelSpec\n"
        "started = time.process_time()\n"
        "try:\n"
        "    find_model(ModelSpec(pretrained=sys.argv[1]))\n"
        "except ModelError as error:\n"
        "    print(error)\n"
        "    print(time.process_time() - started)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, name], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    *text, seconds = done.stdout.splitlines()
    told = "\n".join(text)
    for part in (repr(name), "revision main", "model.pretrained=DIRECTORY"):
        assert part in told
    assert float(seconds) < 5


def test_a_configuration_that_is_no_json_is_refused(model_dir: Path) -> None:
    (model_dir / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(str(model_dir))
    (model_dir / "config.json").write_text(json.dumps([]))
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(str(model_dir))
