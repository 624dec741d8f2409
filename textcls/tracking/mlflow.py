"""Events as a run of MLflow, on the server that MLFLOW_TRACKING_URI names.

In: the recipe and events. Out: an MLflow run with the recipe as parameters, the curves as metrics, report.json as an
artifact and the bundle's URI as a tag. Not here: which numbers are metrics (`Event.scalars`).
"""

import importlib.util
import os
from collections.abc import Sequence

from textcls import storage
from textcls.errors import InputError, redacted
from textcls.plain_text import json_text, visible
from textcls.settings.recipe import Recipe
from textcls.tracking.events import Event

# The most parameters that MLflow takes in one request, and the longest value.
_PARAMETERS_AT_ONCE = 100
_LONGEST_VALUE = 500


def mlflow_requested() -> bool:
    """Whether MLFLOW_TRACKING_URI is set.

    Raises:
        InputError: it is, and MLflow is not installed.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return False
    if importlib.util.find_spec("mlflow") is None:
        raise InputError(
            "MLFLOW_TRACKING_URI is set, and MLflow is not installed",
            todo="pip install 'textcls[mlflow]', or unset MLFLOW_TRACKING_URI",
        )
    return True


class MlflowRun:
    """The sink that logs to MLflow; a resumed run continues its MLflow run.

    Args:
        uri: the run's directory.
        run_id: the MLflow run's tag `textcls_run`.
        recipe: its settings become parameters.
        resumed: continue the MLflow run with this tag, if there is one.

    Raises:
        InputError: the server cannot be reached; before the run starts.
    """

    name = "MLflow"

    def __init__(self, uri: str, run_id: str, recipe: Recipe, *, resumed: bool) -> None:
        from mlflow import MlflowClient

        self._uri = uri
        try:
            self._client = MlflowClient()
            self._run = self._started(run_id, recipe, resumed=resumed)
        except Exception as error:  # of its HTTP client, of its stores
            message = redacted(str(error)).splitlines() or [""]
            raise InputError(
                f"MLFLOW_TRACKING_URI: {type(error).__name__}: {message[0]}",
                todo="check the server and its credentials, or unset MLFLOW_TRACKING_URI",
            ) from None

    def _started(self, run_id: str, recipe: Recipe, *, resumed: bool) -> str:
        """The id of the MLflow run."""
        from mlflow.entities import Param

        client = self._client
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "textcls"
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        earlier = client.search_runs([experiment], f"tags.textcls_run = '{run_id}'") if resumed else []
        if earlier:
            run: str = earlier[0].info.run_id
            client.update_run(run, status="RUNNING")
            return run
        tags = {"textcls_run": run_id, "out": self._uri}
        run = client.create_run(experiment, run_name=visible(self._uri.rpartition("/")[2]), tags=tags).info.run_id
        parameters = [
            Param(f"{section}.{key}", json_text(value)[:_LONGEST_VALUE])
            for section, values in recipe.model_dump(mode="json").items()
            for key, value in values.items()
        ]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            client.log_batch(run, params=parameters[first : first + _PARAMETERS_AT_ONCE])
        return run

    def write(self, events: Sequence[Event]) -> None:
        """Logs numbers that have a step as metrics; with the bundle, its URI and the report."""
        from mlflow.entities import Metric

        metrics = [
            Metric(chart.replace("/", "."), value, int(1000 * event.time), event.values["step"])
            for event in events
            for chart, value in event.scalars().items()
        ]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)
        for event in events:
            if event.name == "bundle_written":
                self._client.set_tag(self._run, "bundle", storage.join(self._uri, "bundle"))
                report = storage.read_bytes(storage.join(self._uri, "report.json"))
                self._client.log_text(self._run, report.decode(), "report.json")

    def close(self, error: str) -> None:
        """Ends the MLflow run with a status in MLflow's words."""
        status = {"": "FINISHED", "KeyboardInterrupt": "KILLED"}.get(error, "FAILED")
        self._client.set_terminated(self._run, status=status)
