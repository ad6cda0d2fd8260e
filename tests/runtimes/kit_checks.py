"""The published checks as tests: one for each check and runtime, so that a failure names both."""

from typing import Any

import pytest
from on_loops import RUNTIMES

from anyp2p.testing import CHECKS, Check, Kit, run_check


def checks_on(*names: str) -> Any:
    """Parameters for a test function with ``runtime`` and ``check``."""
    parameters = [
        pytest.param(RUNTIMES[name], check, id=f"{name}-{check.__name__}")
        for name in names
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("runtime", "check"), parameters)


def run(runtime: Any, check: Check) -> None:
    async def main(kit: Kit) -> None:
        async with kit.pair():
            pass  # what a loop makes once is not counted as left behind
        await run_check(kit, check)

    runtime.run(main)
