"""anyp2p.cli: what needs no process and no network."""

import errno
import json
import logging
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyp2p.cli import arguments, main, output, pairs, perf, ping, runtimes
from anyp2p.cli.failures import Failure, describe, human
from anyp2p.host import PerfResult
from anyp2p.keyfile import KeyFileMissing
from anyp2p_core.errors import DialError, ListenError, RemoteError
from anyp2p_core.multiaddr import Multiaddr

ID = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"


@pytest.fixture
def restored() -> Iterator[None]:
    """A command that runs in this process leaves signal handlers and log handlers behind."""
    kinds = (signal.SIGINT, signal.SIGTERM)
    signals = [signal.getsignal(kind) for kind in kinds]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for kind, handler in zip(kinds, signals, strict=True):
        signal.signal(kind, handler)
    root.handlers[:], root.level = handlers, level


# The command line.


def test_help_is_fast_because_it_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "anyp2p", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for command in ("demo", "listen", "ping", "identify", "perf", "sim", "key", "id", "addr"):
        assert re.search(rf"^    {command} ", done.stdout, re.MULTILINE)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "anyp2p.cli.ping" in loaded
    heavy = ("cryptography", "asyncio", "anyp2p_core", "logging", "socket", "json")
    assert not loaded.intersection(heavy)


@pytest.mark.usefixtures("restored")
def test_an_interrupt_while_the_arguments_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(arguments, "multiaddr", interrupted)
    assert main(["ping", "/ip4/127.0.0.1/tcp/1"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["demo", "listen", "ping", "perf", "key generate", "addr"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([*command.split(), "--help"])
    assert exited.value.code == 0
    assert f"usage: anyp2p {command}" in capsys.readouterr().out


def test_without_a_command_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("usage: anyp2p ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert re.fullmatch(r"anyp2p \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nope", "anyp2p: argument COMMAND: invalid choice: 'nope'"),
        ("--nope", "anyp2p: the following arguments are required: COMMAND"),
        ("key", "anyp2p key: the following arguments are required: COMMAND"),
        ("key generate", "anyp2p key generate: the following arguments are required: FILE"),
        ("key generate f --type dsa", "anyp2p key generate: argument --type: invalid choice"),
        ("key generate f --bits x", "anyp2p key generate: argument --bits: 'x' is not a number"),
        ("id", "anyp2p id: the following arguments are required: FILE"),
        ("ping", "anyp2p ping: the following arguments are required: MADDR"),
        ("ping garbage", "anyp2p ping: argument MADDR: 'garbage' is not an address"),
        ("ping /ip4/1.2.3/tcp/1", "anyp2p ping: argument MADDR: '/ip4/1.2.3/tcp/1': ip4:"),
        (f"ping /p2p/{ID}", f"anyp2p ping: argument MADDR: /p2p/{ID} says who the peer is"),
        ("ping /ip4/1.2.3.4/tcp/1 --nope", "anyp2p: unrecognized arguments: --nope"),
        ("ping /ip4/1.2.3.4/tcp/1 --coun 1", "anyp2p: unrecognized arguments: --coun 1"),
        ("ping /ip4/1.2.3.4/tcp/1 -c 0", "anyp2p ping: argument -c/--count: '0' is not a number"),
        ("ping /ip4/1.2.3.4/tcp/1 -i -1", "anyp2p ping: argument -i/--interval: '-1' is no"),
        ("ping /ip4/1.2.3.4/tcp/1 -i nan", "anyp2p ping: argument -i/--interval: 'nan' is no"),
        ("ping /ip4/1.2.3.4/tcp/1 -i inf", "anyp2p ping: argument -i/--interval: 'inf' is no"),
        ("ping /ip4/1.2.3.4/tcp/1 --timeout 0", "anyp2p ping: argument --timeout: it has to be"),
        ("ping /ip4/1.2.3.4/tcp/1 --runtime x", "anyp2p ping: argument --runtime: invalid choice"),
        (
            "perf /ip4/1.2.3.4/tcp/1 --upload 64M",
            "anyp2p perf: argument --upload: '64M' is no size",
        ),
        ("demo --runtimes asyncio,nope", "anyp2p demo: argument --runtimes: 'asyncio,nope': give"),
        ("demo --runtimes ,", "anyp2p demo: argument --runtimes: ',': give some of asyncio, trio"),
        ("listen --listen 127.0.0.1", "anyp2p listen: argument --listen: '127.0.0.1' is not an"),
        ("addr 04zz", "anyp2p addr: argument MADDR: '04zz' is not an address"),
        ("addr 0403", "anyp2p addr: argument MADDR: the value of ip4 is cut off"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(line.split())
    assert exited.value.code == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith(complaint)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("7", 7),
        ("7B", 7),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("64MiB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1.5GB", 1_500_000_000),
        ("0.1MB", 100_000),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert arguments.size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "-1",
        "1M",
        "1 PB",
        "1e3",
        "1.B",
        ".5MB",
        "1_000",
        "\u0661kB",
        "18446744073709551616",
        "1\n",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(arguments.argparse.ArgumentTypeError):
        arguments.size(text)


# Commands without a network.


@pytest.mark.parametrize(
    "text", ["/ip4/127.0.0.1/tcp/4001", "047f000001060fa1", "0x047F000001060FA1"]
)
def test_addr(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["addr", text]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["/ip4/127.0.0.1/tcp/4001", "047f000001060fa1"]
    assert [line.split() for line in lines[3:]] == [
        ["name", "code", "value", "hex"],
        ["ip4", "4", "127.0.0.1", "7f000001"],
        ["tcp", "6", "4001", "0fa1"],
    ]


def test_addr_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["addr", "--json", f"/dns4/Example.org/tcp/1/ws/p2p/{ID}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["address"] == f"/dns4/Example.org/tcp/1/ws/p2p/{ID}"
    assert bytes.fromhex(found["hex"]) == bytes(Multiaddr(found["address"]))
    names = [(part["name"], part["code"], part["value"]) for part in found["components"]]
    assert names == [
        ("dns4", 54, "Example.org"),
        ("tcp", 6, "1"),
        ("ws", 477, ""),
        ("p2p", 421, ID),
    ]


@pytest.mark.parametrize(
    ("kind", "start"),
    [("ed25519", "12D3KooW"), ("secp256k1", "16Uiu2HA"), ("ecdsa", "Qm"), ("rsa", "Qm")],
)
def test_keys(kind: str, start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    assert main(["key", "generate", str(file), "--type", kind]) == 0
    peer = capsys.readouterr().out.strip()
    assert peer.startswith(start)
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["id", str(file)]) == 0
    assert capsys.readouterr().out == f"{peer}\n"
    assert main(["id", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["peer"], found["key_type"]) == (peer, kind)
    assert found["cid"].startswith("b")
    assert bytes.fromhex(found["public_key"])


def test_key_generate_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    assert main(["key", "generate", "--json", str(file), "--type", "rsa", "--bits", "3072"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["key_type"]) == (str(file), "rsa")
    assert len(file.read_bytes()) > 1700  # a key of 2048 bits has 1200 bytes


def _complaint(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1 and shown.err.endswith("\n")
    return shown.err[:-1]


def test_a_key_file_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"precious")
    assert main(["key", "generate", str(file)]) == 1
    complaint = _complaint(capsys)
    assert complaint.startswith(f"anyp2p key generate: {file} exists and is never overwritten")
    assert file.read_bytes() == b"precious"


def test_bits_are_for_rsa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    assert main(["key", "generate", str(file), "--bits", "2048"]) == 2
    assert "--bits is for RSA keys" in _complaint(capsys)
    assert main(["key", "generate", str(file), "--type", "rsa", "--bits", "8"]) == 1
    assert "bits, not 8" in _complaint(capsys)
    assert not file.exists()


@pytest.mark.parametrize("command", [["id"], ["listen", "--key"]])
@pytest.mark.usefixtures("restored")
def test_key_files_that_cannot_be_used(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    assert main([*command, str(file)]) == 1
    hint = f"{file} does not exist: make it with `anyp2p key generate {file}`"
    assert _complaint(capsys) == f"anyp2p {command[0]}: {hint}"
    file.write_bytes(b"garbage, not a key")
    file.chmod(0o644)
    assert main([*command, str(file)]) == 1
    assert _complaint(capsys).endswith(f"chmod 600 {file}")
    file.chmod(0o600)
    assert main([*command, str(file)]) == 1
    assert "holds no libp2p private key" in _complaint(capsys)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['cryptography'] = None; import anyp2p.cli as cli;"
    program += f"sys.exit(cli.main(['key', 'generate', {str(tmp_path / 'key')!r}]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'anyp2p[crypto]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_internal_errors_are_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(file: str) -> None:
        raise ZeroDivisionError("a fault\x1b[2J")

    monkeypatch.setattr("anyp2p.cli.hosts.load_key", broken)
    assert main(["id", "file"]) == 1
    complaint = _complaint(capsys)
    assert complaint.startswith("anyp2p id: internal error, please report it: ZeroDivisionError: a")
    assert main(["id", "file", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and ", in broken" in shown
    assert shown.endswith(f"{complaint}\n")
    assert "\x1b" not in shown


# Pieces.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fine, ünïcode 日本 too", "fine, ünïcode 日本 too"),
        ("a\x1b[2Jb", "a\ufffd[2Jb"),
        ("one\nforged\r\tline", "one\ufffdforged\ufffd\ufffdline"),
        ("\u202eright to left", "\ufffdright to left"),
        ("\x9bC1", "\ufffdC1"),
    ],
)
def test_what_peers_say_is_harmless_on_a_terminal(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.say(text)
    assert capsys.readouterr().out == f"{shown}\n"
    output.table([[text, "x", "z"], ["", "y", "right"]], right=1)
    assert capsys.readouterr().out.splitlines()[0] == f"{shown}  x      z"
    output.complain("ping", text)
    assert capsys.readouterr().err == f"anyp2p ping: {shown}\n"
    output.document({"text": text})
    printed = capsys.readouterr().out
    assert printed.isascii() and printed[:-1].isprintable()
    assert json.loads(printed) == {"text": text}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            DialError("", (("/ip4/192.0.2.1/tcp/1", "[Errno 111] Connect call failed ('x', 1)"),)),
            "cannot reach /ip4/192.0.2.1/tcp/1: connection refused "
            "(is the peer running, and listening on this port?)",
        ),
        (
            DialError("", (("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1: no"), ("/b", "late"))),
            "cannot reach /ip4/192.0.2.1/tcp/1: no; cannot reach /b: late",
        ),
        (
            DialError("", (("/b", "expected A, the peer is B"),)),
            "cannot reach /b: the peer there is B, not A (dial that id if it is the one you mean)",
        ),
        (
            DialError("", (("/b", "[Errno 104] Connection reset by peer"),)),
            "cannot reach /b: connection reset by peer "
            "(the other side hung up: is it a libp2p peer?)",
        ),
        (DialError("no address is known"), "no address is known"),
        (ListenError(1, "cannot listen on /x: no"), "cannot listen on /x: no"),
        (
            ListenError(errno.EACCES, "cannot listen on /x: denied"),
            "cannot listen on /x: denied (ports below 1024 are for administrators)",
        ),
        (
            KeyFileMissing("k does not exist: x"),
            "k does not exist: make it with `anyp2p key generate k`",
        ),
        (FileNotFoundError(2, "No such file", "name"), "name: No such file"),
        (RemoteError("the peer lied"), "the peer lied"),
        (RemoteError(), "RemoteError"),
        (Failure("do this"), "do this"),
        (KeyError("x"), "internal error, please report it: KeyError: 'x' (see --debug)"),
    ],
)  # fmt: skip
def test_errors_are_written_for_people(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_reasons_without_their_numbers() -> None:
    assert human("[Errno -2] Name or service not known") == "name or service not known"
    assert human("no answer within 10 s") == "no answer within 10 s"
    twice = "[Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect call failed ('x', 1)"
    assert human(f"Multiple exceptions: {twice}") == "connection refused"
    both = "[Errno 111] Connection refused; [Errno 113] No route to host"
    assert human(both) == "connection refused, no route to host"
    assert human("it ended: [Errno 104] Connection reset by peer") == (
        "it ended: connection reset by peer"
    )


def test_ping_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    tally = ping.Tally(json=False)
    tally.connected(ID, "/ip4/127.0.0.1/tcp/1")
    for ms in (1, 2, 6):
        tally.answered(ms / 1000)
    tally.lost(RemoteError("no answer\x1b"))
    tally.summarize()
    assert capsys.readouterr().out.splitlines() == [
        f"PING {ID} at /ip4/127.0.0.1/tcp/1",
        "seq=1 time=1.000 ms",
        "seq=2 time=2.000 ms",
        "seq=3 time=6.000 ms",
        "seq=4 lost: no answer\ufffd",
        "",
        f"--- {ID} ping statistics ---",
        "4 transmitted, 3 received, 25% loss",
        "rtt min/avg/max/mdev = 1.000/3.000/6.000/2.160 ms",
    ]


def test_ping_statistics_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        tally = ping.Tally(json=as_json)
        tally.lost(RemoteError("late"))
        tally.summarize()
    lost, summary, *lines = capsys.readouterr().out.splitlines()
    assert json.loads(lost) == {"event": "lost", "seq": 1, "error": "late"}
    found = json.loads(summary)
    assert (found["received"], found["loss_percent"], found["avg_ms"]) == (0, 100, None)
    assert lines[-1] == "1 transmitted, 0 received, 100% loss"


def test_rates() -> None:
    assert perf.rate(1000, 2.0) == 500
    assert perf.rate(0, 2.0) is None
    assert perf.rate(1000, 0.0) is None
    assert perf.show_rate(None) == "-"
    assert perf.show_rate(12_340_000) == "12.3 MB/s"
    assert [perf.readable(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB",
    ]  # fmt: skip


# Runtimes.


def test_a_runtime_is_plugged_in_by_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = pytest.importorskip("trio")
    module = types.ModuleType("plugged_in")
    module.Host = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugged_in", module)
    entry = runtimes.Runtime("plugged_in", trio.run, "trio")
    monkeypatch.setitem(runtimes._KNOWN, "plugged", entry)

    async def main(host_class: Callable[..., object]) -> object:
        await trio.sleep(0)
        return host_class

    async def interrupted(host_class: Callable[..., object]) -> None:
        async with trio.open_nursery():
            raise KeyboardInterrupt

    assert "plugged" in runtimes.available()
    assert runtimes.run("plugged", main) is object  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        runtimes.run("plugged", interrupted)


@pytest.mark.usefixtures("restored")
def test_a_runtime_whose_package_is_missing_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = runtimes.Runtime("anyp2p.asyncio", lambda *_: None, "nonesuch")
    monkeypatch.setitem(runtimes._KNOWN, "uvloop", entry)
    assert "uvloop" not in runtimes.available()
    assert main(["ping", "/ip4/127.0.0.1/tcp/1", "--runtime", "uvloop"]) == 1
    assert _complaint(capsys).endswith("pip install 'anyp2p[nonesuch]'")


# The demo.


@pytest.mark.usefixtures("restored")
def test_the_demo_fails_when_something_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Host:
        """Its perf moves one byte too few."""

        def __init__(self, *args: object, **options: object) -> None:
            from anyp2p.asyncio import Host as Real

            self.real = Real(*args, **options)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        async def __aenter__(self) -> "Host":
            await self.real.start()
            return self

        async def __aexit__(self, *error: object) -> None:
            await self.real.close()

        async def perf(self, peer: object, upload: int, download: int) -> PerfResult:
            return PerfResult(upload, download - 1, 1.0, 1.0)

    module = types.ModuleType("broken")
    module.Host = Host  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken", module)
    entry = runtimes._KNOWN["asyncio"]._replace(module="broken")
    monkeypatch.setitem(runtimes._KNOWN, "asyncio", entry)
    assert main(["demo", "--runtimes", "asyncio"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 node in this process, ")
    assert ["asyncio", "asyncio", "failed"] in [row.split()[:3] for row in lines]
    assert lines[-2] == (
        "asyncio to asyncio: perf moved 16777216 and 16777215 bytes, not 16777216 each way"
    )
    assert lines[-1].startswith("0 of 1 pairs ")


@pytest.mark.usefixtures("restored")
def test_the_demo_does_not_hang_when_a_runtime_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = runtimes.Runtime("anyp2p.asyncio", lambda *_: None)  # it returns, and says nothing
    monkeypatch.setitem(runtimes._KNOWN, "asyncio", entry)
    monkeypatch.setattr(pairs, "PATIENCE", 0.1)
    assert main(["demo", "--runtimes", "asyncio"]) == 1
    assert _complaint(capsys) == "anyp2p demo: the asyncio node said nothing for 0.1 s"


# Logs.


@pytest.mark.usefixtures("restored")
def test_logs_are_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    output.log("listen", debug=False)
    log = logging.getLogger("anyp2p")
    log.info("not shown")
    try:
        raise ValueError("bad\x1b")
    except ValueError:
        log.exception("a handler %s", "raised")
    shown = capsys.readouterr().err
    assert shown == "anyp2p listen: a handler raised (ValueError: bad\ufffd)\n"


@pytest.mark.usefixtures("restored")
def test_debugging_shows_all_logs(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    output.log("listen", debug=True)
    log = logging.getLogger("anyp2p")
    log.debug("shown")
    try:
        raise ValueError("bad\x1b")
    except ValueError:
        log.exception("a handler raised")
    shown = capsys.readouterr().err
    assert "anyp2p: shown\n" in shown
    assert "Traceback" in shown
    assert "\x1b" not in shown
