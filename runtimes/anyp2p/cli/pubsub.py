"""anyp2p pubsub ...: listen to topics, publish in one, talk in one.

anyp2p pubsub sub TOPIC ...     prints what others publish, until Ctrl-C
anyp2p pubsub pub TOPIC DATA    waits for somebody in the topic, publishes, ends
anyp2p pubsub chat TOPIC        both: a line of stdin is a message
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, suppress
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import (
    Commands,
    Parser,
    add_command,
    add_host_options,
    add_listen_option,
    count,
    positive_seconds,
    target,
)

if TYPE_CHECKING:
    from anyp2p.host import BaseHost
    from anyp2p.pubsub import Message, Router, Subscription, TraceFile
    from anyp2p_core.peer_id import PeerId

Command = Callable[["BaseHost[Any]", argparse.Namespace], Coroutine[Any, Any, int]]

DEFAULT_LISTEN = "/ip4/127.0.0.1/tcp/0"
POLICIES = ("strict-sign", "strict-no-sign", "lax-sign", "lax-no-sign")
PRESETS = ("default", "ethereum", "filecoin")
MAX_LINE = 64 * 1024
"""Bytes of a line of chat; the rest of a longer one is a line of its own."""
LINES_AHEAD = 100
"""Lines of stdin that are read before they can be sent."""
POLL = 0.02


def add_parser(commands: Commands) -> None:
    summary = "publish and subscribe to topics"
    group = commands.add_parser(
        "pubsub",
        help=summary,
        description="Publish and subscribe to topics, with gossipsub or floodsub. Others are "
        "connected to with --connect, or connect to this peer, at the addresses it prints.",
    ).add_subparsers(metavar="COMMAND", required=True)

    parser = _add(
        group,
        "sub",
        sub,
        "print what others publish in topics",
        "One line for each message: the end of its author's peer id, and the text, or hex if it "
        "is none. Ends with Ctrl-C or SIGTERM.",
    )
    parser.add_argument(
        "topics", metavar="TOPIC", nargs="+", type=topic, help="what to subscribe to"
    )
    parser.add_argument("-n", "--count", metavar="N", type=count, help="end after so many messages")

    parser = _add(
        group,
        "pub",
        pub,
        "publish a message",
        "Waits until a peer takes part in the topic, so that it does not go nowhere.",
    )
    parser.add_argument("topic", metavar="TOPIC", type=topic, help="where to publish it")
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        default="-",
        help="the text; - or nothing for all of stdin, as it is",
    )
    parser.add_argument(
        "--peers",
        metavar="N",
        type=count,
        default=1,
        help="wait until so many peers take part (default: 1)",
    )

    parser = _add(
        group,
        "chat",
        chat,
        "talk with whoever takes part in a topic",
        "Each line of stdin is a message; those of others are printed behind the end of their "
        "peer id. Ends at the end of stdin, or with Ctrl-C. A line waits for somebody to be there.",
    )
    parser.add_argument("topic", metavar="TOPIC", type=topic, help="where to talk")


def _add(group: Commands, name: str, command: Command, summary: str, details: str) -> Parser:
    def run(args: argparse.Namespace) -> int:
        return _run(args, command)

    parser = add_command(group, name, run, summary, details)
    parser.add_argument(
        "--connect",
        metavar="MADDR",
        action="append",
        type=target,
        default=[],
        help="a peer to connect to, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...; repeat it "
        "for more",
    )
    add_listen_option(parser, f"{DEFAULT_LISTEN} if nobody is named with --connect")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=10.0,
        help="how long to wait for a connection, and for somebody in the topic (default: 10)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="default",
        help="numbers, message ids and policy of a public network (default: go peers')",
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="who has to sign (default: that of the preset, strict-sign but for ethereum)",
    )
    parser.add_argument(
        "--floodsub", action="store_true", help="speak floodsub alone, not gossipsub"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write each event there, in the format of go peers' trace.proto",
    )
    add_host_options(parser)
    return parser


def topic(text: str) -> str:
    """The name of a topic."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no topic: 1 to 1024 bytes of UTF-8")
    return text


def short(peer: "PeerId | None") -> str:
    """The end of a peer id, which tells people apart; all ids begin in much the same way."""
    return str(peer)[-6:] if peer is not None else "anonymous"


def _run(args: argparse.Namespace, command: Command) -> int:
    from anyp2p.pubsub import TraceFile

    async def main(host: "BaseHost[Any]") -> int:
        await _join(host, args)
        return await command(host, args)

    listen = args.listen or ([] if args.connect else [DEFAULT_LISTEN])
    with ExitStack() as stack:
        trace = None if args.trace is None else stack.enter_context(TraceFile(args.trace))
        router = _router(args, trace)
        if command is pub:
            args.data = _data(args.data, router.config.max_rpc)
            return hosts.run(args, main, listen=listen, pubsub=router)
        # That is how it is meant to end, so that it is a success.
        with suppress(KeyboardInterrupt):
            return hosts.run(args, main, listen=listen, pubsub=router)
    return 0


def _data(text: str, most: int) -> bytes:
    """What to publish; of stdin no more than is needed to see that it is too much."""
    if text != "-":
        return os.fsencode(text)
    if sys.stdin is None:
        raise OSError("stdin is closed: give the text")
    return sys.stdin.buffer.read(most + 1)


def _router(args: argparse.Namespace, trace: "TraceFile | None") -> "Router":
    from anyp2p.pubsub import FloodConfig, FloodSub, GossipConfig, GossipSub, SignaturePolicy
    from anyp2p_core.pubsub import presets

    from .failures import UsageError

    policy = SignaturePolicy(args.policy) if args.policy is not None else None
    if args.floodsub:
        if args.preset != "default":
            raise UsageError("--preset is for gossipsub, and does not go with --floodsub")
        return FloodSub(FloodConfig(policy=policy or SignaturePolicy.STRICT_SIGN), trace=trace)
    make: Callable[[], GossipConfig] = getattr(presets, args.preset)
    config = make()
    if policy is not None:
        config.policy = policy
        if args.preset == "default":
            config.message_id = None  # what goes with the policy
    return GossipSub(config, trace=trace)


async def _join(host: "BaseHost[Any]", args: argparse.Namespace) -> None:
    """Connect to the peers that were named. Fails if none of them is there and speaks pubsub."""
    from anyp2p_core.errors import Error

    from .failures import Failure, describe

    wrong: list[Exception] = []
    for address in args.connect:
        try:
            peer = await host.connect(address)
            info = await host.identify(peer)
        except Error as error:
            wrong.append(error)
            continue
        if not any(name in host.pubsub.router.protocols for name in info.protocols):
            ours = host.pubsub.router.protocols[0]
            wrong.append(Failure(f"{peer} speaks no {ours}: run `anyp2p pubsub sub` there"))
    if wrong and len(wrong) == len(args.connect):
        raise wrong[0]
    for failure in wrong:
        output.complain(args.command, describe(failure))


def _introduce(host: "BaseHost[Any]", args: argparse.Namespace) -> None:
    """Tell where others can connect to."""
    addresses = [str(address) for address in host.addresses]
    if args.json:
        output.document({"event": "listening", "peer": str(host.peer_id), "addresses": addresses})
    else:
        for address in addresses:
            output.say(address)


def _show(message: "Message", args: argparse.Namespace) -> None:
    text = _text(message.data)
    if args.json:
        output.document(
            {
                "event": "message",
                "topic": message.topic,
                "from": _name(message.author),
                "seqno": message.seqno.hex() if message.seqno is not None else None,
                "id": message.id.hex(),
                "received_from": _name(message.received_from),
                "data": message.data.hex(),
                "text": text,
            }
        )
        return
    where = f"{message.topic} " if len(getattr(args, "topics", ())) > 1 else ""
    output.say(f"{where}{short(message.author)}: {message.data.hex() if text is None else text}")


def _name(peer: "PeerId | None") -> str | None:
    return None if peer is None else str(peer)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# The commands.


async def sub(host: "BaseHost[Any]", args: argparse.Namespace) -> int:
    async with host.pubsub.subscribe(*args.topics) as messages:
        _introduce(host, args)
        left = args.count
        async for message in messages:
            _show(message, args)
            if left is not None:
                left -= 1
                if not left:
                    break
    return 0


async def pub(host: "BaseHost[Any]", args: argparse.Namespace) -> int:
    if not args.connect:
        _introduce(host, args)
    peers = await host.pubsub.wait_for_peers(args.topic, args.peers, timeout=args.timeout)
    message_id = await host.pubsub.publish(args.topic, args.data)
    await host.pubsub.drain(args.timeout)
    if args.json:
        output.document(
            {
                "event": "published",
                "topic": args.topic,
                "id": message_id.hex(),
                "peers": [str(peer) for peer in peers],
            }
        )
    else:
        output.say(f"sent to {'1 peer' if len(peers) == 1 else f'{len(peers)} peers'}")
    return 0


async def chat(host: "BaseHost[Any]", args: argparse.Namespace) -> int:
    failed: list[Exception] = []
    unsent = 0

    async def speak(messages: "Subscription") -> None:
        """Send what stdin says, then end the conversation."""
        nonlocal unsent
        try:
            async for line in _stdin_lines(host):
                text = line.rstrip(b"\r")
                if text and not await _say_something(host, args, text):
                    unsent += 1
            await host.pubsub.drain(args.timeout)
        except Exception as error:
            failed.append(error)
        finally:
            await messages.close()

    async with host.pubsub.subscribe(args.topic) as messages:
        _introduce(host, args)
        host._spawn(speak, messages)
        async for message in messages:
            _show(message, args)
    if failed:
        raise failed[0]
    return 1 if unsent else 0


async def _say_something(host: "BaseHost[Any]", args: argparse.Namespace, line: bytes) -> bool:
    """Publish a line, as soon as somebody is there."""
    from anyp2p_core.errors import TimedOut

    try:
        await host.pubsub.wait_for_peers(args.topic, timeout=args.timeout)
    except TimedOut as error:
        output.complain(args.command, f"not sent: {error}")
        return False
    await host.pubsub.publish(args.topic, line)
    return True


async def _stdin_lines(host: "BaseHost[Any]") -> AsyncIterator[bytes]:
    """Lines of stdin, whatever it is, on any event loop: a thread reads, a timer looks.

    The thread reads the descriptor itself: one that waits in ``sys.stdin`` would hold a lock that
    the end of the interpreter needs.
    """
    lines: deque[bytes | None] = deque()
    room = Semaphore(LINES_AHEAD)

    def put(line: bytes | None) -> None:
        room.acquire()
        lines.append(line)

    def read() -> None:
        rest = b""
        with suppress(OSError):
            while data := os.read(0, MAX_LINE):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    put(line)
                if len(rest) >= MAX_LINE:
                    put(rest)
                    rest = b""
        if rest:
            put(rest)
        put(None)

    Thread(target=read, name="anyp2p chat stdin", daemon=True).start()
    while True:
        while lines:
            line = lines.popleft()
            room.release()
            if line is None:
                return
            yield line
        await hosts.sleep(host, POLL)
