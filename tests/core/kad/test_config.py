"""The numbers of a network: they make sense, and are refused if they do not."""

import pytest
from core.kad.people import peer

from anyp2p_core.errors import LocalError
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.query import Walk
from anyp2p_core.multiaddr import Multiaddr


def test_what_is_set_by_default_makes_sense():
    KadConfig().check()
    KadConfig(bootstrap=(Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{peer(1)}"),)).check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "kad"},
        {"walk": Walk(k=0)},
        {"bootstrap": (Multiaddr("/ip4/1.2.3.4/tcp/1"),)},
        {"dial_rate": 0.0},
        {"dial_rate": float("nan")},
        {"dial_burst": 0},
        {"refresh_interval": 0.0},
        {"republish_check": -1.0},
        {"dial_interval": float("nan")},
    ],
)
def test_what_makes_no_sense(wrong):
    with pytest.raises(LocalError):
        KadConfig(**wrong).check()
