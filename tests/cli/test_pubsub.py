"""``anyp2p pubsub`` as a user has it: processes, pipes, signals."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from anyp2p.cli import main, runtimes
from anyp2p_core.pubsub.trace import Type, decode

COMMAND = [sys.executable, "-m", "anyp2p", "pubsub"]
RUNTIMES = runtimes.available()
PATIENCE = 30


def run(*arguments: str, text: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=text, timeout=PATIENCE, **options
    )


def check(*arguments: str, **options: Any) -> str:
    """The output of a command that must work."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    out: str = done.stdout
    return out


def fail(*arguments: str, code: int = 1, **options: Any) -> str:
    """The one line on stderr of a command that must fail."""
    done = run(*arguments, **options)
    assert done.returncode == code, done
    assert done.stderr.count("\n") == 1, done.stderr
    start = f"anyp2p pubsub {arguments[0]}: "
    assert done.stderr.startswith(start)
    error: str = done.stderr
    return error.removeprefix(start).rstrip("\n")


class Running:
    """A command that goes on until the test ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.address = self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self, kind: int | None = signal.SIGINT) -> tuple[int, str, str]:
        """Exit code, the rest of the output, and stderr, after a signal, or the end of stdin."""
        if kind is not None:
            self.process.send_signal(kind)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def started(*arguments: str) -> Iterator[Running]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def listener() -> Iterator[Running]:
    """A subscriber for all tests, of two topics; each test publishes and reads what came."""
    with started("sub", "news", "other") as running:
        yield running
        assert running.end(signal.SIGTERM) == (0, "", "")


def peer(address: str) -> str:
    return address.rpartition("/")[2]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime(listener: Running, runtime: str) -> None:
    on = ("--runtime", runtime, "--connect", listener.address)
    with started("sub", "third", "-n", "1", *on, "--listen", "/ip4/127.0.0.1/tcp/0") as other:
        there = ("--runtime", runtime, "--connect", other.address)
        assert check("pub", "third", "to an end", *there) == "sent to 1 peer\n"
        assert other.line().endswith(": to an end") and other.end(None) == (0, "", "")


def test_names_and_lines(listener: Running, tmp_path: Path) -> None:
    on = ("--connect", listener.address, "--key", str(tmp_path / "key"))
    made = [*COMMAND[:-1], "key", "generate", on[-1]]
    name = subprocess.run(made, capture_output=True, text=True).stdout.strip()
    assert check("pub", "news", "hello", *on) == "sent to 1 peer\n"
    assert listener.line() == f"news {name[-6:]}: hello"
    assert check("chat", "other", *on, input="first\r\n\nsecond") == ""
    got = {listener.line(), listener.line()}
    assert got == {f"other {name[-6:]}: first", f"other {name[-6:]}: second"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chat(runtime: str) -> None:
    """Two talk, one leaves at the end of its stdin and the other one with Ctrl-C."""
    on = ("--runtime", runtime)
    with started("chat", "room", *on) as first:
        there = ("--connect", first.address, "--listen", "/ip4/127.0.0.1/tcp/0")
        with started("chat", "room", *on, *there) as second:
            names = [peer(one.address)[-6:] for one in (first, second)]
            first.say("hello\n")
            assert second.line() == f"{names[0]}: hello"
            second.say("hi \x1b[2J there\n")
            assert first.line() == f"{names[1]}: hi \ufffd[2J there"
            second.say("no end of line")
            assert second.process.stdin is not None
            second.process.stdin.close()
            second.process.stdin = None
            assert first.line() == f"{names[1]}: no end of line"
            assert second.end(None) == (0, "", "")
        first.say("is there anybody?\n")  # it waits for somebody
        assert first.end() == (0, "", "")


def test_json(listener: Running) -> None:
    options = ("--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--connect", listener.address)
    with started("sub", "news", "-n", "2", *options) as other:
        intro = json.loads(other.address)
        assert intro["event"] == "listening" and len(intro["addresses"]) == 1
        there = ("--connect", intro["addresses"][0])
        done = json.loads(check("pub", "news", "text", "--json", *there, *options[3:]))
        assert (done["event"], done["topic"]) == ("published", "news")
        assert intro["peer"] in done["peers"]
        told = json.loads(other.line())
        assert told["event"] == "message" and told["topic"] == "news"
        assert (told["text"], told["data"], told["id"]) == ("text", b"text".hex(), done["id"])
        assert told["id"].endswith(told["seqno"]) and told["from"] is not None
        assert listener.line().endswith(": text")
        data = b"\x1b\x00\xff" * 100_000
        run("pub", "news", *there, text=False, input=data)
        told = json.loads(other.line())
        assert (told["text"], told["data"]) == (None, data.hex())
        assert other.end(None) == (0, "", "")
        assert listener.line().endswith(f": {data.hex()}")


def test_messages_that_are_refused(listener: Running) -> None:
    there = ("--connect", listener.address, "--timeout", "0.5")
    complaint = fail("pub", "news", "x", "--peers", "2", *there)
    assert complaint == "only 1 of 2 peers took part in news within 0.5 s"
    assert "max_rpc is 1048576" in fail("pub", "news", *there, input="x" * 2_000_000)
    complaint = fail("chat", "empty", *there, input="lost\n")
    assert complaint == "not sent: nobody took part in empty within 0.5 s"
    # Signed, where nobody may be known, and the other way round: neither is taken.
    check("pub", "news", "x", "--policy", "strict-no-sign", *there)
    check("pub", "news", "the next one", *there)
    assert listener.line().endswith(": the next one")


def test_peers_that_are_not_there(listener: Running) -> None:
    nobody = "/ip4/127.0.0.1/tcp/1"
    assert "connection refused" in fail("sub", "news", "--connect", nobody)
    both = ("--connect", nobody, "--connect", listener.address)
    done = run("pub", "news", "one is enough", *both)
    assert (done.returncode, done.stdout) == (0, "sent to 1 peer\n")
    assert done.stderr.startswith(f"anyp2p pubsub pub: cannot reach {nobody}: connection refused")
    assert listener.line().endswith(": one is enough")
    with ExitStack() as stack:
        plain = stack.enter_context(
            subprocess.Popen(
                [*COMMAND[:-1], "listen"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        stack.callback(plain.kill)
        assert plain.stdout is not None
        address = plain.stdout.readline().strip()
        complaint = fail("sub", "news", "--connect", address)
    start = f"{peer(address)} speaks no /meshsub/1."
    assert complaint.startswith(start) and complaint.endswith("run `anyp2p pubsub sub` there")


def test_kinds_of_networks() -> None:
    """floodsub, anonymous messages, and Ethereum's numbers."""
    for options in (("--floodsub",), ("--preset", "ethereum")):
        with started("sub", "x", *options) as one:
            out = check("pub", "x", "hello", "--connect", one.address, *options)
            assert out == "sent to 1 peer\n"
            line = one.line()
            assert line.endswith(": hello")
            assert line.startswith("anonymous") == ("--floodsub" not in options)
            assert one.end() == (0, "", "")


def test_trace(listener: Running, tmp_path: Path) -> None:
    file = tmp_path / "trace"
    options = ("--trace", str(file), "--connect", listener.address)
    check("pub", "other", "traced", *options)
    assert listener.line().endswith(": traced")
    kinds = [event.type for event in decode(file.read_bytes())]
    assert Type.PUBLISH_MESSAGE in kinds and Type.SEND_RPC in kinds
    assert "No such file" in fail("sub", "x", "--trace", "/does/not/exist")


def test_interrupted_while_it_waits(listener: Running) -> None:
    with started("pub", "nobody", "x", "--timeout", "100") as waiting:
        assert waiting.end() == (130, "", "")


def test_stdin_is_a_terminal() -> None:
    """Ctrl-D ends it, and a thread that waits for more is no trouble at the end."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "chat", "room"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(terminal)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("/ip4/")
        os.write(controller, b"\x04")
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
    os.close(controller)


def test_nobody_reads_our_output() -> None:
    with started("sub", "news") as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        check("pub", "news", "x", "--connect", running.address)
        assert running.process.wait(timeout=PATIENCE) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sub"], "required: TOPIC"),
        (["sub", ""], "is no topic: 1 to 1024 bytes"),
        (["pub", "x" * 1025], "is no topic"),
        (["chat", "\udc80"], "is no topic"),
        (["chat", "a", "b"], "unrecognized arguments: b"),
        (["sub", "x", "-n", "0"], "argument -n/--count: "),
        (["sub", "x", "--connect", "nonsense"], "argument --connect: "),
        (["sub", "x", "--policy", "none"], "argument --policy: "),
        (["sub", "x", "--preset", "none"], "argument --preset: "),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pubsub", *arguments])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_options_that_make_no_sense_together() -> None:
    complaint = fail("sub", "x", "--floodsub", "--preset", "filecoin", code=2)
    assert complaint == "--preset is for gossipsub, and does not go with --floodsub"


def test_only_who_wants_pubsub_loads_it() -> None:
    program = "import sys, anyp2p.cli; anyp2p.cli._parser();"
    program += "print([name for name in sys.modules if 'pubsub' in name])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "['anyp2p.cli.pubsub']\n", done


def test_a_message_hops_over_all_loops() -> None:
    """What the demo shows of pubsub."""
    command = [*COMMAND[:-1], "demo", "--runtimes", ",".join(RUNTIMES)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=PATIENCE)
    found = json.loads(done.stdout)["pubsub"]
    assert found["ok"] and found["path"] == RUNTIMES and found["messages"] == 9
    assert len(found["hop_seconds"]) == len(RUNTIMES) - 1
    assert all(0 < seconds < 1 for seconds in found["hop_seconds"])
    command[-1] = ",".join(RUNTIMES[:2])
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    start = f"pubsub, a message hop by hop, median of 9: {RUNTIMES[0]}"
    [line] = [one for one in done.stdout.splitlines() if one.startswith(start)]
    assert line.endswith(" ms") and line.count(" -> ") == len(RUNTIMES[:2]) - 1
