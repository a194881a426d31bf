"""Where models are loaded: a script that imports MLflow once and forks a process per replica.

Forking is what makes a deployment take milliseconds instead of seconds, and a process of its own
is what keeps apart two models whose loader modules have the same name. It imports nothing of this
repository: what a model needs must have been logged with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], Any]


def main(path: str) -> None:
    """Fork a replica per connection until standard input ends, which is our starter's end."""
    import mlflow.pyfunc  # noqa: F401, PLC0415
    import pandas as pd  # noqa: F401, PLC0415

    with contextlib.suppress(ImportError):
        import xgboost  # noqa: F401, PLC0415
    with contextlib.suppress(ImportError, AttributeError):
        # Every load compares the installed packages with the model's, and lists them for 0.4 s.
        from mlflow.utils import requirements_utils  # noqa: PLC0415

        prepare: Any = requirements_utils._init_modules_to_packages_map
        prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need no wait
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    print("ready", flush=True)  # noqa: T201 (the starter waits for it)
    while True:
        readable, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            with contextlib.suppress(OSError):
                serve(connection)
            os._exit(0)
        connection.close()


def serve(connection: socket.socket) -> None:
    """Load one model and answer line by line until the other end closes."""
    lines = connection.makefile("rw", encoding="utf-8")

    def say(**answer: Any) -> None:
        lines.write(json.dumps(answer) + "\n")
        lines.flush()

    source = json.loads(lines.readline())
    os.environ.update(source["environment"])  # noqa: TID251 (the deployment's own)
    os.chdir(source["folder"])
    try:
        model = function(source) if "function_name" in source else pyfunc(source["folder"])
    except Exception as error:  # noqa: BLE001 (whatever a model's code raises)
        say(error=f"{type(error).__name__}: {error}")
        return
    say(pid=os.getpid())
    for line in lines:
        asked = json.loads(line)
        os.environ["EMULATED_PREDICTION"] = json.dumps(asked["about"])  # noqa: TID251
        try:
            say(value=model(asked["request"]))
        except Exception as error:  # noqa: BLE001 (as above)
            say(error=f"{type(error).__name__}: {error}")


def pyfunc(folder: str) -> Answer:
    """Load a logged model as the platform does, which knows MLflow and nothing of us."""
    import mlflow.pyfunc  # noqa: PLC0415

    model = mlflow.pyfunc.load_model(folder)
    return lambda request: plain(model.predict(frame(request, model.metadata.get_input_schema())))


def frame(request: dict[str, Any], schema: Any) -> Any:
    """Read the rows of a request in MLflow's forms."""
    import pandas as pd  # noqa: PLC0415
    from mlflow.utils import proto_json_utils  # noqa: PLC0415

    for form, orient in (("dataframe_split", "split"), ("dataframe_records", "records")):
        if form in request:
            read: Any = proto_json_utils.dataframe_from_parsed_json
            return read(request[form], orient, schema)
    if "inputs" not in request:
        raise ValueError("the request has neither dataframe_split, dataframe_records nor inputs")
    return pd.DataFrame(request["inputs"], columns=schema.input_names() if schema else None)


def plain(value: Any) -> Any:
    """Turn predictions into what JSON can carry."""
    if hasattr(value, "to_dict"):
        return value.to_dict("records") if hasattr(value, "columns") else value.tolist()
    return value.tolist() if hasattr(value, "tolist") else value


def function(source: dict[str, Any]) -> Answer:
    """Load the function of a project's file."""
    path = Path(source["folder"], source["file_path"])
    sys.path.insert(0, source["folder"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer: Answer = getattr(module, source["function_name"])
    return answer


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules no model may meet
    main(sys.argv[1])
