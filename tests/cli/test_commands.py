"""The command as a user has it: a process, real sockets, signals."""

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyp2p.asyncio import Host
from anyp2p.cli import runtimes
from anyp2p_core.errors import ConnectionLost

COMMAND = [sys.executable, "-m", "anyp2p"]
OTHER = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
PATIENCE = 30


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE)


def check(*arguments: str) -> str:
    """The output of a command that must work."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def fail(*arguments: str) -> str:
    """The one line that a command which must fail writes to stderr."""
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"anyp2p {arguments[0]}: ")
    assert not done.stdout
    return done.stderr


@contextmanager
def started(*arguments: str, command: list[str] = COMMAND) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until the test ends it."""
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def stop(process: subprocess.Popen[str], kind: int) -> tuple[int, str, str]:
    """Exit code, the rest of the output, and stderr, after a signal."""
    process.send_signal(kind)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A listener for all tests."""
    with started("listen") as process:
        yield line(process)


@pytest.fixture
def refused() -> Iterator[str]:
    """An address whose port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"


# listen


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("runtime", runtimes.available())
def test_listen_ends_in_order_on_signals(kind: int, runtime: str) -> None:
    with started("listen", "--runtime", runtime) as process:
        assert line(process).startswith("/ip4/127.0.0.1/tcp/")
        assert stop(process, kind) == (0, "", "")


def test_listen_ends_on_sigterm_as_a_background_job_of_a_script() -> None:
    script = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND]
    with started("listen", command=script) as process:
        line(process)
        assert stop(process, signal.SIGTERM) == (0, "", "")


def test_listen_ends_with_connections_open() -> None:
    async def connected(process: subprocess.Popen[str]) -> None:
        async with Host() as host:
            peer = await host.connect(line(process))
            stream = await host.open_stream(peer, "/echo/1.0.0")
            await stream.write(b"x")
            assert await stream.readexactly(1) == b"x"
            process.terminate()
            with pytest.raises(ConnectionLost, match=r"was closed$"):
                await asyncio.wait_for(stream.read(), PATIENCE)

    with started("listen") as process:
        asyncio.run(connected(process))
        assert process.wait(PATIENCE) == 0


def test_listen_with_a_key_and_several_addresses(tmp_path: Path) -> None:
    file = str(tmp_path / "key")
    peer = check("key", "generate", file).strip()
    everywhere = ("--listen", "/ip4/0.0.0.0/tcp/0", "--listen", "/ip4/127.0.0.1/tcp/0")
    with started("listen", "--json", "--key", file, *everywhere) as process:
        found = json.loads(line(process))
        assert found["peer"] == peer
        assert len(found["addresses"]) >= 2
        for text in found["addresses"]:
            assert text.endswith(f"/p2p/{peer}")
            assert "/0.0.0.0/" not in text and "/tcp/0/" not in text
        assert "12D3" in check("ping", found["addresses"][0], "-c", "1")
        said = json.loads(check("identify", "--json", found["addresses"][-1]))
        announced = [f"{text}/p2p/{peer}" for text in said["addresses"]]
        assert set(announced) == set(found["addresses"])


def test_listen_where_someone_listens_already(address: str) -> None:
    taken = address.partition("/p2p/")[0]
    assert f"cannot listen on {taken}: " in fail("listen", "--listen", taken)


# ping


@pytest.mark.parametrize("runtime", runtimes.available())
def test_ping(address: str, runtime: str) -> None:
    out = check("ping", address, "-c", "3", "-i", "0", "--runtime", runtime).splitlines()
    peer = address.rpartition("/")[2]
    assert out[0] == f"PING {peer} at {address}"
    assert [each.split()[0] for each in out[1:4]] == ["seq=1", "seq=2", "seq=3"]
    assert out[6] == "3 transmitted, 3 received, 0% loss"
    assert out[7].startswith("rtt min/avg/max/mdev = ")


def test_ping_as_json_without_a_peer_id(address: str) -> None:
    bare, _, peer = address.partition("/p2p/")
    out = check("ping", bare, "-c", "2", "-i", "0.01", "--json").splitlines()
    first, second, summary = map(json.loads, out)
    assert (first["event"], first["seq"], second["seq"]) == ("pong", 1, 2)
    assert 0 < first["rtt_ms"] < 10_000
    assert summary["event"] == "summary"
    assert (summary["peer"], summary["received"]) == (peer, 2)
    assert summary["min_ms"] <= summary["avg_ms"] <= summary["max_ms"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ping_prints_its_summary_when_interrupted(address: str, kind: int) -> None:
    with started("ping", address, "-i", "30") as process:
        line(process)
        assert line(process).startswith("seq=1 ")
        code, out, err = stop(process, kind)
    assert (code, err) == (0, "")
    assert "1 transmitted, 1 received, 0% loss" in out


def test_ping_goes_on_when_the_peer_is_lost() -> None:
    with started("listen") as peer, started("ping", line(peer), "-c", "2", "-i", "1.5") as process:
        line(process)
        assert line(process).startswith("seq=1 time=")
        assert stop(peer, signal.SIGTERM)[0] == 0
        out, err = process.communicate(timeout=PATIENCE)
        assert "seq=2 lost: cannot reach /ip4/127.0.0.1/tcp/" in out
        assert "2 transmitted, 1 received, 50% loss" in out
        assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("command", ["ping", "identify", "perf"])
def test_nobody_listens(command: str, refused: str) -> None:
    assert f"cannot reach {refused}: connection refused (" in fail(command, refused)


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"
        complaint = fail("ping", silent_address, "--timeout", "0.3")
    assert f"cannot reach {silent_address}: " in complaint
    assert "0.3 s" in complaint


def test_another_peer_answers(address: str) -> None:
    bare, _, peer = address.partition("/p2p/")
    complaint = fail("ping", f"{bare}/p2p/{OTHER}", "--json")
    assert f"cannot reach {bare}: " in complaint
    assert peer in complaint and OTHER in complaint


def test_a_transport_that_is_not_there() -> None:
    complaint = fail("ping", "/ip4/127.0.0.1/udp/1/utp")
    assert complaint.count("/ip4/127.0.0.1/udp/1/utp") == 1


def test_a_reader_that_has_enough(address: str) -> None:
    with started("ping", address, "-i", "0") as process:
        line(process)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == ""


# identify


def test_identify(address: str) -> None:
    lines = [row.split(maxsplit=1) for row in check("identify", address).splitlines()]
    bare, _, peer = address.partition("/p2p/")
    assert ["peer", f"id           {peer}"] in lines
    assert ["addresses", bare] in lines
    assert ["/echo/1.0.0"] in lines
    assert ["signed", "record     yes"] in lines


def test_identify_as_json(address: str) -> None:
    found = json.loads(check("identify", "--json", address))
    bare, _, peer = address.partition("/p2p/")
    assert found["peer"] == peer
    assert found["agent"].startswith("anyp2p/")
    assert found["protocol_version"] == "ipfs/0.1.0"
    assert found["key_type"] == "ed25519"
    assert found["addresses"] == [bare]
    assert found["observed"].startswith("/ip4/127.0.0.1/tcp/")
    assert found["signed_record"] is True
    served = {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/echo/1.0.0", "/perf/1.0.0"}
    assert served <= set(found["protocols"])


def test_a_peer_that_tries_to_trick_the_terminal_and_serves_no_perf() -> None:
    async def visited() -> tuple[bytes, bytes]:
        agent = "\x1b[2Jagent\nsigned record  forged"
        async with Host(listen=["/ip4/127.0.0.1/tcp/0"], agent=agent) as host:
            host.set_handler("/evil\x1b[1A\u202e/1.0.0", lambda stream: None)
            found = []
            for arguments in (["identify"], ["perf", "--upload", "1MiB"]):
                process = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    *arguments,
                    str(host.addresses[0]),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONIOENCODING": "ascii"},
                )
                out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
                assert process.returncode == (1 if "perf" in arguments else 0)
                found.append(out)
            return found[0], found[1]

    identified, measured = asyncio.run(visited())
    assert identified.replace(b"\n", b"").decode("ascii").isprintable()
    assert b"\\ufffd[2Jagent\\ufffdsigned record" in identified
    assert b"/evil\\ufffd[1A\\ufffd/1.0.0\n" in identified
    assert measured.startswith(b"anyp2p perf: 12D3KooW")
    assert measured.endswith(b" does not serve /perf/1.0.0: run `anyp2p listen` there\n")


# perf


def test_perf(address: str) -> None:
    up, down = check("perf", address, "--upload", "3MiB", "--download", "0").splitlines()
    assert up.split()[:3] == ["upload", "3.0", "MiB"] and up.endswith(" MB/s")
    assert down.split()[:3] == ["download", "0", "B"] and down.endswith(" -")


def test_perf_as_json(address: str) -> None:
    done = check("perf", "--json", address, "--upload", "1MB", "--download", "2MB")
    found = json.loads(done)
    assert found["peer"] == address.rpartition("/")[2]
    assert (found["upload_bytes"], found["download_bytes"]) == (1_000_000, 2_000_000)
    assert found["upload_seconds"] > 0 and found["upload_bytes_per_second"] > 0
    assert found["download_bytes_per_second"] > 0


def test_perf_shows_progress_on_a_terminal_and_can_be_interrupted(address: str) -> None:
    terminal, theirs = pty.openpty()
    arguments = ("perf", address, "--upload", "1TiB")
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        try:
            os.close(theirs)
            shown = os.read(terminal, 1000)
            assert shown.startswith(b"\r\x1b[Kupload ") and b" of 1024.0 GiB, " in shown
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()
            os.close(terminal)
        assert process.stdout is not None and process.stdout.read() == ""


# demo


def test_demo_as_json() -> None:
    found = json.loads(check("demo", "--json"))
    assert found["ok"] is True
    names = runtimes.available()
    assert [(pair["dialer"], pair["listener"]) for pair in found["pairs"]] == [
        (dialer, listener) for dialer in names for listener in names
    ]
    for pair in found["pairs"]:
        assert pair["ok"] and pair["error"] is None
        assert (pair["security"], pair["muxer"]) == ("/noise", "/yamux/1.0.0")
        assert pair["early_muxer"] is True
        measured = [value for name, value in pair.items() if name.endswith(("seconds", "_second"))]
        assert len(measured) == 5 and all(value > 0 for value in measured)


def test_demo() -> None:
    header, row, _, end = check("demo", "--runtime", "asyncio").splitlines()
    assert header.split()[:5] == ["dialer", "listener", "security", "muxer", "early"]
    assert row.split()[:5] == ["asyncio", "asyncio", "/noise", "/yamux/1.0.0", "yes"]
    assert end.startswith("1 of 1 pairs connected, identified, pinged, echoed 1 MiB intact")


# The rest of the commands, as processes.


def test_key_id_and_addr(tmp_path: Path) -> None:
    file = tmp_path / "key"
    peer = check("key", "generate", str(file)).strip()
    assert check("id", str(file)).strip() == peer
    assert "exists and is never overwritten" in run("key", "generate", str(file)).stderr
    file.chmod(0o640)
    assert f"chmod 600 {file}" in fail("id", str(file))
    assert check("addr", f"/p2p/{peer}").splitlines()[0] == f"/p2p/{peer}"


def test_usage_errors_exit_with_2() -> None:
    for arguments in (["ping", "garbage"], ["ping", "--nope"], ["nope"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and not done.stdout
