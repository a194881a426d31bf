"""The endpoint by MLflow's deployments: whatever target has a plugin installed may serve.

A plugin says what is deployed under a name, in words of its own, and never which of our versions it
is. So a note on disk says it, written before and after each deployment. As nobody knows what
answers in between, predictions wait meanwhile, and what was interrupted is deployed again, unless
the target describes what is there as it did before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from config.endpoint import MlflowEndpoint as Settings
from handlers import note
from handlers.endpoint import Answer
from handlers.facts import MODEL_PATH, GiveUp, Model, RetraindError, TryLater
from handlers.trial import try_out
from handlers.wire import split

NOTE = "deployed.json"
REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
"""MLflow's names for what will not be better the next time."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the endpoint knows of a deployment."""

    place: str
    """Target and name: another place has another story."""
    version: str | None = None
    about: str = ""
    """How the target described it when it was new."""
    asked: str | None = None
    """The version that was being brought there when this was written."""


class MlflowEndpoint:
    """One deployment, on one target."""

    def __init__(
        self, settings: Settings, name: str, home: Path, uris: tuple[str, str | None]
    ) -> None:
        """Nothing is reached here; `uris` say where MLflow keeps runs and registered models."""
        self._settings = settings
        self._name = name
        self._file = home / NOTE
        self._uris = uris
        self._opened: Any = None

    @property
    def where(self) -> str:
        """Address for people; what follows a question mark may be secret."""
        return f"the deployment {self._name} of {self._settings.target.partition('?')[0]}"

    def serving(self) -> str | None:
        """Name the version that answers now; None when there is none, or nobody can tell.

        Raises:
            TryLater: the target is out of reach.
        """
        known = self._note()
        if (known.version is None and known.asked is None) or not self._exists():
            return None
        if known.asked is None or known.about == self._about():
            return known.version
        return None

    def deploy(self, model: Model, folder: Path) -> None:
        """Create or update the deployment, and wait as long as the plugin does.

        Raises:
            TryLater: the target failed.
            GiveUp: the model in `folder` cannot be loaded.
        """
        if self.serving() == model.version:
            return
        try_out(folder, model)
        known = self._note()
        self._write(Note(known.place, known.version, known.about, model.version))
        uri = f"runs:/{model.run_id}/{MODEL_PATH}"
        wanted: dict[str, Any] = {
            "flavor": self._settings.flavor, "config": dict(self._settings.config),
        }  # fmt: skip
        with self._told("deploy version " + model.version, given_up=False):
            if self._exists():
                self._client().update_deployment(self._name, uri, **wanted)
            else:
                self._client().create_deployment(self._name, uri, **wanted)
        self._write(Note(known.place, model.version, self._about()))

    def predict(self, rows: pd.DataFrame) -> Answer:
        """Score rows through the target.

        Raises:
            TryLater: nothing answers, or nobody can tell which version does.
            GiveUp: the served model refuses the rows, or its answers are no predictions.
        """
        before = self.serving()
        if before is None:
            raise TryLater(f"Nothing known serves as {self.where}.", "The next tick deploys there.")
        document = split(rows)
        table = pd.DataFrame(document["data"], columns=document["columns"], dtype=object)
        with self._told("answer"):
            answer = self._client().predict(deployment_name=self._name, inputs=table)
        predictions = _values(answer, len(rows), self.where)
        if self._note().asked is not None or self.serving() != before:
            raise TryLater(f"{self.where} is changing over.", "It is asked again later.")
        return Answer(before, predictions)

    def stop(self) -> None:
        """Delete the deployment; without effect when there is none.

        Raises:
            TryLater: the target is out of reach.
        """
        if self._exists():
            with self._told("delete the deployment"):
                self._client().delete_deployment(self._name)
        self._file.unlink(missing_ok=True)

    def _client(self) -> Any:  # noqa: ANN401 (MLflow does not type the methods of its clients)
        # A plugin looks up runs where the process says, so it must say what the daemon does.
        mlflow.set_tracking_uri(self._uris[0])
        if self._uris[1]:
            mlflow.set_registry_uri(self._uris[1])
        if self._opened is None:
            self._opened = get_deploy_client(self._settings.target)  # type: ignore[no-untyped-call]
        return self._opened

    def _exists(self) -> bool:
        with self._told("list its deployments"):
            found = self._client().list_deployments()
        return any(one.get("name") == self._name for one in found)

    def _about(self) -> str:
        with self._told("describe the deployment"):
            found = self._client().get_deployment(self._name)
        return json.dumps(found, sort_keys=True, default=str)

    def _note(self) -> Note:
        """Read the note; one about another place, or that cannot be read, says nothing."""
        place = f"{self._settings.target} {self._name}"
        try:
            known = Note(**json.loads(self._file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return Note(place)
        return known if known.place == place else Note(place)

    def _write(self, known: Note) -> None:
        try:
            note.write(self._file, asdict(known))
        except OSError as error:
            raise TryLater(
                f"{self._file} cannot be written: {error}.",
                "Check the free space and the permissions of state_dir.",
            ) from error

    @contextmanager
    def _told(self, what: str, *, given_up: bool = True) -> Iterator[None]:
        """Tell in the program's words what a plugin throws, which may be anything."""
        try:
            yield
        except RetraindError:
            raise
        except Exception as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
            said = f"{self.where} does not {what}: {told}."
            code = error.error_code if isinstance(error, MlflowException) else ""
            if given_up and code in REFUSED:
                raise GiveUp(said) from error
            raise TryLater(
                said, "`mlflow deployments help -t TARGET` tells what the target needs."
            ) from error


def _values(answer: Any, count: int, where: str) -> np.ndarray[Any, np.dtype[np.float32]]:  # noqa: ANN401 (whatever the plugin gives)
    """Give one value per row, or one per class and row.

    Raises:
        GiveUp: the answer is something else.
    """
    if hasattr(answer, "get_predictions"):
        answer = answer.get_predictions()
    if isinstance(answer, dict):
        answer = answer.get("predictions")
    try:
        values = np.asarray(answer, dtype=np.float32)
    except (ValueError, TypeError):
        values = np.empty(0, dtype=np.float32)
    if values.ndim == 2 and values.shape[1] == 1:  # noqa: PLR2004 (a column)
        values = values[:, 0]
    if values.shape[:1] != (count,):
        raise GiveUp(f"{where} answers {str(answer)[:100]!r} to {count} row(s).")
    return values
