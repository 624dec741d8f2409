"""Every file in cluster/ is one that its reader takes, of the versions of pyproject.toml, and holds no secret."""

import importlib
import json
import re
import shlex
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from textcls.serving.routes import ROUTES
from textcls.settings.recipe_file import parse_recipe

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
FILES = {
    path.relative_to(CLUSTER).as_posix(): path.read_text(encoding="utf-8")
    for path in CLUSTER.rglob("*.*")
    if path.suffix != ".md"
}
DOCKERFILE = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIRED = [Requirement(text) for text in PROJECT["project"]["dependencies"]]

KUBERAY = {name: yaml.safe_load(text) for name, text in FILES.items() if name.startswith("kuberay/")}
RAY_UP = {name: yaml.safe_load(text) for name, text in FILES.items() if name.startswith("ray-")}
SERVE = yaml.safe_load(FILES["serve.yaml"])
DASHBOARD = json.loads(FILES["grafana-dashboard.json"])
# The image that the Dockerfile's first comment builds; the files use it.
IMAGE = f"registry.example.com/textcls:{PROJECT['project']['version']}"


def lock() -> dict[str, str]:
    lines = [line for line in FILES["requirements.txt"].splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []
    return dict(line.split("==") for line in lines)


LOCK = lock()


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions, each as its words."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if line.strip()]


def instruction(name: str) -> list[list[str]]:
    return [words[1:] for words in instructions() if words[0] == name]


def ray_cluster(name: str) -> dict[str, Any]:
    """The specification of the cluster that a KubeRay object asks for."""
    spec = KUBERAY[name]["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def containers(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each container of a KubeRay object, with the specification of its pod."""
    cluster = ray_cluster(name)
    pods = [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
    return [(pod, container) for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]]


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar of a document with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, path)
    else:
        yield path, value


def test_the_files_are_found() -> None:
    assert set(KUBERAY) == {"kuberay/raycluster.yaml", "kuberay/rayjob-train.yaml", "kuberay/rayservice.yaml"}
    assert set(RAY_UP) == {"ray-aws-gpu.yaml", "ray-gcp-gpu.yaml"}


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".json")])
def test_every_file_begins_with_what_it_is_for(name: str) -> None:
    assert FILES[name].startswith("# ")


def test_no_two_objects_share_a_name() -> None:
    # RayCluster and RayService name their Services alike, NAME-head-svc.
    names = [content["metadata"]["name"] for content in KUBERAY.values()]
    assert len(set(names)) == len(names)


# --- versions --------------------------------------------------------------------------------------------------------


def test_the_lock_holds_what_the_project_asks_for() -> None:
    wrong = [str(asked) for asked in REQUIRED if not asked.specifier.contains(LOCK.get(key(asked.name), "0"))]
    assert wrong == []


def key(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_the_lock_is_closed() -> None:
    # The image takes the lock and nothing else, so what a package needs must be in it. torch's CUDA packages cannot be
    # asked for here: the tests' torch may be the CPU's.
    from importlib.metadata import PackageNotFoundError, requires, version

    extras = {key(asked.name): asked.extras for asked in REQUIRED}
    missing = []
    for name in LOCK:
        try:
            if version(name).partition("+")[0] != LOCK[name]:
                continue  # another version may need other packages
        except PackageNotFoundError:
            continue
        for asked in map(Requirement, requires(name) or ()):
            wanted = any(
                asked.marker is None or asked.marker.evaluate({"extra": extra, "python_version": "3.11"})
                for extra in ("", *extras.get(name, ()))
            )
            if wanted and not asked.specifier.contains(LOCK.get(key(asked.name), "0"), prereleases=True):
                missing.append(f"{name} needs {asked}")
    assert missing == []


def test_every_file_means_the_same_ray_and_python() -> None:
    python = PROJECT["tool"]["mypy"]["python_version"]
    assert PROJECT["project"]["requires-python"] == f">={python}"
    assert instruction("FROM") == [[f"rayproject/ray:{LOCK['ray']}-py{python.replace('.', '')}-cpu"]]
    assert {ray_cluster(name)["rayVersion"] for name in KUBERAY} == {LOCK["ray"]}
    assert f"--python-version {python} " in FILES["requirements.txt"]
    assert re.findall(r"pip install 'ray\[[\w,]+\]==([\d.]+)'", README) == [LOCK["ray"]]


def test_every_node_has_the_image_of_the_project_s_version() -> None:
    used = {container["image"] for name in KUBERAY for _, container in containers(name)}
    assert used | {cluster["docker"]["image"] for cluster in RAY_UP.values()} == {IMAGE}
    assert f"--tag {IMAGE} ." in DOCKERFILE
    named = {
        found for text in [*FILES.values(), DOCKERFILE] for found in re.findall(r"[\w./-]*textcls:\d[\w.-]*", text)
    }
    assert named == {IMAGE}


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_image_is_built_from_what_is_there_and_locked() -> None:
    copied = [word for words in instruction("COPY") for word in words[:-1] if not word.startswith("--")]
    assert set(copied) >= {"textcls", "jobs", "pyproject.toml", "cluster/requirements.txt"}
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert instruction("ADD") == []
    assert ":latest" not in DOCKERFILE
    installs = [command for words in instruction("RUN") for command in " ".join(words).split("&&") if "pip" in command]
    assert len(installs) == 2
    for command in installs:
        assert {"--no-deps", "--no-cache-dir"} <= set(command.split()), "the lock is all there is"


def test_the_image_does_not_run_as_root() -> None:
    ((user,),) = instruction("USER")
    assert user.isdigit()
    assert int(user) != 0
    assert instructions()[-1][0] == "USER", "no instruction after it runs as somebody else"


def test_a_node_of_the_image_asks_for_a_token() -> None:
    assert "RAY_AUTH_MODE=token" in [word for words in instruction("ENV") for word in words]


# --- jobs ------------------------------------------------------------------------------------------------------------


def parser_of(job: str) -> ArgumentParser:
    return importlib.import_module(f"textcls.commands.{Path(job).stem}").parser()


def test_the_rayjob_s_command_parses_and_its_files_are_in_the_image() -> None:
    python, *words = shlex.split(KUBERAY["kuberay/rayjob-train.yaml"]["spec"]["entrypoint"])
    ((place,),) = instruction("WORKDIR")
    job, *arguments = [word.removeprefix(f"{place}/") for word in words]
    assert (python, job, words[0]) == ("python", "jobs/train.py", f"{place}/jobs/train.py")
    parsed = parser_of(job).parse_args(arguments)
    assert f"{place}/{parsed.recipe}" in words
    parse_recipe((ROOT / parsed.recipe).read_text(encoding="utf-8"), parsed.overrides, source=parsed.recipe)
    assert parsed.csv == ["s3://bucket/reviews/*.csv"]
    # A service of the same names serves what this run leaves.
    assert SERVE["applications"][0]["args"]["bundle"] == f"{parsed.out}/bundle"


@pytest.mark.parametrize("name", FILES)
def test_every_job_and_recipe_that_is_named_exists(name: str) -> None:
    named = re.findall(r"\bjobs/[\w/]+\.(?:py|yaml)", FILES[name])
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_runtime_environment_is_one_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(ROOT)  # the lock's place in it is read from here
    asked = yaml.safe_load(FILES["runtime_env.yaml"])
    taken = RuntimeEnv(**asked)
    assert f"ray=={LOCK['ray']}" in taken["pip"]["packages"]
    assert set(asked["excludes"]) <= set(taken["excludes"])


def test_the_upload_of_a_job_is_what_it_needs_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: list[Path] = []
    excludes = yaml.safe_load(FILES["runtime_env.yaml"])["excludes"]
    _dir_travel(ROOT, [_get_excludes(ROOT, excludes)], found.append, include_gitignore=True)
    names = {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}
    assert names >= {"jobs/train.py", "jobs/recipes/base.yaml", "textcls/training/loop.py", "textcls/py.typed"}
    assert {name.partition("/")[0] for name in names if "/" in name} == {"cluster", "jobs", "textcls"}
    assert sum(path.stat().st_size for path in found) < 5 * 2**20, "Ray refuses more than 500 MiB"


# --- `ray up` --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAY_UP)
def test_a_cluster_file_is_one_that_ray_up_takes(name: str) -> None:
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    cluster = RAY_UP[name]
    jsonschema.validate(cluster, json.loads(schema.read_text(encoding="utf-8")))
    assert cluster["provider"]["type"] == name.split("-")[1]
    assert cluster["head_node_type"] in cluster["available_node_types"]
    # What is left out here is filled in from Ray's defaults, which install other versions.
    written = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    assert [key for key in written if cluster[key] != []] == []
    workers = [node for key, node in cluster["available_node_types"].items() if key != cluster["head_node_type"]]
    assert sum(node["max_workers"] for node in workers) == cluster["max_workers"]
    assert all(node["resources"]["GPU"] > 0 for node in workers)


@pytest.mark.parametrize("name", RAY_UP)
def test_a_started_node_has_the_token_and_listens_inside_only(name: str) -> None:
    cluster = RAY_UP[name]
    (place,) = cluster["file_mounts"]
    assert f"--env RAY_AUTH_TOKEN_PATH={place}/auth_token" in cluster["docker"]["run_options"]
    starts = [cluster[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    for start in starts:
        assert f'TEXTCLS_KEY="$(cat {place}/serve_key)"' in start
        assert "--metrics-export-port=8080" in start
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_both_clouds_files_differ_in_nothing_but_the_cloud() -> None:
    aws, gcp = RAY_UP.values()
    assert {key for key in aws | gcp if aws[key] != gcp[key]} == {"provider", "available_node_types"}


# --- KubeRay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kubernetes_object_says_what_it_is(name: str) -> None:
    content = KUBERAY[name]
    assert content["apiVersion"] == "ray.io/v1"
    assert f"kuberay/{content['kind'].lower()}" in name
    assert content["metadata"]["name"].startswith("textcls")


@pytest.mark.parametrize("name", KUBERAY)
def test_every_container_has_probes_bounds_and_no_rights(name: str) -> None:
    assert len(containers(name)) == 2
    for pod, container in containers(name):
        for probe in ("livenessProbe", "readinessProbe"):
            command = container[probe]["exec"]["command"]
            assert command[:2] == ["bash", "-c"]
            assert "/api/local_raylet_healthz" in command[2]
            # wget must give up before Kubernetes does, however many it runs.
            assert sum(map(int, re.findall(r"-T (\d+)", command[2]))) < container[probe]["timeoutSeconds"]
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", KUBERAY)
def test_every_cluster_asks_for_a_token_out_of_a_secret(name: str) -> None:
    assert ray_cluster(name)["authOptions"] == {"mode": "token", "secretName": "textcls"}


def test_a_run_of_its_own_has_the_cluster_that_stays() -> None:
    assert ray_cluster("kuberay/rayjob-train.yaml") == ray_cluster("kuberay/raycluster.yaml")


def test_the_service_on_kubernetes_is_the_service_of_serve_yaml() -> None:
    from ray.serve.schema import ServeDeploySchema

    from textcls.serving.deployment import NAME, AppArgs

    content = yaml.safe_load(KUBERAY["kuberay/rayservice.yaml"]["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(content).applications
    args = AppArgs.model_validate(application.args)
    assert [deployment.name for deployment in application.deployments] == [NAME]
    differs = {path for path, value in walk(content) if (path, value) not in list(walk(SERVE))}
    assert {path[-1] for path in differs} == {"cpus_per_replica", "threads"}
    assert content["http_options"]["host"] == "0.0.0.0", "of a pod; HAProxy of one node leads to replicas on another"

    # What it needs of its pods: the key, room for its replicas, their ports.
    cluster = ray_cluster("kuberay/rayservice.yaml")
    (group,) = cluster["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    key_from = [entry["name"] for entry in worker["env"] if "valueFrom" in entry]
    assert [f"env:{entry}" for entry in key_from] == [args.serve.api_key_from]
    per_pod = int(worker["resources"]["limits"]["cpu"]) // int(args.serve.cpus_per_replica)
    assert per_pod * group["maxReplicas"] >= args.serve.max_replicas
    assert args.serve.threads == args.serve.cpus_per_replica
    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    assert [ports[f"replica-{n}"] for n in range(per_pod)] == [30000 + n for n in range(per_pod)]
    assert ports["serve"] == content["http_options"]["port"]
    assert f"localhost:{ports['serve']}/-/healthz" in worker["readinessProbe"]["exec"]["command"][2]


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRET = re.compile(r"TOKEN|KEY|PASSWORD|SECRET|CREDENTIAL", re.IGNORECASE)
# Long random-looking text, or what a cloud's keys look like.
LOOKS_SECRET = re.compile(r"\b(?:AKIA|ASIA|ghp_|hf_|sk-)\w{12,}|\b(?=[A-Za-z]*\d)[A-Za-z0-9+/]{40,}\b|BEGIN [A-Z ]*KEY")


@pytest.mark.parametrize("name", KUBERAY)
def test_a_secret_variable_comes_from_a_secret(name: str) -> None:
    entries = [entry for _, container in containers(name) for entry in container.get("env", [])]
    assert [entry for entry in entries if SECRET.search(entry["name"]) and "value" in entry] == []
    assert all("secretKeyRef" in entry["valueFrom"] for entry in entries if SECRET.search(entry["name"]))
    sources = [source for _, container in containers(name) for source in container["envFrom"]]
    assert all(set(source) == {"secretRef"} for source in sources)
    assert KUBERAY[name]["kind"] != "Secret"


@pytest.mark.parametrize("name", [*FILES, "Dockerfile"])
def test_no_file_holds_a_secret(name: str) -> None:
    text = DOCKERFILE if name == "Dockerfile" else FILES[name]
    assert LOOKS_SECRET.findall(text) == []
    # NAME=value of a secret's name: the value is read from elsewhere. A path is not a secret.
    given = re.findall(r"\b(\w*(?:TOKEN|KEY|PASSWORD|SECRET)\w*)=(\S+)", text)
    assert [pair for pair in given if not pair[0].endswith("_PATH") and not pair[1].startswith('"$(cat')] == []


# --- metrics ---------------------------------------------------------------------------------------------------------

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def metrics_of(expression: str) -> set[str]:
    """Names of metrics in a PromQL expression of ours: what is no label, by their prefix."""
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:ray|textcls)_\w+", bare))


SHOWN = {name for panel in PANELS for target in panel["targets"] for name in metrics_of(target["expr"])}


def test_the_dashboard_s_own_metrics_are_counted_by_a_replica() -> None:
    from textcls.serving.counters import Counters

    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", Counters("replica").text().decode(), re.MULTILINE))
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    counted = {name + suffix for name, kind in kinds.items() for suffix in suffixes[kind]}
    shown = {name for name in SHOWN if name.startswith("textcls_")}
    assert shown
    assert shown - counted == set()
    # Every one of ours is shown, but that which names the replica.
    ours = {name for name in kinds if name.startswith("textcls_") and not name.endswith("_created")}
    seen = {name for name in ours if any(metric.startswith(name) for metric in shown)}
    assert ours - seen == {"textcls_replica_info"}


def test_the_dashboard_s_metrics_of_training_are_those_that_a_worker_has_ray_export() -> None:
    source = (ROOT / "textcls" / "tracking" / "ray_metrics.py").read_text(encoding="utf-8")
    made = re.findall(r'\b(Gauge|Histogram|Counter)\("(textcls_\w+)"', source)
    suffixes = {"Histogram": ("_bucket", "_sum", "_count"), "Counter": ("_total",), "Gauge": ("",)}
    exported = {f"ray_{name}{suffix}" for kind, name in made for suffix in suffixes[kind]}
    shown = {name for name in SHOWN if name.startswith("ray_textcls_")}
    assert shown - exported == set()
    assert len(shown) == len(made) == 3, "each is shown"


def test_the_dashboard_s_metrics_of_ray_are_those_that_ray_s_own_dashboards_show() -> None:
    from ray.dashboard.modules.metrics import dashboards

    sources = [path.read_text(encoding="utf-8") for path in Path(dashboards.__path__[0]).glob("*.py")]
    known = {name for source in sources for name in re.findall(r"\bray_\w+(?=\{)", source)}
    shown = {name for name in SHOWN if name.startswith("ray_") and not name.startswith("ray_textcls_")}
    assert {name.split("_")[1] for name in shown} >= {"train", "serve", "node"}
    assert shown - known == set()


def test_the_dashboard_can_be_drawn() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    for panel in PANELS:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["datasource"]["uid"] == f"${{{DASHBOARD['templating']['list'][0]['name']}}}"
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert metrics_of(target["expr"])
            for opening, closing in ("()", "{}", "[]"):
                assert target["expr"].count(opening) == target["expr"].count(closing)


def test_prometheus_finds_what_the_nodes_export() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    jobs = {job["job_name"]: job for job in yaml.safe_load(FILES["prometheus.yaml"])["scrape_configs"]}
    files = {path for job in jobs.values() for found in job.get("file_sd_configs", []) for path in found["files"]}
    assert files == {f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"}
    ports = [job["relabel_configs"][0]["replacement"] for name, job in jobs.items() if name.startswith("textcls-")]
    replicas = SERVE["applications"][0]["args"]["serve"]["max_replicas"]
    assert ports == [f"$1:{30000 + n}" for n in range(replicas)], "all of them may be on one node"

    named = {port["name"] for name in KUBERAY for _, container in containers(name) for port in container["ports"]}
    kept = {
        name: {port for port in named if re.fullmatch(job["relabel_configs"][0]["regex"], port)}
        for name, job in jobs.items()
        if name.startswith("kuberay")
    }
    assert kept == {"kuberay": {"metrics"}, "kuberay-textcls": {"replica-0", "replica-1"}}

    assert {route.path: route.needs_key for route in ROUTES}["/metrics"]
    assert {name for name, job in jobs.items() if "authorization" in job} == {
        name for name in jobs if "textcls" in name
    }
