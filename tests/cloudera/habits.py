"""What a test may set: how fast the workbench works, and how it acts where no source says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Pace:
    """Seconds that each state lasts; on a live workbench it is minutes for builds."""

    registering: float = 0.03
    queued: float = 0.01
    building: float = 0.02
    pushing: float = 0.01
    deploying: float = 0.02
    stopping: float = 0.01
    scheduling: float = 0.01
    starting: float = 0.01
    polling: float = 0.05
    """Between two looks at an application that is starting."""
    grace: float = 5.0
    """Between SIGTERM and SIGKILL."""
    restart: float = 300.0
    """Between the failure of an application and the next try; 5 minutes are documented."""
    model_timeout: float = 30.0


@dataclass
class Habits:
    """Behaviour that differs between workbenches, or that no source settles."""

    stop_old_first: bool = False
    """Stop the serving deployment when a new one is created, leaving a gap (seen live: 2 min)."""
    refuse_second_deployment: bool = False
    """Refuse a deployment of a model while another one of it is deploying."""
    keep_version_tags: bool = False
    """Store the tags of registered versions; they are taken and lost on the workbenches seen."""
    newest_first: bool = False
    """The order of lists for which no sort is asked."""
    refuse_unknown_fields: bool = False
    """Refuse a body with unknown fields instead of dropping them."""
    wrapped_answers: bool = True
    """Answer for registry models as with Model Metrics: prediction, uuid, model_deployment_crn."""
    success_key: bool = True
    """Add `success` to the answers of models."""
    model_authentication: bool = False
    """Models ask for a bearer key, unless made with `disable_authentication`."""
    model_queue: int = 20
    """Requests that wait for a model before it is busy."""
    no_deployment: int = 503
    bad_access_key: int = 401
    model_error: int = 500
    second_run: Literal["refused", "skipped"] = "refused"
    """What becomes of a run of a job that runs."""
    run_arguments_used: bool = False
    """Whether the arguments of a run take the place of the job's."""
    workload_key_lives: float | None = None
    """Seconds that the key in a workload's environment is good for."""
    application_restarts: int = 3
    terminate_group: bool = True
    """Whether SIGTERM reaches a script's own children, too."""
    visitor: str | None = "analyst"
    """Who is logged in when a request comes to an application without a key; None: nobody."""
    visitor_permission: str = "RW"
