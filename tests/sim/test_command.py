"""``anyp2p sim ping``."""

import json

import pytest

from anyp2p.cli import main


def test_ping(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "ping", "--nodes", "10", "--seed", "7", "--rounds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("10 peers in a ring, null security, seed 7; connected in ")
    assert lines[1].startswith("30 pings in 0.300 virtual and ") and lines[1].endswith(" pings/s")
    assert lines[2].startswith("digest ") and len(lines) == 3


@pytest.mark.parametrize("security", ["null", "noise"])
def test_ping_in_json(security: str, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        assert main(["sim", "ping", "--json", "--nodes", "4", "--security", security]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    first, second = outputs
    assert first["pings"] == 40 and first["nodes"] == 4 and first["rounds"] == 10
    assert first["security"] == security and first["seed"] == 0
    assert first["virtual_seconds"] == 1.0
    assert first["digest"] == second["digest"] and len(first["digest"]) == 32
    assert first["wall_seconds"] >= 0 and first["pings_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "1"], "a ring has 2 or more peers"),
        (["--nodes", "x"], "not a number"),
        (["--rounds", "0"], "not a number"),
        (["--seed", "x"], "not a whole number"),
        (["--seed", "9" * 31], "not a whole number"),
        (["--security", "tls"], "invalid choice"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sim", "ping", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
