"""The service as a Ray Serve application: `textcls.serving.app:app`, as cluster/serve.yaml and jobs/serve.py name it.

In: a bundle's URI and a `ServeSpec`; later, by `user_config`, the URI of another bundle. Out: replicas that answer
HTTP. Not here: the answers (api.py), the model (scorer.py), a machine's own Ray (service.py).

Ray replaces a replica whose `reconfigure` raises. A bundle that cannot be used must not cost the one that can: it is
reported in /info, and a replica that starts meanwhile serves the bundle that the application began with.
"""

import asyncio
import logging
import os
import sys
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from textcls.bundle import version_of
from textcls.serving.api import Api
from textcls.serving.deployment import NAME, AppArgs, read_key
from textcls.serving.scorer import Scorer
from textcls.settings.serve import ServeSpec

# A batch takes less than a second; a model that works for longer will not return.
_STUCK_S = 60.0
_SWITCH_S = 2e-4


def app(args: AppArgs) -> Application:
    """The application, as Ray Serve builds it."""
    spec = args.serve
    options: dict[str, Any] = {
        "name": NAME,
        "user_config": {"bundle": args.bundle},
        "max_ongoing_requests": spec.max_requests,
        "ray_actor_options": {"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpu_share},
        "max_constructor_retry_count": 3,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 5,
    }
    if spec.min_replicas == spec.max_replicas:
        options["num_replicas"] = spec.min_replicas
    else:
        options["autoscaling_config"] = {
            "min_replicas": spec.min_replicas,
            "max_replicas": spec.max_replicas,
            "target_ongoing_requests": spec.target_ongoing_requests,
            "upscale_delay_s": 5,
            "look_back_period_s": 10,
        }
    deployment = serve.deployment(**options)(serve.ingress(None)(Replica))
    return deployment.bind(args.bundle, spec, args.identity_file)


class Replica:
    """A replica: one copy of the model behind the HTTP API.

    Args:
        bundle: the URI that the application was deployed with.
        spec: settings.
        identity_file: of the secret key that opens a sealed bundle; "": the environment names it.
    """

    def __init__(self, bundle: str, spec: ServeSpec, identity_file: str = "") -> None:
        # The model's thread needs Python's lock at each of some hundred steps. By default it waits up to 5 ms each time
        # while requests keep the event loop busy.
        sys.setswitchinterval(_SWITCH_S)
        self._first = bundle
        self._scorer = Scorer(spec, threads=_threads(spec), identity_file=identity_file)
        self._api = Api(
            self._scorer,
            spec,
            version=version_of("textcls"),
            key=read_key(spec.api_key_from),
            replica=serve.get_replica_context().replica_id.unique_id,
            log=logging.getLogger("ray.serve"),
        )
        self._one_at_a_time = asyncio.Lock()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._api

    async def reconfigure(self, config: Any) -> None:
        """Loads the bundle that `config["bundle"]` names; keeps the one in use if that fails.

        `jobs/serve.py` also names the bundle in use (`serving`), for a replica that starts meanwhile and cannot use the
        new one, the labels to keep (`labels`), and whether it reads pairs (`pairs`).
        """
        async with self._one_at_a_time:
            settings = config if isinstance(config, dict) else {}
            wanted, before = settings.get("bundle"), settings.get("serving", self._first)
            if isinstance(wanted, str):
                await self._load(wanted, before, settings.get("labels"), settings.get("pairs"))
            else:
                problem = f"user_config is {config!r}; expected: {{bundle: URI}}"
                if self._scorer.classifier is None:
                    await self._scorer.load(self._first)
                self._scorer.problem = problem
            outcome = "refused" if self._scorer.problem else "loaded"
            self._api.counters.loads.labels(outcome).inc()
            if self._scorer.problem:
                logging.getLogger("ray.serve").error(self._scorer.problem)

    async def _load(self, wanted: str, before: str, labels: list[str] | None, pairs: bool | None) -> None:
        try:
            await self._scorer.load(wanted, labels, pairs)
        except Exception:
            if wanted == before:
                raise
            problem = self._scorer.problem
            await self._scorer.load(before)
            self._scorer.problem = problem

    def check_health(self) -> None:
        """Raises if the model hangs, so that Ray replaces the replica."""
        if self._scorer.batcher.busy_s > _STUCK_S:
            raise RuntimeError(f"the model has been busy with one batch for {self._scorer.batcher.busy_s:.0f} s")


def _threads(spec: ServeSpec) -> int:
    """Threads of a replica's matrix products."""
    if isinstance(spec.threads, int):
        return spec.threads
    # Only Linux knows which cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // spec.max_replicas)
