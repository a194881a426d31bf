"""Applications: long-running processes that answer HTTP, looked after by the platform."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from cloudera.catalogue import Catalogue
from cloudera.errors import Refused
from cloudera.jobs import check_environment
from cloudera.models import check_name
from cloudera.state import Call, Thing, World, alive, find, new_id, now_text, user
from cloudera.workloads import Workload, Workloads, free_port

SETTABLE = (
    "name", "subdomain", "description", "script", "cpu", "memory", "nvidia_gpu", "kernel",
    "bypass_authentication", "runtime_identifier", "runtime_addon_identifiers", "run_as",
    "cdv_app", "accelerator_label_id", "resource_group_id", "resource_profile_id",
)  # fmt: skip
STARTING, RUNNING = "APPLICATION_STARTING", "APPLICATION_RUNNING"
STOPPING, STOPPED = "APPLICATION_STOPPING", "APPLICATION_STOPPED"
FAILED = "APPLICATION_FAILED"
POLLING = "CDSW_APP_POLLING_ENDPOINT"


@dataclass(eq=False)
class Application(Thing):
    """An application; every start of it is a process of its own."""

    port: int = 0
    workloads: list[Workload] = field(default_factory=list)
    tries: int = 0
    """Restarts by the platform since somebody last started it."""
    again: bool = False
    """Whether it is to start again once it has stopped."""

    @property
    def environment(self) -> dict[str, str]:
        """Give the variables that it sets."""
        found: dict[str, str] = json.loads(self.body["environment"])
        return found

    @property
    def log(self) -> str:
        """Give what its last process wrote."""
        return self.workloads[-1].log.read_text(errors="replace") if self.workloads else ""


class Applications:
    """The operations on applications."""

    def __init__(self, world: World, workloads: Workloads, catalogue: Catalogue) -> None:
        self._world = world
        self._workloads = workloads
        self._catalogue = catalogue
        self._polls = httpx.Client(trust_env=False, timeout=5)
        self.things: list[Application] = []
        world.holders.append(self._held)

    def create_application(self, call: Call) -> dict[str, Any]:
        """Make an application, and start it."""
        self._catalogue.check(call.body)
        check_name(call.body["name"])
        self._check_subdomain(call.body["subdomain"])
        application = Application({
            "id": new_id(), "creator": user(call.user), "created_at": now_text(), "cpu": 1.0,
            "memory": 1.0, "bypass_authentication": False,
            "environment": json.dumps(call.body.get("environment", {})), **call.pick(*SETTABLE),
        }, faults=call.ordered())  # fmt: skip
        self.things.append(application)
        self._start(application)
        return dict(application.body)

    def _check_subdomain(self, name: str) -> None:
        check_name(name)
        if any(one.body["subdomain"] == name and not one.deleted for one in self.things):
            raise Refused(400, f"the subdomain {name} is taken")

    def _start(self, application: Application) -> None:
        application.enter(STARTING, starting_at=now_text())
        here = len(application.history)
        self._world.clock.after(self._world.pace.starting, lambda: self._launch(application, here))

    def _launch(self, application: Application, here: int) -> None:
        if len(application.history) != here or application.hangs(STARTING):
            return
        if not self._world.fits(application.body["cpu"]):
            self._world.clock.after(0.05, lambda: self._launch(application, here))
            return
        application.port = free_port()
        own = {
            **application.environment, "CDSW_APP_PORT": str(application.port),
            "CDSW_READONLY_PORT": str(free_port()), "CDSW_PUBLIC_PORT": str(free_port()),
        }  # fmt: skip
        workload = self._workloads.start(
            application.body, [], lambda _: self._ended(application), own
        )
        application.workloads.append(workload)
        path = {**self._workloads.common, **own}.get(POLLING, "/")
        address = f"http://127.0.0.1:{application.port}/{path.lstrip('/')}"
        self._world.clock.aside(lambda: self._poll(application, workload, address))

    def _poll(self, application: Application, workload: Workload, address: str) -> None:
        """Look until it answers 200; a redirect is no answer."""
        while not workload.ended.wait(self._world.pace.polling):
            try:
                good = self._polls.get(address).status_code == httpx.codes.OK
            except (httpx.HTTPError, RuntimeError):
                good = False
            if good:
                with self._world.lock:
                    if application.status == STARTING:
                        application.enter(RUNNING, running_at=now_text())
                return

    def _ended(self, application: Application) -> None:
        """Say what the end of its process means, and start it again if it was not wanted."""
        with self._world.lock:
            if application.status == STOPPING:
                application.enter(STOPPED, stopped_at=now_text())
                if application.again and not application.deleted:
                    application.again = False
                    self._start(application)
                return
            application.enter(FAILED, stopped_at=now_text())
            if application.tries < self._world.habits.application_restarts:
                application.tries += 1
                here = len(application.history)

                def again() -> None:
                    if len(application.history) == here:
                        self._start(application)

                self._world.clock.after(self._world.pace.restart, again)

    def list_applications(self, _: Call) -> list[dict[str, Any]]:
        """List the applications."""
        return alive(self.things)

    def get_application(self, call: Call) -> dict[str, Any]:
        """Read an application."""
        return dict(self._of(call).body)

    def update_application(self, call: Call) -> dict[str, Any]:
        """Change an application; its process learns of it at its next start."""
        application, changes = self._of(call), call.pick(*SETTABLE, "environment")
        check_environment(changes)
        if changes.get("subdomain", application.body["subdomain"]) != application.body["subdomain"]:
            self._check_subdomain(changes["subdomain"])
        self._catalogue.check({**application.body, **changes})
        application.body |= {**changes, "updated_at": now_text()}
        return dict(application.body)

    def restart_application(self, call: Call) -> dict[str, Any]:
        """Restart an application, or start a stopped one."""
        application = self._of(call)
        application.tries = 0
        if application.status in (STARTING, RUNNING):
            self._stop(application)
        if application.status == STOPPING:
            application.again = True
        else:
            self._start(application)
        return dict(application.body)

    def stop_application(self, call: Call) -> dict[str, Any]:
        """Stop an application."""
        application = self._of(call)
        application.again = False
        self._stop(application)
        return dict(application.body)

    def delete_application(self, call: Call) -> dict[str, Any]:
        """Remove an application, which ends it."""
        application = self._of(call)
        self._stop(application)
        application.deleted = True
        return {}

    def _stop(self, application: Application) -> None:
        running = application.workloads and not application.workloads[-1].ended.is_set()
        if application.status in (STARTING, RUNNING) and running:
            application.enter(STOPPING)
            group = self._world.habits.terminate_group
            application.workloads[-1].terminate(self._world.pace.grace, group=group)
        elif application.status in (STARTING, FAILED):
            application.enter(STOPPED, stopped_at=now_text())

    def _of(self, call: Call) -> Application:
        return find(self.things, "application", call.ids["application_id"])

    def close(self) -> None:
        """Look no more."""
        self._polls.close()

    def _held(self) -> float:
        run = [a for a in self.things if a.workloads and not a.workloads[-1].ended.is_set()]
        return float(sum(one.body["cpu"] for one in run))
