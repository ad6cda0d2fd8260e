"""The published checks on uvloop."""

from kit_checks import checks_on, run
from on_loops import Runtime

from anyp2p.testing import Check


@checks_on("uvloop")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)
