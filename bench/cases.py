"""The table's rows: who is measured at what, and whom it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench import beside, choose, everpost, haraka, postfix
from bench.figures import Figures, Round, Work

__all__ = ["CASES", "DEFAULT", "QUICK", "Case", "select"]

KB_200 = 200 * 1024
MANY = 100


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `share`: of --messages. `yardstick`: the case whose delivered/s in the same round
    counts as 1 x. `half_of`: the rate is half of what that case accepted in the same round."""

    name: str
    title: str
    run: Callable[[Work], Figures]
    work: Work
    share: float
    yardstick: str = ""
    half_of: str = ""

    def measure(self, messages: int, so_far: Round) -> Figures:
        count = max(self.work.batch, round(messages * self.share))
        work = replace(self.work, messages=count)
        if self.half_of:
            full = so_far.get(self.half_of)
            if not isinstance(full, Figures):
                raise RuntimeError(f"{self.half_of} gave no rate in this round")
            work = replace(work, rate=full.accepted_per_s / 2)
        return self.run(work)

    @property
    def ours(self) -> bool:
        return self.run not in {postfix.run, haraka.run}

    @property
    def embedded(self) -> bool:
        """Ours, and nobody else's database counts in its memory."""
        return self.ours and self.run not in {everpost.run_on_postgres, _batched_on_postgres}


def _batched(work: Work) -> Figures:
    return everpost.run(work, connections=8)


def _batched_on_postgres(work: Work) -> Figures:
    return everpost.run_on_postgres(work, connections=8)


def _everpost(batch: int, signing: str, size: int, destinations: int) -> Case:
    rsa, large = signing == "rsa", size > 2048
    name = "single" if batch == 1 else f"batch-{batch}"
    title = "Everpost, single posts" if batch == 1 else f"Everpost, batches of {batch}"
    if signing != "unsigned":
        name += f"-{signing}"
        title += ", RSA-2048" if rsa else ", Ed25519"
    if large:
        name += "-200k"
        title += ", 200 KB"
    if destinations > 1:
        name += "-many"
        title += f", {destinations} destinations"
    return Case(
        name=name,
        title=title,
        run=everpost.run if batch == 1 else _batched,
        work=Work(0, size=size, batch=batch, destinations=destinations, signing=signing),
        share=(0.2 if large else 1.0) * (0.5 if rsa else 1.0),
        yardstick="postfix" + ("-dkim" if rsa else "") + ("-200k" if large else ""),
    )


def _peer(
    run: Callable[[Work], Figures], name: str, title: str, share: float, work: Work
) -> Case:  # fmt: skip
    yardstick = "" if run is postfix.run else name.replace("haraka", "postfix")
    return Case(name=name, title=title, run=run, work=work, share=share, yardstick=yardstick)


def _on_postgres(work: Work) -> list[Case]:
    return [
        Case(
            "single-postgres", "Everpost on PostgreSQL, single posts", everpost.run_on_postgres,
            work, share=1.0, yardstick="single",
        ),
        Case(
            "batch-100-postgres", "Everpost on PostgreSQL, batches of 100", _batched_on_postgres,
            replace(work, batch=100), share=1.0, yardstick="batch-100",
        ),
    ]  # fmt: skip


def _isolation(work: Work) -> list[Case]:
    return [
        Case(
            "beside-broadcast", "Transactional mail at 20/s beside a broadcast",
            beside.beside_broadcast, work, share=10.0,
        ),
        Case(
            "beside-flood", "A project's mail at 20/s beside another project's flood",
            beside.beside_flood, work, share=10.0,
        ),
    ]  # fmt: skip


def _all() -> list[Case]:
    """Every row, each peer before those that are compared with it."""
    small, large = Work(0), Work(0, size=KB_200)
    signed, large_signed = replace(small, signing="rsa"), replace(large, signing="rsa")
    peers = {
        ("unsigned", 2048): [
            _peer(postfix.run, "postfix", "Postfix, tuned", 1.0, small),
            _peer(haraka.run, "haraka", "Haraka, tuned", 0.5, small),
        ],
        ("rsa", 2048): [
            _peer(postfix.run, "postfix-dkim", "Postfix + OpenDKIM, RSA-2048", 0.25, signed),
            _peer(haraka.run, "haraka-dkim", "Haraka + its DKIM plugin, RSA-2048", 0.25, signed),
        ],
        ("unsigned", KB_200): [
            _peer(postfix.run, "postfix-200k", "Postfix, tuned, 200 KB", 0.2, large),
            _peer(haraka.run, "haraka-200k", "Haraka, tuned, 200 KB", 0.1, large),
        ],
        ("rsa", KB_200): [
            _peer(
                postfix.run, "postfix-dkim-200k", "Postfix + OpenDKIM, RSA-2048, 200 KB", 0.1,
                large_signed,
            ),
        ],
    }  # fmt: skip
    rows: list[Case] = []
    for size in (2048, KB_200):
        for signing in ("unsigned", "rsa", "ed25519"):
            rows += peers.get((signing, size), [])
            for destinations in (1, MANY):
                rows += [_everpost(batch, signing, size, destinations) for batch in (1, 100)]
            if (signing, size) == ("unsigned", 2048):
                title = "Everpost, single posts at half the rate of `single`"
                rows.append(
                    Case("half-rate", title, everpost.run, small, share=1.0, half_of="single")
                )
                rows += _isolation(small)
                rows += _on_postgres(small)
    rows += [
        Case(
            name=f"choose-{relays}",
            title=f"Everpost, choosing one of {relays:,} relays, no mail",
            run=choose.run,
            work=Work(0, destinations=relays),
            share=1.0,
        )
        for relays in (10, 1000)
    ]
    return rows


CASES = {case.name: case for case in _all()}
DEFAULT = (
    "postfix", "haraka", "single", "batch-100", "single-postgres", "batch-100-postgres",
    "half-rate", "beside-broadcast", "beside-flood",
    "single-many", "batch-100-many",
    "postfix-dkim", "haraka-dkim", "single-rsa", "batch-100-rsa",
    "single-ed25519", "batch-100-ed25519",
    "postfix-200k", "single-200k", "batch-100-200k",
    "postfix-dkim-200k", "single-rsa-200k", "choose-10", "choose-1000",
)  # fmt: skip
"""What tells all without the whole product."""
QUICK = (
    "postfix", "single", "batch-100", "half-rate", "beside-broadcast", "beside-flood",
    "postfix-dkim", "single-rsa", "choose-1000",
)  # fmt: skip


def select(names: Sequence[str]) -> list[Case]:
    """These rows in the table's order, and the rows without which they can't be measured.
    ValueError for a name that there is not."""
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    wanted = set(names) | {CASES[name].half_of for name in names}
    return [case for name, case in CASES.items() if name in wanted]
