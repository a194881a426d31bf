"""The door to a Cloudera AI workbench: its API v2, by the client that the workbench serves itself.

One request is one call, and what goes wrong with it is told in the program's error words. The
difference that matters is whether the request can have had an effect: what was asked for and not
answered goes on as a rule (a gateway gives up after 30 s), so it must be looked for, not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from handlers.facts import GiveUp, RetraindError, TryLater

if TYPE_CHECKING:
    from config.machine import Site

PAGE = 50
"""Items that are asked for at once; ten is what a list gives by itself."""
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TIMEOUT, TOO_MANY, BROKEN = 401, 403, 404, 408, 429, 500


class Unsure(TryLater):
    """A request that was sent, and whose effect is not known: look for it before asking again."""


class Refused(GiveUp):
    """The workbench says that this request can never succeed; `status` is how."""

    def __init__(self, what: str, remedy: str = "", status: int = 400) -> None:
        super().__init__(what, remedy)
        self.status = status


class Missing(Refused):
    """What a request is about is not there (404)."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client, and the errors that it throws."""

    api: Any
    refused: type[Exception]
    lost: type[Exception]


class Workbench:
    """One project of a workbench. Nothing is reached, nor the client imported, before a call."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._client: Client | None = None
        self._lock = Lock()

    @property
    def project_id(self) -> str:
        """Give the project that all happens in."""
        return self.site.project_id

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (the client's objects are made at run time)
        """Send one request: `call("get_model", project_id, model_id)`; bodies come first.

        Raises:
            TryLater: it had no effect, and may succeed later.
            Unsure: it may have had its effect; the answer was lost, or is a server's error.
            Missing: there is no such thing.
            Refused: it can never succeed.
        """
        client = self._connected()
        try:
            method = getattr(client.api, name)
            return method(*args, **kwargs, _request_timeout=self.site.request_within)
        except client.refused as error:
            raise self._said(name, error) from error
        except client.lost as error:
            raise self._silence(name, error) from error

    def pages(self, name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401 (as in `call`)
        """Give every item of a list: `pages("list_models", project_id, sort="-created_at")`.

        Raises:
            TryLater, Refused: as `call`.
        """
        token, seen = "", set[str]()
        while token not in seen:
            seen.add(token)
            # A page is found only if all that chose the first one is said again.
            more = {"page_token": token} if token else {}
            page = self.call(name, *args, page_size=PAGE, **kwargs, **more)
            types: dict[str, str] = page.swagger_types
            field = next(name for name, kind in types.items() if kind.startswith("list["))
            yield from getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return
        raise TryLater(f"{self.site.url} gives the pages of {name} in a circle.", "")

    def named(self, name: str, *args: Any, field: str, value: str, key: str = "") -> list[Any]:  # noqa: ANN401 (as in `call`)
        """Give the items of a list whose field is exactly this; the API's filters find parts.

        `key` is what the filter calls the field, where it has another name for it.

        Raises:
            TryLater, Refused: as `call`.
        """
        wanted = json.dumps({key or field: value})
        found = self.pages(name, *args, search_filter=wanted)
        return [item for item in found if getattr(item, field) == value]

    def runtime(self) -> str:
        """Give the identifier of the runtime to use: the configured one, or this workload's own.

        Raises:
            TryLater: this is no workload, or the workbench lacks its runtime.
        """
        own = dict(self.site.own_runtime)
        if self.site.runtime:
            return self.site.runtime
        remedy = "Set cloudera.runtime to the identifier of a runtime."
        if not own:
            raise TryLater("No runtime is configured, and this is no workload.", remedy)
        parts = {name: own[name] for name in ("kernel", "edition", "editor")}
        for item in self.pages("list_runtimes", search_filter=json.dumps(parts)):
            if all(getattr(item, name) == value for name, value in own.items()):
                return str(item.image_identifier)
        told = ", ".join(own.values())
        raise TryLater(f"{self.site.url} has no runtime like this workload's ({told}).", remedy)

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Client:
        try:
            import cmlapi  # noqa: PLC0415 (not on PyPI, and only where it is used)
            import urllib3  # noqa: PLC0415 (comes with it)
        except ImportError as error:
            raise TryLater(
                f"The client of the workbench cannot be imported: {error}.",
                f"pip install {self.site.url}/api/v2/python.tar.gz",
            ) from error
        configuration = cmlapi.Configuration()
        configuration.host = self.site.url
        if self.site.ca_bundle:
            configuration.ssl_ca_cert = str(self.site.ca_bundle)
        connection = cmlapi.ApiClient(configuration)
        connection.set_default_header("authorization", f"Bearer {self.site.key}")
        return Client(
            cmlapi.CMLServiceApi(connection),
            cmlapi.rest.ApiException,
            urllib3.exceptions.HTTPError,
        )

    def _said(self, name: str, error: Any) -> RetraindError:  # noqa: ANN401 (see `call`)
        """Say what an answer means that is no success."""
        status, told = int(error.status or 0), _told(error)
        what = f"{self.site.url} answers {name} with {status}: {told}."
        if status == UNAUTHORIZED:
            return TryLater(
                f"{self.site.url} does not accept the API key ({told}).",
                "It may have expired: put a new one into CDSW_APIV2_KEY and restart.",
            )
        if status == FORBIDDEN:
            return TryLater(
                what, "The key's user needs the right to do this, and the key the audience API."
            )
        if status == NOT_FOUND:
            return Missing(what, "", status)
        if status == TOO_MANY:
            return TryLater(what, "It is asked again later.")
        if status >= BROKEN or status in (0, TIMEOUT):
            return Unsure(what, "What was asked for is looked for before it is asked for again.")
        return Refused(what, "", status)

    def _silence(self, name: str, error: Exception) -> RetraindError:
        """Say what a lost connection means."""
        import urllib3.exceptions as lost  # noqa: PLC0415 (it is there, or nothing was called)

        reason = getattr(error, "reason", None) or error
        what = f"{self.site.url} does not answer {name}: {reason}."
        if isinstance(reason, lost.SSLError):
            return TryLater(
                f"{self.site.url} cannot be trusted: {reason}.",
                "For a private CA, set cloudera.ca_bundle to the file with its certificates.",
            )
        # A ConnectTimeoutError is all three of: a timeout, no connection, and not a read one.
        before = (lost.NewConnectionError, lost.ConnectTimeoutError, lost.ProxyError)
        if isinstance(reason, before):
            return TryLater(what, "Check cloudera.url and the network.")
        return Unsure(what, "What was asked for is looked for before it is asked for again.")


def _told(error: Any) -> str:  # noqa: ANN401 (an ApiException, of a client made at run time)
    """Give the workbench's own words, on one line."""
    try:
        body = json.loads(error.body)
        text = str(body.get("message") or body.get("error") or "")
    except (ValueError, TypeError, AttributeError):
        text = str(error.body or "")
    return " ".join((text or str(error.reason)).split())[:300].rstrip(".") or "no reason given"
