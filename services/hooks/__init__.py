"""Hooks as user code meets them: a decorator for functions that want to know of transitions, and their list.

May import `tasks` and `streams`; the role that calls the functions is in streams/hooks, and services/roles/hooks.py
puts both together.
"""
