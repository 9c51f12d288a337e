"""Where the rooms of the line meet: one small interface, an engine behind it.

Promises: an `accept` that returned is durable; a `settle` with a stale owner or term writes
nothing; every verb that moves a recipient writes its event in the same transaction. Policy must not
live here: a verb does what its arguments say. Engines live in their own folders and are picked by
`assembly`.
"""
