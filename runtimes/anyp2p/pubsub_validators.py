"""Applications' validators: plain functions at once, async ones in tasks of the host.

    message of a peer -> plain function ------------------------------> verdict
                     '-> waits in the router -> task: async function -> report
                                                 '-- too late, raises: IGNORE

A task that takes too long is cancelled, because a message that waits must not hold resources for
ever. On a loop that cannot do that its verdict comes to nothing, and it counts until it returns.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from anyp2p_core.errors import LocalError
from anyp2p_core.pubsub.events import ValidationRequested
from anyp2p_core.pubsub.message import Message as CoreMessage
from anyp2p_core.pubsub.service import PubSub as Router
from anyp2p_core.pubsub.validation import Verdict

from .pubsub_messages import Message
from .stream import LATE

if TYPE_CHECKING:
    from .host import BaseHost

log = logging.getLogger("anyp2p")

PlainValidator: TypeAlias = Callable[[Message], Verdict | None]
AsyncValidator: TypeAlias = Callable[[Message], Awaitable[Verdict]]
Validator: TypeAlias = PlainValidator | AsyncValidator

LIMIT = 256
"""Tasks of one async validator."""


class Validators:
    """All validators of a host."""

    def __init__(self, host: "BaseHost[Any]", router: Router) -> None:
        self.host = host
        self.router = router
        self.pending: dict[bytes, Async] = {}
        """Messages that wait in the router for their task."""

    def set(self, topic: str, validator: Validator, timeout: float | None, limit: int) -> None:
        """Judge the messages of a topic."""
        longest = self.router.config.validation_timeout
        if timeout is None:
            timeout = longest
        if not 0 < timeout <= longest:
            raise LocalError(
                f"a validator has more than 0 s and at most validation_timeout, {longest:g} s"
            )
        judge: Callable[[CoreMessage], Verdict | None]
        if _is_async(validator):
            judge = Async(self, topic, validator, timeout, limit)  # type: ignore[arg-type]
        else:
            judge = Plain(topic, validator)
        # The router's own limit is for those who report themselves; there is one task per message.
        self.router.set_validator(topic, judge, limit=limit)

    def on_requested(self, event: ValidationRequested) -> None:
        """A message waits for its verdict."""
        rule = self.pending.pop(event.message.id, None)
        if rule is not None:
            self.host._spawn(rule.run, event.message)


class Plain:
    """A validator that is called."""

    __slots__ = ("_topic", "_validator")

    def __init__(self, topic: str, validator: Callable[[Message], object]) -> None:
        self._topic = topic
        self._validator = validator

    def __call__(self, message: CoreMessage) -> Verdict | None:
        try:
            verdict = self._validator(Message(message, self._topic))
        except Exception:
            log.exception("the validator of %s raised; the message is ignored", self._topic)
            return Verdict.IGNORE
        if verdict is None:
            return None
        return require_verdict(verdict, self._topic)


class Async:
    """A validator that runs in tasks."""

    __slots__ = ("running", "_limit", "_timeout", "_topic", "_validator", "_validators")

    def __init__(
        self,
        validators: Validators,
        topic: str,
        validator: AsyncValidator,
        timeout: float,
        limit: int,
    ) -> None:
        self.running = 0
        """Tasks that have not ended."""
        self._limit = limit
        self._timeout = timeout
        self._topic = topic
        self._validator = validator
        self._validators = validators

    def __call__(self, message: CoreMessage) -> Verdict | None:
        if self.running >= self._limit:
            return Verdict.IGNORE
        self.running += 1
        self._validators.pending[message.id] = self
        return None

    async def run(self, message: CoreMessage) -> None:
        """Judge one message, in a task of its own."""
        host, router = self._validators.host, self._validators.router
        node = host.node

        def give_up(now: float) -> None:
            if router.report(message.id, Verdict.IGNORE, now):
                log.warning(
                    "the validator of %s took longer than %g s; the message is ignored",
                    self._topic,
                    self._timeout,
                )

        timer = node.call_at(host.now() + self._timeout, "validator", give_up)
        host.flush()  # arms the loop's timer
        verdict = Verdict.IGNORE
        try:
            asked = Message(message, self._topic)
            found = await host._within(self._timeout, self._validator, asked)
            if found is LATE:
                give_up(host.now())
            else:
                verdict = require_verdict(found, self._topic)
        except Exception:
            log.exception("the validator of %s raised; the message is ignored", self._topic)
        finally:
            self.running -= 1
            node.cancel(timer)
        router.report(message.id, verdict, host.now())
        host._flush_soon()


def require_verdict(verdict: object, topic: str) -> Verdict:
    """What a validator returned, if it is a verdict; else it is ignored, and logged."""
    if isinstance(verdict, Verdict):
        return verdict
    hint = ""
    if inspect.iscoroutine(verdict):
        verdict.close()
        hint = ": give the async function itself"
    log.error("the validator of %s returned %r, which is no Verdict%s", topic, verdict, hint)
    return Verdict.IGNORE


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
