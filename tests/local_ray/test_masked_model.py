"""Law 8 with masks: what trains on identifiers never sees one, and whoever loads the bundle scores alike."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from tokenizers import Tokenizer

from tests.http.conftest import service_of
from tests.local_ray.conftest import prepared_data, small_recipe
from tests.masked_texts import ALL_KINDS, KNOWN_INVISIBLE, divided_texts, texts_with_identifiers
from textcls.batch.predict import predict
from textcls.batch.settings import predict_settings
from textcls.bundle import load_bundle
from textcls.inference.classifier import Classifier
from textcls.on_ray.session import ray_session
from textcls.reporting.report import Report
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.training.run import dry_run, train

MASKS = [f"text.mask=[{', '.join(ALL_KINDS)}]", "text.max_tokens=64", "scale.workers=1", "scale.cpus_per_worker=1"]
WRITTEN = texts_with_identifiers(1000)
# Invisible characters divide the identifiers of every third text.
TEXTS = [one.text for one in WRITTEN]
TEXTS[::3] = divided_texts(WRITTEN[::3], chars=KNOWN_INVISIBLE)
TRAINED = 300
# Rows that differ in nothing but their phone number.
CALLS = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first texts, with the word that their label depends on, and one text with many phone numbers."""
    found = tmp_path_factory.mktemp("masked") / "rows.csv"
    with found.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for i, text in enumerate(TEXTS[:TRAINED]):
            rows.writerow([f"{'great' if i % 2 else 'awful'} {text}", "good" if i % 2 else "bad"])
        rows.writerows([f"call (555) 555-{i:04}", "good"] for i in range(CALLS))
    return found


@pytest.fixture(scope="module")
def run(path: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, list[str]]:
    out, said = tmp_path_factory.mktemp("run") / "out", list[str]()
    report = train(
        small_recipe(tiny_model_dir, path, *MASKS), str(out), resume=False, say=said.append, task=SINGLE_LABEL
    )
    assert report is not None
    return out, report, said


def test_1000_texts_full_of_identifiers_score_alike_everywhere(
    run: tuple[Path, Report, list[str]], tmp_path: Path
) -> None:
    bundle = load_bundle(str(run[0] / "bundle"))
    assert bundle.manifest.text.mask == ALL_KINDS
    texts = TEXTS
    classifier = Classifier.load(bundle.uri, device="cpu")
    scores = classifier.scores(texts)
    assert scores.errors == (None,) * len(texts)
    typed = classifier.scores([one.typed for one in WRITTEN])
    np.testing.assert_allclose(typed.probabilities, scores.probabilities, atol=1e-5)

    encoded = classifier.encode(texts)
    token_of = {i: token for token, i in Tokenizer.from_file(f"{bundle.directory}/tokenizer.json").get_vocab().items()}
    seen = {token_of[one] for of_text in encoded for window in of_text.windows for one in window}
    assert {f"[{kind.upper()}]" for kind in ALL_KINDS} <= seen
    assert not [token for token in seen if re.search(r"[0-9@]", token)]

    with (tmp_path / "inbox.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    with ray_session():
        spec = predict_settings(bundle, [str(tmp_path / "inbox.csv")], MASKS[2:])
        predict(bundle, spec, str(tmp_path / "p"), suffix="parquet", all_scores=True, say=lambda line: None)
    rows = pq.read_table(tmp_path / "p" / "parts").to_pylist()
    predicted = [[row[f"score_{label}"] for label in scores.labels] for row in rows]
    np.testing.assert_allclose(predicted, scores.probabilities, atol=1e-5)

    def by_label(found: list[dict[str, float]]) -> list[float]:
        of = {one["label"]: one["score"] for one in found}
        return [of[label] for label in scores.labels]  # type: ignore[index]

    with service_of(run[0] / "bundle") as service:
        parts = [texts[i : i + 50] for i in range(0, len(texts), 50)]
        answers = [one for part in parts for one in service.ask("/predict", {"inputs": part}).json["predictions"]]
    np.testing.assert_allclose([by_label(one["scores"]) for one in answers], scores.probabilities, atol=1e-5)

    from transformers import pipeline

    theirs = pipeline("text-classification", bundle.directory, top_k=None, truncation=True)(texts, batch_size=32)
    np.testing.assert_allclose([by_label(one) for one in theirs], scores.probabilities, atol=1e-5)


def test_rows_that_differ_in_a_phone_number_alone_are_duplicates_and_all_is_accounted_for(
    run: tuple[Path, Report, list[str]],
) -> None:
    out, report, said = run
    account = json.loads((out / "rows.json").read_text())
    assert account["read"] == TRAINED + CALLS
    assert account["duplicates"] >= CALLS - 1
    masked = account["masked"]
    expected = {kind: sum(f"[{kind.upper()}]" in one.typed for one in WRITTEN[:TRAINED]) for kind in ALL_KINDS}
    expected["phone"] += CALLS
    assert masked["rows"] == expected
    assert report.rows["masked"] == masked
    assert list(masked["placeholders"]) == ["train", "val", "test"]
    total = {kind: sum(of_split[kind] for of_split in masked["placeholders"].values()) for kind in ALL_KINDS}
    # In the rows that are no duplicates; each of these few texts is shorter than the limit.
    placeholders = {kind: sum(one.typed.count(f"[{kind.upper()}]") for one in WRITTEN[:TRAINED]) for kind in ALL_KINDS}
    assert all(total[kind] <= placeholders[kind] + (kind == "phone") for kind in ALL_KINDS)
    assert sum(total.values()) > sum(placeholders.values()) * 0.9
    (line,) = [one.strip() for one in said if "masked: " in one]
    assert f"phone in {expected['phone']:,} rows" in line
    assert f"placeholders: train {sum(masked['placeholders']['train'].values()):,}, val " in line


def test_a_dry_run_says_what_would_be_masked_and_no_table_holds_an_identifier_s_token(
    path: Path, tiny_model_dir: Path
) -> None:
    said: list[str] = []
    recipe = small_recipe(tiny_model_dir, path, *MASKS)
    dry_run(recipe, say=said.append, task=SINGLE_LABEL)
    assert len([line for line in said if "masked: " in line]) == 1
    with ray_session():
        data = prepared_data(recipe)
        blocks = [block for blocks in data.blocks.values() for block in ray.get(blocks)]
    highest = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json")).get_vocab_size()
    of_digits = [i for token, i in _vocabulary(tiny_model_dir).items() if re.search(r"\d", token)]
    seen = {one for block in blocks for ids in block["input_ids"].to_pylist() for one in ids}
    assert not seen.intersection(of_digits)
    assert {one for one in seen if one >= highest} == set(range(highest, highest + len(ALL_KINDS)))


def _vocabulary(model: Path) -> dict[str, int]:
    found: dict[str, int] = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab()
    return found
