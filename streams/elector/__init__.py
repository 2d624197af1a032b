"""The process that owns lanes: consume, decide, produce, commit.

Read elector.py first: the loop, and one turn of it. The rest, in the order in which it matters:

- turn.py, turn_size.py: the records of one turn, decided by their lanes. writer.py, transaction.py: what follows,
  written and committed together with how far was read.
- membership.py: the consumer group, which says whose the lanes are. registration.py: which process is the latest with
  an elector's id. ownership.py, takeover.py: lanes taken over from the log, given back, set aside. lane_records.py:
  the records of the topic `state`; pure.
- recovery.py: what follows after which error. failed_records.py: exceptions that nobody foresaw. quiet_period.py:
  when the silence of a worker means nothing.
- lanes_status.py, rebuild.py: what operators see of lanes and do to them, for `joblog lanes`; no elector needs them.

Nothing in here decides about jobs: that is the lanes' (streams/lane). What an elector believes must follow from the
log alone: whatever it holds may be thrown away and read back at any time, and `recovery.py` does that.

May import streams.lane, streams.contract and streams.kafka; the roles build an `Elector`, commands and the doctor use
lanes_status and rebuild.
"""
