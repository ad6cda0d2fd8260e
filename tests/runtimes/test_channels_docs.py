"""docs/channels.md shows programs that run, and options that are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anyp2p.cli import main

PAGE = (Path(__file__).parent.parent.parent / "docs" / "channels.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    anyp2p (\w+)(.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_program_runs(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAMS[number]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_options_exist(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in re.findall(r"--[\w-]+", words):
        assert option in text


def test_every_extra_that_is_named_exists() -> None:
    project = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text()
    for extra in re.findall(r"(?:extra|extras) `(\w+)`", PAGE):
        assert f"\n{extra} = [" in project
