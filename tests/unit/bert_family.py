"""Tiny random classifiers of each kind that is built like BERT, and of one that is not."""

from typing import Any

import torch

LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
NOT_LIKE_BERT = "distilbert"
PAD = 1


def tiny_classifier(kind: str, **settings: Any) -> Any:
    """A classifier of 3 labels in evaluation mode; no weight has the value that a fresh model would give it."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": PAD,
        "num_labels": 3,
    }
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **sizes, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model
