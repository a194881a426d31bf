"""The script of the Cloudera AI Jobs: carries out the command in `RETRAIND_COMMAND`.

The job fails if the command does, with what it said.
"""

if __name__ == "__main__":
    import os
    import sys

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 (the kernel has no `__file__` to start from)
    from config import workload
    from daemon.child import carry_out

    if not workload.command():
        raise RuntimeError("Set RETRAIND_COMMAND in the job's environment, as in `append --rows 9`")
    carry_out(["-m", "daemon", *workload.command()])
