"""What limits are made of: the lines of those that wait, rates, what the owner of a key grants, what a job claims.

All of it is pure, and belongs to one lane; streams/lane/features/limits.py connects it to the lane's pipeline.
Imports contract, jobs and the outbox of a lane only.
"""
