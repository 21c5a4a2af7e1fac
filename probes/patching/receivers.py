"""What a path leads to: the logits, or the inputs of later heads and MLPs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import SettingError
from workbench.models.sites import Site

__all__ = ["LOGITS", "Receiver", "receivers_of"]

LOGITS = "logits"
WRITTEN = re.compile(r"(?P<name>[qkv])(?P<layer>\d+)\.(?P<head>\d+)|mlp(?P<mlp>\d+)")


@dataclass(frozen=True)
class Receiver:
    """The query, key or value input of one head, or the input of one MLP.

    An MLP has no other input, so that its output stands for it.

    Attributes:
        site: q, k, v or mlp_out, with its layer.
        head: counted from 0 (of k and v among the heads that they have); None of an MLP.
    """

    site: Site
    head: int | None

    def reached_from(self, sender: Site) -> bool:
        """Whether the sender's value can act on it: an MLP also reads its own block's attention."""
        if self.head is None and sender.name == "z":
            return self.site.layer >= sender.layer
        return self.site.layer > sender.layer


def receivers_of(written: Sequence[str], who: str) -> tuple[Receiver, ...]:
    """Receivers as they are written: "q5.3" (layer 5, head 3), "k5.3", "v5.3", "mlp5"; none for logits.

    Raises:
        SettingError: something else, one of them twice, or logits beside others.
    """
    if tuple(written) == (LOGITS,):
        return ()
    if not written or len(set(written)) < len(written):
        raise SettingError(
            f"{who}: receivers is {', '.join(written) or 'empty'}: expected each once"
        )
    return tuple(_receiver(text, who) for text in written)


def _receiver(text: str, who: str) -> Receiver:
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise SettingError(
            f"{who}: receiver {text!r}: expected {LOGITS} alone, or some of q5.3, k5.3, v5.3 (layer 5, "
            "head 3) and mlp5"
        )
    if found["mlp"]:
        return Receiver(Site("mlp_out", int(found["mlp"])), None)
    return Receiver(Site(found["name"], int(found["layer"])), int(found["head"]))
