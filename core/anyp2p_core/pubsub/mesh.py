"""Who stays in a mesh that is too large, and when it is a bad one.

all, best first:  d_score stay  |  random ones stay, up to d  |  the rest is pruned
                  at least d_out of those that stay are peers that we dialed, if there are any
"""

from collections.abc import Callable

from ..crypto import Choice
from .config import GossipConfig
from .peers import Peer

Score = Callable[[Peer], float]


def excess(mesh: list[Peer], score: Score, config: GossipConfig, choice: Choice) -> list[Peer]:
    """The peers to prune from a mesh that has more than ``d``."""
    # Shuffled first, since without scores all are equal.
    choice.shuffle(mesh)
    mesh.sort(key=score, reverse=True)
    others = mesh[config.d_score :]
    choice.shuffle(others)
    ranked = mesh[: config.d_score] + others
    staying, leaving = ranked[: config.d], ranked[config.d :]
    missing = config.d_out - sum(peer.outbound for peer in staying)
    if missing > 0:
        saved = [peer for peer in leaving if peer.outbound][:missing]
        # The last inbound ones of those that stay give way: first come those with the best scores.
        given = [peer for peer in reversed(staying) if not peer.outbound][: len(saved)]
        leaving = [peer for peer in leaving if peer not in saved] + given
    return leaving


def median(mesh: list[Peer], score: Score) -> float:
    """The middle one of the scores of a mesh that is not empty."""
    return sorted(map(score, mesh))[len(mesh) // 2]
