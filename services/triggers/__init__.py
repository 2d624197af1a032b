"""Triggers as user code meets them: a decorator for functions that say which jobs an event of another service is.

trigger: the decorator and the registry. jobs: from what functions return to commands. bound: how they are called.

May import the client (how a job is created) and tasks, settings of the client's, and `streams`; the role that calls
the functions is in streams/triggers, and services/roles/triggers.py puts both together.
"""
