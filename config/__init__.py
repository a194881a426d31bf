"""What is wanted: settings, and what this machine offers to carry them out."""

__version__ = "0.1.0"
