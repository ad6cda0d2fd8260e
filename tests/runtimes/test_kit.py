"""The kit itself: it names what fails, and finds the defects that runtimes have."""

import asyncio
from typing import Any

import pytest

from anyp2p.asyncio import Host
from anyp2p.testing import CHECKS, AsyncioLoop, Check, Kit, check_runtime, run_check
from anyp2p_core.multiaddr import Multiaddr


class ForgetsTimers(Host):
    def _set_timer(self, when: float) -> None:
        if self._timer is None or self._timer.cancelled() or self._timer.when() < self._loop.time():
            super()._set_timer(when)


class NeverPauses(Host):
    def _pause_reading(self, conn: int) -> None:
        pass


class NeverTellsOfFullSockets(Host):
    def on_blocked(self, conn: int, full: bool) -> None:
        pass


class ClosesWithoutOrder(Host):
    def _close_transport(self, conn: int, abort: bool) -> None:
        super()._close_transport(conn, True)


class LeavesTasks(Host):
    async def _stop(self) -> None:
        for task in list(self._tasks):
            self._tasks.pop(task)
            task.remove_done_callback(self._tasks.pop)
        await super()._stop()


class LeavesATimer(Host):
    async def _stop(self) -> None:
        self._timer = None
        await super()._stop()


class ListensSomewhereElse(Host):
    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        return [address for _ in await super()._listen(address)]


DEFECTS = [
    (ForgetsTimers, "timers_fire_in_time"),
    (NeverPauses, "ping_times_out"),
    (NeverTellsOfFullSockets, "full_socket_stops_all_writers"),
    (ClosesWithoutOrder, "close_delivers_through_a_full_socket"),
    (LeavesTasks, "cancelled_handler"),
    (LeavesATimer, "connects"),
    (ListensSomewhereElse, "listens_on_real_addresses"),
]


def named(name: str) -> Check:
    [found] = [check for check in CHECKS if check.__name__ == name]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(("host", "name"), DEFECTS, ids=[host.__name__ for host, _ in DEFECTS])
def test_defects_are_found(host: type[Host], name: str) -> None:
    async def main() -> None:
        kit = Kit(Host, AsyncioLoop())
        kit.patience, kit.time_limit = 10.0, 30.0
        async with kit.pair():
            pass
        await run_check(kit, named(name))  # the sound host passes
        kit = Kit(host, AsyncioLoop())
        kit.patience, kit.time_limit = 0.5, 5.0
        with pytest.raises(Exception) as caught:
            await run_check(kit, named(name))
        assert isinstance(caught.value, AssertionError | TimeoutError | OSError), caught.value

    asyncio.run(main())


def test_failures_are_named_and_all_are_told() -> None:
    async def fine(kit: Kit) -> None:
        pass

    async def broken(kit: Kit) -> None:
        raise ValueError("on purpose")

    async def leaky(kit: Kit) -> None:
        left.append(asyncio.create_task(asyncio.sleep(3600)))

    left: list[Any] = []
    lines: list[str] = []

    async def main() -> None:
        Kit.patience, patience = 0.2, Kit.patience
        try:
            with pytest.raises(ExceptionGroup) as caught:
                await check_runtime(
                    Host, AsyncioLoop(), checks=(fine, broken, leaky, fine), report=lines.append
                )
        finally:
            Kit.patience = patience
        one, other = caught.value.exceptions
        assert isinstance(one, ValueError) and one.__notes__ == ["check: broken"]
        assert "left behind: 1 tasks" in str(other) and other.__notes__ == ["check: leaky"]

    asyncio.run(main())
    assert lines == ["1/4 fine: ok", "2/4 broken: FAILED", "3/4 leaky: FAILED", "4/4 fine: ok"]
