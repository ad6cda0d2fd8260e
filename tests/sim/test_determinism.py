"""One seed, one run: in any process, under any hash seed; and where two runs part."""

import importlib.util
import itertools
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyp2p.sim import (
    SeededChoice,
    SeededEntropy,
    Trace,
    World,
    compare,
    first_divergence,
    keyed,
    trace as trace_module,
)
from anyp2p.sim.trace import CHECKPOINT, NOBODY, Recorder
from anyp2p_core.errors import LocalError

FILE = Path(__file__).with_name("scenarios.py")


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("scenarios", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenarios = _load()
SCENARIOS: dict[str, Callable[..., World]] = scenarios.SCENARIOS


def test_digests_in_other_processes() -> None:
    """Each scenario in two fresh processes with other hash seeds, and in this one."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(FILE)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4242")
    ]
    here = "".join(f"{name} {make().digest()}\n" for name, make in SCENARIOS.items())
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out == here


def test_another_seed_is_another_run() -> None:
    for make in (scenarios.noise, scenarios.storm):
        assert make(seed=7).digest() != make(seed=8).digest()


def test_digest_covers_what_happens() -> None:
    """Bytes, times, outcomes: one more of anything changes it."""

    def run(change: str) -> str:
        world = World(seed=1, latency=0.05 if change != "time" else 0.05000001)
        a, b = world.host(), world.host(listen=["/ip4/0.0.0.0/tcp/1"], echo=True)

        async def main() -> None:
            async with a, b:
                async with await a.open_stream(b.addresses[0], "/echo/1.0.0") as stream:
                    await stream.write(b"x" if change != "bytes" else b"y")
                    await stream.readexactly(1)
                if change == "task":
                    raise ValueError
                if change == "other task":
                    raise TypeError
                if change == "event":
                    a.node.peers.learn(b.peer_id)
                    await a.ping(b.peer_id)

        task = world.spawn(main)
        task.awaited = True
        world.run(30.0)
        if change == "cancelled":
            world.spawn(world.forever).cancel()
        return world.digest()

    changes = ("", "time", "bytes", "task", "other task", "event", "cancelled")
    digests = [run(change) for change in changes]
    assert len(set(digests)) == len(changes)
    assert digests == [run(change) for change in changes]


def test_digest_can_be_asked_for_at_any_time() -> None:
    def run(often: bool) -> str:
        world = World(seed=1)
        peers = scenarios.ring.make(world, 5)
        for _ in range(3):
            peers.run(1)
            if often:
                world.digest()
        return world.digest()

    assert run(True) == run(False)


# Randomness.


def test_draws_depend_on_their_purpose_alone() -> None:
    key = keyed.key(7, "link", "a", "b", 1)
    assert key == keyed.key(7, "link", "a", "b", 1)
    others = [
        keyed.key(8, "link", "a", "b", 1),
        keyed.key(7, "link", "a", "b", 2),
        keyed.key(7, "link", "ab", 1),
        keyed.key(7, "link", "a", "b", "1"),
        keyed.key(-7, "link", "a", "b", 1),
    ]
    assert len({key, *others}) == 6
    draws = [keyed.uniform(key, count) for count in range(2000)]
    assert len(set(draws)) == 2000 and all(0.0 <= draw < 1.0 for draw in draws)
    assert 0.47 < sum(draws) / 2000 < 0.53
    pairs = [keyed.uniforms(key, count) for count in range(2000)]
    assert 0.47 < sum(first for first, _ in pairs) / 2000 < 0.53
    covariance = sum((first - 0.5) * (second - 0.5) for first, second in pairs) / 2000
    assert abs(covariance) < 0.01


def test_seeded_entropy() -> None:
    one, same = SeededEntropy(b"key"), SeededEntropy(b"key")
    sizes = [32, 1, 64, 65, 0, 1000]
    drawn = [one(size) for size in sizes]
    assert [len(data) for data in drawn] == sizes
    assert drawn == [same(size) for size in sizes]
    assert one(32) != one(32)
    assert SeededEntropy(b"other")(32) != drawn[0]


def test_seeded_choice() -> None:
    choice = SeededChoice(b"key")
    counts = Counter(choice.below(6) for _ in range(6000))
    assert sorted(counts) == list(range(6)) and min(counts.values()) > 850
    assert choice.below(1) == 0
    assert 0 <= choice.below(10**30) < 10**30
    items = list(range(20))
    choice.shuffle(items)
    assert items != list(range(20)) and sorted(items) == list(range(20))
    sample = choice.sample(items, 5)
    assert len(set(sample)) == 5 and set(sample) <= set(items) and len(items) == 20
    assert sorted(choice.sample(items, 50)) == list(range(20))
    assert choice.sample([], 3) == []
    tops = Counter(choice.sample(list("abc"), 1)[0] for _ in range(3000))
    assert min(tops.values()) > 900
    assert all(0.0 <= choice.random() < 1.0 for _ in range(100))


def test_other_links_change_nothing() -> None:
    """What happens between two machines does not depend on who else is there."""

    def rtts(others: int) -> list[float]:
        world = World(seed=3, jitter=0.1, loss=0.1)
        a = world.host(name="a", listen=["/ip4/0.0.0.0/tcp/1"])
        b = world.host(name="b", listen=["/ip4/0.0.0.0/tcp/1"])
        crowd = [world.host(name=f"x{n}") for n in range(others)]

        async def main() -> list[float]:
            for host in (a, b, *crowd):
                await host.start()
            for host in crowd:
                await host.connect(b.addresses[0])
            await world.sleep(100.0 - world.now)
            await a.connect(b.addresses[0])
            await world.sleep(100.0)
            return [await a.ping(b.peer_id) for _ in range(10)]

        result: list[float] = world.run_task(world.spawn(main), 1000.0)
        return result

    # The same draws; sums of floats that began elsewhere differ in their last digits.
    assert rtts(0) == pytest.approx(rtts(5), abs=1e-9)


# Traces.


def test_equal_runs_have_equal_traces() -> None:
    traces = [Trace(), Trace()]
    digests = [scenarios.storm(trace).digest() for trace in traces]
    assert digests[0] == digests[1] == scenarios.storm().digest()
    assert compare(*traces) is None
    assert traces[0].count == len(traces[0]) > CHECKPOINT
    assert len(traces[0].checkpoints) == traces[0].count // CHECKPOINT
    assert compare(traces[0], pickle.loads(pickle.dumps(traces[1]))) is None
    assert first_divergence(scenarios.noise, scenarios.noise) is None


def altered(when: float) -> Callable[[Trace], World]:
    """The ring, with one ping more somewhere in between."""

    def scenario(trace: Trace) -> World:
        world = World(seed=7, trace=trace)
        peers = scenarios.ring.make(world, 20)

        async def disturb() -> None:
            await world.sleep(when)
            await peers.hosts[3].ping(peers.hosts[4].peer_id)

        world.spawn(disturb)
        peers.run(20)
        return world

    return scenario


def test_first_divergence() -> None:
    found = first_divergence(altered(1.0), altered(1.5))
    assert found is not None and found.exact
    assert found.a is not None and found.b is not None
    # It is seen when the first byte arrives that only one of them has sent.
    assert found.a.time == pytest.approx(0.4 + 1.0 + 0.05)
    assert found.a.place == 4 and found.a.kind == "bytes"
    text = str(found)
    assert text.startswith(
        f"the runs part at event {found.index}:\n  a: event {found.index} at 1.45"
    )
    assert "on machine 4" in text and "bytes with crc" in text
    same = first_divergence(altered(1.0), altered(1.0))
    assert same is None


def test_first_divergence_beyond_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints tell where to look again."""
    exact = first_divergence(altered(1.0), altered(1.5))
    assert exact is not None

    runs: list[int] = []
    monkeypatch.setattr(trace_module, "CHECKPOINT", 64)

    class Small(Trace):
        def __init__(self, start: int = 0, limit: int = 64) -> None:
            runs.append(start)
            super().__init__(start, limit)

    monkeypatch.setattr(trace_module, "Trace", Small)
    found = first_divergence(altered(1.0), altered(1.5))
    assert found == exact
    assert runs == [0, 0, exact.index // 64 * 64, exact.index // 64 * 64]
    none = first_divergence(altered(1.0), altered(1.0))
    assert none is None


def test_first_divergence_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that do not repeat themselves: after some attempts it tells what it knows."""
    monkeypatch.setattr(trace_module, "CHECKPOINT", 8)
    salt = itertools.count()

    def scenario(trace: Trace) -> None:
        trace.limit = 0
        fill(trace, [*range(20), 1000 + next(salt), *range(40)])

    found = first_divergence(scenario, scenario, attempts=3)
    assert found is not None and not found.exact and found.index == 16
    assert next(salt) == 6


def fill(trace: Trace, events: list[int]) -> Trace:
    recorder = Recorder(trace)
    for number in events:
        recorder.happened(float(number), "test", NOBODY, number)
    recorder.digest()
    return trace


def test_comparing_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "CHECKPOINT", 8)
    base = list(range(100))
    for change in (0, 1, 7, 8, 9, 63, 64, 95, 96, 99):
        other = [*base[:change], 7, *base[change + 1 :]] if change != 7 else [*base[:7], 8]
        found = compare(fill(Trace(), base), fill(Trace(), other))
        assert found is not None and found.exact and found.index == change
        shorter = compare(fill(Trace(), base), fill(Trace(), base[:change]))
        assert shorter is not None and shorter.index == change and shorter.b is None
        assert "nothing more happened" in str(shorter)
        # Outside of the window only the last events are known.
        found = compare(fill(Trace(0, 10), base), fill(Trace(0, 10), other))
        assert found is not None
        assert found.exact == (change < 10 or change >= 96 or len(other) < 100)
        assert found.index == (change if found.exact else change // 8 * 8)
        if not found.exact:
            assert str(found) == f"the runs part within 8 events from event {found.index} on"
    assert compare(fill(Trace(), base), fill(Trace(), base)) is None
    assert compare(fill(Trace(0, 10), base), fill(Trace(0, 10), base)) is None
    assert compare(fill(Trace(), []), fill(Trace(), [])) is None
    with pytest.raises(LocalError, match="same window"):
        compare(Trace(), Trace(8))


def test_entries_as_text() -> None:
    trace = Trace()
    recorder = Recorder(trace)
    recorder.happened(1.5, "task", NOBODY, 3, 1)
    recorder.happened(1.5, "PingSucceeded", 2 << 24 | 7, 12)
    recorder.delivered(2.0, 7, 5, b"hello")
    texts = [str(trace.entry(index)) for index in range(3)]
    assert texts == [
        "event 0 at 1.500000000 s: task 3 1",
        "event 1 at 1.500000000 s: PingSucceeded 12 on machine 7 (host 2)",
        "event 2 at 2.000000000 s: bytes 5 on machine 7, 5 bytes with crc 3610a686",
    ]
    assert trace.entry(3) is None and trace.entry(-1) is None
