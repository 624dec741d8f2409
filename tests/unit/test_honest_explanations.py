"""Explanations say what the model does: a planted word is found, and other weights give other explanations."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import save_tiny_bundle
from textcls.inference.classifier import Classifier
from textcls.inference.explain import explain
from textcls.modeling.batching import padded
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import TokenizerFiles, tokenizer_of

PLANTED = {"quaxel": "bad", "vimborg": "good", "zupfen": "so so"}
LABELS = ("bad", "good", "so so")
FILLER = "the film this movie its plot every scene ending was really never truly often not great"
METHODS = ("leave_one_out", "integrated_gradients")


def planted(rows: int, seed: int) -> list[tuple[str, str, str]]:
    """(text, label, the only word that decides it)."""
    chance = random.Random(seed)
    found = []
    for _ in range(rows):
        words = chance.choices(FILLER.split(), k=chance.randrange(5, 12))
        word = chance.choice(list(PLANTED))
        words.insert(chance.randrange(len(words) + 1), word)
        found.append((" ".join(words), PLANTED[word], word))
    return found


def learned(directory: Path) -> Callable[[Any], None]:
    """Trains a model on planted rows."""
    tokenizer = tokenizer_of(TokenizerFiles.load(str(directory)))

    def train(model: Any) -> None:
        rows = planted(64 * 40, seed=1)
        ids, _ = tokenizer([TextInput(text) for text, _, _ in rows])
        targets = torch.tensor([LABELS.index(label) for _, label, _ in rows])
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        model.train()
        for start in range(0, len(rows), 64):
            ids_BL, mask_BL = padded(ids[start : start + 64], 0)
            logits_BC = model(input_ids=ids_BL, attention_mask=mask_BL).logits
            loss = torch.nn.functional.cross_entropy(logits_BC, targets[start : start + 64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()

    return train


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A bundle whose model has learned that one word decides."""
    # Its tokenizer is that of the pretrained model: word pieces, several for a planted word.
    directory = tmp_path_factory.mktemp("planted") / "bundle"
    fresh = save_tiny_bundle(tiny_model_dir, tmp_path_factory.mktemp("planted") / "fresh")
    return save_tiny_bundle(tiny_model_dir, directory, labels=LABELS, change=learned(fresh))


@pytest.fixture(scope="module")
def classifier(directory: Path) -> Classifier:
    found = Classifier.load(str(directory), precision="fp32")
    rows = planted(100, seed=2)
    scores = found.scores([text for text, _, _ in rows])
    assert np.mean([scores.label(i) == label for i, (_, label, _) in enumerate(rows)]) > 0.98
    return found


def effects(classifier: Classifier, method: Any, rows: list[tuple[str, str, str]]) -> list[np.ndarray]:
    """Of the words of each row, on its own label."""
    found = explain(classifier, [text for text, _, _ in rows], labels=LABELS, method=method)
    of_rows = []
    for one, (_, label, _) in zip(found, rows, strict=True):
        assert isinstance(one, list)
        of_rows.append(np.array([word.effect for word in one[LABELS.index(label)].words]))
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


def drawn_anew(name: str) -> Callable[[Any], None]:
    """Draws the weights of a part anew, as those of a fresh model."""

    def draw(model: Any) -> None:
        for key, parameter in model.named_parameters():
            if name in key:
                torch.nn.init.normal_(parameter, std=0.1)

    return draw


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_other_weights_has_other_explanations(
    classifier: Classifier, directory: Path, tiny_model_dir: Path, tmp_path: Path, method: str
) -> None:
    """The test of Adebayo et al. 2018: an explanation that survives new weights does not explain the model."""
    rows = planted(20, seed=4)
    true = effects(classifier, method, rows)

    def correlation(parts: tuple[str, ...]) -> float:
        """Mean over rows and over several draws."""
        found = []
        for seed in range(4):
            torch.manual_seed(seed)

            def change(model: Any) -> None:
                model.load_state_dict(classifier.module.state_dict())
                for part in parts:
                    drawn_anew(part)(model)

            bundle = save_tiny_bundle(tiny_model_dir, tmp_path / f"{len(parts)}-{seed}", labels=LABELS, change=change)
            other = effects(Classifier.load(str(bundle), precision="fp32"), method, rows)
            found += [rank_correlation(*pair) for pair in zip(true, other, strict=True)]
        return float(np.mean(found))

    assert np.mean([rank_correlation(one, one) for one in true]) == pytest.approx(1)
    parts = ("classifier.", "pooler.", "layer.1.", "layer.0.")
    for last in range(1, len(parts) + 1):
        assert abs(correlation(parts[:last])) < 0.2, parts[:last]
