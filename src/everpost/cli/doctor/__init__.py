"""`everpost doctor`: is this machine, and the network around it, fit to send mail?

Promises: probes (`machine`, `network`, `relays`, `database`) only gather facts and change nothing;
`judge` is pure and gives a finding a check, with advice. Nothing is sent to anyone: a mail server
sees a connection that ends after its greeting, and only one that the operator named.
"""

from everpost.cli.doctor.check import command
from everpost.cli.doctor.finding import Finding, Verdict
from everpost.cli.doctor.judge import judge

__all__ = ["Finding", "Verdict", "command", "judge"]
