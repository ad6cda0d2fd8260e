import pytest

from anyp2p_core import LocalError
from anyp2p_core.pubsub.message import build
from anyp2p_core.pubsub.validation import (
    IGNORED,
    THROTTLED,
    Rule,
    Validation,
    Verdict,
    later,
    require_verdict,
)


def make(number):
    message = build(None, b"", None, b"t")
    message.id = bytes([number])
    return message


def raises(message):
    raise RuntimeError("a mistake of the application")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_at_once(verdict):
    validation = Validation(limit=2, timeout=5.0)
    assert validation.judge(Rule(lambda message: verdict), make(1), 0.0) is verdict
    assert len(validation) == 0


@pytest.mark.parametrize("validator", [raises, lambda message: "yes", lambda message: True])
def test_mistakes_ignore_the_message(validator):
    assert Validation(limit=2, timeout=5.0).judge(Rule(validator), make(1), 0.0) == IGNORED


def test_later():
    validation = Validation(limit=10, timeout=5.0)
    rule = Rule(later)
    message = make(1)
    assert validation.judge(rule, message, 0.0) is None
    assert len(validation) == rule.waiting == 1
    assert validation.report(message.id) is message
    assert validation.report(message.id) is None
    assert len(validation) == rule.waiting == 0


def test_too_many_wait():
    validation = Validation(limit=3, timeout=5.0)
    one, two = Rule(later, 2), Rule(later)
    assert [validation.judge(one, make(number), 0.0) for number in range(3)] == [
        None, None, THROTTLED,
    ]  # fmt: skip
    assert validation.judge(two, make(3), 0.0) is None
    assert validation.judge(two, make(4), 0.0) == THROTTLED
    validation.report(make(0).id)
    assert validation.judge(one, make(5), 0.0) is None


def test_too_late():
    validation = Validation(limit=10, timeout=5.0)
    rule = Rule(later)
    for number in range(4):
        validation.judge(rule, make(number), float(number))
    assert [message.id for message in validation.late(6.5)] == [b"\0", b"\1"]
    assert len(validation) == rule.waiting == 2
    assert [message.id for message in validation.late(100.0)] == [b"\2", b"\3"]
    assert validation.late(100.0) == []


def test_verdicts_are_verdicts():
    require_verdict(Verdict.ACCEPT)
    with pytest.raises(LocalError, match="'accept' is no verdict"):
        require_verdict("accept")
