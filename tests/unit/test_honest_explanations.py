"""Explanations say what the model does: a planted word is found, and other weights give other explanations."""

import json
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import save_tiny_bundle
from textcls.inference import integrated_gradients
from textcls.inference.classifier import Classifier, PaddedModel
from textcls.inference.encoding import Encoded
from textcls.inference.explain import explain
from textcls.inference.faithfulness import Faithfulness, faithfulness, losses
from textcls.inference.located import Located, locate
from textcls.modeling.batching import padded
from textcls.modeling.cpu_scoring import RaggedModel
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import tokenizer_of
from textcls.text.tokenizer_files import TokenizerFiles

PLANTED = {"awfulz": "bad", "fineq": "good", "boringx": "so so"}
NONE = "none"
LABELS = ("bad", "good", "so so", NONE)
FILLER = "the film this movie its plot every scene ending was really never truly often not great"
METHODS = ("leave_one_out", "integrated_gradients")


def with_fixed_weights(source: Path, target: Path, seed: int = 0) -> Path:
    """The tiny model with weights and a vocabulary that are the same in every process.

    The tokenizer of the tiny model is trained, which breaks ties at random.
    """
    from transformers import BertConfig, BertModel

    shutil.copytree(source, target)
    words = sorted({*FILLER.split(), "awful", "fine", "boring"})
    letters = [prefix + letter for prefix in ("", "##") for letter in string.ascii_lowercase]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *words]
    content = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    (target / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = BertConfig.from_pretrained(target)
    config.vocab_size = len(tokens)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(target)
    return target


def planted(rows: int, seed: int, without: float = 0.0) -> list[tuple[str, str, str]]:
    """(text, label, the only word that decides it); `without` is the share of texts without such a word.

    Without these in training, a model need not know the word of one label: it may give it where the others are missing.
    """
    chance = random.Random(seed)
    found = []
    for _ in range(rows):
        words = chance.choices(FILLER.split(), k=chance.randrange(5, 12))
        if chance.random() < without:
            found.append((" ".join(words), NONE, ""))
            continue
        word = chance.choice(list(PLANTED))
        words.insert(chance.randrange(len(words) + 1), word)
        found.append((" ".join(words), PLANTED[word], word))
    return found


def learned(directory: Path) -> Callable[[Any], None]:
    """Trains a model on planted rows."""
    tokenizer = tokenizer_of(TokenizerFiles.load(str(directory)))

    def train(model: Any) -> None:
        model.eval()  # no dropout: equal weights every time
        torch.set_num_threads(1)
        rows = planted(64 * 500, seed=1, without=0.25)
        ids, _ = tokenizer([TextInput(text) for text, _, _ in rows])
        # What integrated gradients begin from has to be neutral, and so has all that lies between it and a text:
        # padding in place of any other word changes nothing.
        kept = {token for row in tokenizer([TextInput(word) for word in PLANTED])[0] for token in row}
        chance = random.Random(0)
        # The words first: with padding from the beginning, some seeds learn nothing.
        shares = [0.0 if i < 64 * 200 else chance.choice((0.0, 0.5, 1.0)) for i in range(len(rows))]
        ids = [
            [token if token in kept or chance.random() >= share else 0 for token in row]
            for row, share in zip(ids, shares, strict=True)
        ]
        targets = torch.tensor([LABELS.index(label) for _, label, _ in rows])
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for start in range(0, len(rows), 64):
            ids_BL, mask_BL = padded(ids[start : start + 64], 0)
            logits_BC = model(input_ids=ids_BL, attention_mask=mask_BL).logits
            loss = torch.nn.functional.cross_entropy(logits_BC, targets[start : start + 64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A bundle whose model has learned that one word decides."""
    # Its tokenizer is that of the pretrained model: word pieces, several for a planted word.
    directory = tmp_path_factory.mktemp("planted") / "bundle"
    model = with_fixed_weights(tiny_model_dir, tmp_path_factory.mktemp("planted") / "model")
    fresh = save_tiny_bundle(model, tmp_path_factory.mktemp("planted") / "fresh")
    return save_tiny_bundle(model, directory, labels=LABELS, change=learned(fresh))


@pytest.fixture(scope="module")
def classifier(directory: Path) -> Classifier:
    found = Classifier.load(str(directory), precision="fp32", threads=1)
    rows = planted(100, seed=2)
    scores = found.scores([text for text, _, _ in rows])
    assert np.mean([scores.label(i) == label for i, (_, label, _) in enumerate(rows)]) > 0.98
    return found


def effects(classifier: Classifier, method: Any, rows: list[tuple[str, str, str]]) -> list[np.ndarray]:
    """Of the words of each row, on its own label."""
    of_rows = []
    for text, label, _ in rows:
        (found,) = explain(classifier, [text], labels=[label], method=method)
        assert isinstance(found, list)
        of_rows.append(np.array([word.effect for word in found[0].words]))
    return of_rows


@pytest.mark.parametrize("method", METHODS)
def test_the_word_that_alone_decides_is_ranked_first(classifier: Classifier, method: str) -> None:
    rows = planted(60, seed=3)
    first = [
        text.split()[int(found.argmax())] == word
        for (text, _, word), found in zip(rows, effects(classifier, method, rows), strict=True)
    ]
    assert np.mean(first) >= 0.95


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of values without ties."""
    return float(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1])


@pytest.mark.parametrize("parts", [("classifier.",), ("classifier.", "pooler.", "layer.")], ids=["head", "layers too"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_other_weights_has_other_explanations(
    directory: Path, method: str, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of Adebayo et al. 2018: an explanation that survives new weights does not explain the model.

    A new head may turn all effects round, or none: so the mean over many draws and labels is taken.
    """
    monkeypatch.setattr(integrated_gradients, "FEWEST_STEPS", 8)
    monkeypatch.setattr(integrated_gradients, "MOST_STEPS", 8)
    rows = [next(row for row in planted(60, seed=4) if row[1] == label) for label in PLANTED.values()]
    classifier = Classifier.load(str(directory), precision="fp32", threads=1)
    true = effects(classifier, method, rows)
    assert np.mean([rank_correlation(one, one) for one in true]) == pytest.approx(1)
    torch.manual_seed(0)
    correlations = []
    for _ in range(40):
        # Not by torch.nn.init: transformers replaces it while it loads a model, by functions that spare loaded weights,
        # and for good where two threads load at once.
        with torch.no_grad():
            for name, parameter in classifier.module.named_parameters():
                if any(part in name for part in parts):
                    parameter.normal_(std=0.1)
        model = RaggedModel.of(classifier.module, bf16=False) or PaddedModel(
            classifier.module, classifier.padding_id, torch.device("cpu"), bf16=False
        )
        monkeypatch.setattr(classifier, "_model", model)
        correlations += map(rank_correlation, true, effects(classifier, method, rows))
    assert abs(np.mean(correlations)) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_faithful_explanations_differ_from_a_random_order(classifier: Classifier, method: Any) -> None:
    texts = [text for text, _, _ in planted(20, seed=5)]
    found = faithfulness(classifier, [*texts, "", "film"], method=method)
    scores = found.as_json(method)
    assert scores["explanations"] == 20, "one word has no order"
    assert scores["comprehensiveness"] > 3 * scores["random_comprehensiveness"]
    assert scores["comprehensiveness"] > 0.5
    assert scores["sufficiency"] < 0.1 < scores["random_sufficiency"]
    parts = [faithfulness(classifier, texts[start : start + 7], method=method) for start in (0, 7, 14)]
    assert sum(parts, Faithfulness()).sums == pytest.approx(found.sums, abs=1e-4)


def test_faithfulness_is_what_scores_lose_without_the_first_words_and_with_them_alone(classifier: Classifier) -> None:
    (located,) = locate(classifier, ["film awfulz the plot was great acting really never truly"])
    assert isinstance(located, Located)
    ranks = np.array([9, 10, 8, 7, 6, 5, 4, 3, 2, 1])
    order = [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    label = LABELS.index("bad")

    def lost(variant: Encoded) -> float:
        scores = classifier.score_encoded([located.encoded, variant]).probabilities[:, label]
        return float(scores[0] - scores[1])

    firsts = [1, 1, 1, 2, 5]  # of 10 words: 1, 5, 10, 20 and 50 %, at least one
    comprehensiveness = np.mean([lost(located.without(order[:first])) for first in firsts])
    sufficiency = np.mean([lost(located.without(order[first:])) for first in firsts])
    (found,) = losses(classifier, located, label, [ranks]).tolist()
    assert found == pytest.approx([comprehensiveness, sufficiency], abs=1e-5)
