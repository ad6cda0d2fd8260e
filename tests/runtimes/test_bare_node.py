"""A Node without any Host talks to a host, over a real socket."""

import asyncio

from programs import Program

from anyp2p.asyncio import Host

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def test_it_pings_a_host() -> None:
    async def main() -> None:
        async with Host(listen=[LOOPBACK]) as host:
            program = Program("bare_node.py", str(host.node.addresses[0]))
            code, out, err = await asyncio.to_thread(program.ended)
            assert (code, err) == (0, "")
            assert 0 < float(out) < 60
            while host.peers:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 90))


def test_it_says_why_it_cannot() -> None:
    code, out, err = Program("bare_node.py", "/ip4/127.0.0.1/tcp/1").ended()
    assert (code, out) == (0, "")
    assert "Connection refused" in err
