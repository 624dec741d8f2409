"""Fixtures for every test: the environment, a tiny real model with its tokenizer, and an S3 server of our own.

Tests run in parallel processes (pytest-xdist). A group of tests shares one process, and with it a Ray, a cluster or a
service: `_GROUPS` below for slow files, the file itself for any other. `pytest -n 0` runs everything in one process.
"""

import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A process for each group of workers, which watches for drained nodes: of use in stories about nodes alone.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="more faults, more examples of properties: what a nightly run should do"
    )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether repetitions run whole; without, each distinct moment is tried once."""
    return bool(request.config.getoption("--full"))


def pytest_configure(config: pytest.Config) -> None:
    """Sets the environment before any test module is imported: libraries read these once, at import."""
    os.environ.update(ENVIRONMENT)
    # A slow machine is no failure.
    hypothesis.settings.register_profile("any speed", deadline=None, max_examples=50)
    hypothesis.settings.register_profile("full", deadline=None, max_examples=400)
    hypothesis.settings.load_profile("full" if config.getoption("--full") else "any speed")


# Files, folders and tests that share a process, the longest group first: the short ones fill what is left at the end.
_GROUPS = {
    "nodes": ["story/test_nodes.py"],
    "nodes that die": ["story/test_changing_nodes.py::test_nodes_that_die"],
    "changing nodes": ["story/test_changing_nodes.py"],
    "kills": ["story/test_faults.py::test_kills", "story/test_full_disk.py"],
    "service": ["story/test_serve.py", "story/test_https.py"],
    "training": ["local_ray/test_training.py"],
    "local Ray": ["local_ray"],
    "hangs": ["story/test_faults.py::test_rank", "story/test_faults.py::test_run_goes_on"],
    "interruption": ["story/test_first_run.py", "story/test_interruption.py", "story/test_cluster.py"],
    "cluster": [
        *("story/test_batch.py", "story/test_bad_input.py", "story/test_csv_dialects.py", "story/test_events.py"),
        "story/test_terminal.py",
    ],
    "faults": ["story/test_faults.py"],
    "browser": ["http/test_try_page.py", "unit/test_pages_in_browser.py"],
    "object storage": ["story/test_secrets.py", "story/test_object_storage.py"],
}


def _group(nodeid: str) -> tuple[int, str]:
    """(place, name) of the group of a test; groups run in the order of places."""
    test = nodeid.removeprefix("tests/")
    for place, (name, members) in enumerate(_GROUPS.items()):
        if any(test.startswith(member) for member in members):
            return place, name
    return len(_GROUPS) + (not test.startswith("story/")), test.partition("::")[0]


class _Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole groups. `--dist=loadgroup` would do so, but pytest-xdist 3.8 cannot group under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)[1]

    def _reschedule(self, node: Any) -> None:
        """Chooses the next group of a process as late as possible: when its last test begins."""
        if not (self.workqueue and self._pending_of(self.assigned_work[node]) == 2):
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups:
    return _Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the groups in a process of several."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _group(item.nodeid)[0])
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # threads of several processes on the same cores wait for each other


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for one file; else one for each core: a story's Ray alone has a dozen processes."""
    named = [Path(arg.partition("::")[0]) for arg in config.args]
    if len(named) == 1 and named[0].suffix == ".py":
        return 0
    return min(len(os.sched_getaffinity(0)), 4)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained BERT encoder of 2 layers and 32 hidden units, and a WordPiece tokenizer. Do not write there."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("tiny_model")
    vocab_size = _save_tiny_tokenizer(directory)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(directory)
    return directory


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, with which tiny models are fastest, the more so beside other tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model with three labels and a limit of 32 tokens; its head is random but decided."""
    return save_tiny_bundle(tiny_model_dir, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def pair_bundle(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_bundle`, of pairs of texts."""
    return save_tiny_bundle(tiny_model_dir, tmp_path_factory.mktemp("bundles") / "pairs", pairs=True)


def save_tiny_bundle(
    model: Path,
    target: Path,
    *,
    seed: int = 0,
    calibration: Any = None,
    privacy: Any = None,
    labels: tuple[str, ...] = ("bad", "good", "so so"),
    precision: Any = "fp32",
    pairs: bool = False,
    task: Any = None,
    change: Callable[[Any], None] | None = None,
    **text: Any,
) -> Path:
    """A bundle at `target`; another seed gives other scores, `text` other text settings, `pairs` one of pairs.

    `change` is called with the model before it is saved, a fresh head on the encoder.
    """
    import torch

    from textcls.bundle import write_bundle
    from textcls.modeling.build import build_model
    from textcls.settings.data import DataSpec
    from textcls.settings.recipe import ModelSpec, Recipe, TextSpec, TrainSpec
    from textcls.tasks.single_label import SINGLE_LABEL
    from textcls.text.tokenizer_files import prepare_tokenizer

    task = task or SINGLE_LABEL
    spec = TextSpec(**({"max_tokens": 32} | text))
    tokenizer = prepare_tokenizer(str(model), spec, token_types=pairs)
    kind, new_ids = task.problem_type, tokenizer.new_ids
    built = build_model(str(model), labels, ModelSpec(), problem_type=kind, pad_id=0, seed=seed, new_ids=new_ids)
    if change is not None:
        change(built)
    else:
        with torch.no_grad():
            built.classifier.weight *= 20  # a fresh head would give every text about the same scores
    source = target.parent / f"{target.name}-files"
    built.save_pretrained(source)
    tokenizer.save(str(source))
    # So that tests mean the same on processors that multiply bf16.
    data = DataSpec(pair=("question", "answer")) if pairs else DataSpec()
    recipe = Recipe(data=data, text=spec, train=TrainSpec(precision=precision))
    write_bundle(
        str(source),
        str(target),
        task=task,
        labels=labels,
        text=spec,
        metrics={},
        recipe=recipe,
        data_fingerprint="0" * 64,
        calibration=calibration,
        privacy=privacy,
    )
    return target


def _save_tiny_tokenizer(directory: Path) -> int:
    """Trains and saves a lower-casing WordPiece tokenizer; its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_sentences(), trainer)
    cls_id, sep_id = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def _sentences() -> list[str]:
    """A small corpus of film reviews, in a fixed order."""
    subjects = ["the film", "this movie", "its plot", "every scene", "the café 街", "the ending", "acting"]
    adverbs = ["really", "hardly", "never", "truly", "often", "not"]
    verdicts = ["great", "awful", "moving", "boring", "wonderful", "bad", "fine!", "dull?", "10/10", "naïve"]
    sentences = [f"{s} was {a} {v}." for s, a, v in product(subjects, adverbs, verdicts)]
    random.Random(0).shuffle(sentences)
    return [*sentences, "abcdefghijklmnopqrstuvwxyz 0123456789 ,;:'\"()-"]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium, without a screen."""
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, found in programs.items():
        assert found, f"no {name} on PATH: this test needs Debian's packages chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs["chromium"])
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "disable-dev-shm-usage", *quiet):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def s3_variables(url: str) -> dict[str, str]:
    """The environment that leads to an S3 server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://BUCKET` of a new, empty bucket, with the environment that leads there."""
    import boto3

    for name, value in s3_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    bucket = f"bucket-{len(client.list_buckets()['Buckets'])}"
    client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}"
