"""Published test vectors, read from conformance/vectors."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1] / "conformance" / "vectors"


def load(name: str) -> Any:
    """The contents of ``<name>.json``."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
