"""docs/dht.md shows code that runs, and commands and files that are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anyp2p.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "dht.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_program_runs() -> None:
    [program] = [block for block in BLOCKS if "asyncio.run" in block]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    closest, provided, found = done.stdout.splitlines()
    assert closest.startswith("1 ")
    assert provided.startswith("True (Multiaddr('/ip4/127.0.0.1/tcp/")
    assert found.startswith("True (Multiaddr('/ip4/127.0.0.1/tcp/")


def test_the_store_is_made_like_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in BLOCKS if "SqliteStore" in block]
    monkeypatch.chdir(tmp_path)
    exec("from anyp2p_core.kad.config import *\nfrom anyp2p_core.kad.service import *\n" + block)
    assert (tmp_path / "records.sqlite").stat().st_size > 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^    anyp2p dht (\S+)", PAGE, re.M))))
def test_commands_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dht", name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"    anyp2p dht {name} ")]
    for option in re.findall(r"--\w+", line):
        assert option in text


def test_named_files_exist() -> None:
    for path in re.findall(r"benchmarks/\w+\.py", PAGE):
        assert (ROOT / path).exists(), path
