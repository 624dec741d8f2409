"""What trains also predicts, evaluates, serves and loads in `transformers.pipeline`; what cannot is refused before."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.masked_texts import ALL_KINDS, texts_with_identifiers
from tests.unit.languages import CHINESE
from textcls.bundle import make_bundle
from textcls.errors import ModelError
from textcls.inference.classifier import Classifier
from textcls.manifest import Calibration
from textcls.modeling import cpu_training
from textcls.modeling.build import build_model, head_of, logits_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.modeling.pretrained import has_token_types, read_config
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.training import rehearsal
from textcls.training.checkpoint import write_weights
from textcls.training.export import export_files
from textcls.training.rehearsal import begin_rehearsal, rehearse
from textcls.training.rehearsed_scores import Sample, batched

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = ("bad", "good", "so so")
TEXTS = ["The film was GREAT", "its plot: boring, 10/10?", "café 街", "the [SEP] film", "this movie was awful " * 40]
POSITIONS = 40
_SIZES = {
    "vocab_size": 420,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
# Kind of model -> what its configuration needs besides; heads on the first token, the last one, and the mean of all.
WORKS: dict[str, dict[str, Any]] = {
    "bert": {},
    "xlm-roberta": {},
    "electra": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "mpnet": {},
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"},
    "longformer": {"attention_window": [4, 4]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS},
    "funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "block_sizes": [1, 1]},
    # Its weights have other names in files than in memory.
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 4},
}
# Those in which each row has a gradient of its own.
PRIVATE = {"bert", "xlm-roberta", "electra", "distilbert", "mpnet", "esm"}
# Their scores depend on padding.
REFUSED: dict[str, dict[str, Any]] = {
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "fnet": {},
    "convbert": {"embedding_size": 32},
}
# The positions that a model of a kind has for tokens; those not named have no limit.
# Those of RoBERTa's kind begin after that of the padding, 0 here; MPNet's padding is always 1.
LIMITS = {"bert": 40, "electra": 40, "distilbert": 40, "albert": 40, "gpt2": 40, "xlm-roberta": 39, "mpnet": 38}


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory with a classifier of a kind, without a tokenizer; made once. No weight is a fresh model's."""
    root = tmp_path_factory.mktemp("kinds")

    def made(kind: str) -> Path:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        if not (root / kind).exists():
            own = (WORKS | REFUSED)[kind]
            sizes = {"vocab_size": _SIZES["vocab_size"]} if kind in ("xlnet", "funnel") else _SIZES
            with torch.random.fork_rng():
                torch.manual_seed(0)
                settings = sizes | {"pad_token_id": 1, "num_labels": len(LABELS)} | own
                model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **settings))
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            model.save_pretrained(root / kind)
        return root / kind

    return made


# --- three layouts of tokenizers -------------------------------------------------------------------------------------

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {"bos_token": 0, "cls_token": 0, "pad_token": 1, "sep_token": 2, "eos_token": 2, "unk_token": 3}


def among_added_tokens(wordpiece: Path, target: Path) -> None:
    """As save_pretrained leaves it."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(wordpiece / name, target)


def in_the_vocabulary_only(wordpiece: Path, target: Path) -> None:
    """Special tokens are named in tokenizer_config.json, and are no added tokens."""
    among_added_tokens(wordpiece, target)
    content = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    (target / "tokenizer.json").write_text(json.dumps(content | {"added_tokens": []}), encoding="utf-8")


def of_bytes(wordpiece: Path, target: Path) -> None:
    """A byte-level BPE that knows no word, with RoBERTa's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(target / "tokenizer.json"))
    names = {name: SPECIAL[i] for name, i in NAMES.items()}
    (target / "tokenizer_config.json").write_text(json.dumps(names))


def of_pieces(wordpiece: Path, target: Path) -> None:
    """A Unigram of letters, without a token for the word 'the'."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    scores = dict.fromkeys([*SPECIAL, "▁", *"abcdefghijklmnoprstuvwy", "街"], -1.0)
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(target / "tokenizer.json"))
    names = {name: SPECIAL[i] for name, i in NAMES.items()}
    (target / "tokenizer_config.json").write_text(json.dumps(names))


def of_slow_files(wordpiece: Path, target: Path) -> None:
    """What came before tokenizer.json."""
    vocabulary = json.loads((wordpiece / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    (target / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


LAYOUTS = (among_added_tokens, in_the_vocabulary_only)
THIRD = (of_bytes, of_pieces, of_slow_files)
PAIRS = [
    pytest.param(kind, layout, id=f"{kind}-{layout.__name__}")
    for i, kind in enumerate(WORKS | REFUSED)
    for layout in (*LAYOUTS, THIRD[i % 3])
]


@pytest.fixture
def directory(tiny_model_dir: Path, pretrained: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A pretrained model's directory of a kind with a tokenizer of a layout."""

    def made(kind: str, layout: Callable[[Path, Path], None] = among_added_tokens) -> Path:
        target = tmp_path / "model"
        shutil.copytree(pretrained(kind), target)
        layout(tiny_model_dir, target)
        return target

    return made


def recipe_of(model: Path, *, pairs: bool = False, **text: Any) -> Recipe:
    sections = {"model": {"pretrained": str(model)}, "text": {"max_tokens": 16} | text, "train": {"precision": "fp32"}}
    return Recipe.model_validate(sections | ({"data": {"pair": ["question", "answer"]}} if pairs else {}))


def tokenizer_of(model: Path, recipe: Recipe) -> TokenizerFiles:
    typed = recipe.data.pair is not None and has_token_types(read_config(str(model)))
    return prepare_tokenizer(str(model), recipe.text, token_types=typed)


def rehearsed(model: Path, *, pairs: bool = False, **text: Any) -> list[str]:
    recipe = recipe_of(model, pairs=pairs, **text)
    return rehearse(recipe, tokenizer_of(model, recipe), str(model), SINGLE_LABEL)


def privately(model: Path) -> list[str]:
    recipe = parse_recipe(
        yaml.safe_dump(recipe_of(model).model_dump(mode="json", include={"text"})),
        [f"model.pretrained='{model}'", "privacy.epsilon=8"],
    )
    return rehearse(recipe, tokenizer_of(model, recipe), str(model), SINGLE_LABEL)


def trained(model: Path, target: Path, *, pairs: bool = False, **text: Any) -> Path:
    """A bundle after two steps, made with what training is made of."""
    recipe = recipe_of(model, pairs=pairs, **text)
    tokenizer = tokenizer_of(model, recipe)
    built = build_model(
        str(model),
        LABELS,
        recipe.model,
        problem_type=SINGLE_LABEL.problem_type,
        pad_id=tokenizer.pad_id,
        seed=0,
        new_ids=tokenizer.new_ids,
    ).train()
    adapt_to_cpu(built, alone=True)
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    input_tokenizer = InputTokenizer(tokenizer, of_pairs=pairs)
    samples = [Sample.of(input_tokenizer, length) for length in (6, 16)]
    batch = batched(samples, tokenizer.pad_id)
    for _ in range(2):
        optimizer.zero_grad()
        logits_BC = logits_of(built, *batch, bf16=False)
        torch.nn.functional.cross_entropy(logits_BC, torch.tensor([0, 1])).backward()
        optimizer.step()
    checkpoint = target.parent / "checkpoint"
    checkpoint.mkdir()
    target.mkdir()
    write_weights(str(checkpoint), built)
    export_files(str(checkpoint), str(target), tokenizer=tokenizer, head=head_of(built, 3), temperature=1.3)
    make_bundle(
        str(target),
        task=SINGLE_LABEL,
        labels=LABELS,
        text=recipe.text,
        metrics={},
        recipe=recipe,
        data_fingerprint="",
        calibration=Calibration(temperature=1.3),
    )
    return target


@pytest.mark.parametrize(("kind", "layout"), PAIRS)
def test_what_trains_serves_and_what_cannot_is_refused(
    kind: str, layout: Callable[[Path, Path], None], directory: Callable[..., Path], tmp_path: Path
) -> None:
    model = directory(kind, layout)
    if kind in REFUSED:
        with pytest.raises(ModelError, match="scores differently padded in a batch") as caught:
            rehearsed(model)
        assert "model.pretrained" in caught.value.todo
        return
    assert rehearsed(model) == []

    from transformers import pipeline

    bundle = trained(model, tmp_path / "bundle")
    classifier = Classifier.load(str(bundle))
    classifier.warm_up(batch_tokens=32)
    together = classifier.scores(TEXTS)
    assert together.errors == (None,) * len(TEXTS)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(classifier.scores([text]).probabilities[0], together.probabilities[i], atol=1e-5)
    theirs = pipeline("text-classification", str(bundle), top_k=None, truncation=True)(TEXTS, batch_size=3)
    for i, answer in enumerate(theirs):
        found = {one["label"]: one["score"] for one in answer}
        np.testing.assert_allclose([found[name] for name in LABELS], together.probabilities[i], atol=1e-5)
    assert np.ptp(together.probabilities, axis=0).max() > 0.001, "a model that tells texts apart"


@pytest.mark.parametrize("layout", [among_added_tokens, of_bytes])
@pytest.mark.parametrize("kind", WORKS)
def test_masked_texts_score_as_with_placeholders_typed_by_hand_and_as_in_pipeline(
    kind: str, layout: Callable[[Path, Path], None], directory: Callable[..., Path], tmp_path: Path
) -> None:
    model = directory(kind, layout)
    assert rehearsed(model, mask=ALL_KINDS) == []

    from transformers import pipeline

    bundle = trained(model, tmp_path / "bundle", mask=ALL_KINDS)
    written = texts_with_identifiers(30)
    classifier = Classifier.load(str(bundle))
    scores = classifier.scores([one.text for one in written])
    assert scores.errors == (None,) * len(written)
    typed = classifier.scores([one.typed for one in written])
    np.testing.assert_allclose(scores.probabilities, typed.probabilities, atol=1e-5)
    theirs = pipeline("text-classification", str(bundle), top_k=None, truncation=True)([one.text for one in written])
    for i, answer in enumerate(theirs):
        found = {one["label"]: one["score"] for one in answer}
        np.testing.assert_allclose([found[name] for name in LABELS], scores.probabilities[i], atol=1e-5)


@pytest.mark.parametrize("again", [ALL_KINDS, ("email",), ()], ids=["all again", "fewer", "none"])
def test_a_bundle_that_masks_can_be_trained_again_with_other_masks_and_never_grows_twice(
    again: tuple[str, ...], tiny_model_dir: Path, tmp_path: Path
) -> None:
    first = trained(tiny_model_dir, tmp_path / "first", mask=ALL_KINDS)
    assert rehearsed(first, mask=again) == []
    (tmp_path / "again").mkdir()
    second = trained(first, tmp_path / "again" / "second", mask=again)
    tables = [load_file(bundle / "model.safetensors") for bundle in (first, second)]
    name = "bert.embeddings.word_embeddings.weight"
    assert tables[0][name].shape == tables[1][name].shape
    assert len(tables[0][name]) == json.loads((second / "config.json").read_text())["vocab_size"]
    classifier = Classifier.load(str(second))
    text = "mail a@example.com, 13800001234"
    (masked,) = classifier.encode([text])
    (typed,) = classifier.encode(["mail [EMAIL], [CN_MOBILE]" if len(again) > 1 else "mail [EMAIL], 13800001234"])
    assert (masked == typed) == bool(again)
    # Rows that were trained are not set to the mean again.
    recipe = recipe_of(first, mask=again)
    assert tokenizer_of(first, recipe).new_ids == ()


@pytest.mark.parametrize("layout", [among_added_tokens, of_bytes])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "electra", "distilbert", "mpnet", "albert", "deberta-v2"])
def test_pairs_score_alike_alone_in_a_batch_and_in_pipeline(
    kind: str, layout: Callable[[Path, Path], None], directory: Callable[..., Path], tmp_path: Path
) -> None:
    model = directory(kind, layout)
    assert rehearsed(model, pairs=True) == []

    from transformers import pipeline

    bundle = trained(model, tmp_path / "bundle", pairs=True)
    classifier = Classifier.load(str(bundle))
    classifier.warm_up(batch_tokens=32)
    inputs = [TextInput(one, other) for one, other in itertools.permutations(TEXTS, 2)]
    together = classifier.scores(inputs)
    assert together.errors == (None,) * len(inputs)
    theirs = pipeline("text-classification", str(bundle), top_k=None, truncation=True)
    for i, one in enumerate(inputs):
        np.testing.assert_allclose(classifier.scores([one]).probabilities[0], together.probabilities[i], atol=1e-5)
        found = {each["label"]: each["score"] for each in theirs(one._asdict())}
        np.testing.assert_allclose([found[name] for name in LABELS], together.probabilities[i], atol=1e-5)
    swapped = classifier.scores([TextInput(*one.segments[::-1]) for one in inputs]).probabilities
    assert np.abs(swapped - together.probabilities).max() > 1e-4, "a model that tells the first text from the second"


def test_pairs_whose_tokens_have_types_unlike_bert_s_are_refused(directory: Callable[..., Path]) -> None:
    model = directory("bert")
    path = model / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for part in content["post_processor"]["pair"][-1:]:
        part["SpecialToken"]["type_id"] = 2
    path.write_text(json.dumps(content), encoding="utf-8")
    assert rehearsed(model) == []
    with pytest.raises(ModelError, match=r"pairs: it gives the tokens of a pair the types \[0, 0, 0, 1, 2\]") as caught:
        rehearsed(model, pairs=True)
    assert "model.pretrained" in caught.value.todo


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LIMITS)
def test_the_limit_is_the_model_s_positions_and_the_advised_one_works(
    kind: str, directory: Callable[..., Path]
) -> None:
    model, limit = directory(kind), LIMITS[kind]
    with pytest.raises(
        ModelError, match=f"max_tokens 300 is more than the model's positions for {limit} tokens"
    ) as caught:
        rehearsed(model, max_tokens=300)
    assert caught.value.todo == f"--set text.max_tokens={limit}"
    rehearsed(model, max_tokens=limit)
    with pytest.raises(ModelError, match=f"positions for {limit} tokens"):
        rehearsed(model, max_tokens=limit + 1)


def test_a_model_without_positions_has_no_limit(directory: Callable[..., Path]) -> None:
    model = directory("deberta-v2")
    assert rehearsed(model, max_tokens=POSITIONS + 30)  # more than its tokenizer's settings name, which is noted


def test_a_limit_in_the_tokenizer_s_settings_is_an_earlier_run_s_and_not_the_model_s(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    bundle = trained(tiny_model_dir, tmp_path / "bundle", max_tokens=16)
    (note,) = rehearsed(bundle, max_tokens=60)
    assert "60 is more than model_max_length 16" in note
    with pytest.raises(ModelError, match="the model's positions for 64 tokens"):
        rehearsed(bundle, max_tokens=65)


@pytest.mark.parametrize("on_long", ["truncate", "windows", "error"])
def test_it_matters_not_what_becomes_of_long_texts(on_long: str, tiny_model_dir: Path) -> None:
    assert rehearsed(tiny_model_dir, on_long=on_long) == []


# --- what is found ---------------------------------------------------------------------------------------------------


def test_token_ids_beyond_the_embeddings_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    content = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    highest = max(content["model"]["vocab"].values())
    content["model"]["vocab"]["beyond"] = highest + 1
    (model / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=f"up to {highest + 1}, the model's embeddings end at {highest}") as caught:
        rehearsed(model)
    assert f"resize_token_embeddings({highest + 2})" in caught.value.todo
    from transformers import AutoModel

    enlarged = AutoModel.from_pretrained(model)
    enlarged.resize_token_embeddings(highest + 2)
    enlarged.save_pretrained(model)
    assert rehearsed(model) == []


def chinese_model(target: Path, **tokenizer_config: Any) -> Path:
    """A directory of config.json, model.safetensors and vocab.txt: a token for each character, and two words."""
    from transformers import BertConfig, BertModel

    characters = sorted({char for line in CHINESE for char in line})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, "great", "Great"]
    BertModel(BertConfig(**_SIZES | {"vocab_size": len(tokens)})).save_pretrained(target)
    (target / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    if tokenizer_config:
        (target / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    return target


def test_a_chinese_model_with_vocab_txt_is_trained_and_served_with_a_token_for_each_character(tmp_path: Path) -> None:
    from transformers import pipeline

    model = chinese_model(tmp_path / "model")
    assert rehearsed(model) == []
    bundle = trained(model, tmp_path / "bundle", max_tokens=POSITIONS)
    text = "这部电影真的很好看，Great"
    encoded = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(text)
    assert encoded.tokens == ["[CLS]", *"这部电影真的很好看，", "great", "[SEP]"]
    scores = Classifier.load(str(bundle)).scores([text])
    assert (scores.tokens[0], scores.unknown[0]) == (len(encoded.tokens), 0)
    (theirs,) = pipeline("text-classification", model=str(bundle), top_k=None)([text])
    found = {one["label"]: one["score"] for one in theirs}
    np.testing.assert_allclose(scores.probabilities[0], [found[label] for label in LABELS], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "lowercase", "expected"),
    [({}, False, "great"), ({"do_lower_case": False}, False, "Great"), ({"do_lower_case": False}, True, "great")],
)
def test_a_model_with_vocab_txt_keeps_case_if_neither_its_own_files_nor_the_recipe_lower_it(
    config: dict[str, Any], lowercase: bool, expected: str, tmp_path: Path
) -> None:
    model = chinese_model(tmp_path / "model", **config)
    recipe = recipe_of(model, lowercase=lowercase)
    tokenizer = Tokenizer.from_str(tokenizer_of(model, recipe).tokenizer_json)
    assert tokenizer.encode("Great").tokens == ["[CLS]", expected, "[SEP]"]


def test_a_padding_token_named_as_advised_makes_a_decoder_work(directory: Callable[..., Path]) -> None:
    model = directory("gpt2", of_bytes)
    path = model / "tokenizer_config.json"
    path.write_text('{"eos_token": "</s>", "unk_token": "<unk>"}')
    with pytest.raises(ModelError, match="no padding token") as caught:
        rehearsed(model)
    added = caught.value.todo.removeprefix("add ").removesuffix(f" to {path}")
    path.write_text(path.read_text().replace("{", f"{{{added}, ", 1))
    assert rehearsed(model) == []


def test_attention_that_training_would_compute_otherwise_is_refused(
    directory: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = cpu_training._attention
    monkeypatch.setattr(
        cpu_training, "_attention", lambda *args, **named: attention(*args, **(named | {"scaling": 0.1}))
    )
    with pytest.raises(ModelError, match="scores differently while it is validated"):
        rehearsed(directory("electra"))


def test_a_head_that_a_temperature_cannot_be_folded_into_is_refused(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "head_of", lambda model, classes: "bert.pooler.dense")
    with pytest.raises(ModelError, match="scores differently from its bundle"):
        rehearsed(tiny_model_dir)


def test_a_fast_encoder_that_computes_something_else_is_refused(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textcls.modeling.cpu_scoring import RaggedModel

    logits = RaggedModel.logits
    monkeypatch.setattr(RaggedModel, "logits", lambda self, *windows: logits(self, *windows) * 1.01)
    monkeypatch.setattr(RaggedModel, "of", classmethod(lambda cls, model, *, bf16: cls(model, bf16=bf16)))
    with pytest.raises(ModelError, match="scores differently from its bundle"):
        rehearsed(tiny_model_dir)


def test_it_runs_beside_and_tells_when_it_is_asked(tiny_model_dir: Path) -> None:
    recipe = recipe_of(tiny_model_dir, max_tokens=65)
    tokenizer = prepare_tokenizer(str(tiny_model_dir), recipe.text)
    begun = begin_rehearsal(recipe, tokenizer, str(tiny_model_dir), SINGLE_LABEL)
    with pytest.raises(ModelError, match="positions for 64 tokens"):
        begun.result()


@pytest.mark.parametrize("kind", WORKS)
def test_a_model_in_which_a_row_has_no_gradient_of_its_own_is_not_trained_privately(
    kind: str, directory: Callable[..., Path]
) -> None:
    """ALBERT's layers share their weights, DeBERTa's rows their relative positions."""
    model = directory(kind)
    if kind in PRIVATE:
        privately(model)
    else:
        with pytest.raises(ModelError, match="cannot be trained privately") as caught:
            privately(model)
        assert "BERT, RoBERTa, ELECTRA, DistilBERT and MPNet have one" in caught.value.todo
