"""The laws of a bundle: it is a Hugging Face directory, and it loads exactly as it was written or not at all."""

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from textcls import storage
from textcls.bundle import MANIFEST, load_bundle, make_linked_bundle, write_bundle
from textcls.directories import put_directory
from textcls.errors import BundleError, RunDirError, StorageError
from textcls.manifest import Calibration, Manifest, Origin, manifest_bytes, read_manifest
from textcls.settings.recipe import Recipe, TextSpec
from textcls.tasks.single_label import SINGLE_LABEL

ROOT = Path(__file__).parents[2]
LABELS = ("négatif", "neutral", "positive")
TEXTS = ["The film was really great.", "hardly moving, BORING!", "café 街 10/10", ""]

Tamper = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def saved_model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved classifier with its tokenizer, not yet a bundle."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    directory = tmp_path_factory.mktemp("saved_model")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_model_dir,
            id2label=dict(enumerate(LABELS)),
            label2id={label: label_id for label_id, label in enumerate(LABELS)},
            problem_type="single_label_classification",
        )
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(directory)
    return directory


@pytest.fixture
def model_dir(saved_model: Path, tmp_path: Path) -> Path:
    """A copy of the saved classifier that a test may change."""
    return Path(shutil.copytree(saved_model, tmp_path / "model"))


def write(model_dir: Path, uri: object, **changes: Any) -> Manifest:
    arguments: dict[str, Any] = {
        "task": SINGLE_LABEL,
        "labels": LABELS,
        "text": TextSpec(max_tokens=64),
        "metrics": {"accuracy": 1 / 3, "confusion": [[1, 2], [3, 4]], "skipped": None},
        "recipe": Recipe(),
        "data_fingerprint": "ab" * 32,
    }
    return write_bundle(str(model_dir), str(uri), **(arguments | changes))


@pytest.fixture
def bundle_dir(model_dir: Path, tmp_path: Path) -> Path:
    """A local bundle."""
    write(model_dir, tmp_path / "runs" / "bundle")
    return tmp_path / "runs" / "bundle"


def reseal(directory: Path, change: Tamper) -> None:
    """Changes the manifest as one who knows how to seal it."""
    content = json.loads((directory / MANIFEST).read_bytes())
    del content["manifest_sha256"]
    change(content)
    (directory / MANIFEST).write_bytes(manifest_bytes(content))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- it is a Hugging Face directory ----------------------------------------------------------------------------------


def test_tiny_tokenizer_means_the_same_to_both_libraries(tiny_model_dir: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(tiny_model_dir)
    plain = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))
    assert 200 <= plain.get_vocab_size() <= 1000
    for text in TEXTS:
        assert auto(text)["input_ids"] == plain.encode(text).ids
    assert plain.encode("THE café").tokens == ["[CLS]", "the", "cafe", "[SEP]"]


def test_transformers_load_a_bundle_as_it_is_and_score_alike(saved_model: Path, bundle_dir: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(saved_model)
    model = AutoModelForSequenceClassification.from_pretrained(saved_model).eval()
    again = AutoModelForSequenceClassification.from_pretrained(bundle_dir).eval()
    classify = pipeline("text-classification", model=str(bundle_dir), top_k=None)
    for text in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
            np.testing.assert_array_equal(again(**tokenizer(text, return_tensors="pt")).logits, logits)
        scores = {entry["label"]: entry["score"] for entry in classify([text])[0]}
        np.testing.assert_allclose([scores[label] for label in LABELS], torch.softmax(logits, -1)[0], atol=1e-6)


def test_neither_torch_nor_transformers_nor_ray_is_needed_to_load_a_bundle(bundle_dir: Path) -> None:
    code = (
        "import sys; from textcls.bundle import load_bundle; load_bundle(sys.argv[1]); "
        "print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(bundle_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- what is written is what is loaded -------------------------------------------------------------------------------


def test_a_local_bundle_loads_as_it_was_written(model_dir: Path, tmp_path: Path) -> None:
    manifest = write(model_dir, tmp_path / "bundle", calibration=Calibration(temperature=1.7))
    loaded = load_bundle(str(tmp_path / "bundle"))
    assert loaded.manifest == manifest
    assert loaded.manifest.labels == LABELS
    assert loaded.manifest.calibration.temperature == 1.7
    assert Recipe.model_validate(loaded.manifest.recipe).fingerprint == loaded.manifest.recipe_fingerprint
    assert loaded.directory == str(tmp_path / "bundle")
    assert set(loaded.manifest.files) | {MANIFEST} == set(os.listdir(loaded.directory))
    assert {"textcls", "python", "torch", "transformers", "tokenizers", "ray"} == set(loaded.manifest.versions)
    assert pickle.loads(pickle.dumps(loaded)) == loaded  # as Ray carries it


def test_a_remote_bundle_is_the_same_bundle(model_dir: Path, tmp_path: Path, s3: str) -> None:
    write(model_dir, tmp_path / "bundle")
    write(model_dir, f"{s3}/runs/a b%20?/bundle")
    local = load_bundle(str(tmp_path / "bundle"))
    remote = load_bundle(f"{s3}/runs/a b%20?/bundle", cache=str(tmp_path / "cache"))
    assert (remote.manifest, remote.digest) == (local.manifest, local.digest)
    assert Path(remote.directory).parent == tmp_path / "cache"
    assert snapshot(Path(remote.directory)) == snapshot(tmp_path / "bundle")


def test_a_remote_bundle_is_downloaded_once(
    model_dir: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model_dir, f"{s3}/bundle")
    first = load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache"))
    monkeypatch.setattr(fs, "copy_files", None)
    assert load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache")) == first


def test_a_damaged_copy_of_a_remote_bundle_is_refused_and_then_replaced(
    model_dir: Path, tmp_path: Path, s3: str
) -> None:
    write(model_dir, f"{s3}/bundle")
    first = load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache"))
    (Path(first.directory) / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"config\.json"):
        load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache"))
    assert load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache")) == first


def test_a_bundle_made_of_another_has_its_files_and_names_it(model_dir: Path, tmp_path: Path, s3: str) -> None:
    write(model_dir, tmp_path / "old")
    old = load_bundle(str(tmp_path / "old"))
    text = old.manifest.text.model_copy(update={"on_long": "windows"})
    origin = Origin(digest=old.digest, changed={"text.on_long": "truncate"}, files=("new.csv",))
    (tmp_path / "links").mkdir()
    digest = make_linked_bundle(old.with_text(text), str(tmp_path / "links"), metrics={"accuracy": 0.5}, origin=origin)
    assert digest != old.digest
    for uri in (str(tmp_path / "new"), f"{s3}/new"):
        put_directory(str(tmp_path / "links"), uri, last=MANIFEST)
        new = load_bundle(uri, cache=str(tmp_path / "cache"))
        assert new.digest == digest
        assert new.manifest == old.manifest.model_copy(
            update={"text": text, "metrics": {"accuracy": 0.5}, "origin": origin}
        )
    assert not any(path.is_symlink() for path in (tmp_path / "new").iterdir())
    assert not {"origin", "excluded"} & json.loads((tmp_path / "old" / MANIFEST).read_text()).keys()


def test_two_writes_of_one_model_are_byte_for_byte_the_same_bundle(model_dir: Path, tmp_path: Path) -> None:
    write(model_dir, tmp_path / "a", metrics={"accuracy": 0.5, "loss": 1.0})
    write(model_dir, tmp_path / "b", metrics={"loss": 1.0, "accuracy": 0.5})
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert load_bundle(str(tmp_path / "a")).digest == load_bundle(str(tmp_path / "b")).digest


def test_the_manifest_cannot_be_changed_in_memory(bundle_dir: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_bundle(str(bundle_dir)).manifest.labels = ("a", "b")  # type: ignore[misc]


# --- any change is refused -------------------------------------------------------------------------------------------


@given(data=st.data(), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_of_any_file_is_refused_by_name(bundle_dir: Path, data: st.DataObject, flip: int) -> None:
    path = bundle_dir / data.draw(st.sampled_from(sorted(os.listdir(bundle_dir))))
    good = path.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= flip
    path.write_bytes(bad)
    try:
        with pytest.raises(BundleError, match=re.escape(path.name)):
            load_bundle(str(bundle_dir))
    finally:
        path.write_bytes(good)


def test_a_flipped_byte_of_any_remote_file_is_refused_by_name(model_dir: Path, tmp_path: Path, s3: str) -> None:
    write(model_dir, f"{s3}/bundle")
    for name in storage.names_in(f"{s3}/bundle"):
        good = storage.read_bytes(f"{s3}/bundle/{name}")
        middle = len(good) // 2
        storage.write_bytes(f"{s3}/bundle/{name}", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        with pytest.raises(BundleError, match=f"{s3}/bundle/{re.escape(name)}"):
            load_bundle(f"{s3}/bundle", cache=str(tmp_path / f"cache of {name}"))
        storage.write_bytes(f"{s3}/bundle/{name}", good)


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_every_byte_of_the_manifest_is_refused(bundle_dir: Path, bit: int) -> None:
    raw = (bundle_dir / MANIFEST).read_bytes()
    for place in range(len(raw)):
        bad = bytearray(raw)
        bad[place] ^= 1 << bit
        with pytest.raises(BundleError, match=MANIFEST):
            read_manifest(bytes(bad), MANIFEST)
    read_manifest(raw, MANIFEST)


def test_white_space_that_json_would_not_mind_is_refused(bundle_dir: Path) -> None:
    with (bundle_dir / MANIFEST).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(str(bundle_dir))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000, b"9" * 9_999])
def test_a_manifest_that_is_none_is_refused(bundle_dir: Path, raw: bytes) -> None:
    (bundle_dir / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(str(bundle_dir))


def test_each_missing_file_is_named(bundle_dir: Path) -> None:
    for name in load_bundle(str(bundle_dir)).manifest.files:
        aside = (bundle_dir / name).rename(bundle_dir.parent / name)
        with pytest.raises(BundleError, match=f"{re.escape(name)} is missing"):
            load_bundle(str(bundle_dir))
        aside.rename(bundle_dir / name)
    load_bundle(str(bundle_dir))


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b" ", lambda raw: b""])
def test_a_file_of_another_size_is_refused(bundle_dir: Path, change: Callable[[bytes], bytes]) -> None:
    path = bundle_dir / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BundleError, match=rf"model\.safetensors is damaged: {path.stat().st_size} bytes"):
        load_bundle(str(bundle_dir))


@pytest.mark.parametrize("name", ["adapter_config.json", "pytorch_model.bin", ".hidden", "modeling.py"])
def test_an_unlisted_file_is_refused(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).write_bytes(b"{}")
    with pytest.raises(BundleError, match=re.escape(name)):
        load_bundle(str(bundle_dir))


def test_an_unlisted_directory_is_refused(bundle_dir: Path) -> None:
    (bundle_dir / "extra").mkdir()
    with pytest.raises(BundleError, match="extra does not belong"):
        load_bundle(str(bundle_dir))


def test_a_directory_in_place_of_a_file_is_refused(bundle_dir: Path) -> None:
    (bundle_dir / "config.json").unlink()
    (bundle_dir / "config.json").mkdir()
    with pytest.raises(BundleError, match=r"config\.json is not a file"):
        load_bundle(str(bundle_dir))


def test_a_directory_without_a_manifest_is_not_a_bundle(model_dir: Path, tmp_path: Path) -> None:
    for place in (model_dir, tmp_path / "nowhere", model_dir / "config.json"):
        with pytest.raises(BundleError, match="not a bundle, or an unfinished one"):
            load_bundle(str(place))


def test_another_format_version_is_refused_with_the_one_that_is_read(bundle_dir: Path) -> None:
    reseal(bundle_dir, lambda content: content.update(format_version=3, something="new"))
    with pytest.raises(BundleError, match="format_version is 3") as caught:
        load_bundle(str(bundle_dir))
    assert "1 or 2, which this version of textcls reads" in str(caught.value)


# --- the task --------------------------------------------------------------------------------------------------------

# bundle.json of a tiny bundle, byte for byte as textcls wrote it before manifests named their task.
FORMAT_1 = Path(__file__).parent / "stored" / "bundle_format_1.json"


def test_a_manifest_names_its_task(bundle_dir: Path) -> None:
    content = json.loads((bundle_dir / MANIFEST).read_bytes())
    assert (content["format_version"], content["task"], content["scoring"]) == (2, "single_label", "softmax")
    assert load_bundle(str(bundle_dir)).task is SINGLE_LABEL


def test_a_bundle_of_format_1_still_loads_as_single_label(bundle_dir: Path) -> None:
    written = json.loads(FORMAT_1.read_bytes())
    assert written["format_version"] == 1
    assert "task" not in written
    new = json.loads((bundle_dir / MANIFEST).read_bytes())
    (bundle_dir / MANIFEST).write_bytes(FORMAT_1.read_bytes())
    with pytest.raises(BundleError, match=r"\.json is damaged: \d+ bytes"):  # its seal is whole; the files are others
        load_bundle(str(bundle_dir))
    reseal(bundle_dir, lambda content: content.update(files=new["files"]))
    bundle = load_bundle(str(bundle_dir))
    assert bundle.task is SINGLE_LABEL
    assert bundle.manifest.labels == ("bad", "good", "so so")
    assert (bundle.manifest.calibration.temperature, bundle.manifest.calibration.threshold) == (1.25, 0.4)


def test_a_manifest_of_format_1_is_refused_if_any_byte_has_changed(bundle_dir: Path) -> None:
    (bundle_dir / MANIFEST).write_bytes(FORMAT_1.read_bytes().replace(b'"so so"', b'"so_so"'))
    with pytest.raises(BundleError, match=f"{MANIFEST} is damaged"):
        load_bundle(str(bundle_dir))


def test_a_task_that_this_version_does_not_know_is_refused_by_name(bundle_dir: Path) -> None:
    reseal(bundle_dir, lambda content: content.update(task="of tomorrow"))
    with pytest.raises(BundleError, match="task is 'of tomorrow'") as caught:
        load_bundle(str(bundle_dir))
    assert caught.value.expected == "one that this version of textcls knows: multi_label, single_label"
    assert "the version of textcls that wrote the bundle" in caught.value.todo


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/hosts.json", "sub/config.json", "..", "", ".json", "a\\b.json", "a\0.json"]
)
def test_a_listed_name_that_leads_elsewhere_is_refused(bundle_dir: Path, name: str) -> None:
    reseal(bundle_dir, lambda content: content["files"].update({name: content["files"]["config.json"]}))
    with pytest.raises(BundleError, match=re.escape(repr(name))):
        load_bundle(str(bundle_dir))


UNSAFE = ["pytorch_model.bin", "model.pt", "optimizer.pth", "state.pkl", "modeling.py", "last.ckpt", "a.json.bin", "x"]


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_kind_of_file_is_refused_even_when_listed(bundle_dir: Path, name: str) -> None:
    shutil.copy(bundle_dir / "config.json", bundle_dir / name)
    reseal(bundle_dir, lambda content: content["files"].update({name: content["files"]["config.json"]}))
    with pytest.raises(BundleError, match=re.escape(name)):
        load_bundle(str(bundle_dir))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda content: content.update(surprise=1), "surprise"),
        (lambda content: content.pop("labels"), "labels"),
        (lambda content: content.update(scoring="sigmoid"), "scoring"),
        (lambda content: content.pop("task"), "task"),
        (lambda content: content.update(format_version=1), "format_version"),
        (lambda content: content["files"]["config.json"].update(size_bytes=-1), "size_bytes"),
        (lambda content: content["text"].update(max_tokens=1), "max_tokens"),
    ],
)
def test_a_well_sealed_manifest_with_other_content_is_refused_by_key(
    bundle_dir: Path, change: Tamper, key: str
) -> None:
    reseal(bundle_dir, change)
    with pytest.raises(BundleError, match=key):
        load_bundle(str(bundle_dir))


# --- what may be written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_kind_of_file_is_not_written(model_dir: Path, tmp_path: Path, name: str) -> None:
    (model_dir / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=re.escape(name)):
        write(model_dir, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_model_that_lacks_a_file_is_not_written(model_dir: Path, tmp_path: Path, name: str) -> None:
    (model_dir / name).unlink()
    with pytest.raises(BundleError, match=re.escape(name)):
        write(model_dir, tmp_path / "bundle")


def test_labels_must_be_those_of_the_model_in_its_order(model_dir: Path, tmp_path: Path) -> None:
    for labels in (LABELS[::-1], LABELS[:2], (*LABELS, "more")):
        with pytest.raises(BundleError, match="id2label"):
            write(model_dir, tmp_path / "bundle", labels=labels)


def test_label_names_that_transformers_would_make_up_are_accepted(model_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, BertConfig

    labels = ("LABEL_0", "LABEL_1")
    BertConfig(id2label=dict(enumerate(labels)), problem_type="single_label_classification").save_pretrained(model_dir)
    write(model_dir, tmp_path / "bundle", labels=labels)
    assert AutoConfig.from_pretrained(tmp_path / "bundle").id2label == dict(enumerate(labels))


def test_a_multi_label_model_is_not_written(model_dir: Path, tmp_path: Path) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    with pytest.raises(BundleError, match="problem_type"):
        write(model_dir, tmp_path / "bundle")


def test_an_existing_bundle_is_never_overwritten(model_dir: Path, tmp_path: Path, s3: str) -> None:
    for uri in (str(tmp_path / "bundle"), f"{s3}/bundle"):
        write(model_dir, uri)
        before = load_bundle(uri, cache=str(tmp_path / "cache"))
        with pytest.raises(RunDirError, match="already"):
            write(model_dir, uri, metrics={"accuracy": 0.0})
        assert load_bundle(uri, cache=str(tmp_path / "cache")) == before


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_an_upload_that_breaks_off_at_any_file_leaves_nothing_that_loads_and_can_be_repeated(
    model_dir: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_copy, real_write, left = fs.copy_files, storage.write_bytes, 0

    def upload(place: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise StorageError(f"{place}: connection reset")

    def copy_files(source: str, target: str, **kwargs: Any) -> None:
        upload(target)
        real_copy(source, target, **kwargs)

    def write_bytes(uri: str, content: bytes) -> None:
        if storage.is_remote(uri):
            upload(uri)
        real_write(uri, content)

    for failing in range(1, len(os.listdir(model_dir)) + 2):
        uri, left = f"{s3}/run{failing}/bundle", failing
        with monkeypatch.context() as patch:
            patch.setattr(fs, "copy_files", copy_files)
            patch.setattr(storage, "write_bytes", write_bytes)
            with pytest.raises(StorageError, match="connection reset"):
                write(model_dir, uri)
        assert len(storage.names_in(uri)) == failing - 1
        with pytest.raises(BundleError, match="unfinished"):
            load_bundle(uri, cache=str(tmp_path / "cache"))
        write(model_dir, uri)
        load_bundle(uri, cache=str(tmp_path / "cache"))
        (model_dir / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room to write"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no room to write"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_disk_that_fails_at_any_file_leaves_nothing_at_all(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    real, calls = os.fsync, 0
    for failing in range(1, len(os.listdir(model_dir)) + 3):  # the manifest is written twice
        calls = 0

        def fsync(descriptor: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise error
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(StorageError, match=message):
                write(model_dir, tmp_path / "out" / "bundle")
        assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
        (model_dir / MANIFEST).unlink(missing_ok=True)
    write(model_dir, tmp_path / "out" / "bundle")


def test_a_download_that_fails_leaves_nothing_in_the_cache(
    model_dir: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model_dir, f"{s3}/bundle")

    def copy_files(source: str, target: str, **kwargs: Any) -> None:
        Path(target).write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", copy_files)
        with pytest.raises(StorageError, match="no room to write"):
            load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache") == []
    load_bundle(f"{s3}/bundle", cache=str(tmp_path / "cache"))
