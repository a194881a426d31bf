"""The script of the Cloudera AI Application: keeps the daemon running in a child of the kernel.

Its settings come from `RETRAIND_CONFIG`, or config/cloudera.yaml. The kernel's working folder is
the project's, which is this checkout.
"""

if __name__ == "__main__":
    import os
    import sys

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 (the kernel has no `__file__` to start from)
    from daemon.child import keep

    keep(["-m", "daemon", "run"])
