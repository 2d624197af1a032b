"""Tasks: the functions that jobs call, and what a running job can know about itself.

Public by way of joblog.services. Imports nothing but the log's contract, so that modules with tasks load quickly.
"""
