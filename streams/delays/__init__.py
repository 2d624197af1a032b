"""The process that turns the timing wheel in the delay topics, and reports jobs that are due.

- wheel: when a record leaves its tier, and what is held of a partition; pure.
- partition: a partition and its records, timers or what becomes a dead letter. reader: the member of the group.
- firing: sends what leaves a tier. process: the loop around them.

The tiers are data in contract/topics.py. May import contract and kafka; knows nothing of lanes or electors.
"""
