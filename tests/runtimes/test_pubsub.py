"""``host.pubsub`` on every event loop: messages, queues, validators, cancelling and closing."""

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from on_loops import RUNTIMES, Runtime

from anyp2p.host import BaseHost
from anyp2p.pubsub import (
    FloodConfig,
    FloodSub,
    GossipConfig,
    GossipSub,
    Message,
    PubSub,
    SignaturePolicy,
    Subscription,
    TopicConfig,
    TraceFile,
    Verdict,
)
from anyp2p.testing import Kit
from anyp2p.testing.cancelling import everywhere
from anyp2p.testing.kit import LOOPBACK
from anyp2p_core.errors import ConnectionLost, LocalError, TimedOut
from anyp2p_core.pubsub import presets, trace
from anyp2p_core.pubsub.events import PubSubPeerAdded
from anyp2p_core.pubsub.gater import GaterParams
from anyp2p_core.pubsub.ids import sha256_of_data
from anyp2p_core.pubsub.trace import Type

TOPIC = "news"


class Net:
    """Hosts that speak pubsub, and their awaitable interface, also on gevent."""

    def __init__(self, kit: Kit, stack: AsyncExitStack) -> None:
        self.kit = kit
        self.hosts: list[Any] = []
        self._stack = stack

    async def add(self, option: Any = None, *, to: Any = None, **options: Any) -> PubSub:
        host = self.kit.host(pubsub=option or GossipConfig(), listen=[LOOPBACK], **options)
        await self._stack.enter_async_context(host)
        self.hosts.append(host)
        if to is not None:
            await host.connect(to.host.addresses[0])
        return self.kit.base(host).pubsub

    async def settled(self) -> None:
        """Nobody waits for anything, and nothing is queued."""
        for host in self.hosts:
            pubsub = self.kit.base(host).pubsub
            assert await pubsub.drain()
            assert not pubsub._validators.pending
        await self.kit.nobody_waits(*self.hosts)


@asynccontextmanager
async def network(kit: Kit) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(kit, stack)
    kit.no_internal_errors()


@asynccontextmanager
async def two(kit: Kit, here: Any = None, there: Any = None) -> AsyncIterator[tuple[Any, ...]]:
    """Two that are connected, and both know that the second one is in the topic."""
    async with network(kit) as net:
        a = await net.add(here)
        b = await net.add(there, to=a)
        async with b.subscribe(TOPIC) as messages:
            assert await a.wait_for_peers(TOPIC) == [b.host.peer_id]
            yield net, a, b, messages
            await net.settled()


def on_every_loop(function: Callable[[Kit], Awaitable[None]]) -> Any:
    def test(runtime: Runtime) -> None:
        # A message that does not come must fail the test, not stop it.
        runtime.run(lambda kit: kit.loop.within(kit.time_limit, lambda: function(kit)))

    test.__doc__ = function.__doc__
    return pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))(test)


async def take(messages: Subscription, count: int) -> list[bytes]:
    return [(await anext(messages)).data for _ in range(count)]


# Messages.


@on_every_loop
async def test_five_in_a_ring_get_everything_once(kit: Kit) -> None:
    async with network(kit) as net:
        nodes = [await net.add()]
        for _ in range(4):
            nodes.append(await net.add(to=nodes[-1]))
        await net.hosts[0].connect(nodes[-1].host.addresses[0])
        subscriptions = [node.subscribe(TOPIC) for node in nodes]
        for node in nodes:
            await node.wait_for_peers(TOPIC, 2)
        sent = [b"%d of %d" % (turn, place) for turn in range(4) for place in range(5)]
        for number, data in enumerate(sent):
            await nodes[number % 5].publish(TOPIC, data)
        for place, messages in enumerate(subscriptions):
            others = [data for data in sent if not data.endswith(b"%d" % place)]
            assert sorted(await take(messages, len(others))) == sorted(others)
        await net.settled()
        await nodes[0].publish(TOPIC, b"the last one")
        for messages in subscriptions[1:]:
            assert await take(messages, 1) == [b"the last one"]  # and no duplicate before it
        assert [one.waiting + one.dropped for one in subscriptions] == [0] * 5
        assert [node.dropped for node in nodes] == [0] * 5
        for node in nodes:
            assert node.topics == [TOPIC]
            assert len(node.peers(TOPIC)) == 2 == len(node.mesh(TOPIC)) == len(node.peers())
        assert "<PubSub GossipSub, 1 topics, 2 peers>" in map(repr, nodes)


@on_every_loop
async def test_what_a_message_tells(kit: Kit) -> None:
    async with two(kit) as (net, a, b, messages):
        c = await net.add(to=b)
        assert await c.wait_for_peers(TOPIC)
        number = await c.publish(TOPIC, bytearray(b"hello"))
        message = await anext(messages)
        assert isinstance(message, Message)
        assert (message.topic, message.data, message.id) == (TOPIC, b"hello", number)
        assert message.author == c.host.peer_id == message.received_from and message.signed
        assert message.seqno is not None and number.endswith(message.seqno)
        assert repr(message) == f"<Message of {c.host.peer_id} in 'news', 5 bytes>"
        assert message.size > 5
        for wrong, text in (
            (lambda: a.publish("", b""), "a topic has 1 to"),
            (lambda: a.publish(TOPIC, bytes(1 << 20)), "max_rpc is 1048576"),
            (lambda: a.publish(TOPIC, "text"), "bytes"),
        ):
            assert text in str(await kit.fails((LocalError, TypeError), wrong))
        for wrong in ({"drop": "all"}, {"max_messages": 0}, {"max_bytes": 0}):
            with pytest.raises(LocalError):
                a.subscribe(TOPIC, **wrong)
        assert a.topics == []


@on_every_loop
async def test_a_burst_gets_through(kit: Kit) -> None:
    async with two(kit) as (_, a, _, messages):
        sent = [b"%d" % number for number in range(600)] + [bytes(200_000)] * 3
        for data in sent:
            await a.publish(TOPIC, data)
        assert await a.drain() and a.dropped == 0
        assert await take(messages, len(sent)) == sent


@on_every_loop
async def test_leaving(kit: Kit) -> None:
    async with two(kit) as (_net, a, b, messages):
        other = b.subscribe(TOPIC)
        await a.publish(TOPIC, b"1")
        assert await take(messages, 1) == [b"1"] == await take(other, 1)
        await messages.close()
        await messages.close()
        assert messages.closed and b.topics == [TOPIC]
        await a.publish(TOPIC, b"2")
        assert await take(other, 1) == [b"2"]
        await kit.fails(StopAsyncIteration, messages.__anext__)
        seen: list[bytes] = []

        async def listen() -> None:
            seen.extend([message.data async for message in other])

        async def leave() -> None:
            await kit.eventually(lambda: b.host._waiters, "nobody waits")
            await other.close()

        await kit.loop.together(listen, listen, leave)
        assert seen == [] and b.topics == [] and b._subscriptions == {}
        await kit.eventually(lambda: not a.peers(TOPIC), "it did not tell that it left")
        await a.publish(TOPIC, b"3")
        async with b.subscribe(TOPIC) as messages:
            assert await a.wait_for_peers(TOPIC)
            await a.publish("elsewhere", b"4")
            await a.publish(TOPIC, b"5")
            assert await take(messages, 1) == [b"5"]  # the one before went nowhere


@on_every_loop
async def test_several_topics_in_one_subscription(kit: Kit) -> None:
    async with two(kit) as (_, a, b, messages):
        both = b.subscribe(TOPIC, "other", TOPIC)
        await a.wait_for_peers("other", timeout=kit.patience)
        await a.publish("other", b"1")
        await a.publish(TOPIC, b"2")
        assert await take(messages, 1) == [b"2"]
        found = [await anext(both), await anext(both)]
        assert [(one.topic, one.data) for one in found] == [("other", b"1"), (TOPIC, b"2")]
        assert repr(both).startswith("<Subscription 'news', 'other', 0")
        await both.close()
        assert b.topics == [TOPIC] and list(b._subscriptions.values()) == [messages]
        for wrong in ((), ("fine", ""), ("fine", "x" * 5000)):
            with pytest.raises(LocalError):
                b.subscribe(*wrong)
        assert b.topics == [TOPIC]
        assert await a.wait_for_peers("empty", 0, timeout=0.02) == []
        error = await kit.fails(TimedOut, lambda: a.wait_for_peers("empty", timeout=0.02))
        assert str(error) == "nobody took part in empty within 0.02 s"
        error = await kit.fails(TimedOut, lambda: a.wait_for_peers(TOPIC, 2, timeout=0.02))
        assert str(error) == "only 1 of 2 peers took part in news within 0.02 s"


@on_every_loop
async def test_whom_one_can_write_to(kit: Kit) -> None:
    """A peer that takes part counts once there is a stream to it."""
    async with two(kit) as (_, a, b, _):
        peer = a.router.all_peers[b.host.peer_id]
        outbox, peer.outbox = peer.outbox, None
        assert a.peers(TOPIC) == [peer.id]
        await kit.fails(TimedOut, lambda: a.wait_for_peers(TOPIC, timeout=0.02))

        async def open_it() -> None:
            await kit.eventually(lambda: a.host._waiters, "nobody waits")
            peer.outbox = outbox
            a.router.context.emit(PubSubPeerAdded(peer.id, peer.protocol))
            a.host.flush()

        async def wait() -> None:
            timers = len(a.host.node.timers)
            assert await a.wait_for_peers(TOPIC, timeout=1000.0) == [peer.id]
            assert len(a.host.node.timers) <= timers

        await kit.loop.within(3.0, lambda: kit.loop.together(wait, open_it))


@on_every_loop
async def test_several_tasks_share_a_subscription(kit: Kit) -> None:
    async with two(kit) as (_, a, _, messages):
        got: list[bytes] = []

        async def one() -> None:
            got.extend(await take(messages, 3))

        async def publish() -> None:
            for number in range(6):
                await a.publish(TOPIC, b"%d" % number)
                await kit.loop.sleep(0.002)

        await kit.loop.together(one, one, publish)
        assert sorted(got) == [b"%d" % number for number in range(6)]


@on_every_loop
async def test_overflow(kit: Kit) -> None:
    """What a slow reader loses is what its subscription says, and counted."""
    async with two(kit) as (_, a, b, messages):
        oldest = b.subscribe(TOPIC, max_messages=3)
        newest = b.subscribe(TOPIC, drop="newest", max_messages=3)
        small = b.subscribe(TOPIC, max_bytes=1000)
        sent = [b"%d" % number for number in range(5)] + [bytes(400)] * 3
        for data in sent:
            await a.publish(TOPIC, data)
        assert await take(messages, len(sent)) == sent
        assert (oldest.waiting, oldest.dropped) == (3, 5) == (newest.waiting, newest.dropped)
        assert await take(oldest, 3) == sent[-3:]
        assert await take(newest, 3) == sent[:3]
        assert await take(small, 1) == sent[-1:] and small.dropped == 7
        assert repr(small) == "<Subscription 'news', 0 waiting, 7 dropped>"
        await a.publish(TOPIC, bytes(5000))  # alone it has room
        await take(messages, 1)
        assert small.waiting == 1 and small.dropped == 7
        await a.publish(TOPIC, b"again")
        await take(messages, 1)
        assert await take(small, 1) == [b"again"] and small.dropped == 8
        await take(oldest, 2)
        assert (oldest.waiting, oldest.dropped, oldest._size) == (0, 5, 0)


@on_every_loop
async def test_own_messages(kit: Kit) -> None:
    async with two(kit, GossipConfig(deliver_own=True)) as (_, a, _, messages):
        async with a.subscribe(TOPIC) as own:
            await a.publish(TOPIC, b"mine")
            message = await anext(own)
            assert message.data == b"mine" and message.received_from is None
            assert message.author == a.host.peer_id
        assert await take(messages, 1) == [b"mine"]


@on_every_loop
async def test_policies(kit: Kit) -> None:
    """Anonymous and signed topics side by side; what does not follow its policy is dropped."""
    anonymous = TopicConfig(policy=SignaturePolicy.STRICT_NO_SIGN)
    config = GossipConfig(topics={"anonymous": anonymous})
    async with two(kit, config, config) as (net, a, b, messages):
        c = await net.add(to=b)  # that signs everything
        async with b.subscribe("anonymous") as nameless:
            await a.wait_for_peers("anonymous")
            await c.wait_for_peers("anonymous")
            await c.publish("anonymous", b"signed")
            await c.publish(TOPIC, b"after it")
            assert await take(messages, 1) == [b"after it"]
            number = await a.publish("anonymous", b"who was it?")
            message = await anext(nameless)
            assert message.data == b"who was it?" and message.author is None
            assert not message.signed and message.seqno is None
            assert "of nobody in" in repr(message)
            assert number == sha256_of_data(message._message)
            again = await kit.fails(LocalError, lambda: a.publish("anonymous", b"who was it?"))
            assert "seen already" in str(again)


@on_every_loop
async def test_floodsub(kit: Kit) -> None:
    async with two(kit, FloodConfig(), FloodSub()) as (net, a, b, messages):
        c = await net.add(to=b)  # gossipsub, which speaks floodsub too
        async with c.subscribe(TOPIC) as others:
            await b.wait_for_peers(TOPIC)
            await a.publish(TOPIC, b"flood")
            assert await take(messages, 1) == [b"flood"] == await take(others, 1)
        assert a.mesh(TOPIC) == [] and a.score(b.host.peer_id) == 0.0
        assert "FloodSub" in repr(a)


# Validators.


@on_every_loop
async def test_plain_validators(kit: Kit) -> None:
    score = presets.plain_score([TOPIC])
    config = GossipConfig(score=score, thresholds=presets.PLAIN_THRESHOLDS)
    async with two(kit, None, config) as (_, a, b, messages):
        later: list[Message] = []

        def judge(message: Message) -> Any:
            assert message.topic == TOPIC and message.author == a.host.peer_id
            if message.data == b"raise":
                raise ValueError("cannot judge this")
            if message.data == b"later":
                later.append(message)
                return None
            verdicts = {b"reject": Verdict.REJECT, b"ignore": Verdict.IGNORE, b"wrong": "accept"}
            return verdicts.get(message.data, Verdict.ACCEPT)

        b.set_validator(TOPIC, judge)
        with kit.logged() as lines:
            for data in (b"1", b"raise", b"wrong", b"ignore", b"later", b"2"):
                await a.publish(TOPIC, data)
            assert await take(messages, 2) == [b"1", b"2"]
        assert len(lines) == 2
        assert "the validator of news raised" in lines[0]
        assert "'accept', which is no Verdict" in lines[1]
        assert b.score(a.host.peer_id) >= 0
        assert b.report(later[0].id, Verdict.ACCEPT)
        assert await take(messages, 1) == [b"later"]
        assert not b.report(later[0].id, Verdict.ACCEPT)
        with pytest.raises(LocalError, match="no verdict"):
            b.report(b"id", "accept")
        await a.publish(TOPIC, b"reject")
        peer = a.host.peer_id
        await kit.eventually(lambda: b.score(str(peer)) < 0, "nobody was blamed")
        b.remove_validator(TOPIC)
        await a.publish(TOPIC, b"ignore")
        assert await take(messages, 1) == [b"ignore"]


@on_every_loop
async def test_async_validators(kit: Kit) -> None:
    score = presets.plain_score([TOPIC])
    config = GossipConfig(score=score, thresholds=presets.PLAIN_THRESHOLDS)
    async with two(kit, None, config) as (_net, a, b, messages):
        go_on = b.host.make_event()

        async def judge(message: Message) -> Any:
            if message.data in (b"wait", b"reject"):
                await go_on.wait()
            if message.data == b"raise":
                raise TimeoutError("its own, not ours")
            verdicts = {b"reject": Verdict.REJECT, b"ignore": Verdict.IGNORE, b"wrong": None}
            return verdicts.get(message.data, Verdict.ACCEPT)

        b.set_validator(TOPIC, judge)
        with kit.logged() as lines:
            for data in (b"raise", b"wrong", b"ignore", b"reject", b"wait", b"fast"):
                await a.publish(TOPIC, data)
            assert await take(messages, 1) == [b"fast"]  # nobody waits for the others
        assert "the validator of news raised" in "".join(lines)
        assert "None, which is no Verdict" in "".join(lines)
        rule = b.router._topics[TOPIC.encode()].rule
        assert rule.validator.running == 2
        peer = a.host.peer_id
        assert b.score(peer) >= 0
        go_on.set()
        assert await take(messages, 1) == [b"wait"]
        await kit.eventually(lambda: b.score(peer) < 0, "nobody was blamed")
        assert rule.validator.running == 0 == rule.waiting


@on_every_loop
async def test_async_validators_are_bounded(kit: Kit) -> None:
    """In number, and in time: one that waits for ever is cancelled where that is possible."""
    async with two(kit) as (_net, a, b, messages):
        began: list[bytes] = []
        ended: list[bytes] = []

        async def judge(message: Message) -> Verdict:
            began.append(message.data)
            try:
                if message.data != b"good":
                    await never.wait()
            finally:
                ended.append(message.data)
            return Verdict.ACCEPT

        never = b.host.make_event()
        with pytest.raises(LocalError, match="at most validation_timeout, 10 s"):
            b.set_validator(TOPIC, judge, timeout=11.0)
        with pytest.raises(LocalError, match="more than 0 s"):
            b.set_validator(TOPIC, judge, timeout=0.0)
        with pytest.raises(LocalError, match="one message"):
            b.set_validator(TOPIC, judge, limit=0)
        b.set_validator(TOPIC, judge, timeout=0.3, limit=3)
        with kit.logged() as lines:
            for number in range(6):
                await a.publish(TOPIC, b"%d" % number)
            await kit.eventually(lambda: len(began) == 3, "they did not begin")
            rule = b.router._topics[TOPIC.encode()].rule
            assert rule.validator.running == 3
            await kit.eventually(lambda: not rule.waiting, "they still wait")
            cancelling = type(b.host)._within is not BaseHost._within
            if cancelling:
                await kit.eventually(lambda: len(ended) == 3, "they go on")
            else:
                assert ended == []
                await a.publish(TOPIC, b"has no room")
                await kit.loop.sleep(0.05)
                never.set()
                await kit.eventually(lambda: len(ended) == 3, "they did not end")
            await kit.eventually(lambda: len(lines) == 3, "not logged")
            assert "the validator of news took longer than 0.3 s" in lines[0]
        assert sorted(began) == sorted(ended) == [b"0", b"1", b"2"]  # trio picks any order
        assert rule.validator.running == 0
        await a.publish(TOPIC, b"good")
        assert await take(messages, 1) == [b"good"]


@on_every_loop
async def test_closing_cancels_validators(kit: Kit) -> None:
    states: list[str] = []
    async with network(kit) as net:
        a = await net.add()

        async def judge(message: Message) -> Verdict:
            states.append("began")
            try:
                await a.host.make_event().wait()
            finally:
                states.append("ended")
            return Verdict.ACCEPT

        b = await net.add(to=a)
        b.set_validator(TOPIC, judge)
        messages = b.subscribe(TOPIC)
        await a.wait_for_peers(TOPIC)
        for number in range(3):
            await a.publish(TOPIC, b"%d" % number)
        await kit.eventually(lambda: len(states) == 3, "they did not begin")
        await net.hosts[1].close()
        assert states == ["began"] * 3 + ["ended"] * 3 and not messages.waiting


@on_every_loop
async def test_a_validator_set_before_the_start(kit: Kit) -> None:
    async with network(kit) as net:
        a = await net.add()
        host = kit.host(pubsub=GossipConfig())
        pubsub = kit.base(host).pubsub
        pubsub.set_validator(TOPIC, lambda message: Verdict.IGNORE)
        with pytest.raises(LocalError, match="not started"):
            pubsub.subscribe(TOPIC)
        await kit.fails(LocalError, lambda: pubsub.publish(TOPIC, b""))
        async with host:
            await host.connect(a.host.addresses[0])
            async with pubsub.subscribe(TOPIC) as messages:
                await a.wait_for_peers(TOPIC)
                await a.publish(TOPIC, b"ignored")
                pubsub.set_validator("other", lambda message: Verdict.ACCEPT)
                async with pubsub.subscribe("other") as others:
                    await a.wait_for_peers("other")
                    await a.publish("other", b"accepted")
                    assert await take(others, 1) == [b"accepted"]
                assert messages.waiting == 0


# Ends.


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))
def test_cancelled_at_every_suspension(runtime: Runtime) -> None:
    """Whatever is cancelled has lost nothing, leaves nothing behind, and works the next time."""

    async def main(kit: Kit) -> None:
        async with two(kit) as (net, a, _b, messages):
            taken: list[bytes] = []
            count = 0

            async def publish_and_take() -> None:
                nonlocal count
                count += 1
                await a.publish(TOPIC, b"%d" % count)
                taken.append((await anext(messages)).data)

            async def nothing_lost() -> None:
                while len(taken) < count:
                    taken.append((await anext(messages)).data)
                assert taken == [b"%d" % number for number in range(1, count + 1)]
                await net.settled()

            assert await everywhere(kit, publish_and_take, nothing_lost) >= 1

            async def burst() -> None:
                for _ in range(3):
                    await a.publish("burst", bytes(20_000))
                await a.wait_for_peers("burst", 0)
                await a.drain()

            assert await everywhere(kit, burst, net.settled) >= 3

            async def wait() -> None:
                await a.wait_for_peers("nobody is here")

            assert await kit.loop.cancel_at(1, wait, late=False)
            await net.settled()

    runtime.run(main)


@on_every_loop
async def test_closing_the_host_ends_iteration(kit: Kit) -> None:
    async with network(kit) as net:
        a = await net.add()
        b = await net.add(to=a)
        messages, others = b.subscribe(TOPIC), b.subscribe(TOPIC)
        await a.wait_for_peers(TOPIC)
        await a.publish(TOPIC, b"before")
        got: list[bytes] = []
        errors: list[Exception] = []

        async def listen() -> None:
            try:
                async for message in messages:
                    got.append(message.data)
            except ConnectionLost as error:
                errors.append(error)

        async def wait() -> None:
            errors.append(
                await kit.fails(ConnectionLost, lambda: b.wait_for_peers("nobody is here"))
            )

        async def close() -> None:
            await kit.eventually(lambda: got and len(b.host._waiters) == 2, "nobody waits")
            await net.hosts[1].close()

        await kit.loop.together(listen, wait, close)
        assert got == [b"before"] and [str(one) for one in errors] == ["the host was closed"] * 2
        assert await take(others, 1) == [b"before"]  # it came before the end
        error = await kit.fails(ConnectionLost, others.__anext__)
        assert str(error) == "the host was closed"
        await others.close()
        await kit.fails(StopAsyncIteration, others.__anext__)
        for call in (lambda: b.publish(TOPIC, b""), b.drain, lambda: b.wait_for_peers(TOPIC)):
            assert "is closed" in str(await kit.fails(LocalError, call))
        with pytest.raises(LocalError, match="is closed"):
            b.subscribe(TOPIC)
        await kit.eventually(lambda: not a.peers(), "it is still there")
        await kit.nobody_waits(*net.hosts)


@on_every_loop
async def test_from_another_thread(kit: Kit) -> None:
    async with two(kit) as (_, a, _b, messages):
        errors: list[str] = []

        def steal() -> None:
            for call in (
                lambda: a.subscribe(TOPIC),
                lambda: a.set_validator(TOPIC, lambda message: Verdict.ACCEPT),
                lambda: a.report(b"id", Verdict.ACCEPT),
                lambda: a.publish(TOPIC, b"").send(None),
                lambda: messages.__anext__().send(None),
                lambda: messages.close().send(None),
            ):
                try:
                    call()
                except LocalError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=steal)
        thread.start()
        thread.join()
        assert len(errors) == 6 and all("from the thread" in one for one in errors), errors
        await a.publish(TOPIC, b"still works")
        assert await take(messages, 1) == [b"still works"]


# Options.


@on_every_loop
async def test_a_trace(kit: Kit) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.pb"
        with TraceFile(path) as file:
            async with two(kit, GossipSub(trace=file)) as (_, a, _b, messages):
                await a.publish(TOPIC, b"traced")
                await take(messages, 1)
        found = trace.decode(path.read_bytes())
        assert len(found) == file.events and file.error is None
        assert {one.peer for one in found} == {bytes(a.host.peer_id)}
        kinds = [one.type for one in found]
        assert Type.PUBLISH_MESSAGE in kinds and Type.SEND_RPC in kinds
        assert Type.ON_NEW_OUTBOUND_STREAM in kinds
        file(found[0])  # it is closed: nothing happens
        assert file.events == len(found)


def test_a_trace_on_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full disk to test with")
    event = trace.TraceEvent(Type.JOIN, b"peer", 1, trace.Joined("x" * 10_000))
    kit = Kit(object, object())  # type: ignore[arg-type]
    with kit.logged() as lines, TraceFile("/dev/full") as file:
        for _ in range(3):
            file(event)
    assert file.error is not None and "No space left" in str(file.error)
    assert len(lines) == 1 and "/dev/full ends after" in lines[0]
    with kit.logged() as lines, TraceFile("/dev/full") as file:
        file(trace.TraceEvent(Type.JOIN, b"peer", 1, trace.Joined("x")))
    assert file.error is not None and len(lines) == 1  # known only when it was closed
    with pytest.raises(FileNotFoundError):
        TraceFile("/does/not/exist")


def test_a_host_without_pubsub_and_wrong_options() -> None:
    from anyp2p.asyncio import Host

    with pytest.raises(LocalError, match=r"make it with Host\(pubsub=GossipConfig\(\)\)"):
        Host().pubsub  # noqa: B018
    with pytest.raises(LocalError, match=r"pubsub takes GossipConfig.*not 'gossipsub'"):
        Host(pubsub="gossipsub")  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="call it, a preset is a function"):
        Host(pubsub=presets.ethereum)  # type: ignore[arg-type]
    used = GossipSub()
    assert Host(pubsub=used).pubsub.router is used
    with pytest.raises(LocalError, match="this GossipSub is another host's"):
        Host(pubsub=used)
    with pytest.raises(LocalError, match="d_lo <= d <= d_hi"):
        Host(pubsub=GossipConfig(d=1))


def test_presets() -> None:
    from anyp2p.asyncio import Host

    for preset in (
        presets.default(),
        presets.ethereum(topics=("/eth2/b5303f2a/beacon_block/ssz_snappy",)),
        presets.filecoin(),
        GossipConfig(gater=GaterParams()),
        FloodConfig(),
    ):
        assert Host(pubsub=preset).pubsub.router.config is preset
    assert set(Host(pubsub=FloodConfig()).node.protocols) >= {"/floodsub/1.0.0"}


def test_only_who_wants_pubsub_loads_it() -> None:
    program = "import sys, anyp2p.asyncio, anyp2p.gevent, anyp2p_core; anyp2p.asyncio.Host();"
    program += "print([name for name in sys.modules if 'pubsub' in name])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "[]\n", done


def test_validators_that_look_async() -> None:
    """Methods, partial functions and objects with an async ``__call__`` run in tasks."""
    from functools import partial

    from anyp2p.asyncio import Host
    from anyp2p.pubsub_validators import Async, Plain, require_verdict

    class Judge:
        async def __call__(self, message: Message) -> Verdict:
            return Verdict.ACCEPT

        async def method(self, message: Message, *more: Any) -> Verdict:
            return Verdict.ACCEPT

        def plain(self, message: Message) -> Verdict:
            return Verdict.ACCEPT

    pubsub = Host(pubsub=GossipConfig()).pubsub
    for function, kind in (
        (Judge(), Async),
        (Judge().method, Async),
        (partial(Judge().method), Async),
        (Judge().plain, Plain),
        (lambda message: Verdict.ACCEPT, Plain),
    ):
        pubsub.set_validator(TOPIC, function)
        assert type(pubsub.router._topics[TOPIC.encode()].rule.validator) is kind
    kit = Kit(object, object())  # type: ignore[arg-type]
    with kit.logged() as lines:
        assert require_verdict(Judge().method(None), TOPIC) is Verdict.IGNORE  # type: ignore[arg-type]
    assert "give the async function itself" in lines[0]


def test_blocking_on_gevent() -> None:
    gevent = pytest.importorskip("gevent")
    from anyp2p.gevent import Host

    with pytest.raises(LocalError, match="has no pubsub"):
        Host().pubsub  # noqa: B018
    config = GossipConfig()
    with (
        gevent.Timeout(30),
        Host(listen=[LOOPBACK], pubsub=config) as a,
        Host(pubsub=GossipConfig(validation_timeout=5.0)) as b,
    ):
        b.connect(a.addresses[0])
        with b.pubsub.subscribe(TOPIC, drop="newest", max_messages=2, max_bytes=5000) as messages:
            assert a.pubsub.wait_for_peers(TOPIC) == [b.peer_id] == a.pubsub.peers(TOPIC)

            def judge(message: Message) -> Verdict:
                gevent.sleep(10 if message.data == b"slow" else 0.01)
                return Verdict.REJECT if message.data == b"bad" else Verdict.ACCEPT

            b.pubsub.set_validator(TOPIC, judge, blocking=True, timeout=0.2, limit=10)
            kit = Kit(object, object())  # type: ignore[arg-type]
            with kit.logged() as lines:
                for data in (b"slow", b"bad", b"good"):
                    a.pubsub.publish(TOPIC, data)
                assert next(messages).data == b"good"
                gevent.sleep(0.25)
            assert lines == ["the validator of news took longer than 0.2 s; the message is ignored"]
            b.pubsub.set_validator(TOPIC, lambda message: None)
            number = a.pubsub.publish(TOPIC, b"later")
            while not b.pubsub.report(number, Verdict.ACCEPT):
                gevent.sleep(0.001)
            assert next(messages).data == b"later"
            b.pubsub.remove_validator(TOPIC)
            for _ in range(3):
                a.pubsub.publish(TOPIC, b"x")
            assert a.pubsub.drain() and a.pubsub.dropped == 0
            while not messages.dropped:
                gevent.sleep(0.001)
            assert (messages.waiting, messages.dropped, messages.topics) == (2, 1, (TOPIC,))
            assert b.pubsub.topics == [TOPIC] and b.pubsub.mesh(TOPIC) == []
            assert b.pubsub.score(a.peer_id) == 0.0 and repr(messages).endswith("1 dropped>")
            assert [next(messages).data for _ in range(2)] == [b"x", b"x"]
            gevent.spawn(messages.close)
            assert list(messages) == [] and messages.closed
        assert "GossipSub, 0 topics" in repr(b.pubsub)
        assert isinstance(b.pubsub.router, GossipSub)


def test_examples_of_the_page() -> None:
    """Each block of docs/pubsub.md runs as it is."""
    page = Path(__file__).parents[2] / "docs" / "pubsub.md"
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) == 5, "a block that is not tested"
    for block in blocks:
        exec(compile(block.partition("```")[0], str(page), "exec"), {"__name__": "docs"})
