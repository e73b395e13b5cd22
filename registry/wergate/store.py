"""Versions, stages and tags in MLflow's registry: the only file of this package that knows MLflow."""

import warnings

from mlflow.tracking import MlflowClient

from wergate.decide import Decision


def record(tracking_uri: str, name: str, version: str, decision: Decision) -> str:
    """Tags the version with the verdict and its reasons, moves it to Staging if it passed, returns its stage."""
    client = MlflowClient(tracking_uri)
    client.set_model_version_tag(name, version, "wergate.staging", "passed" if decision.passed else "refused")
    for gate in decision.gates:
        client.set_model_version_tag(name, version, f"wergate.staging.{gate.name}", str(gate))
    if not decision.passed:
        return "None"
    with warnings.catch_warnings():
        # Stages are deprecated, and they are what this project's users asked for.
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(name, version, "Staging")
    return "Staging"
