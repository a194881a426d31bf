"""An emulator of a Cloudera AI workbench: API v2, modelservice, jobs and applications.

`workbench.Workbench` is what a test starts; `site/` is what a workload finds installed there.
"""
