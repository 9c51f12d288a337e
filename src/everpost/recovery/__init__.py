"""What gets the service going again by itself: the supervisor, the rescuer, upkeep's round.

Promises: a process that dies is started again; its claims go back to the queue or are recorded as
in doubt, never both, never neither; a bad
configuration changes nothing. Sending and accepting must not live here. The modules are
imported one by one, since the supervisor's process must stay small.
"""

__all__ = [
    "children",
    "company",
    "leading",
    "presence",
    "reloading",
    "rescuer",
    "spawning",
    "supervisor",
    "upkeep",
    "watching",
]
