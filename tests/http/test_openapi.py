"""The OpenAPI document is true: a tool that reads it and tries everything finds nothing that it does not say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from textcls.serving.refusals import REFUSALS
from textcls.settings.serve import ServeSpec

from .conftest import Service, service_of

# What a document cannot say: which labels the model has, and of a text, that it holds a word the model knows. `POST /`
# and `POST /explain` have one text, and refuse then.
CONFIGURATION = """
[[operations]]
include-path = "/"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
[[operations]]
include-path = "/explain"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
"""


@pytest.mark.parametrize(("bundle", "examples"), [("tiny_bundle", 40), ("pair_bundle", 15)])
def test_schemathesis_finds_no_failure(
    bundle: str, examples: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    limits = ServeSpec(max_texts_per_request=8, max_queued_texts=64, max_chars_per_text=50)
    with service_of(request.getfixturevalue(bundle), limits, key="s3cret") as service:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]
        options = ["--checks=all", f"--max-examples={examples}", "--seed=1", "--no-color"]
        done = subprocess.run(
            [*command, f"{service.url}/openapi.json", *options, "--header", "Authorization: Bearer s3cret"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        seen = [json.loads(line) for line in service.log]
        assert {one["path"] for one in seen} >= set(service.ask("/openapi.json").json["paths"])
        assert [one for one in seen if one["status"] >= 500] == []
        scored = [one for one in seen if one["path"] == "/predict" and one["status"] == 200]
        assert len(scored) > examples // 2


def test_the_document_states_the_limits_and_every_refusal_of_the_table(service: Service) -> None:
    document = service.ask("/openapi.json").json
    texts = document["components"]["schemas"]["PredictRequest"]["properties"]["inputs"]["anyOf"]
    assert texts[0]["maxLength"] == texts[-1]["items"]["anyOf"][0]["maxLength"] == 2000
    assert texts[-1]["maxItems"] == 16
    assert "50000 bytes" in document["info"]["description"]
    told = str(document["paths"])
    untold = {code for code in REFUSALS if f"`{code}`" not in told}
    # What no operation answers: there is no such operation.
    assert untold == {"method_not_allowed"}
