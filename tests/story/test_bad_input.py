"""Input that cannot be used: exit 2, a message with the thing and the way out, nothing on disk but the account."""

import os
from collections.abc import Sequence

import pytest

from .conftest import Command, User, as_csv, reviews

ACCOUNT = {"events.jsonl", "rejects.parquet", "rows.json"}


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (["--set", "train.epoch=3"], ["recipe.yaml with --set", "train.epoch;", "did you mean train.epochs?"]),
        (["--csv", "review.csv"], ["review.csv: no such file", "did you mean", "reviews.csv?"]),
        (["--csv", "empty.csv"], ["empty.csv is empty (0 bytes)"]),
        (["--csv", "."], ["is not a file", "/*.csv"]),
        (["--set", "model.pretrained=nobody/nothing"], ["'nobody/nothing'", "--set model.pretrained=DIRECTORY"]),
        (["--set", "model.pretrained=./model"], ["./model: there is no such directory"]),
        (["--set", "text.max_tokens=512"], ["text.max_tokens 512", "64 tokens", "--set text.max_tokens=64"]),
        (["--recipe", "recipes.yaml"], ["recipes.yaml: ", "No such file"]),
        (["--out", "/proc/nope/out"], ["/proc/nope"]),
        (["--out", "reviews.csv/out"], ["reviews.csv"]),
        (["--resume"], ["holds no run to resume"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistake_is_told_before_ray_starts(
    user: User, without_ray: Command, arguments: Sequence[str], phrases: Sequence[str]
) -> None:
    user.csv("empty.csv", "")
    ended = without_ray("train", user.home, "--recipe", "recipe.yaml", "--out", "out", *arguments).calmly(2)
    for phrase in phrases:
        assert phrase in ended.err
    assert ended.out == ""
    assert not (user.home / "out").exists() or os.listdir(user.home / "out") == []


@pytest.mark.parametrize(
    ("content", "arguments", "phrases"),
    [
        (
            as_csv(reviews(60)),
            ["--set", "data.label_column=lable"],
            ["no column 'lable'", "'text', 'label'", "--set data.label_column=label"],
        ),
        ("text,label\n", [], ["a header and no row"]),
        (
            "text,label\n" + "great,\n" * 60,
            [],
            ["every one of the 60 rows is a reject (60 missing_label)", "data.csv:2"],
        ),
        (
            as_csv(reviews(60)) + "label,text\n" + "".join(f"{label},{text} too\n" for text, label in reviews(60)),
            [],
            ["data.csv:62", "head -n 61"],
        ),
        (as_csv([(text, "positive") for text, _ in reviews(60)]), [], ["all 60 rows have one label, 'positive'"]),
        (
            as_csv(reviews(60)),
            ["--set", "scale.workers=9", "--set", "train.rows_per_step=16"],
            ["9 workers", "the cluster's nodes have 2"],
        ),
    ],
    ids=["misspelt column", "header only", "only rejects", "second header", "one label", "too many workers"],
)
def test_unfit_data_is_told_and_leaves_the_account_at_most(
    user: User, on_cluster: Command, content: str, arguments: Sequence[str], phrases: Sequence[str]
) -> None:
    user.csv("data.csv", content)
    train = ("train", user.home, "--recipe", "recipe.yaml", "--csv", "data.csv", "--out", "out")
    ended = on_cluster(*train, *arguments).calmly(2)
    for phrase in phrases:
        assert phrase in ended.err
    out = user.home / "out"
    assert not out.exists() or set(os.listdir(out)) <= ACCOUNT


def test_directory_of_a_refused_run_takes_the_corrected_one(user: User, on_cluster: Command) -> None:
    train = ("train", user.home, "--recipe", "recipe.yaml", "--csv", "data.csv", "--out", "out")
    user.csv("data.csv", as_csv(reviews(100)) + "a review without its label,\n" * 3)
    refused = on_cluster(*train).calmly(2)
    assert "3 of 103 rows (2.9%) are rejects (3 missing_label)" in refused.err
    assert "data.csv:102 label" in refused.err
    assert "at most 1.0% (data.max_reject_fraction)" in refused.err
    assert "--set data.max_reject_fraction=" in refused.err
    assert set(os.listdir(user.home / "out")) == ACCOUNT

    corrected = on_cluster(*train, "--set", "data.max_reject_fraction=0.05", "--set", "train.epochs=1").calmly(0)
    assert "+ rejects 3 +" in corrected.out
    assert (user.home / "out" / "bundle" / "bundle.json").exists()
