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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from anyp2p.asyncio import Host
from anyp2p.cli import demo, runtimes
from anyp2p_core.errors import ConnectionLost

COMMAND = [sys.executable, "-m", "anyp2p"]
RUNTIMES = runtimes.available()
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


def run_together(*commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Exit code, output and stderr of each command, run at the same time."""
    with ExitStack() as running:
        processes = [running.enter_context(started(*command)) for command in commands]
        ended = [process.communicate(timeout=PATIENCE) for process in processes]
        return [(one.returncode, *texts) for one, texts in zip(processes, ended, strict=True)]


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


# Every runtime: the same commands, results and sentences.


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_all_commands_on_every_runtime(runtime: str) -> None:
    on = ("--runtime", runtime)
    with (
        started("listen", "--listen", "/ip4/0.0.0.0/tcp/0", *on) as first,
        started("listen", *on) as second,
    ):
        address = line(first)
        bare, _, peer = address.partition("/p2p/")
        endless = ("ping", address, "-i", "30", *on)
        with started(*endless) as interrupted, started(*endless) as terminated:
            (_, pings, _), (_, found, _), (_, moved, _) = results = run_together(
                ("ping", bare, "-c", "3", "-i", "0", *on),
                ("identify", "--json", address, *on),
                ("perf", "--json", address, "--upload", "3MB", "--download", "2MB", *on),
            )
            assert [(code, err) for code, _, err in results] == [(0, "")] * 3
            for process, kind in ((interrupted, signal.SIGINT), (terminated, signal.SIGTERM)):
                assert line(process) == f"PING {peer} at {address}"
                assert line(process).startswith("seq=1 time=")
                code, summary, err = stop(process, kind)
                assert (code, err) == (0, "")
                assert "\n1 transmitted, 1 received, 0% loss\n" in summary
        pinged = pings.splitlines()
        assert pinged[0] == f"PING {peer} at {bare}"
        assert [each.split()[0] for each in pinged[1:4]] == ["seq=1", "seq=2", "seq=3"]
        assert pinged[6] == "3 transmitted, 3 received, 0% loss"
        assert pinged[7].startswith("rtt min/avg/max/mdev = ")
        assert json.loads(found)["peer"] == peer
        result = json.loads(moved)
        assert (result["upload_bytes"], result["download_bytes"]) == (3_000_000, 2_000_000)
        assert result["upload_bytes_per_second"] > 0 and result["download_bytes_per_second"] > 0
        assert line(second).startswith("/ip4/127.0.0.1/tcp/")
        assert stop(second, signal.SIGINT) == (0, "", "")
        code, others, err = stop(first, signal.SIGTERM)
        assert (code, err) == (0, "")
        for each in (address, *others.splitlines()):  # what "all interfaces" stands for
            assert each.startswith("/ip4/") and each.endswith(address.rpartition("/tcp/")[2])
            assert not each.startswith("/ip4/0.0.0.0/")


SOME = [name for name in demo.DEFAULT if name in RUNTIMES]
"""The others share most of their code with one of these."""


def same_failure(*arguments: str, on: list[str] = SOME) -> str:
    """The line on stderr of a command that fails alike on these runtimes, without its name."""
    results = run_together(*((*arguments, "--runtime", runtime) for runtime in on))
    code, out, err = results[0]
    assert results == [(code, out, err)] * len(on)
    assert (code, out, err.count("\n")) == (1, "", 1)
    return err.removeprefix(f"anyp2p {arguments[0]}: ").rstrip("\n")


def test_nobody_listens(refused: str) -> None:
    hint = "connection refused (is the peer running, and listening on this port?)"
    assert same_failure("ping", refused, on=RUNTIMES) == f"cannot reach {refused}: {hint}"
    for command in ("identify", "perf"):
        assert fail(command, refused) == f"anyp2p {command}: cannot reach {refused}: {hint}\n"


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"
        assert same_failure("ping", address, "--timeout", "0.3") == (
            f"cannot reach {address}: no answer within 0.3 s "
            "(is the address right, and no firewall in between?)"
        )


def test_another_peer_answers(address: str) -> None:
    bare, _, peer = address.partition("/p2p/")
    assert same_failure("ping", f"{bare}/p2p/{OTHER}", "--json") == (
        f"cannot reach {bare}: the peer there is {peer}, not {OTHER} "
        "(dial that id if it is the one you mean)"
    )


def test_something_else_answers() -> None:
    def greet(server: socket.socket) -> None:
        for _ in SOME:
            client, _ = server.accept()
            clients.append(client)
            client.sendall(b"SSH-2.0-Anything\r\n")

    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as closing:
        thread = Thread(target=greet, args=(server,), daemon=True)
        thread.start()
        address = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        complaint = same_failure("ping", address)
        assert complaint.startswith(f"cannot reach {address}: the peer does not speak multistream")
        assert complaint.endswith(" (so it is no libp2p peer)")
        thread.join(PATIENCE)
        for client in clients:
            closing.enter_context(client)


def test_a_transport_that_is_not_there() -> None:
    for command in (["ping"], ["listen", "--listen"]):
        complaint = fail(*command, "/ip4/127.0.0.1/udp/1/utp")
        assert complaint.count("/ip4/127.0.0.1/udp/1/utp") == 1


def test_listen_where_someone_listens_already(address: str) -> None:
    taken = address.partition("/p2p/")[0]
    complaint = fail("listen", "--listen", taken, "--runtime", RUNTIMES[-1])
    assert complaint.startswith(f"anyp2p listen: cannot listen on {taken}: ")
    assert "(another program listens there; port 0 stands for any free one)" in complaint


# listen


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


# ping


def test_ping_as_json_without_a_peer_id(address: str) -> None:
    bare, _, peer = address.partition("/p2p/")
    out = check("ping", bare, "-c", "2", "-i", "0.01", "--json").splitlines()
    first, second, summary = map(json.loads, out)
    assert (first["event"], first["seq"], second["seq"]) == ("pong", 1, 2)
    assert 0 < first["rtt_ms"] < 10_000
    assert summary["event"] == "summary"
    assert (summary["peer"], summary["received"]) == (peer, 2)
    assert summary["min_ms"] <= summary["avg_ms"] <= summary["max_ms"]


def test_ping_goes_on_when_the_peer_is_lost() -> None:
    with started("listen") as peer, started("ping", line(peer), "-c", "2", "-i", "1.5") as process:
        line(process)
        assert line(process).startswith("seq=1 time=")
        assert stop(peer, signal.SIGTERM)[0] == 0
        out, err = process.communicate(timeout=PATIENCE)
        assert "seq=2 lost: cannot reach /ip4/127.0.0.1/tcp/" in out
        assert "2 transmitted, 1 received, 50% loss" in out
        assert (process.returncode, err) == (0, "")


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
    assert [node["runtime"] for node in found["nodes"]] == SOME
    assert {missed["runtime"] for missed in found["missing"]} == {*demo.DEFAULT} - {*SOME}
    assert [(pair["dialer"], pair["listener"]) for pair in found["pairs"]] == [
        (dialer, listener) for dialer in SOME for listener in SOME
    ]
    for pair in found["pairs"]:
        assert pair["ok"] and pair["error"] is None
        assert (pair["security"], pair["muxer"]) == ("/noise", "/yamux/1.0.0")
        assert pair["early_muxer"] is True
        assert pair["agent"].startswith("anyp2p/") and "/echo/1.0.0" in pair["protocols"]
        assert pair["echo_bytes"] == 1 << 20
        assert pair["uploaded"] == pair["downloaded"] > 0
        measured = [value for name, value in pair.items() if name.endswith(("seconds", "_second"))]
        assert len(measured) == 6 and all(value > 0 for value in measured)


def test_demo_of_all_runtimes() -> None:
    lines = check("demo", "--runtimes", ",".join(RUNTIMES)).splitlines()
    assert lines[0].startswith(f"{len(RUNTIMES)} nodes in this process, ")
    nodes, matrix = lines.index(""), lines.index("") + len(RUNTIMES) + 4
    assert [row.split()[0] for row in lines[nodes + 1 :][: len(RUNTIMES)]] == RUNTIMES
    assert lines[matrix].split() == RUNTIMES
    for name, row in zip(RUNTIMES, lines[matrix + 1 :], strict=False):
        assert row.split()[0] == name and row.count(" us") == len(RUNTIMES)
    assert lines[matrix + len(RUNTIMES) + 2].split()[:5] == (
        ["dialer", "listener", "security", "muxer", "early"]
    )
    pairs = len(RUNTIMES) ** 2
    assert lines[-1].startswith(f"{pairs} of {pairs} pairs connected, identified, pinged, echoed ")


def test_demo_without_an_extra() -> None:
    program = "import sys; sys.modules['trio'] = None; import anyp2p.cli as cli;"
    program += "sys.exit(cli.main(['demo', *sys.argv[1:]]))"
    without = [sys.executable, "-c", program]
    default = subprocess.run(without, capture_output=True, text=True, timeout=PATIENCE)
    assert (default.returncode, default.stderr) == (0, "")
    first, *lines = default.stdout.splitlines()
    assert first == "trio: not installed: pip install 'anyp2p[trio]'"
    assert not any("trio" in text for text in lines)
    named = [*without, "--runtimes", "asyncio,trio", "--json"]
    wanted = subprocess.run(named, capture_output=True, text=True, timeout=PATIENCE)
    assert (wanted.returncode, wanted.stderr) == (1, "")
    found = json.loads(wanted.stdout)
    assert found["missing"] == [{"runtime": "trio", "install": "pip install 'anyp2p[trio]'"}]
    assert found["ok"] is False and len(found["pairs"]) == 1 and found["pairs"][0]["ok"]


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
