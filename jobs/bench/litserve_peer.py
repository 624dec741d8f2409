"""The LitServe server in http_load.py's comparison: `{"text": ...}` -> `{"label", "score"}`.

A typical LitServe server: batches of up to 64 requests with a timeout of 5 ms, padded to the longest text of the batch,
in bfloat16 if the processor multiplies it; one worker with all threads.
"""

import argparse
import os
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from textcls.modeling.precision import uses_bf16

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Classify(litserve.LitAPI):  # type: ignore[misc]
    """Runs in LitServe's worker process."""

    def __init__(self, bundle: str) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.005)
        self.bundle = bundle

    def setup(self, device: str) -> None:
        """Loads the model in the worker."""
        torch.set_num_threads(os.cpu_count() or 1)
        self.tokenizer = AutoTokenizer.from_pretrained(self.bundle)
        self.model = AutoModelForSequenceClassification.from_pretrained(self.bundle, dtype=torch.float32).eval()
        self.bf16 = uses_bf16("auto", torch.device("cpu"))

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Returns one result for each text of a batch."""
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            scores, labels = self.model(**batch).logits.float().softmax(-1).max(-1)
        names = self.model.config.id2label
        pairs = zip(labels.tolist(), scores.tolist(), strict=True)
        return [{"label": names[label], "score": score} for label, score in pairs]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Returns the result, which can be encoded as JSON."""
        return output


def main() -> None:
    """Serves on the loopback interface until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server = litserve.LitServer(Classify(arguments.bundle), accelerator="cpu")
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
