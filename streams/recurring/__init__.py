"""Recurring jobs: schedules, what to create when, and the process that creates it; only membership.py knows Faust.

May import the contract and Kafka's clients; `schedule`, `due`, `rows`, `jobs` and `plan` are pure.
"""
