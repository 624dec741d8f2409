"""bf16 on a CPU without it: training is refused before any row is read; a bundle is scored in fp32, with a warning."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from tests.conftest import save_tiny_bundle
from tests.local_ray.conftest import small_recipe, write_reviews
from textcls.batch import evaluate, predict
from textcls.batch.settings import evaluate_settings, predict_settings
from textcls.bundle import Bundle, load_bundle
from textcls.errors import RecipeError
from textcls.inference.classifier import Classifier
from textcls.modeling import precision
from textcls.training import run, scaling


@pytest.mark.parametrize("asked_elsewhere", [False, True], ids=["the driver's node", "another node"])
def test_bf16_that_a_node_cannot_multiply_is_refused_before_any_row_is_read(
    asked_elsewhere: bool, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = ray.remote(num_cpus=0)(lambda: "none")
    if asked_elsewhere:
        monkeypatch.setattr(scaling, "own_node", lambda: "the driver's, which can hold no worker")
        monkeypatch.setattr(scaling, "_processor_support", without)
    else:
        monkeypatch.setattr(scaling, "bf16_support", lambda device: "none")
    reviews, out, said = write_reviews(tmp_path / "r.csv", 60), tmp_path / "out", []
    recipe = small_recipe(tiny_model_dir, reviews, "train.precision=bf16")
    for refused in (
        lambda: run.train(recipe, str(out), resume=False, say=said.append),
        lambda: run.dry_run(recipe, say=said.append),
    ):
        with pytest.raises(RecipeError, match=r"train\.precision is bf16, and .* cannot multiply bfloat16"):
            refused()
    assert not (out / "rows.json").exists(), "nothing was read"
    assert not any("train 4" in line for line in said)
    run.dry_run(small_recipe(tiny_model_dir, reviews, "train.precision=auto"), say=said.append)
    assert said[-1].startswith("would train")


def test_a_node_tells_of_its_own_processor() -> None:
    assert ray.get(scaling._processor_support.remote()) == precision.bf16_support(torch.device("cpu"))


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_that_a_bundle_is_scored_in_fp32_instead_of_bf16_is_told_once(
    asked: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(work: Any, items: Any, size: Any, bundle: Bundle, *, on_rows: Any) -> Iterator[tuple[int, Any]]:
        """Scoring without processes of its own, which would ask the real processor."""
        for place, item in enumerate(items):
            steps = work(Classifier.load(bundle.uri), ray.get(item) if isinstance(item, ray.ObjectRef) else item)
            while True:
                try:
                    on_rows(next(steps))
                except StopIteration as end:
                    yield place, end.value
                    break

    for job in (predict, evaluate):
        monkeypatch.setattr(job, "run_on_pool", run_here)
    monkeypatch.setattr(precision, "bf16_support", lambda device: "none")
    bundle = load_bundle(str(save_tiny_bundle(tiny_model_dir, tmp_path / "bundle", precision=asked)))
    csv = tmp_path / "rows.csv"
    csv.write_text("text,label\ngreat film,good\nawful,bad\n")
    said: dict[str, list[str]] = {"predict": [], "evaluate": []}
    with pytest.warns(UserWarning, match="scoring in fp32") if asked == "bf16" else nullcontext():
        predict.predict(
            bundle,
            predict_settings(bundle, [str(csv)], []),
            str(tmp_path / "predictions"),
            suffix="csv",
            all_scores=False,
            say=said["predict"].append,
        )
        evaluate.evaluate(
            bundle, evaluate_settings(bundle, [str(csv)], []), str(tmp_path / "report"), say=said["evaluate"].append
        )
    for lines in said.values():
        assert sum("scoring in fp32" in line for line in lines) == (asked == "bf16"), lines
