"""The FastAPI server in http_load.py's comparison: `{"text": ...}` -> `{"label", "score"}`.

`transformers.pipeline` in float32 in a plain endpoint, which Starlette runs in its thread pool.
"""

import argparse
import os
from typing import Any

import fastapi
import pydantic
import torch
import transformers
import uvicorn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class RequestBody(pydantic.BaseModel):
    """The body of a request."""

    text: str


def main() -> None:
    """Serves on the loopback interface until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    classify = transformers.pipeline("text-classification", arguments.bundle, dtype=torch.float32, device="cpu")
    app = fastapi.FastAPI()

    @app.post("/predict")
    def predict(body: RequestBody) -> dict[str, Any]:
        return dict(classify(body.text, truncation=True)[0])

    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
