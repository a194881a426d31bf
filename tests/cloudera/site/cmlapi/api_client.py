"""The client: HTTP by urllib3 (as the real one, so that lost connections raise the same errors)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from cmlapi.document import Method, methods
from cmlapi.models import read, write
from cmlapi.rest import ApiException

OPTIONS = ("async_req", "_return_http_data_only", "_preload_content", "_request_timeout")


class Configuration:
    """Where the workbench is and whom to trust."""

    def __init__(self) -> None:
        self.host = "https://localhost"
        self.ssl_ca_cert: str | None = None
        self.verify_ssl = True


class ApiClient:
    """Connections and default headers."""

    def __init__(self, configuration: Configuration | None = None) -> None:
        self.configuration = configuration or Configuration()
        self.default_headers = {"User-Agent": "Swagger-Codegen/1.0.0/python"}
        self._connections: urllib3.PoolManager | None = None
        self._threads: ThreadPool | None = None

    @property
    def pool(self) -> ThreadPool:
        """Give the threads of `async_req`."""
        self._threads = self._threads or ThreadPool(4)
        return self._threads

    def set_default_header(self, header_name: str, header_value: str) -> None:
        """Send a header with every request."""
        self.default_headers[header_name] = header_value

    def call(self, verb: str, url: str, body: Any, timeout: Any) -> Any:
        """Send one request and read the JSON of its answer.

        Raises:
            ApiException: the status is no success.
        """
        if self._connections is None:
            verify = self.configuration.verify_ssl
            self._connections = urllib3.PoolManager(
                cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE",
                ca_certs=self.configuration.ssl_ca_cert,
            )
        headers = {**self.default_headers, "Accept": "application/json"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(write(body)).encode()
        answer = self._connections.request(
            verb, self.configuration.host.rstrip("/") + url, body=content, headers=headers,
            timeout=timeout,
        )  # fmt: skip
        if not 200 <= answer.status <= 299:
            raise ApiException(http_resp=answer)
        return json.loads(answer.data)


class CMLServiceApi:
    """One method per operation of the contract."""

    def __init__(self, api_client: ApiClient | None = None) -> None:
        self.api_client = api_client or ApiClient()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Say what is missing; it is here for the type checker, which cannot see the methods."""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _bind(method, args, kwargs)
        if given.pop("async_req", False):
            return self.api_client.pool.apply_async(self._send, (method, given))
        return self._send(method, given)

    def _send(self, method: Method, given: dict[str, Any]) -> Any:
        body = given["body"] if method.has_body else None
        url = method.path
        for slot, name in zip(method.ids, method.required[method.has_body :], strict=True):
            url = url.replace(f"{{{slot}}}", quote(str(given[name]), safe=""))
        query = {name: given[name] for name in method.query if given.get(name) is not None}
        if query:
            url += "?" + urlencode(query)
        answer = self.api_client.call(method.verb, url, body, given.get("_request_timeout"))
        return read(method.answer, answer)


def _bind(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > len(method.required):
        raise TypeError(
            f"{method.name}() takes {len(method.required) + 1} positional arguments "
            f"but {len(args) + 1} were given"
        )
    given = dict(zip(method.required, args, strict=False))
    for name, value in kwargs.items():
        if name in given:
            raise TypeError(f"{method.name}() got multiple values for argument {name!r}")
        if name not in (*method.required, *method.query, *OPTIONS):
            raise TypeError(f"Got an unexpected keyword argument '{name}' to method {method.name}")
        given[name] = value
    for name in method.required:
        if given.get(name) is None:
            raise ValueError(
                f"Missing the required parameter `{name}` when calling `{method.name}`"
            )
    return given


def _define(method: Method) -> None:
    def call(self: CMLServiceApi, *args: Any, **kwargs: Any) -> Any:
        return self._call(method, args, kwargs)

    call.__name__ = method.name
    call.__doc__ = f"{method.verb} {re.sub(r'[{}]', '', method.path)}"
    setattr(CMLServiceApi, method.name, call)


for _one in methods():
    _define(_one)
