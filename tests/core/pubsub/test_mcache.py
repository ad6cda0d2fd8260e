from anyp2p_core.pubsub.mcache import MessageCache
from anyp2p_core.pubsub.message import build


def make(message_id, topic=b"t", size=10):
    message = build(None, bytes(size), None, topic)
    message.id = message_id
    return message


def test_messages_pass_through_the_windows():
    cache = MessageCache(length=4, gossip=2, max_bytes=1000)
    cache.put(make(b"a"))
    cache.put(make(b"b", b"other"))
    assert cache.ids(b"t") == [b"a"] and cache.ids(b"other") == [b"b"] and cache.ids(b"-") == []
    cache.shift()
    cache.put(make(b"c"))
    assert cache.ids(b"t") == [b"c", b"a"]
    cache.shift()
    assert cache.ids(b"t") == [b"c"] and cache.get(b"a") is not None
    cache.shift()
    assert cache.ids(b"t") == [] and len(cache) == 3
    cache.shift()
    assert cache.get(b"a") is None and cache.get(b"c") is not None and len(cache) == 1
    cache.shift()
    assert len(cache) == cache.size == 0


def test_windows_that_are_all_gossiped_about():
    cache = MessageCache(length=1, gossip=1, max_bytes=1000)
    cache.put(make(b"a"))
    assert cache.ids(b"t") == [b"a"]
    cache.shift()
    assert cache.ids(b"t") == []


def test_a_message_is_kept_once():
    cache = MessageCache(length=2, gossip=1, max_bytes=1000)
    cache.put(make(b"a"))
    size = cache.size
    cache.put(make(b"a"))
    assert cache.size == size and len(cache) == 1


def test_bytes_are_bounded():
    cache = MessageCache(length=3, gossip=3, max_bytes=100)
    cache.put(make(b"huge", size=200))
    assert len(cache) == 0
    for number in range(10):
        cache.put(make(bytes([number]), size=20))
        assert cache.size <= 100
    assert cache.ids(b"t") == [bytes([number]) for number in range(6, 10)]
    for _ in range(3):
        cache.shift()  # what went before is not counted again
    assert cache.size == len(cache) == 0
