"""A real REST catalog on loopback: Iceberg's own handlers of its REST protocol, over a folder.

Only the HTTP around them is ours (the Iceberg REST catalog specification, `rest-catalog-open-api`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JJavaError

from config.machine import Machine

CODES = {
    "NoSuchTableException": 404,
    "NoSuchNamespaceException": 404,
    "AlreadyExistsException": 409,
    "CommitFailedException": 409,
}
NAMESPACE, TABLE = "/v1/namespaces/([^/]+)", "/v1/namespaces/([^/]+)/tables/([^/]+)"


class RestCatalog(ThreadingHTTPServer):
    """The catalog's server; its JVM ends when our end of its standard input closes."""

    daemon_threads = True

    def __init__(self, home: Path, machine: Machine) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.uri = f"http://127.0.0.1:{self.server_port}"
        port, token, self._process = launch_gateway(
            jarpath=str(next(Path(machine.spark.value, "jars").glob("py4j-*.jar"))),
            classpath=f"{machine.iceberg.value}:{machine.spark.value}/jars/*",
            javaopts=["-Xmx256m", "-XX:+UseSerialGC"],
            java_path=str(Path(machine.java.value) / "bin" / "java"),
            enable_auth=True, die_on_exit=True, return_proc=True,
        )  # fmt: skip
        parameters = GatewayParameters(port=port, auth_token=token)
        self._gateway = JavaGateway(gateway_parameters=parameters)
        self.jvm = self._gateway.jvm
        self.iceberg = self.jvm.org.apache.iceberg
        conf = self.jvm.org.apache.hadoop.conf.Configuration()
        self.catalog = self.iceberg.hadoop.HadoopCatalog(conf, str(home / "warehouse"))
        made = self._class("org.apache.iceberg.rest.RESTObjectMapper").getDeclaredMethod(
            "mapper", None
        )
        made.setAccessible(True)
        self._mapper = made.invoke(None, None)
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End the server and its JVM."""
        self.shutdown()
        self.server_close()
        self._gateway.shutdown()
        self._process.kill()
        self._process.wait()

    def read(self, body: str, name: str) -> Any:
        """Read a request of the protocol."""
        return self._mapper.readValue(body, self._class(f"org.apache.iceberg.rest.requests.{name}"))

    def write(self, answer: Any) -> str:
        """Write an answer of the protocol."""
        return str(self._mapper.writeValueAsString(answer))

    def _class(self, name: str) -> Any:
        return self.jvm.java.lang.Class.forName(name)


class Request(BaseHTTPRequestHandler):
    """One request, answered by Iceberg's handler of that name."""

    protocol_version = "HTTP/1.1"
    server: RestCatalog

    def answer(self) -> None:
        """Answer any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        path = self.path.partition("?")[0]
        handlers, catalog = self.server.iceberg.rest.CatalogHandlers, self.server.catalog
        read, namespace, table = self.server.read, self._namespace, self._table
        routes: dict[str, Callable[..., Any]] = {
            "POST /v1/namespaces": lambda: self._create_namespace(
                read(body, "CreateNamespaceRequest").namespace()
            ),
            f"(GET|HEAD) {NAMESPACE}": lambda _, n: handlers.loadNamespace(catalog, namespace(n)),
            f"POST {NAMESPACE}/tables": lambda n: self._create(
                namespace(n), read(body, "CreateTableRequest")
            ),
            f"(GET|HEAD) {TABLE}": lambda _, n, t: handlers.loadTable(catalog, table(n, t)),
            f"POST {TABLE}": lambda n, t: handlers.updateTable(
                catalog, table(n, t), read(body, "UpdateTableRequest")
            ),
            f"POST {TABLE}/metrics": lambda *_: None,
        }
        for route, act in routes.items():
            if found := re.fullmatch(route, f"{self.command} {path}"):
                self._try(partial(act, *found.groups()))
                return
        if path == "/v1/config":
            self._send(200, '{"defaults": {}, "overrides": {}}')
        else:
            self._refuse(404, "NoSuchRoute", self.path)

    def _create_namespace(self, name: Any) -> Any:
        rest = self.server.iceberg.rest
        wanted = rest.requests.CreateNamespaceRequest.builder().withNamespace(name)
        return rest.CatalogHandlers.createNamespace(self.server.catalog, wanted.build())

    def _create(self, namespace: Any, wanted: Any) -> Any:
        handlers = self.server.iceberg.rest.CatalogHandlers
        create = handlers.stageTableCreate if wanted.stageCreate() else handlers.createTable
        return create(self.server.catalog, namespace, wanted)

    def _namespace(self, name: str) -> Any:
        return self.server.iceberg.rest.RESTUtil.decodeNamespace(name)

    def _table(self, namespace: str, name: str) -> Any:
        return self.server.iceberg.catalog.TableIdentifier.of(self._namespace(namespace), name)

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            answer = act()
        except Py4JJavaError as error:
            kind = error.java_exception.getClass().getSimpleName()
            self._refuse(CODES.get(kind, 500), kind, str(error.java_exception.getMessage()))
        else:
            self._send(200 if answer else 204, self.server.write(answer) if answer else "")

    def _refuse(self, code: int, kind: str, message: str) -> None:
        rest = self.server.iceberg.rest.responses
        error = rest.ErrorResponse.builder().responseCode(code).withType(kind).withMessage(message)
        self._send(code, str(rest.ErrorResponseParser.toJson(error.build())))

    def _send(self, code: int, text: str) -> None:
        content = text.encode() if self.command != "HEAD" else b""
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""
