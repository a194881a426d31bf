"""What a Cloudera AI workload is told by its environment.

Needs nothing but the standard library: the entry scripts ask before anything was installed.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket

CONFIG_VARIABLE, COMMAND_VARIABLE = "RETRAIND_CONFIG", "RETRAIND_COMMAND"
DEFAULT_CONFIG = "config/cloudera.yaml"
PORT_VARIABLE = "CDSW_APP_PORT"


def command() -> list[str]:
    """Give the command that a job carries out; the arguments of a job's run are not passed on."""
    return shlex.split(os.environ.get(COMMAND_VARIABLE, ""))


def environment() -> dict[str, str]:
    """Give the variables of a workload's child: what it finds here, and which file it reads."""
    found = {CONFIG_VARIABLE: DEFAULT_CONFIG, "PYTHONUNBUFFERED": "1", **os.environ}
    found.pop(COMMAND_VARIABLE, None)
    return found


def is_workload() -> bool:
    """Say whether this runs inside a workload of the platform."""
    return bool(os.environ.get("CDSW_ENGINE_ID"))


def is_application() -> bool:
    """Say whether the platform's proxy, which knows who comes, stands before our pages."""
    return bool(os.environ.get(PORT_VARIABLE))


def page() -> str | None:
    """Give the address of the project's page; an application is not told its own."""
    return os.environ.get("CDSW_PROJECT_URL") if is_workload() else None


def host() -> str:
    """Name where this process lives, so that its pid means something: a pod, or a machine.

    Pods may share a host name, while each has processes of its own.
    """
    engine = os.environ.get("CDSW_ENGINE_ID")
    return f"engine {engine}" if engine else socket.gethostname()


def person() -> str:
    """Name who works here; in a workload the login is `cdsw` for everybody."""
    if is_workload() and (name := os.environ.get("HADOOP_USER_NAME")):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
