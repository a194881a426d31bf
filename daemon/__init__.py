"""The machine: when to look, what was done, how to stop, what to show."""
