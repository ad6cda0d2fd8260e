"""A host for the time of a command. Written against ``BaseHost`` alone: any runtime will do."""

import argparse
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from . import output, runtimes

if TYPE_CHECKING:
    from anyp2p.host import BaseHost
    from anyp2p_core.keys import PrivateKey

T = TypeVar("T")


def run(
    args: argparse.Namespace,
    main: "Callable[[BaseHost[Any]], Coroutine[Any, Any, T]]",
    **options: Any,
) -> T:
    """Run ``main(host)`` with a host that is closed in order whatever happens.

    SIGTERM is taken for Ctrl-C: both come out as KeyboardInterrupt.
    """
    from anyp2p_core.limits import Limits

    interrupt_on_sigterm()
    output.log(args.command, debug=args.debug)
    key = load_key(args.key) if args.key is not None else None
    limits = Limits()
    if "timeout" in args:
        limits.dial_timeout = limits.upgrade_timeout = limits.negotiation_timeout = args.timeout
        limits.identify_timeout = limits.ping_timeout = args.timeout

    options |= channel_options(args)

    async def with_host(host_class: runtimes.HostClass) -> T:
        async with host_class(key, limits=limits, **options) as host:
            return await main(host)

    try:
        return runtimes.run(args.runtime, with_host)
    except KeyboardInterrupt:
        end_on_next_interrupt()
        raise


def channel_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say about channels, as options of a host."""
    chosen = {name: getattr(args, name, None) for name in _CHANNEL_OPTIONS}
    return {name: value for name, value in chosen.items() if value is not None}


_CHANNEL_OPTIONS = ("security", "muxers", "psk", "web_certificate", "web_trust")


def load_key(path: str) -> "PrivateKey":
    """The identity in a key file."""
    from anyp2p import keyfile
    from anyp2p.providers.crypto import Cryptography

    return keyfile.load(path, Cryptography())


async def sleep(host: "BaseHost[Any]", seconds: float) -> None:
    """Wait on the host's clock, whatever the event loop."""
    event = host.make_event()
    timer = host.node.call_at(host.now() + seconds, "sleep", lambda _: event.set())
    host.flush()  # arms the loop's timer
    try:
        await event.wait()
    finally:
        host.node.cancel(timer)


def interrupt_on_sigterm() -> None:
    """Make SIGTERM do what the event loop does on SIGINT.

    Scripts start background jobs with SIGINT ignored, and event loops leave it at that. It is taken
    again, or SIGTERM would be ignored too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def end_on_next_interrupt() -> None:
    """Let one more Ctrl-C end the process without a word: it is about to end by itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
