"""A stand-in for the `cml` package that workloads have, as far as it is used."""
