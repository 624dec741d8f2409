"""CSV files as other programs write them, with one and the same recipe."""

from .conftest import Command, User, as_csv, reviews

TRAIN = ("--recipe", "recipe.yaml")

ACCOUNT = "300 = train 210 + val 30 + test 60 + rejects 0 + duplicates 0"


def test_spreadsheet_csv_trains_without_a_setting(user: User, on_cluster: Command) -> None:
    rows = "".join(f'"{text};\r\n""and so on""";{label}\r\n' for text, label in reviews(300))
    user.csv("export.csv", b"\xef\xbb\xbf" + f"text;label\r\n{rows}".encode())
    ended = on_cluster(
        "train", user.home, *TRAIN, "--csv", "export.csv", "--out", "out", "--set", "train.epochs=1"
    ).calmly(0)
    assert "(delimiter ';')" in ended.out
    assert ACCOUNT in ended.out
    assert (user.home / "out" / "bundle" / "bundle.json").exists()


def test_many_labels_are_counted_one_by_one(user: User, on_cluster: Command) -> None:
    user.csv("intents.csv", as_csv([(f"please do {i % 77} for me {i}", f"intent {i % 77}") for i in range(1540)]))
    ended = on_cluster("train", user.home, *TRAIN, "--csv", "intents.csv", "--dry-run").calmly(0)
    assert "1,540 = train 1,078 + val 154 + test 308 + rejects 0 + duplicates 0" in ended.out
    for i in range(77):
        assert f"  intent {i}: train 14, val 2, test 4\n" in ended.out


def test_bare_quotes_are_text_if_quoting_is_none(user: User, on_cluster: Command) -> None:
    user.csv("bare.tsv", "text\tlabel\n" + "".join(f'"{text} 5" tall\t{label}\n' for text, label in reviews(300)))
    ended = on_cluster(
        "train", user.home, *TRAIN, "--csv", "bare.tsv", "--dry-run", "--set", "data.quoting=none"
    ).calmly(0)
    assert ACCOUNT in ended.out


def test_columns_are_positions_if_there_is_no_header(user: User, on_cluster: Command) -> None:
    user.csv("bare.csv", "".join(f"{label},{text}\n" for text, label in reviews(300)))
    positions = ["--set", "data.header=false", "--set", "data.text_columns=1", "--set", "data.label_column=0"]
    ended = on_cluster("train", user.home, *TRAIN, "--csv", "bare.csv", "--dry-run", *positions).calmly(0)
    assert ACCOUNT in ended.out
    assert "nothing is written" in ended.out
