"""What serves a pipeline's model: settings of each kind of endpoint, and of the workbench."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Literal

from pydantic import Field

from config.section import Duration, Section

LONGEST_NAME = 63
"""Characters of a Kubernetes label, which the names of models become."""
ADDRESS = r"^https?://[^/\s]+$"


class Cloudera(Section):
    """The Cloudera AI workbench; inside a workload all of it is known without being said."""

    url: str | None = Field(None, pattern=ADDRESS)
    """Address of the workbench, e.g. `https://ml-1234.example.com`; default `CDSW_API_URL`, else
    `CDSW_DOMAIN`. The API key comes from `CDSW_APIV2_KEY` only."""
    project_id: str | None = None
    """Project that models are made in; default `CDSW_PROJECT_ID`."""
    ca_bundle: Path | None = None
    """File with the certificates to trust, for a private CA; default `REQUESTS_CA_BUNDLE`, else
    `SSL_CERT_FILE`, else those that Python trusts."""
    runtime: str | None = None
    """Identifier of the runtime (an image) of models; default the runtime of this workload."""
    addons: tuple[str, ...] = ()
    """Identifiers of the runtime addons of models."""
    request_within: Duration = 60.0
    """Seconds that one request to the API may take; its own gateway gives up after 30."""


class LocalEndpoint(Section):
    """The embedded endpoint (`kind: local`): an HTTP server in a process of its own."""

    kind: Literal["local"] = "local"
    """Which implementation serves the model."""
    host: str = "127.0.0.1"
    """Address to bind; only loopback unless set otherwise."""
    port: int = Field(5001, ge=1, le=65535)
    """Port of the scoring server."""
    start_within: Duration = 60.0
    """Seconds the server may take to answer its first ping."""
    verify_rows: int = Field(100, ge=1)
    """Held-out rows whose answers are compared with the offline predictions after a deployment."""
    outlive: bool = True
    """Keep serving when the daemon stops; the next start takes the endpoint over."""

    def address(self, pipeline: str) -> str:  # noqa: ARG002 (an address of its own is configured)
        """Say for people where the model answers."""
        return f"http://{self.host}:{self.port}/invocations"


class ClouderaEndpoint(Section):
    """A model of the Cloudera AI workbench (`kind: cloudera`)."""

    kind: Literal["cloudera"]
    """Which implementation serves the model."""
    model: str | None = Field(
        None, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=LONGEST_NAME
    )
    """Name of the model, up to 63 letters, digits and `._-`; default `retraind-<pipeline>`."""
    cpu: float = Field(1.0, gt=0)
    """Virtual cores of each replica."""
    memory: float = Field(2.0, gt=0)
    """Gigabytes of memory of each replica."""
    replicas: int = Field(1, ge=1)
    """Replicas; each answers one request at a time, others wait."""
    environment: dict[str, str] = Field({})
    """Environment variables of the served model; it gets none of this workload's."""
    register_within: Duration = 600.0
    """Seconds that the registration of a version may take; then it is registered once more."""
    build_within: Duration = 1800.0
    """Seconds that a build may take; then it counts as hung, and a fresh one is made."""
    deploy_within: Duration = 900.0
    """Seconds that a deployment may take to come up; then it is stopped and made anew."""
    settle_within: Duration = 300.0
    """Seconds that something is looked for when the answer to its making was lost or was a server's
    error: the platform goes on with it as a rule. Only then it is asked for again."""
    retry_after: Duration = 60.0
    """Seconds before what failed on the platform is made once more; doubles up to an hour."""
    look_every: Duration = 10.0
    """Seconds between two looks at something that goes on, where a command waits for it."""
    keep_builds: int = Field(5, ge=2)
    """Builds that are kept; the one that serves and the one before it always are."""
    verify_rows: int = Field(100, ge=1)
    """Held-out rows whose answers are compared with the offline predictions after a deployment."""
    modelservice: str | None = Field(None, pattern=r"^https?://\S+$")
    """Address that models answer at; default `https://modelservice.<domain>/model`."""
    authorize: bool | None = None
    """Send the API key to the model as well, for which it needs the audience Application; default
    where the model asks for one."""
    answer_within: Duration = 60.0
    """Seconds that a model may take to answer, those in which it is busy included."""
    outlive: bool = True
    """Keep serving when the daemon stops; `false` stops the deployment."""

    def address(self, pipeline: str) -> str:
        """Say for people where the model answers."""
        return f"the workbench's model {self.name(pipeline)}"

    def name(self, pipeline: str) -> str:
        """Give the model's name; the default is cut where the pipeline's own is too long."""
        name = self.model or f"retraind-{pipeline}"
        if len(name) <= LONGEST_NAME:
            return name
        # What tells two long names apart may be at their ends.
        return f"{name[:54].rstrip('-_')}-{blake2b(name.encode(), digest_size=4).hexdigest()}"


class MlflowEndpoint(Section):
    """A target of MLflow's deployments (`kind: mlflow`), by the plugin installed for it."""

    kind: Literal["mlflow"]
    """Which implementation serves the model."""
    target: str = Field(min_length=1)
    """Target as `mlflow deployments -t` takes it, e.g. `sagemaker:/eu-west-1`; its credentials come
    from where the plugin looks for them."""
    deployment: str | None = Field(None, min_length=1)
    """Name of the deployment; default `retraind-<pipeline>`."""
    flavor: str | None = None
    """Flavor that is deployed; default what the target takes."""
    config: dict[str, str | int | float | bool] = Field({})
    """What the target wants to be told, as `-C name=value`."""
    verify_rows: int = Field(100, ge=1)
    """Held-out rows whose answers are compared with the offline predictions after a deployment."""
    outlive: bool = True
    """Keep serving when the daemon stops; `false` deletes the deployment."""

    def address(self, pipeline: str) -> str:
        """Say for people where the model answers."""
        return f"the deployment {self.name(pipeline)} of {self.target.partition('?')[0]}"

    def name(self, pipeline: str) -> str:
        """Give the deployment's name."""
        return self.deployment or f"retraind-{pipeline}"
