"""The example of docs/runtime.md: the published checks, and the page itself."""

from kit_checks import checks_on, run
from on_loops import Runtime
from programs import HERE

from anyp2p.testing import Check

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@checks_on("selectors")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)


def test_it_is_short() -> None:
    assert len((HERE / "selectors_runtime.py").read_text().splitlines()) < 150
