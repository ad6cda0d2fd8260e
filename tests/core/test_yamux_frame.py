import json
from pathlib import Path

import pytest

from anyp2p_core.yamux_frame import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_SIZE,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    decode,
    encode,
)

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors" / "yamux_frames_js.json"
JS = json.loads(VECTORS.read_text())

KINDS = {0: DATA, 1: WINDOW_UPDATE, 2: PING, 3: GO_AWAY}


@pytest.mark.parametrize("case", JS["cases"], ids=lambda case: case["name"])
def test_headers_of_js_peers(case: dict[str, int | str]) -> None:
    head = KINDS[int(case["type"])] | int(case["flag"])
    header = bytes.fromhex(str(case["header"]))
    assert encode(head, case["streamID"], case["length"]) == header
    assert decode(header) == (head, case["streamID"], case["length"])
    assert decode(b"\xff" * 5 + header + b"\xff", 5) == (head, case["streamID"], case["length"])


def test_numbers_are_those_of_js_peers() -> None:
    assert JS["types"] == {"Data": 0, "WindowUpdate": 1, "Ping": 2, "GoAway": 3}
    assert {kind >> 16 for kind in KINDS.values()} == set(KINDS)
    assert JS["flags"] == {"SYN": SYN, "ACK": ACK, "FIN": FIN, "RST": RST}
    assert len(encode(DATA, 0, 0)) == HEADER_SIZE


@pytest.mark.parametrize(
    ("hexadecimal", "fields"),
    [
        ("00 01 0001 00000001 00000000", (WINDOW_UPDATE | SYN, 1, 0)),
        ("00 02 0001 00000000 00000007", (PING | SYN, 0, 7)),
        ("00 02 0002 00000000 00000007", (PING | ACK, 0, 7)),
        ("00 03 0000 00000000 00000000", (GO_AWAY, 0, 0)),
        ("00 01 0008 00000001 00001001", (WINDOW_UPDATE | RST, 1, 0x1001)),
        ("00 00 0000 ffffffff ffffffff", (DATA, 0xFFFFFFFF, 0xFFFFFFFF)),
    ],
)
def test_headers_by_hand(hexadecimal: str, fields: tuple[int, int, int]) -> None:
    assert encode(*fields) == bytes.fromhex(hexadecimal)
    assert decode(bytes.fromhex(hexadecimal)) == fields
