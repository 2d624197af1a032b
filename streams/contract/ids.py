"""Job ids that carry their lane, and the lane of a queue.

A job id is a UUIDv8 (RFC 9562, section 5.8) in its canonical text form::

    tttttttt-tttt-8lll-vrrr-rrrrrrrrrrrr

48 bits of unix milliseconds (t), the version 8, 12 bits of lane (l), the variant (v, two bits), 62 random
bits (r). An id made from an idempotency key has a hash in place of time and randomness, so that the same
key in the same lane is always the same job.
"""

import secrets
from functools import lru_cache
from hashlib import blake2b

#: Twelve bits of a job id name the lane.
LANES_MAX = 4096


def new_job_id(lane: int, now_ms: int, random_62: int | None = None) -> str:
    """A fresh id in `lane`; `random_62` (0 ≤ r < 2^62) may be passed in to make it repeatable."""
    r = secrets.randbits(62) if random_62 is None else random_62
    v = "%016x" % (0x8000000000000000 | r)
    return f"{_time_and_lane(now_ms, lane)}{v[:4]}-{v[4:]}"


@lru_cache(maxsize=256)
def _time_and_lane(now_ms: int, lane: int) -> str:
    """The first half of an id, which many ids of one millisecond share."""
    t = f"{now_ms:012x}"
    return f"{t[:8]}-{t[8:]}-8{lane:03x}-"


def hashed_job_id(lane: int, *parts: str) -> str:
    """The id that these parts (queue and idempotency key, or source and id of a CloudEvent) always give."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    number = int.from_bytes(digest.digest(), "big")
    return new_job_id(lane, number >> 80, number & ((1 << 62) - 1))


def lane_of_job(job_id: str) -> int:
    """The lane that a job id names; the id must be well-formed (`is_job_id`)."""
    return int(job_id[15:18], 16)


@lru_cache(maxsize=65_536)
def lane_of_queue(queue: str, lanes: int) -> int:
    """The (first) lane of a queue: what Kafka's default partitioner gives for `key = queue`."""
    return (murmur2(queue.encode()) & 0x7FFFFFFF) % lanes


def lane_of_shard(queue: str, lanes: int, shard: int) -> int:
    """The lane of one of a queue's shards (0-based): neighbours of its first lane."""
    return (lane_of_queue(queue, lanes) + shard) % lanes


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of Kafka's `org.apache.kafka.common.utils.Utils.murmur2`."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
