"""Small JSON files that are there whole or not at all, readable by their owner alone."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path


def write(file: Path, document: object) -> None:
    """Write a document in one step; the folder is made if there is none."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as open_file:
        json.dump(document, open_file)
    Path(temporary).replace(file)
