"""Settings of the pages, and who gets in."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from config.section import Section

SHORTEST = 16
"""Characters of a token: fewer could be tried out."""
MADE_BY = "`openssl rand -hex 32` makes one"


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host of that name, or address."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class Http(Section):
    """The daemon's own pages and health checks."""

    host: str = "127.0.0.1"
    """Address to bind; only loopback unless set otherwise, and always with `CDSW_APP_PORT`. Any
    other needs a token."""
    port: int = Field(8090, ge=0, le=65535)
    """Port of the dashboard; Cloudera AI's `CDSW_APP_PORT` wins where it is set."""
    token: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    """What who acts must know, where no platform asks for a login; from the variable
    `RETRAIND_HTTP__TOKEN` alone, never from the file."""
    token_file: Path | None = None
    """File that holds the token, instead of the variable."""
    read_only: bool = False
    """Refuse every action over HTTP, whoever asks."""
    hosts: tuple[str, ...] = ()
    """Further names that the pages on loopback may be asked for by, e.g. that of a proxy on this
    machine; others are refused, as a page of another site could have given itself that name."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the pages."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _guarded(self) -> Http:
        found = []
        if self.token and len(self.token.get_secret_value()) < SHORTEST:
            found.append(f"token: is shorter than {SHORTEST} characters; {MADE_BY}")
        if not self.loopback and not self.token and not self.token_file:
            found.append(
                f"host: others reach {self.host!r}, so a token is needed; {MADE_BY}, and "
                f"RETRAIND_HTTP__TOKEN or http.token_file tells it"
            )
        if found:
            raise ValueError("; ".join(found))
        return self
