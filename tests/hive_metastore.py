"""A real Hive metastore on loopback, made from the jars that PySpark ships and embedded Derby."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from conftest import free_port
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError

from config.machine import Machine


class Metastore:
    """A metastore over a folder and a port, both of which outlast its process.

    The process ends when its standard input closes, so it never outlives the tests, however those
    end. The handler behind the port is Hive's own; only the socket is ours, because the one that
    `HiveMetaStore.main` opens would listen on every network the machine is in.
    """

    def __init__(self, home: Path, machine: Machine) -> None:
        self.port = free_port()
        self.uri = f"thrift://127.0.0.1:{self.port}"
        self._home = home
        self._java = Path(machine.java.value) / "bin" / "java"
        self._jars = Path(machine.spark.value) / "jars"
        self._process: Any = None

    def start(self) -> None:
        """Start the process; it accepts connections when this returns."""
        new = not (self._home / "derby").exists()
        with (self._home / "metastore.log").open("a", encoding="utf-8") as log:
            port, token, self._process = launch_gateway(
                jarpath=str(next(self._jars.glob("py4j-*.jar"))),
                classpath=f"{self._jars}/*",
                javaopts=["-Xmx256m", "-XX:+UseSerialGC"],
                java_path=str(self._java),
                cwd=str(self._home),  # Derby writes its log there
                redirect_stderr=log,
                enable_auth=True,
                die_on_exit=True,
                return_proc=True,
            )
        jvm = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token)).jvm
        hive, thrift = jvm.org.apache.hadoop.hive, jvm.org.apache.thrift
        conf = hive.conf.HiveConf()
        for key, value in self._properties().items():
            conf.set(key, value)
        if new:
            # Without the lock tables the first commit of an Iceberg table hangs and then fails.
            hive.metastore.txn.TxnDbUtil.prepDb(conf)
        handler = hive.metastore.HiveMetaStore.newRetryingHMSHandler("tests", conf, False)  # noqa: FBT003 (a Java argument: do not connect yet)
        address = jvm.java.net.InetSocketAddress("127.0.0.1", self.port)
        pool = thrift.server.TThreadPoolServer
        arguments = pool.Args(thrift.transport.TServerSocket(address))
        arguments.processor(hive.metastore.api.ThriftHiveMetastore.Processor(handler))
        Thread(target=_serve, args=[pool(arguments)], daemon=True).start()

    def kill(self) -> None:
        """End the process with SIGKILL; its folder and its port can be started again."""
        self._process.kill()
        self._process.wait()

    def _properties(self) -> dict[str, str]:
        return {
            "javax.jdo.option.ConnectionURL": f"jdbc:derby:{self._home}/derby;create=true",
            "javax.jdo.option.ConnectionDriverName": "org.apache.derby.jdbc.EmbeddedDriver",
            "hive.metastore.warehouse.dir": str(self._home / "warehouse"),
            "hive.metastore.schema.verification": "false",
            "datanucleus.schema.autoCreateAll": "true",
        }


def _serve(server: Any) -> None:
    with suppress(Py4JError, OSError):  # the connection breaks when the process is killed
        server.serve()
