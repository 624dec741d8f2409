"""An audit trains each fold once, whatever interrupts it, and its directory belongs to one audit. A fake trainer."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from textcls.audit import run
from textcls.audit.memory import memory_bytes, refuse_too_large
from textcls.audit.run import AuditOptions, _claim, fold_directory, of_fold, train_folds
from textcls.commands.audit import harm, main
from textcls.errors import InputError, RunDirError
from textcls.output.json_files import write_json
from textcls.settings.recipe_file import parse_recipe
from textcls.training.run_dir import IDENTITY

RECIPE = parse_recipe("{}", ["data.csv=reviews.csv", "split.seed=7", "train.epochs=2"])

ARGUMENTS = ["--recipe", "base", "--csv", "a.csv", "--out", "out"]
FOUND = {
    "rows": {"audited": 100},
    "suspect": {"rows": 3, "share": 0.03},
    "suggested_differs": 9,
    "agreement": {
        "share": 0.91,
        "most_common_label": "good",
        "most_common_share": 0.9,
        "better_than_most_common": False,
    },
    "listed": 50,
    "near_duplicates": {"rows": 8, "with_another_label": 1, "test_rows": 20, "test_rows_outside_test": 3},
    "values": {"judged": 100, "hurt": 4, "known": 0.7},
    "confused_labels": [{"labels": ["bad", "good"], "hard_to_tell_apart": True, "confused": 0.4}],
}


class Trainer:
    """Leaves what a run leaves; is interrupted in the middle of one fold."""

    def __init__(self, interrupted_in: int = 0) -> None:
        self.interrupted_in, self.calls = interrupted_in, []

    def __call__(self, recipe, out, *, resume, say, verbose, keys):
        self.calls.append((recipe.split.fold, resume))
        write_json(out, IDENTITY, {})
        if recipe.split.fold == f"{self.interrupted_in}/3":
            raise KeyboardInterrupt
        write_json(f"{out}/bundle", "bundle.json", {})


def folds_trained(uri: str, trainer: Trainer) -> list[tuple[str, bool]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", trainer)
        train_folds(RECIPE, uri, AuditOptions(folds=3), 1, say=lambda line: None, verbose=False)
    return trainer.calls


def test_each_fold_is_trained_once_with_the_settings_of_the_recipe(tmp_path: Path) -> None:
    trainer = Trainer()
    assert folds_trained(str(tmp_path), trainer) == [("1/3", False), ("2/3", False), ("3/3", False)]
    assert of_fold(RECIPE, 2, 3).model_dump() == RECIPE.model_dump() | {
        "split": RECIPE.split.model_dump() | {"fold": "2/3"}
    }
    assert folds_trained(str(tmp_path), Trainer()) == []


def test_an_interrupted_audit_resumes_its_run_and_trains_no_finished_fold_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        folds_trained(str(tmp_path), Trainer(interrupted_in=2))
    assert folds_trained(str(tmp_path), Trainer()) == [("2/3", True), ("3/3", False)]
    assert Path(fold_directory(str(tmp_path), 3), "bundle").is_dir()


def test_an_audit_continues_only_with_resume_and_its_own_settings(tmp_path: Path) -> None:
    uri, options = str(tmp_path / "audit"), AuditOptions(folds=3)
    with pytest.raises(RunDirError, match="no audit to resume"):
        _claim(uri, RECIPE, options, resume=True)
    _claim(uri, RECIPE, options, resume=False)
    with pytest.raises(RunDirError, match="interrupted") as refused:
        _claim(uri, RECIPE, options, resume=False)
    assert "--resume continues it" in refused.value.todo
    _claim(uri, RECIPE, options, resume=True)
    # Where it trains, what it lists, and what the reports of its runs show, may change.
    elsewhere = RECIPE.model_copy(update={"scale": RECIPE.scale.model_copy(update={"max_failures": 9})})
    _claim(uri, elsewhere, AuditOptions(folds=3, rows=7, encoding="utf-8-sig"), resume=True)
    with_texts = RECIPE.model_copy(update={"report": RECIPE.report.model_copy(update={"texts": True})})
    _claim(uri, with_texts, options, resume=True)
    with pytest.raises(RunDirError, match="folds was 3, now 4"):
        _claim(uri, RECIPE, AuditOptions(folds=4), resume=True)
    other = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"epochs": 9})})
    with pytest.raises(RunDirError, match="epochs was 2, now 9") as refused:
        _claim(uri, other, options, resume=True)
    assert "--resume with the same arguments" in refused.value.todo
    _claim(uri, RECIPE, options, resume=True)


def test_a_finished_audit_is_never_overwritten(tmp_path: Path) -> None:
    write_json(str(tmp_path), "audit.json", {})
    with pytest.raises(RunDirError, match="a finished audit"):
        _claim(str(tmp_path), RECIPE, AuditOptions(), resume=True)


def test_a_fold_of_other_rows_is_refused_until_they_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = SimpleNamespace(manifest=SimpleNamespace(data_fingerprint="a"))
    monkeypatch.setattr(run, "load_bundle", lambda uri: bundle)
    monkeypatch.setattr(run, "scored_by_bundle", lambda fold, *others: fold.number)

    def judged(fingerprint: str) -> object:
        read = SimpleNamespace(fingerprint=fingerprint)
        return run._by_bundle(SimpleNamespace(number=2), "out", read, RECIPE, say=lambda line: None)

    with pytest.raises(RunDirError, match=r"CSV files.* are not those of out/folds/2") as refused:
        judged("b")
    assert "restore them and --resume" in refused.value.todo
    assert judged("a") == 2


@pytest.mark.parametrize(
    ("setting", "without"), [("split.fold=1/5", "split.fold=null"), ("privacy.epsilon=8", "privacy.epsilon=null")]
)
def test_a_recipe_of_one_fold_and_a_private_one_are_audited_without_it(
    setting: str, without: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    audited = []
    monkeypatch.setattr(run, "audit", lambda recipe, *others, **more: audited.append(recipe) or FOUND)
    assert main([*ARGUMENTS, "--set", setting]) == 2
    assert audited == []
    assert f"to do:    --set {without}" in capsys.readouterr().err
    assert main([*ARGUMENTS, "--set", setting, "--set", without]) == 0
    assert [(recipe.split.fold, recipe.privacy.epsilon) for recipe in audited] == [(None, None)]


def test_the_end_of_an_audit_tells_what_is_suspect(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(run, "audit", lambda *others, **more: FOUND)
    assert main(ARGUMENTS) == 0
    printed = capsys.readouterr().out
    assert "3 (3.0%) are suspect" in printed
    assert "warning: the models agree with 91.0% of the labels" in printed
    assert "'bad' and 'good' are hard to tell apart" in printed


def test_the_end_of_an_audit_tells_of_leakage_and_of_what_the_runs_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(run, "audit", lambda *others, **more: FOUND)
    out = tmp_path / "audit"
    arguments = [*ARGUMENTS[:-1], str(out)]
    assert main([*arguments, "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "3 rows of the test split (15.0%) are nearly the same as a row of training or validation" in printed
    assert f"4 rows hurt: each costs similar texts one right answer or more; column `value` of {out}/audit" in printed
    assert "the runs of the folds" not in printed
    model = Path(fold_directory(str(out), 2), "bundle", "model.safetensors")
    model.parent.mkdir(parents=True)
    model.write_bytes(bytes(3_000_000))
    none = FOUND["near_duplicates"] | {"test_rows_outside_test": 0}
    monkeypatch.setattr(run, "audit", lambda *others, **more: FOUND | {"near_duplicates": none})
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"the runs of the folds are in {out}/folds (3 MB)" in printed
    assert "test split" not in printed


def test_rows_that_do_not_fit_into_memory_are_refused_and_their_parts_are_not() -> None:
    memory = 16 * 10**9
    with pytest.raises(InputError, match=r"1,000,000 rows with 600 MB of text take about 22\.4 GB") as refused:
        refuse_too_large(1_000_000, 600_000_000, 384, 2, memory)
    parts = int(re.search(r"in (\d+) parts", refused.value.todo)[1])
    refuse_too_large(1_000_000 // parts, 600_000_000 // parts, 384, 2, memory)
    with pytest.raises(InputError):
        refuse_too_large(1_000_000 // (parts - 1), 600_000_000 // (parts - 1), 384, 2, memory)
    refuse_too_large(1_000_000, 600_000_000, 384, 2, 64 * 10**9)
    assert 10**8 < memory_bytes() < 10**14


@pytest.mark.parametrize(("memory", "at_once"), [(3 * 10**9, 1), (16 * 10**9, 4), (10**12, 5)])
def test_no_more_folds_train_at_once_than_fit_into_cluster_and_memory(
    memory: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[object, int]] = []
    of_a_run = RECIPE.scale.model_copy(update={"workers": 1})
    monkeypatch.setattr(run, "ray_session", lambda *, verbose: nullcontext())
    monkeypatch.setattr(run, "runs_at_once", lambda scale, runs: (of_a_run, runs))
    monkeypatch.setattr(run, "memory_bytes", lambda: memory)
    monkeypatch.setattr(run, "_read", lambda *arguments: None)
    monkeypatch.setattr(run, "_judged", lambda recipe, *others: {"workers": recipe.scale.workers})
    monkeypatch.setattr(
        run, "train_folds", lambda recipe, uri, options, at_once, **more: found.append((recipe, at_once))
    )
    judged = run.audit(RECIPE, str(tmp_path), AuditOptions(folds=5), resume=False, say=print)
    assert found == [(RECIPE.model_copy(update={"scale": of_a_run}), at_once)]
    assert judged == {"workers": "auto"}  # all of the cluster scores the rows


def test_what_is_refused_is_refused_before_a_fold_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise InputError("too many rows")

    monkeypatch.setattr(run, "ray_session", lambda *, verbose: nullcontext())
    monkeypatch.setattr(run, "runs_at_once", lambda scale, runs: (scale, 1))
    monkeypatch.setattr(run, "_read", refused)
    trainer = Trainer()
    monkeypatch.setattr(run, "train", trainer)
    with pytest.raises(InputError, match="too many rows"):
        run.audit(RECIPE, str(tmp_path), AuditOptions(), resume=False, say=print)
    assert trainer.calls == []
    assert not Path(tmp_path, run.SETTINGS).exists()  # and the corrected audit may begin in the same place
    with pytest.raises(InputError, match="too many rows"):
        run.audit(RECIPE, str(tmp_path), AuditOptions(folds=7), resume=False, say=print)


@pytest.mark.parametrize("values", [{"hurt": 0, "known": 0.9}, {"hurt": 900, "known": 0.2}])
def test_nothing_is_said_of_rows_that_hurt_where_there_are_none_or_near_rows_know_little(values) -> None:
    assert list(harm(values, "out")) == []
    assert len(list(harm({"hurt": 1, "known": 0.5}, "out"))) == 1


@pytest.mark.parametrize("wrong", [["--folds", "1"], ["--rows", "0"]])
def test_numbers_out_of_bounds_are_refused(wrong: list[str]) -> None:
    assert main([*ARGUMENTS, *wrong]) == 2
