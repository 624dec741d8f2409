"""The same file, submitted to a cluster from a checkout that is not on its machines."""

import os
import sys
from pathlib import Path

from .conftest import Cluster, Ended, FirstRun, Running


def _submit(cluster: Cluster, first_run: FirstRun, working_dir: Path, name: str, *arguments: str) -> Ended:
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard]
    job = ["--submission-id", name, "--working-dir", working_dir, "--", sys.executable, "jobs/train.py"]
    running = Running([*ray, *job, *arguments], cwd=first_run.user.home, env=first_run.user.shell)
    try:
        return running.ended()
    finally:
        running.kill()


def test_submitted_job_ends_with_the_weights_of_a_local_run(
    first_run: FirstRun, cluster: Cluster, working_dir: Path, tmp_path: Path
) -> None:
    home = first_run.user.home
    data = ["--recipe", str(home / "recipe.yaml"), "--csv", str(home / "reviews.csv")]
    ended = _submit(cluster, first_run, working_dir, "good", *data, "--out", str(tmp_path / "out"))
    assert ended.status == 0, ended
    assert (tmp_path / "out" / "bundle" / "model.safetensors").read_bytes() == first_run.weights
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(first_run.out))
