"""Who is asking, and what they may do.

Promises: a key that is unknown, revoked or expired gets the same answer for the same work; what no
rule allows is refused. Parsing of headers and SMTP logins is the doors', making and revoking of
keys is catalog's.
"""

from everpost.access.credentials import OPERATOR, Access
from everpost.access.policy import Right, allows, require

__all__ = ["OPERATOR", "Access", "Right", "allows", "require"]
