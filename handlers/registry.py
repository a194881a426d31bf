"""The door to MLflow: one run per delta, the models, their versions and aliases.

A run counts only once its run key is set, which is written last: what a crash left half-done is
never found again, and is tidied when the same work is done anew. Only client calls that MLflow
2.19 and 3 share are used, and a platform's own store is trusted with little: its searches may come
in any order and match more than was asked for, and it may have no aliases.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import mlflow.artifacts
import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter

from config.machine import shown
from handlers import scorer as scorer_module
from handlers.drift import Profile
from handlers.evidence import (
    EXPLANATION,
    PICTURES,
    PROFILE,
    PROOF,
    example,
    keep,
    metrics,
    name,
    params,
    read_proof,
    signature,
    tags,
)
from handlers.facts import MODEL_PATH, GiveUp, Model, Record, State, TryLater
from handlers.scorer import Scorer

T = TypeVar("T")
RECORD = TypeAdapter(Record)
KEY = "retraind.run_key"
WORK = "retraind.work"
CLOUDERA = "cml:"
# Cloudera's store finds a run only in the experiment that this process has set last.
ONE_AT_A_TIME = RLock()
ABOUT = "retraind.json"
SCORER = "scorer"
MEMBERS = "members"
"""The folder of the models that a run made on its way, each under its kind."""
LOADER = "retraind_scorer"
FETCHED = ".fetched."
"""What the folder begins with in which a model arrives."""
KEPT = 50
"""Fetched models that stay on this machine, several times what one decision draws on."""
FOUNDED = ".founded."
"""What the folder begins with in which an embedded store is made."""
FOUNDING = Lock()
PINNED = ("numpy", "pandas", "xgboost")


class Registry:
    """The runs and model versions of one pipeline."""

    def __init__(
        self, tracking_uri: str, registry_uri: str | None, pipeline: str, experiment: str,
        artifacts: Path | None, code_version: str,
    ) -> None:  # fmt: skip
        self._uris = (tracking_uri, registry_uri)
        self._pipeline = pipeline
        self._experiment_name = f"{experiment}-{pipeline}"
        self._artifacts = artifacts
        self._code_version = code_version
        self._connection: tuple[MlflowClient, str] | None = None
        self._platform = tracking_uri.startswith(CLOUDERA)
        self._turn: AbstractContextManager[object] = (
            ONE_AT_A_TIME if self._platform else nullcontext()
        )

    @property
    def model_name(self) -> str:
        """Give the registered model's name."""
        return self._experiment_name

    def experiment(self) -> str:
        """Give the id of the experiment that all runs of the pipeline are in."""
        with self._outages():
            return self._connect()[1]

    def find(self, key: str) -> Record | None:
        """Find the completed work of a run key, None if it was never completed."""
        with self._outages():
            for run in self._search(KEY, key):
                record = self._record_of(run)
                if run.info.status == "RUNNING":  # killed between its key and its end
                    self._end(run.info.run_id, record)
                return record
            return None

    def history(self) -> list[Record]:
        """Give the records of all completed runs in the order of their decisions."""
        with self._outages():
            client, experiment = self._connect()
            runs: list[Run] = []
            token: str | None = None
            while True:
                page = client.search_runs([experiment], max_results=500, page_token=token)
                runs += [run for run in page if KEY in run.data.tags]
                token = page.token
                if not token:
                    break
            return sorted(map(self._record_of, runs), key=lambda record: record.sequence)

    def record(
        self,
        record: Record,
        scorer: Scorer | None,
        sample: pd.DataFrame | None,
        explanation: Mapping[str, Any] | None = None,
        profile: Profile | None = None,
        made: Mapping[str, Scorer] | None = None,
    ) -> Record:
        """Keep a decision, and its model if there is one; the record comes back with its version.

        `sample` are held-out rows; with the offline scores they become the proof that a later
        deployment must reproduce. Explanation and profile are kept beside a model, and so are the
        models, by kind, that it was pooled from (`made`).
        """
        with self._outages():
            client, experiment = self._connect()
            run = client.create_run(experiment, tags={WORK: record.key}, run_name=name(record))
            run_id = run.info.run_id
            if scorer is not None and sample is not None:
                self._log_model(run_id, scorer, sample, explanation, profile)
                self._log_members(run_id, made or {})
                version = self._register(run_id, f"{run.info.artifact_uri}/model")
                record = replace(record, model=Model(version, run_id))
            client.log_batch(run_id, metrics(record), params(record), tags(record))
            client.set_tag(run_id, "retraind.code_version", self._code_version)
            client.log_dict(run_id, RECORD.dump_python(record, mode="json"), ABOUT)
            self._tidy(record, run_id)
            client.set_tag(run_id, KEY, record.key)
            self._end(run_id, record)
            return record

    def explanation(self, run_id: str) -> dict[str, Any] | None:
        """Give what was kept to explain a run's model; None if nothing was."""
        with self._outages():
            client, _ = self._connect()
            if EXPLANATION not in {file.path for file in client.list_artifacts(run_id)}:
                return None
            with tempfile.TemporaryDirectory() as scratch:
                path = client.download_artifacts(run_id, EXPLANATION, scratch)
                found: dict[str, Any] = json.loads(Path(path).read_bytes())
                return found

    def pictures(self, run_id: str) -> list[str]:
        """Say where the pictures are that a run's explanation was drawn in."""
        with self._outages():
            client, _ = self._connect()
            found = client.list_artifacts(run_id, PICTURES)
            home = client.get_run(run_id).info.artifact_uri if found else ""
            return sorted(f"{home}/{file.path}" for file in found)

    def point(self, alias: str, version: str) -> bool:
        """Point an alias at a version; False where there are no aliases, or nobody answers."""
        try:
            with self._turn:
                client, _ = self._connect()
                client.set_registered_model_alias(self.model_name, alias, version)
        except (MlflowException, NotImplementedError, AttributeError):
            return False
        return True

    def pointed(self, alias: str) -> str | None:
        """Say which version an alias points at; None if none does, or there are no aliases."""
        with self._outages():
            client, _ = self._connect()
            found = self._if_offered(
                partial(client.get_model_version_by_alias, self.model_name, alias)
            )
            return str(found.version) if found else None

    def fetch(self, model: Model, home: Path) -> Path:
        """Bring a model to this machine once; the folder holds `scorer/`, proof and profile.

        Models of early versions have no profile. The folder is named after the run: version
        numbers begin anew in another registry.
        """
        return self._bring(home / model.run_id, _sound, partial(self._download, model))

    def fetch_member(self, model: Model, kind: str | None, home: Path) -> Path:
        """Bring a model that a run made on its way, or the one that it was to serve, once.

        Raises:
            GiveUp: the run does not keep it.
        """
        folder = home / f"{model.run_id}.{kind or SCORER}"
        path = f"{MEMBERS}/{kind}" if kind else f"{MODEL_PATH}/data/{SCORER}"
        return self._bring(folder, _loads, partial(self._download_member, model, path))

    def _bring(
        self, folder: Path, sound: Callable[[Path], bool], download: Callable[[Path], Path]
    ) -> Path:
        """Download a folder unless it is there; what is downloaded lies in a scratch folder."""
        home = folder.parent
        for left in home.glob(f"{FETCHED}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        if sound(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        with self._outages():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=FETCHED) as scratch:
                found = download(Path(scratch))
                if not sound(found):
                    raise OSError(f"model {folder.name} was damaged on its way here")
                # A rename is all or nothing, so a folder that exists is complete.
                found.rename(folder)
        _prune(home)
        return folder

    def _download_member(self, model: Model, path: str, scratch: Path) -> Path:
        client, _ = self._connect()
        if self._if_offered(partial(client.get_run, model.run_id)) is None:
            raise GiveUp(f"MLflow does not keep the run {model.run_id} any more.", "")
        kept = client.list_artifacts(model.run_id, path.rpartition("/")[0])
        if path not in {file.path for file in kept}:
            raise GiveUp(f"The run {model.run_id} does not keep its {path}.", "")
        return Path(client.download_artifacts(model.run_id, path, str(scratch)))

    def _download(self, model: Model, scratch: Path) -> Path:
        client, _ = self._connect()
        parts = scratch / "parts"
        parts.mkdir()
        scorer = client.download_artifacts(
            model.run_id, f"{MODEL_PATH}/data/{SCORER}", str(scratch)
        )
        shutil.move(scorer, parts / SCORER)
        proof = client.download_artifacts(model.run_id, PROOF, str(scratch))
        shutil.move(proof, parts / PROOF)
        if PROFILE in {file.path for file in client.list_artifacts(model.run_id)}:
            profile = client.download_artifacts(model.run_id, PROFILE, str(scratch))
            shutil.move(profile, parts / PROFILE)
        return parts

    def _connect(self) -> tuple[MlflowClient, str]:
        """Give the client and the experiment's id, making the experiment at first use."""
        if self._connection is None:
            _found(self._uris[0])
            client = MlflowClient(*self._uris)
            found = client.get_experiment_by_name(self._experiment_name)
            if found is None:
                location = self._artifacts.resolve().as_uri() if self._artifacts else None
                experiment = client.create_experiment(self._experiment_name, location)
            elif found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
                experiment = found.experiment_id
            else:
                experiment = found.experiment_id
            self._connection = client, experiment
        # MLflow 2 takes the server of an artifact from here, whatever the client was given.
        mlflow.set_tracking_uri(self._uris[0])
        if self._platform:
            mlflow.set_experiment(experiment_id=self._connection[1])
        return self._connection

    def _search(self, tag: str, value: str) -> list[Run]:
        client, experiment = self._connect()
        found = client.search_runs([experiment], f"tags.`{tag}` = '{value}'")
        return [run for run in found if run.data.tags.get(tag) == value]

    def _record_of(self, run: Run) -> Record:
        with tempfile.TemporaryDirectory() as scratch:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{run.info.artifact_uri}/{ABOUT}", dst_path=scratch
            )
            return RECORD.validate_json(Path(path).read_bytes())

    def _tidy(self, record: Record, run_id: str) -> None:
        """Close what other attempts at the same work left behind.

        It comes late, so that it meets as well what the HTTP client made twice in this attempt,
        when a server did what it was asked to but its answer was lost.
        """
        client, _ = self._connect()
        for run in self._search(WORK, record.key):
            if run.info.run_id == run_id:
                continue
            if KEY in run.data.tags:
                # Judged against a champion that is gone: superseded by the run that follows.
                client.set_tag(run.info.run_id, "retraind.superseded", run.data.tags[KEY])
                client.delete_tag(run.info.run_id, KEY)
            self._drop_versions(run.info.run_id)
            if run.info.status == "RUNNING":
                self._terminate(run.info.run_id, "KILLED")
        self._drop_versions(run_id, record.model.version if record.model else None)

    def _drop_versions(self, run_id: str, but: str | None = None) -> None:
        client, _ = self._connect()
        search = partial(client.search_model_versions, f"run_id = '{run_id}'")
        for found in self._if_offered(search) or []:
            ours = (found.name, found.run_id) == (self.model_name, run_id)
            if ours and str(found.version) != but:
                delete = partial(client.delete_model_version, self.model_name, found.version)
                self._if_offered(delete)

    def _end(self, run_id: str, record: Record) -> None:
        self._terminate(run_id, "FAILED" if record.state is State.PARKED else "FINISHED")

    def _terminate(self, run_id: str, status: str) -> None:
        client, _ = self._connect()
        with redirect_stdout(sys.stderr):  # it prints links, and our reports are on stdout
            client.set_terminated(run_id, status)

    def _log_model(
        self, run_id: str, scorer: Scorer, sample: pd.DataFrame,
        explanation: Mapping[str, Any] | None, profile: Profile | None,
    ) -> None:  # fmt: skip
        client, _ = self._connect()
        with tempfile.TemporaryDirectory() as scratch:
            home = Path(scratch)
            scorer.save(home / SCORER)
            code = shutil.copyfile(str(scorer_module.__file__), home / f"{LOADER}.py")
            mlflow.pyfunc.save_model(
                path=home / MODEL_PATH,
                loader_module=LOADER,
                data_path=str(home / SCORER),
                code_paths=[str(code)],
                signature=signature(scorer),
                input_example=example(scorer, sample),
                pip_requirements=[f"{name}=={metadata.version(name)}" for name in PINNED],
            )
            client.log_artifacts(run_id, str(home / MODEL_PATH), MODEL_PATH)
            keep(home / "beside", scorer, sample, explanation, profile)
            client.log_artifacts(run_id, str(home / "beside"))

    def _log_members(self, run_id: str, made: Mapping[str, Scorer]) -> None:
        client, _ = self._connect()
        if not made:
            return
        with tempfile.TemporaryDirectory() as scratch:
            for kind, scorer in made.items():
                scorer.save(Path(scratch) / kind)
            client.log_artifacts(run_id, scratch, MEMBERS)

    def _register(self, run_id: str, source: str) -> str:
        client, _ = self._connect()
        with suppress(MlflowException):  # exists already, as a rule; else the next call says why
            client.create_registered_model(self.model_name)
        return str(client.create_model_version(self.model_name, source, run_id).version)

    @contextmanager
    def _outages(self) -> Iterator[None]:
        """Turn what MLflow, its server and its disks throw into `TryLater`."""
        try:
            with self._turn:
                yield
        except (MlflowException, OSError, _past_mlflow()) as error:
            self._connection = None
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise TryLater(
                f"MLflow at {shown(self._uris[0])} failed: {text[0][:300].rstrip('.:')}.",
                "Nothing is lost; the work is done again when it answers.",
            ) from error

    def _if_offered(self, call: Callable[[], T]) -> T | None:
        """Do without what a platform's registry lacks; an outage is no lack, and goes up."""
        try:
            return call()
        except (MlflowException, NotImplementedError, AttributeError):
            client, _ = self._connect()
            client.get_experiment_by_name(self._experiment_name)
            return None


def _prune(home: Path) -> None:
    """Drop the models that were fetched first; what is needed again is fetched again."""
    folders = [folder for folder in home.iterdir() if not folder.name.startswith(FETCHED)]
    folders.sort(key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _found(uri: str) -> None:
    """Make an SQLite store that is not there yet, complete or not at all.

    MLflow makes one in many steps, and never again opens one that was killed at that.
    """
    database = Path(urlsplit(uri).path[1:])
    with FOUNDING:
        if not uri.startswith("sqlite:///") or database.exists():
            return
        database.parent.mkdir(parents=True, exist_ok=True)
        for left in database.parent.glob(f"{FOUNDED}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=database.parent, prefix=FOUNDED) as scratch:
            made = Path(scratch) / database.name
            MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
            if not database.exists():  # `doctor` may be faster than the daemon, say
                made.rename(database)


def _past_mlflow() -> type[Exception]:
    """Give what an embedded store throws past MLflow while it is opened."""
    try:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 (a platform's MLflow lacks it)
    except ImportError:
        return MlflowException
    return SQLAlchemyError


def _loads(folder: Path) -> bool:
    """Say whether a model is complete and undamaged."""
    try:
        Scorer.load(folder)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _sound(folder: Path) -> bool:
    """Say whether a model and its proof are complete and undamaged."""
    try:
        read_proof(folder / PROOF)
    except (OSError, ValueError, KeyError):  # Arrow's errors are among them
        return False
    return _loads(folder / SCORER)
