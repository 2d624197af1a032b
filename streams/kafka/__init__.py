"""Kafka clients with the one safe profile, and the topics they work on."""
