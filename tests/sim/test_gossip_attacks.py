"""The published attacks on gossipsub, small: honest nodes get everything, and meshes recover.

benchmarks/pubsub_attacks.py holds the scenarios; benchmarks/pubsub.py runs them large.
"""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))

from pubsub_attacks import SCENARIOS, Attack, Mood, Outcome, Size, run

SIZE = Size(
    honest=16,
    sybils=48,
    dials=4,
    sybil_dials=4,
    eclipse_dials=12,
    warm=15.0,
    covert=15.0,
    attack=75.0,
    message=256,
)
"""A third of the time and a fifteenth of the nodes of the benchmark."""
SEED = 3


@cache
def outcome(name: str, plain: bool = False) -> Outcome:
    return run(name, SEED, SIZE, plain)


@pytest.mark.parametrize("name", SCENARIOS)
def test_honest_nodes_get_every_message(name: str) -> None:
    found = outcome(name)
    assert found.messages == SIZE.rate * SIZE.attack
    assert found.expected == found.messages * (SIZE.honest - 1)
    assert found.lost == 0
    assert len(found.delays) == found.expected
    assert found.joined <= SIZE.attack
    # Nobody waits for gossip, which comes with heartbeats.
    assert found.p50 < 0.1
    assert found.p99 < (1.0 if name == "cold-boot" else 0.15)


@pytest.mark.parametrize("name", ["sybil", "eclipse-one", "eclipse-all", "cold-boot"])
def test_silent_sybils_lose_their_places(name: str) -> None:
    """P3 judges them a minute after they came."""
    found = outcome(name)
    assert found.held == 0.0
    assert found.full <= SIZE.attack
    if name in ("eclipse-all", "cold-boot"):
        assert found.worst_held > 0.1


def test_without_scores_they_would_not() -> None:
    """What the attack does to gossipsub 1.0: whoever came first stays."""
    plain, scored = outcome("cold-boot", True), outcome("cold-boot")
    assert plain.held > 0.9
    assert plain.p50 > 5 * scored.p50
    assert not plain.joined <= SIZE.attack


def test_a_covert_flash_cuts_meshes_without_scores_only() -> None:
    size = replace(SIZE, sybil_dials=8, covert=30.0, attack=25.0)
    plain, scored = (run("covert", SEED, size, which) for which in (True, False))
    assert scored.held < 0.5 < plain.held
    assert scored.joined == 0.0 and not plain.joined <= size.attack


def test_the_same_seed_gives_the_same_attack() -> None:
    short = Size(honest=8, sybils=16, dials=3, sybil_dials=3, warm=3.0, attack=10.0)
    first, again, other = (Attack("sybil", seed, short) for seed in (1, 1, 2))
    results = [one.run().delays for one in (first, again, other)]
    assert results[0] == results[1] != results[2]
    assert first.world.digest() == again.world.digest() != other.world.digest()


def test_sybils_that_never_turn_bad_do_no_harm() -> None:
    """The scenarios measure what sybils do, not that they are there."""
    attack = Attack("covert", 1, Size(honest=8, sybils=16, dials=3, covert=5.0, attack=10.0))
    attack.mood = _Steadfast()
    found = attack.run()
    assert found.lost == 0 and found.p99 < 0.15 and found.held > 0.1


class _Steadfast(Mood):
    """Not to be changed."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, 1.0 if name == "forwards" else 0.0)


def test_what_sybils_swallow_is_counted() -> None:
    """Where the only way leads through a sybil nothing can help."""
    size = Size(honest=2, sybils=1, dials=0, sybil_dials=2, covert=5.0, attack=10.0, linger=5.0)
    found = run("covert", 1, size)
    assert found.lost == found.expected
    assert found.joined == float("inf") and found.held == 1.0
