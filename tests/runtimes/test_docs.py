"""docs/runtime.md shows code of these files, and code that runs."""

import re
from functools import partial
from typing import Any

import pytest
import selectors_loop
import selectors_runtime
from programs import HERE
from selectors_checks import SelectorsLoop

from anyp2p.testing import CHECKS, check_runtime

PAGE = (HERE.parent.parent / "docs" / "runtime.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = [(HERE / name).read_text() for name in ("selectors_runtime.py", "bare_node.py")]


@pytest.mark.parametrize("block", [block for block in BLOCKS if "async def main" not in block])
def test_shown_code_is_real(block: str) -> None:
    assert any(block in text for text in FILES), block


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [block for block in BLOCKS if "Loop()" in block]
    names: dict[str, Any] = {"Loop": selectors_loop.Loop, "Host": selectors_runtime.Host}
    exec(block, names)
    assert float(capsys.readouterr().out) > 0
    names["loop"].stop()


def test_the_kit_is_called_like_that(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [block for block in BLOCKS if "check_runtime" in block]
    loop = selectors_loop.Loop()
    names: dict[str, Any] = {
        "partial": partial,
        "loop": loop,
        "Host": selectors_runtime.Host,
        "SelectorsLoop": SelectorsLoop,
        "check_runtime": partial(check_runtime, checks=CHECKS[:3]),
    }
    exec(block, names)
    loop.start()
    loop.finish(names["main"])
    loop.stop()
    assert capsys.readouterr().out.splitlines()[2].startswith("3/3 listens_on_real_addresses: ok")


def test_named_files_exist() -> None:
    for path in re.findall(r"\]\((\.\./[^)]+)\)", PAGE):
        assert (HERE.parent.parent / "docs" / path).exists(), path
