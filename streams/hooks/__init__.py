"""The process that tells user code of every transition, after its election: for notifications, and whatever else.

It only reads the topic `events`, so nothing that happens here slows or stops an elector.

- transition: what hooks get to see, read from an event. calling: from a record to the calls, with all retries.
- reader: the member of the group, which reads, calls and commits. parking: dead letters.

May import `streams.contract`, `streams.kafka`, metrics, health and errors.
"""
