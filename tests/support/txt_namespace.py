"""Run a program in a network of its own, where the only name server knows the given TXT records.

    unshare --user --map-root-user --net --mount -- python txt_namespace.py RECORDS PROGRAM [ARG…]

RECORDS is a JSON file {name: text}. For programs that ask the system's resolver and cannot be told
otherwise (opendkim-testmsg). Standard input and output are the program's; so is the exit status.
"""

import fcntl
import json
import select
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_SIOCSIFFLAGS = 0x8914
_IFF_UP_LOOPBACK_RUNNING = 0x49


def answer(wire: bytes, records: dict[str, str]) -> bytes:
    """The TXT record asked for, or NXDOMAIN."""
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query)
    question = query.question[0]
    text = records.get(question.name.to_text(omit_final_dot=True).lower())
    if text is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.TXT:
        strings = " ".join(f'"{text[i : i + 255]}"' for i in range(0, len(text), 255))
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", strings))
    return reply.to_wire(max_size=65_535)


def main(records_file: str, program: list[str]) -> int:
    records = {k.lower(): v for k, v in json.loads(Path(records_file).read_text()).items()}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(server, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_LOOPBACK_RUNNING))
    server.bind(("127.0.0.1", 53))
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():  # without one, resolvers ask 127.0.0.1 anyway
        with tempfile.NamedTemporaryFile("w") as ours:
            ours.write("nameserver 127.0.0.1\n")
            ours.flush()
            subprocess.run(["mount", "--bind", ours.name, str(resolver.resolve())], check=True)
    with subprocess.Popen(program) as child:
        while child.poll() is None:
            if select.select([server], [], [], 0.005)[0]:
                wire, peer = server.recvfrom(4096)
                server.sendto(answer(wire, records), peer)
        return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
