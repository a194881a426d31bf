"""Where the registry finds what a run logged."""

from __future__ import annotations

from pathlib import Path

from cloudera.registry import Artifacts


def in_project(project: Path) -> Artifacts:
    """Look on the project's disk, where the platform keeps artifacts."""

    def find(experiment: str, run: str, path: str, _: Path) -> Path:
        return project / ".experiments" / experiment / run / "artifacts" / path

    return find


def of_mlflow(uri: str) -> Artifacts:
    """Fetch from a tracking server or store, which stands for the platform's experiments."""

    def find(experiment: str, run: str, path: str, scratch: Path) -> Path:
        import mlflow  # noqa: PLC0415 (it takes seconds, and not every test registers)

        found = mlflow.MlflowClient(uri).get_run(run)
        if found.info.experiment_id != experiment:
            raise LookupError(f"the run {run} is not in the experiment {experiment}")
        where = mlflow.artifacts.download_artifacts(
            run_id=run, artifact_path=path, dst_path=str(scratch), tracking_uri=uri
        )
        return Path(where)

    return find
