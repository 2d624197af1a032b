"""The log's side of the transactional outbox: the transactions by which a relay puts rows into the log exactly once.

`marks.py` says which rows are in the log, `log.py` writes and reads that. The rows' side, and how both work together,
is in projections/outbox/relay.py. May import streams.contract and streams.kafka.
"""
