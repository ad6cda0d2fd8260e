"""Faults that concern a whole process: no file descriptors left, interrupts, exits."""

import sys

import pytest
from on_loops import RUNTIMES
from programs import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_running_out_of_descriptors(runtime: str) -> None:
    ended = Program("faults_program.py", runtime, "no_descriptors").ended()
    assert ended == (0, "", "")


# The example's loop runs in a thread of its own, and signals arrive in the main thread.
@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "selectors"])
def test_interrupts_and_exits(runtime: str) -> None:
    names = ("interrupted", "interrupted_in_a_handler", "exit_in_a_handler")
    waiting, handler, leaving = (Program("faults_program.py", runtime, name) for name in names)
    waiting.interrupt()
    for program in (waiting, handler):
        code, out, err = program.ended()
        assert (code, out) == (0, "interrupted True\n")
        # gevent tells of the greenlet that was hit.
        assert not err or runtime == "gevent"
        assert "Warning" not in err and "never" not in err
    code, out, err = leaving.ended()
    assert (code, out) == (7, "")
