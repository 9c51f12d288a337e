"""What a claim hands out, made of an engine's rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from everpost.ids import made_at
from everpost.model.states import InDoubtPolicy
from everpost.store.checksums import checksum
from everpost.store.interface import Claim, Claimed

__all__ = ["Taken", "as_claim", "as_left_claim", "as_taken"]

_POLICIES: Mapping[str, InDoubtPolicy] = {policy.value: policy for policy in InDoubtPolicy}


class Taken:
    """What one claim took of one message, its content still unchecked: `checksum` is the stored
    one; it and `claimed.sealed` are empty when the content is missing."""

    __slots__ = ("checksum", "claimed")

    def __init__(self, claimed: Claimed, checksum: bytes) -> None:
        self.claimed = claimed
        self.checksum = checksum

    def sound(self) -> bool:
        """Whether the content that came along is what was accepted."""
        sealed = self.claimed.sealed
        return sealed is None or checksum(sealed) == self.checksum

    @property
    def damage(self) -> str:
        """What is wrong with content that is not sound."""
        return "content checksum" if self.checksum else "content missing"


def as_taken(
    row: Sequence[Any],
    claims: tuple[Claim, ...],
    body_hashes: Mapping[str, bytes],
    revision: int,
) -> Taken | None:
    """None when the message's row cannot be what was accepted."""
    (
        id_, project, stream, sender, in_doubt, token, sandbox, size, content, key_id, digest,
        sealed, tags, only,
    ) = row  # fmt: skip
    policy = _POLICIES.get(in_doubt)
    if policy is None:
        return None
    if sealed is None and digest is None:
        sealed = b""
    claimed = Claimed(
        message=id_,
        project=project,
        stream=stream,
        sender=sender,
        key_id=key_id or 0,
        content_id=content,
        sealed=sealed,
        size=size,
        in_doubt=policy,
        return_token=token,
        sandbox=bool(sandbox),
        body_hashes=body_hashes,
        claims=claims,
        revision=revision,
        tags=tags,
        only=only,
    )
    return Taken(claimed, digest or b"")


def as_claim(row: Sequence[Any], *, term: int, deadline: int) -> Claim:
    """A `Claim` from the columns of `rows_of_lanes`."""
    message, n, _, _, address, destination, route, attempts, crashes, not_before, expires_at = row
    return Claim(
        message=message,
        n=n,
        term=term,
        deadline=deadline,
        address=address,
        destination=destination,
        route=route,
        attempts=attempts,
        crashes=crashes,
        not_before=not_before,
        expires_at=expires_at,
        created_at=made_at(message),
    )


def as_left_claim(row: Sequence[Any], *, deadline: int) -> Claim:
    """As `as_claim`, of a claim that its process left. A number that is none any more is 0: it is
    only shown; a rescue mends the row and holds it."""
    numbers = [each if isinstance(each, int) else 0 for each in row[7:11]]
    term = row[3] if isinstance(row[3], int) else 0
    return as_claim((*row[:7], *numbers), term=term, deadline=deadline)
