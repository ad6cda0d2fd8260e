"""``anyp2p dht`` as a user has it: processes, a network of two servers, signals."""

import importlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from anyp2p.cli import main, runtimes
from anyp2p_core.peer_id import PeerId

COMMAND = [sys.executable, "-m", "anyp2p"]
RUNTIMES = runtimes.available()
PATIENCE = 30
CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
SAME = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"
"""The same content as version 0."""
NOBODY = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
ACCEPT = ("--accept", "app")


def run(*arguments: str, text: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=text, timeout=PATIENCE, **options
    )


def check(*arguments: str) -> str:
    """The output of a DHT command that must work."""
    done = run("dht", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    out: str = done.stdout
    return out


def fail(*arguments: str, code: int = 1) -> tuple[str, str]:
    """Output, and the one line on stderr, of a DHT command that must fail."""
    done = run("dht", *arguments)
    assert done.returncode == code, done
    assert done.stderr.count("\n") == 1, done.stderr
    start = f"anyp2p dht {arguments[0]}: "
    assert done.stderr.startswith(start)
    return done.stdout, done.stderr.removeprefix(start).rstrip("\n")


@contextmanager
def started(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The first line of a command that goes on until the test ends it."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rstrip("\n"), process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two servers on two event loops that know each other; the second one keeps a file."""
    file = str(tmp_path_factory.mktemp("store") / "records.sqlite")
    other = "trio" if "trio" in RUNTIMES else "asyncio"
    with ExitStack() as stack:
        first, _ = stack.enter_context(started("listen", "--dht", *ACCEPT))
        options = ("--bootstrap", first, "--store", file, "--runtime", other)
        second, process = stack.enter_context(started("listen", "--dht", *ACCEPT, *options))
        size = 0
        while size < 2:  # the second one has joined
            size = json.loads(check("table", "--json", first))["size"]
        yield first, second
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=PATIENCE)
        assert (process.returncode, error) == (0, "")
        with sqlite3.connect(file) as db:
            keys = [key for (key,) in db.execute("SELECT key FROM records")]
            assert b"/app/data" in keys
        db.close()


def id_of(address: str) -> str:
    return address.rpartition("/")[2]


def test_find_peer(network: tuple[str, str]) -> None:
    first, second = network
    assert check("find-peer", first, id_of(second)) == f"{second}\n"
    lines = check("find-peer", "--trace", first, second).splitlines()  # an address names a peer too
    assert lines[:2] == [second, ""]
    assert lines[2].split() == ["asked", "peer", "bits", "hop", "told", "by", "after", "took"]
    asked = [line.split() for line in lines[3:]]
    assert asked[0][:2] == ["1", id_of(first)] and asked[0][3:5] == ["0", "-"]
    assert asked[1][:5] == ["2", id_of(second), "256", "1", "1"] and asked[1][-1] == "answered"
    found = json.loads(check("find-peer", "--json", "--trace", first, id_of(second)))
    assert found["connected"] is True and found["peer"] == id_of(second)
    assert found["addresses"] == [second.partition("/p2p/")[0]]
    assert [hop["peer"] for hop in found["trace"]] == [id_of(first), id_of(second)]
    assert found["trace"][1]["told_by"] == id_of(first)
    assert found["trace"][1]["took_seconds"] > 0
    out, complaint = fail("find-peer", "--trace", first, NOBODY)
    assert complaint == f"nobody who was asked knows where {NOBODY} is"
    assert id_of(first) in out and id_of(second) in out
    out, _ = fail("find-peer", "--trace", "--json", first, NOBODY)
    assert json.loads(out)["ok"] is False and len(json.loads(out)["trace"]) == 2
    assert fail("find-peer", first, NOBODY)[0] == ""


def test_closest(network: tuple[str, str]) -> None:
    first, second = network
    bare = first.partition("/p2p/")[0]  # whoever answers there
    lines = check("closest", bare, CID).splitlines()
    assert {line.split()[0] for line in lines} == {id_of(first), id_of(second)}
    assert lines == check("closest", first, second, SAME).splitlines()
    found = json.loads(check("closest", "--json", first, "/app/name"))
    assert len(found["peers"]) == 2 and "trace" not in found
    assert check("closest", first, id_of(second)).startswith(id_of(second))


@pytest.mark.parametrize("runtime", RUNTIMES[::2])
def test_provide_and_find(network: tuple[str, str], runtime: str) -> None:
    first, second = network
    with started("dht", "provide", first, CID, "--stay", "--runtime", runtime) as (line, process):
        assert line.startswith("/ip4/127.0.0.1/tcp/")
        assert process.stdout is not None
        assert process.stdout.readline() == "2 peers were told\n"
        found = check("find-providers", second, SAME, "--runtime", runtime).splitlines()
        assert line in found  # others of this test may still be known
        assert check("find-peer", second, id_of(line), "--runtime", runtime) == f"{line}\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, error) == (130, "", "")


def test_providers_as_json(network: tuple[str, str], tmp_path: Path) -> None:
    first, second = network
    key = str(tmp_path / "key")
    peer = run("key", "generate", key).stdout.strip()
    other = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    done = json.loads(check("provide", "--json", first, other, "--key", key, "--trace"))
    assert sorted(done["holders"]) == sorted(map(id_of, network)) and done["failed"] == 0
    assert len(done["addresses"]) == 1 and len(done["trace"]) == 2
    one, summary = map(json.loads, check("find-providers", "--json", second, other).splitlines())
    assert (one["event"], one["peer"]) == ("provider", peer)
    assert [f"{address}/p2p/{peer}" for address in one["addresses"]] == done["addresses"]
    assert summary == {"event": "summary", "found": 1}
    missing = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    out, complaint = fail("find-providers", second, missing)
    assert (out, complaint) == ("", "nobody was found who has it: 2 peers were asked")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_put_and_get_on_every_runtime(network: tuple[str, str], runtime: str) -> None:
    first, second = network
    on = (*ACCEPT, "--runtime", runtime)
    key = f"/app/{runtime}"
    assert check("put", *on, first, key, "hello world") == "2 peers have stored it\n"
    assert check("get", *on, second, key) == "hello world\n"


def test_values_that_are_no_text(network: tuple[str, str], tmp_path: Path) -> None:
    first, second = network
    data = b"\x1b[2J\x00\xff"
    file = tmp_path / "value"
    file.write_bytes(data)
    told = json.loads(check("put", "--json", *ACCEPT, first, "/app/data", f"@{file}"))
    assert told["key"] == b"/app/data".hex() and len(told["holders"]) == 2
    found = json.loads(check("get", "--json", "--trace", *ACCEPT, second, "/app/data"))
    assert (found["value"], found["text"]) == (data.hex(), None)
    assert len(found["holders"]) == 2 == len(found["trace"]) and found["behind"] == []
    done = run("dht", "get", *ACCEPT, second, "/app/data", text=False)
    assert (done.returncode, done.stdout) == (0, data)
    out = tmp_path / "out"
    assert check("get", *ACCEPT, "--quorum", "1", second, "/app/data", "-o", str(out)) == ""
    assert out.read_bytes() == data
    done = run("dht", "put", *ACCEPT, first, "/app/stdin", "@-", text=False, input=b"piped")
    assert done.returncode == 0
    assert check("get", *ACCEPT, first, "/app/stdin") == "piped\n"


def test_values_that_are_refused(network: tuple[str, str], tmp_path: Path) -> None:
    first, _ = network
    assert "--accept other takes any value" in fail("get", first, "/other/x", code=2)[1]
    assert fail("get", *ACCEPT, first, "/app/missing")[1] == (
        "nobody who was asked has a valid value"
    )
    assert "this value cannot be put" in fail("put", first, f"/pk/{NOBODY}", "wrong")[1]
    big = tmp_path / "big"
    big.write_bytes(bytes(20_000))
    assert "16384" in fail("put", *ACCEPT, first, "/app/big", f"@{big}")[1]


def test_table(network: tuple[str, str]) -> None:
    first, second = network
    lines = check("table", first).splitlines()
    assert lines[0] in ("2 peers in 1 bucket", "2 peers in 2 buckets") and lines[1] == ""
    assert lines[2].startswith("bucket ")
    assert {line.split()[-2] for line in lines[2:]} == {id_of(first), id_of(second)}
    found = json.loads(check("table", "--json", first))
    assert found["size"] == 2 == sum(len(one["peers"]) for one in found["buckets"])
    assert found["estimate"] is None
    for one in found["buckets"]:
        for each in one["peers"]:
            key, own = (PeerId.parse(text) for text in (each["peer"], found["peer"]))
            assert shared_bits(key, own) == one["bucket"]
            assert 0 <= each["answered_seconds_ago"] < 5


def shared_bits(a: PeerId, b: PeerId) -> int:
    from hashlib import sha256

    keys = [int.from_bytes(sha256(bytes(one)).digest()) for one in (a, b)]
    return 256 - (keys[0] ^ keys[1]).bit_length()


def test_a_peer_that_is_no_server_and_one_that_is_not_there(network: tuple[str, str]) -> None:
    first, _ = network
    with started("listen") as (plain, _):
        _, complaint = fail("table", plain)
        assert complaint == (
            f"{id_of(plain)} is no server of /ipfs/kad/1.0.0: run `anyp2p listen --dht` there"
        )
        found = check("closest", plain, first, CID)  # the other one is enough
        assert len(found.splitlines()) == 2
    _, complaint = fail("closest", "/ip4/127.0.0.1/tcp/1", CID)
    assert complaint.startswith("cannot reach /ip4/127.0.0.1/tcp/1: connection refused")
    assert "no server of /my/kad" in fail("table", "--protocol", "/my/kad", first)[1]


def test_a_network_of_its_own() -> None:
    mine = ("--protocol", "/my/kad/1.0.0")
    with started("listen", "--dht", *mine, "--json") as (line, _):
        found = json.loads(line)
        assert check("table", *mine, found["addresses"][0]).startswith("1 peer in 1 bucket\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["find-peer", "/ip4/1.2.3.4/tcp/1"], "required: PEER"),
        (["find-peer", "/ip4/1.2.3.4/tcp/1", "nonsense"], "argument PEER: "),
        (["closest", "/ip4/1.2.3.4/tcp/1", "nonsense"], "argument KEY: "),
        (["provide", "/ip4/1.2.3.4/tcp/1", "nonsense"], "argument CID: "),
        (["find-providers", "garbage", CID], "argument MADDR: "),
        (["find-providers", f"/p2p/{NOBODY}", CID], "says who the peer is and not where"),
        (["get", "/ip4/1.2.3.4/tcp/1", "app"], "is no key of a value"),
        (["get", "/ip4/1.2.3.4/tcp/1", "/ipns/nonsense!"], "argument KEY: "),
        (["put", "/ip4/1.2.3.4/tcp/1", "/app/x", "@/does/not/exist"], "No such file"),
        (["get", "--accept", "a/b", "/ip4/1.2.3.4/tcp/1", "/a/b"], "is no namespace"),
        (["get", "--accept", "pk", "/ip4/1.2.3.4/tcp/1", "/a/b"], "decided by its definition"),
        (["table", "--protocol", "kad", "/ip4/1.2.3.4/tcp/1"], "it starts with a slash"),
        (["table", "--trace", "/ip4/1.2.3.4/tcp/1"], "--trace"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dht", *arguments])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_wrong_arguments_of_listen(capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--bootstrap", f"/ip4/1.2.3.4/tcp/1/p2p/{NOBODY}"], ["--store", "x"], ACCEPT):
        assert main(["listen", *option]) == 2
        assert "are for --dht" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["listen", "--dht", "--bootstrap", "/ip4/1.2.3.4/tcp/1"])
    assert "add /p2p/ and its id" in capsys.readouterr().err


def test_listen_with_a_file_that_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"something else" * 1000)
    done = run("listen", "--dht", "--store", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"anyp2p listen: {file}: this is no database: name another file\n"


def test_only_who_wants_a_dht_loads_it() -> None:
    program = "import sys, anyp2p.cli, anyp2p.asyncio, anyp2p_core;"
    program += "print([name for name in sys.modules if '.kad' in name or 'dht' in name])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "['anyp2p.cli.dht']\n", done


def test_examples_in_docstrings() -> None:
    import doctest

    for name in ("anyp2p.cli.dht", "anyp2p.dht_keys"):
        tried = doctest.testmod(importlib.import_module(name))
        assert tried.attempted and not tried.failed
