"""Runs a script as the platform's kernels do: a script that jobs and applications are started with.

The file is executed inside the kernel, so `__file__` is undefined and the working folder is the
project's; any `SystemExit` is a failure; and when the kernel's process becomes another program
(`os.exec*`), the kernel is gone. Its end is told through a pipe that no other program inherits,
for an exit status can be had by anyone.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path


def main(pipe: int, script: str, arguments: list[str]) -> None:
    """Run a script and report how it ended."""
    os.set_inheritable(pipe, False)  # noqa: FBT003 (os takes it by position)
    sys.path[0] = str(Path.cwd())
    sys.argv = [script, *arguments]
    outcome = "failed"
    try:
        code = compile(Path(script).read_bytes(), script, "exec")
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
        outcome = "succeeded"
    except SystemExit as error:
        print(f"An exception has occurred: SystemExit: {error.code}", file=sys.stderr)  # noqa: T201
    except BaseException:  # noqa: BLE001 (a kernel survives whatever a script raises)
        traceback.print_exc()
    sys.stdout.flush()
    os.write(pipe, outcome.encode())
    # A kernel does not wait for the threads that a script leaves behind.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
