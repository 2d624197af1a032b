"""Recurring jobs: schedules, what to create when, and the process that creates it; only app.py knows Faust.

May import the contract and Kafka's clients; `schedule`, `due`, `rows` and `jobs` are pure.
"""
