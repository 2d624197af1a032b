"""The contract as documents: a JSON Schema of each command and event, and an AsyncAPI document of all topics.

Generated from the models into deploy/ by `python -m joblog.services.schemas`. May import streams' contract only.
"""
