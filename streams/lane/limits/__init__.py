"""What limits are made of: the lines of those that wait, rates, what the owner of a key grants, what a job claims.

The limits of queues have their own owner (queue_owner.py), and a gate in each lane (gate.py). All of it is pure, and
belongs to one lane; streams/lane/features/limits.py and queue_limits.py connect it to the lane's pipeline.
Imports contract, jobs and the outbox of a lane only.
"""
