"""What answers hold, ready for JSON: the outcome of a text, and what the service says about itself.

In: a scored text or its error; a scorer and limits. Out: dictionaries, as response_schema.py describes those of texts.
Not here: explanations (explainer.py), HTTP (api.py).
"""

from typing import Any

from textcls.inference.classifier import Scores
from textcls.inference.encoding import ItemError
from textcls.serving.scorer import NotReady, Scorer, TextScores
from textcls.settings.serve import ServeSpec
from textcls.text.masks import mask_kinds


def prediction(outcome: TextScores | ItemError, top_k: int | None) -> dict[str, Any]:
    """The outcome of one text.

    Args:
        outcome: its scores, or why it has none.
        top_k: how many labels to give; None for all.
    """
    if isinstance(outcome, ItemError):
        return {"error": {"code": outcome.code, "message": outcome.message}}
    scores, row = outcome
    return {
        **scores.answer(row, top_k),
        "tokens": int(scores.tokens[row]),
        **_text_tokens(scores, row),
        "truncated": bool(scores.truncated[row]),
        "unknown_tokens": int(scores.unknown[row]),
    }


def _text_tokens(scores: Scores, row: int) -> dict[str, int]:
    """Tokens of each text of a pair; nothing for one text."""
    if scores.text_tokens is None:
        return {}
    return dict(zip(("first_tokens", "second_tokens"), scores.text_tokens[row].tolist(), strict=True))


def info_of(scorer: Scorer, limits: ServeSpec, version: str) -> dict[str, Any]:
    """The model in use, its limits and the bundle's metrics.

    Args:
        scorer: scores texts.
        limits: on requests.
        version: of textcls.

    Raises:
        NotReady: no model is loaded.
    """
    classifier = scorer.classifier
    if classifier is None:
        raise NotReady
    bundle = classifier.bundle
    shown = ("max_texts_per_request", "max_chars_per_text", "max_body_bytes", "max_queued_texts")
    of_explanations = {
        "method": "leave_one_out",
        "max_words": limits.max_words_to_explain,
        "max_chars": limits.max_chars_to_explain,
        "max_queued_texts": scorer.batcher.max_side_items,
    }
    return {
        "labels": list(classifier.labels),
        "pairs": classifier.pairs,
        "max_tokens": classifier.max_tokens,
        "on_long": bundle.manifest.text.on_long,
        "masks": {kind.name: kind.placeholder for kind in mask_kinds(bundle.manifest.text)},
        **classifier.task.thresholds_as_json(classifier.thresholds, classifier.labels),
        "limits": {name: getattr(limits, name) for name in shown},
        "explain": of_explanations if limits.explain_share else None,
        "model": {
            "digest": bundle.digest,
            "uri": bundle.uri,
            "precision": classifier.precision,
            "device": classifier.device,
            # The first bundles held the full confusion matrix: 19 MB for 2,500 labels.
            "metrics": {name: value for name, value in bundle.manifest.metrics.items() if name != "confusion"},
            "calibration": bundle.manifest.calibration.model_dump(),
            "privacy": bundle.manifest.privacy and bundle.manifest.privacy.model_dump(mode="json"),
            "versions": bundle.manifest.versions,
        },
        "last_load_failed": scorer.problem or None,
        "version": version,
    }
