"""A head and two workers, each a machine of its own, that ask for a token: the README's way from a CSV to an endpoint.

The tests of one cluster, in the order in which its life goes.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.conftest import CHECKOUT, Ended, Nodes, as_csv, reviews, wait_until
from textcls import storage
from textcls.directories import put_directory
from textcls.inference.classifier import Classifier

ROWS = 400
SETTINGS = {
    "text.max_tokens": 32,
    "data.shard_bytes": 4000,
    "train.rows_per_step": 2,
    "train.learning_rate": 0.001,
    "train.precision": "fp32",
    "train.checkpoint_every_steps": 40,
    # A worker takes all of a node.
    "scale.workers": 2,
    "scale.cpus_per_worker": 1,
}


def printed(start: str) -> str:
    """The one command that begins so in cluster/README.md, up to the section on KubeRay."""
    section = (CHECKOUT / "cluster" / "README.md").read_text(encoding="utf-8").partition("## KubeRay")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"\\\n *", "", "".join(blocks)).splitlines() + re.findall(r"(?<!`)`([^`\n]+)`", section)
    (found,) = [line for line in lines if line.startswith(start)]
    return found


class Operator:
    """Someone who types the README's commands."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    def types(self, command: str) -> Ended:
        return self.nodes.operator(f"{printed('export RAY_ADDRESS=')}\n{command}")

    def submits(self, name: str, *arguments: str, **places: str) -> None:
        """The README's `ray job submit` of a training run, under another name, to other places, with more arguments."""
        command = printed("ray job submit").replace("--submission-id reviews", f"--submission-id {name}")
        command = command.replace("/runs/reviews", f"/runs/{name}")
        for option, place in places.items():
            command = re.sub(rf"--{option} \S+", f"--{option} {place}", command)
        settings = {"model.pretrained": f"s3://{self.nodes.bucket}/models/tiny"} | SETTINGS
        given = " ".join(f"--set {key}={value}" for key, value in settings.items())
        submitted = self.types(f"{command} {given} {' '.join(arguments)}")
        assert submitted.status == 0, submitted

    def job(self, name: str) -> dict[str, Any]:
        """What the jobs API knows of a job."""
        return self.nodes.dashboard(f"/api/jobs/{name}")

    def ended(self, name: str) -> tuple[dict[str, Any], str]:
        """The same once it has ended, and its log; without the seconds that a `ray` command takes to start."""
        wait_until(lambda: self.job(name)["status"] not in ("PENDING", "RUNNING"), pause_s=0.5)
        return self.job(name), self.nodes.dashboard(f"/api/jobs/{name}/logs")["logs"]

    def places(self, name: str) -> dict[str, set[str]]:
        """What ran in a job, functions and classes -> ids of the nodes it ran on."""
        found = defaultdict(set)
        for kind, key in (("tasks", "name"), ("actors", "class_name")):
            asked = f"filter_keys=job_id&filter_predicates=%3D&filter_values={self.job(name)['job_id']}&limit=10000"
            for one in self.nodes.dashboard(f"/api/v0/{kind}?{asked}")["data"]["result"]["result"]:
                if one["node_id"]:
                    found[one[key]].add(one["node_id"])
        return dict(found)


@pytest.fixture(scope="module")
def operator(nodes: Nodes, tiny_model_dir: Path) -> Operator:
    """Someone whose rows and pretrained model lie in the bucket, and in no file of the nodes."""
    rows = reviews(ROWS)
    for part in range(2):
        storage.write_bytes(f"s3://{nodes.bucket}/reviews/{part}.csv", as_csv(rows[part::2]).encode())
    put_directory(str(tiny_model_dir), f"s3://{nodes.bucket}/models/tiny", last="config.json")
    # Nodes of the image have the packages; here it is the tests' environment that has them.
    runtime_env = nodes.checkout / "cluster" / "runtime_env.yaml"
    content = yaml.safe_load(runtime_env.read_text())
    del content["pip"]
    runtime_env.write_text(yaml.safe_dump(content))
    return Operator(nodes)


@pytest.fixture(scope="module")
def trained(operator: Operator) -> str:
    """The log of a submitted training run that has ended."""
    operator.submits("reviews")
    followed = operator.types(printed("ray job logs"))
    assert followed.status == 0, followed
    return followed.out


def out(nodes: Nodes, name: str) -> str:
    return f"s3://{nodes.bucket}/runs/{name}"


def weights(nodes: Nodes, name: str) -> bytes:
    return storage.read_bytes(f"{out(nodes, name)}/bundle/model.safetensors")


@pytest.mark.parametrize(("header", "status"), [((), 401), (("authorization: Bearer of another token",), 403)])
def test_the_jobs_api_refuses_who_has_not_the_token(nodes: Nodes, header: tuple[str, ...], status: int) -> None:
    url, content = "http://127.0.0.1:8265/api/jobs/", json.dumps({"entrypoint": "true", "submission_id": "stranger"})
    assert nodes.asks(nodes.head, url, *header)[0] == status
    assert nodes.asks(nodes.head, url, "content-type: application/json", *header, content=content)[0] == status
    assert "stranger" not in json.dumps(nodes.dashboard("/api/jobs/"))


def test_the_jobs_api_listens_on_the_head_alone(nodes: Nodes) -> None:
    for worker in nodes.workers:
        assert nodes.asks(worker, f"http://{nodes.head.address}:8265/api/jobs/")[0] == 0


def test_exit_status_2_and_1_are_told_apart(operator: Operator, nodes: Nodes) -> None:
    operator.submits("nothing", csv="s3://$BUCKET/nothing/*.csv")
    operator.submits("nowhere", out="s3://nobodys/runs/nowhere")
    for name, status, told in (
        ("nothing", 2, "s3://company/nothing/*.csv"),
        ("nowhere", 1, "s3://nobodys/runs/nowhere"),
    ):
        job, log = operator.ended(name)
        assert (job["status"], job["driver_exit_code"]) == ("FAILED", status), log
        assert told in log
        assert told in job["message"]


def test_a_submitted_run_leaves_its_bundle_in_the_bucket(operator: Operator, nodes: Nodes, trained: str) -> None:
    status = operator.types(printed("ray job status"))
    assert "succeeded" in status.out, trained
    classifier = Classifier.load(f"{out(nodes, 'reviews')}/bundle", device="cpu")
    scores = classifier.scores(["a great and moving film", "dull and awful"])
    assert [scores.label(0), scores.label(1)] == ["positive", "negative"]
    account = json.loads(storage.read_bytes(f"{out(nodes, 'reviews')}/rows.json"))
    assert account["read"] == account["train"] + account["val"] + account["test"] == ROWS


def test_its_log_tells_how_far_it_was(nodes: Nodes, trained: str) -> None:
    told = [
        r"reading 2 files, [\d.]+ kB",
        rf"read {ROWS} rows from 2 files",
        r"training s3://company/models/tiny on \d+ rows: 2 workers with 1 CPU each",
        *(rf"epoch {epoch} of 3: validation macro F1" for epoch in (1, 2, 3)),
        rf"bundle: {out(nodes, 'reviews')}/bundle",
    ]
    for line in told:
        assert re.search(line, trained), trained


def test_training_takes_every_worker_and_nothing_is_read_or_tokenized_on_the_head(
    operator: Operator, nodes: Nodes, trained: str
) -> None:
    places, workers = operator.places("reviews"), nodes.ids(workers_only=True)
    # So few rows may all be read on the node whose processes start first.
    for part in ("(_read_shard)", "(_tokenized)"):
        (where,) = [ids for name, ids in places.items() if part in name and "." not in name]
        assert where <= workers, places
    assert places["RayTrainWorker"] == workers


def test_a_stopped_run_is_resumed_on_the_cluster(operator: Operator, nodes: Nodes, trained: str) -> None:
    operator.submits("stopped")
    attempt = f"{out(nodes, 'stopped')}/training/attempt-0001"

    def kept() -> bool:
        return any(storage.exists(f"{attempt}/{name}/checkpoint.json") for name in storage.names_in(attempt))

    wait_until(kept)
    stopped = operator.types(printed("ray job stop").replace("reviews", "stopped"))
    assert stopped.status == 0, stopped
    job, log = operator.ended("stopped")
    assert job["status"] == "STOPPED", log
    assert f"interrupted; the same command with --resume continues {out(nodes, 'stopped')}" in log
    assert not storage.exists(f"{out(nodes, 'stopped')}/bundle")

    operator.submits("resumed", "--resume", out="s3://$BUCKET/runs/stopped")
    job, log = operator.ended("resumed")
    assert job["status"] == "SUCCEEDED", log
    assert "continuing from step-" in log
    assert weights(nodes, "stopped") == weights(nodes, "reviews")


def test_predictions_are_made_by_both_workers_and_lie_in_the_bucket(
    operator: Operator, nodes: Nodes, trained: str
) -> None:
    job = f"python jobs/predict.py --bundle {out(nodes, 'reviews')}/bundle --csv s3://$BUCKET/reviews/*.csv"
    submit = printed("ray job submit").partition(" -- ")[0].replace("reviews", "predictions")
    submitted = operator.types(f"{submit} -- {job} --out {out(nodes, 'predictions')}")
    assert submitted.status == 0, submitted
    job, log = operator.ended("predictions")
    assert job["status"] == "SUCCEEDED", log
    manifest = json.loads(storage.read_bytes(f"{out(nodes, 'predictions')}/predictions.json"))
    assert (manifest["rows"], manifest["errors"]) == (ROWS, {})
    parts = storage.names_in(f"{out(nodes, 'predictions')}/parts")
    assert parts == [part["name"].rpartition("/")[2] for part in manifest["files"]]
    assert operator.places("predictions")["_ScoringActor"] == nodes.ids(workers_only=True)


def test_the_service_answers_on_every_node_who_has_the_key(operator: Operator, nodes: Nodes, trained: str) -> None:
    serve = nodes.checkout / "cluster" / "serve.yaml"
    # A replica on each worker; a proxy stands where a replica is, and on the head.
    serve.write_text(serve.read_text().replace("max_replicas: 4", "min_replicas: 2\n        max_replicas: 2"))
    for command in (printed('sed -i "s#s3://bucket/'), printed("serve deploy")):
        done = operator.types(command)
        assert done.status == 0, done
    key = (Path(nodes.shell["HOME"]) / ".textcls" / "serve_key").read_text()
    url, bearer, kind = "http://127.0.0.1:8000", f"authorization: Bearer {key}", "content-type: application/json"
    for worker in nodes.workers:
        # The head's proxy leads to them, and Prometheus reads their counters there.
        wait_until(lambda worker=worker: nodes.asks(nodes.head, f"http://{worker.address}:30000/ready")[0] == 200)
    for machine in (nodes.head, *nodes.workers):
        wait_until(lambda machine=machine: nodes.asks(machine, f"{url}/ready")[0] == 200)
        asked = json.dumps({"inputs": ["a great and moving film", "dull and awful"]})
        assert nodes.asks(machine, f"{url}/predict", kind, content=asked)[0] == 401
        assert nodes.asks(machine, f"{url}/predict", kind, "authorization: Bearer no", content=asked)[0] == 401
        status, answer = nodes.asks(machine, f"{url}/predict", kind, bearer, content=asked)
        assert status == 200, answer
        assert [one["label"] for one in json.loads(answer)["predictions"]] == ["positive", "negative"]
    assert "RUNNING" in operator.types(printed("serve status")).out
