"""Who may use a run's directory, and when: a run owns it from its first checkpoint on."""

import json
import shlex
from pathlib import Path
from typing import Any

import pyrage
import pytest

from textcls import storage
from textcls.commands import train as train_command
from textcls.commands.keys import keys_of
from textcls.encryption import Keys
from textcls.errors import RunDirError
from textcls.modeling.pretrained import Pretrained
from textcls.output.json_files import write_json
from textcls.settings.recipe import ModelSpec, Recipe
from textcls.training.checkpoint import MANIFEST
from textcls.training.run_dir import RunDir, claim_for_account

RECIPE, OTHER = Recipe(), Recipe(model=ModelSpec(dropout=0.5))


def left_by(place: str, state: str) -> None:
    """What lies in --out when a run has come so far."""

    def write(name: str, content: bytes = b"{}") -> None:
        storage.write_bytes(storage.join(place, name), content)

    if state == "nothing":
        return
    if state == "an account":  # refused for its data
        RunDir.claim(place, RECIPE, resume=False).abandon()
        write("rows.json")
        write("events.jsonl")
        return
    if state == "strange files":
        write("cat.png")
        return
    run = RunDir.claim(place, RECIPE, resume=False)
    if state == "claimed":  # the cluster could not be reached
        return
    write("rows.json")
    write("rejects.parquet")
    run.bind_data("f" * 64)
    if state == "data":
        return
    write("training/attempt-0001/step-00000010/model.safetensors")  # torn: without a manifest
    write("tensorboard/events")
    if state == "an attempt":  # the model could not be loaded in the worker
        return
    if state == "an attempt and a strange file":
        write("training/notes.txt")
        return
    write(f"training/attempt-0001/step-00000005/{MANIFEST}")
    if state == "a checkpoint":
        return
    assert state == "a bundle"
    write("bundle/bundle.json")


def content_of(place: str, *folders: str) -> dict[str, Any]:
    """Every file below a directory."""
    found: dict[str, Any] = {}
    for name in storage.names_in(storage.join(place, *folders)):
        try:
            found["/".join((*folders, name))] = storage.read_bytes(storage.join(place, *folders, name))
        except Exception:  # a directory
            found |= content_of(place, *folders, name)
    return found


NEW, RESUMED, REFUSED = "new", "resumed", "refused"


@pytest.mark.parametrize(
    ("state", "same_recipe", "other_recipe", "same_resumed", "other_resumed"),
    [
        ("nothing", NEW, NEW, REFUSED, REFUSED),
        ("an account", NEW, NEW, REFUSED, REFUSED),
        ("claimed", NEW, NEW, RESUMED, REFUSED),
        ("data", NEW, NEW, RESUMED, REFUSED),
        ("an attempt", NEW, NEW, RESUMED, REFUSED),
        ("an attempt and a strange file", REFUSED, REFUSED, RESUMED, REFUSED),
        ("a checkpoint", REFUSED, REFUSED, RESUMED, REFUSED),
        ("a bundle", REFUSED, REFUSED, REFUSED, REFUSED),
        ("strange files", REFUSED, REFUSED, REFUSED, REFUSED),
    ],
)
def test_before_its_first_checkpoint_any_recipe_may_take_a_run_s_place_and_after_it_none(
    tmp_path: Path, state: str, same_recipe: str, other_recipe: str, same_resumed: str, other_resumed: str
) -> None:
    wanted = [(other_resumed, OTHER, True), (same_resumed, RECIPE, True)]
    wanted += [(other_recipe, OTHER, False), (same_recipe, RECIPE, False)]
    for number, (outcome, recipe, resume) in enumerate(wanted):
        place = str(tmp_path / str(number))
        left_by(place, state)
        before = content_of(place)
        if outcome == REFUSED:
            with pytest.raises(RunDirError):
                RunDir.claim(place, recipe, resume=resume)
            assert content_of(place) == before
            continue
        run = RunDir.claim(place, recipe, resume=resume)
        assert run.resumed == (outcome == RESUMED)
        if outcome == RESUMED:
            assert content_of(place) == before
        else:
            assert run.replaces == ("run.json" in before)
            assert json.loads(storage.read_bytes(f"{place}/run.json"))["recipe"] == recipe.model_dump(mode="json")
            assert not any(name.startswith(("training", "tensorboard")) for name in content_of(place))
            run.bind_data("e" * 64)  # of other rows


def test_a_run_is_resumed_with_the_very_model_it_began_with(tmp_path: Path) -> None:
    model = Pretrained("org/name", "/models/m", {"model.safetensors": "1" * 64}, commit="c" * 40)
    run = RunDir.claim(str(tmp_path), RECIPE, resume=False)
    assert run.model_commit() == ""
    run.bind_model(model)
    resumed = RunDir.claim(str(tmp_path), RECIPE, resume=True)
    assert resumed.model_commit() == "c" * 40
    resumed.bind_model(model)
    with pytest.raises(RunDirError, match="/models/m is not the model this run began with"):
        resumed.bind_model(Pretrained("org/name", "/models/m", {"model.safetensors": "2" * 64}))


@pytest.mark.parametrize(("state", "left"), [("an attempt", []), ("a checkpoint", ["run.json", "training"])])
def test_a_run_that_its_input_ended_leaves_its_account_and_whatever_it_has_learned(
    tmp_path: Path, state: str, left: list[str]
) -> None:
    left_by(str(tmp_path), state)
    RunDir(str(tmp_path), resumed=False).abandon()
    names = {path.name for path in tmp_path.iterdir()} - {"rows.json", "rejects.parquet", "tensorboard"}
    assert sorted(names) == left


def test_the_rule_holds_in_object_storage(s3: str) -> None:
    left_by(f"{s3}/begun", "an attempt")
    assert RunDir.claim(f"{s3}/begun", OTHER, resume=False).replaces
    assert storage.names_in(f"{s3}/begun") == ["rejects.parquet", "rows.json", "run.json"]
    left_by(f"{s3}/kept", "a checkpoint")
    with pytest.raises(RunDirError, match="was interrupted"):
        RunDir.claim(f"{s3}/kept", RECIPE, resume=False)
    assert RunDir.claim(f"{s3}/kept", RECIPE, resume=True).resumed


def test_a_dry_run_lists_rows_only_where_no_run_is(tmp_path: Path) -> None:
    claim_for_account(str(tmp_path / "new"))
    write_json(str(tmp_path / "new"), "rows.json", {})
    claim_for_account(str(tmp_path / "new"))
    write_json(str(tmp_path / "new"), "run.json", {})
    with pytest.raises(RunDirError, match="holds a run") as caught:
        claim_for_account(str(tmp_path / "new"))
    assert "name a new --out" in caught.value.todo
    claim_for_account(str(tmp_path / "another"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cat.png").touch()
    with pytest.raises(RunDirError, match="is not empty"):
        claim_for_account(str(tmp_path / "other"))


def test_a_run_is_resumed_with_the_recipients_it_began_with_as_advised(tmp_path: Path) -> None:
    one, two = (str(pyrage.x25519.Identity.generate().to_public()) for _ in range(2))
    places: dict[Keys, str] = {Keys(): "plain", Keys((one,)): "one", Keys(tuple(sorted((one, two)))): "both"}
    for begun, name in places.items():
        RunDir.claim(str(tmp_path / name), RECIPE, resume=False, keys=begun)
    for begun, name in places.items():
        for now in places.keys() - {begun}:
            with pytest.raises(RunDirError, match="encrypted to") as refused:
                RunDir.claim(str(tmp_path / name), RECIPE, resume=True, keys=now)
            words = shlex.split(refused.value.todo.partition(" resumes it")[0].replace("without --encrypt-to", ""))
            advised = train_command.parser().parse_args(["--recipe", "base", *words])
            assert RunDir.claim(str(tmp_path / name), RECIPE, resume=advised.resume, keys=keys_of(advised)).resumed
    assert "encrypt_to" not in json.loads((tmp_path / "plain" / "run.json").read_text())
