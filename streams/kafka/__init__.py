"""Kafka clients with the one safe profile, and the topics they work on.

- clients: every client is made there, with its settings. bounded: calls into a client that may never return.
- durable_producer: a producer that outlives a fatal error. group_offsets: a group's offsets, for who is no member.
- topic_rules: what topics must be like; pure. admin: creates, checks and alters topics. last_records: their ends.
- faust_consumer: Faust's consumer, with nothing lost; aiokafka_batches: records for it, whatever the names of their
  headers; faust_credentials.

May import contract; knows nothing of lanes, and no role.
"""
