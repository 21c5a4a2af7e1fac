"""The corrupted run: noise on the subject's embeddings, or another text in the prompt's place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from probes.settings import whole_number
from workbench.errors import PromptError, SettingError, WorkbenchError
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = [
    "checked_noise",
    "counterfactual",
    "counterpart",
    "cut_words",
    "first_difference",
    "noise",
    "settled_corruption",
    "subject_std",
    "whole_subject",
]


def settled_corruption(corruption: str, prompts: Sequence[Prompt], who: str) -> str:
    """What "auto" is for these prompts: "replace" where every one has a corrupted text, else "noise".

    Raises:
        PromptError: some have one.
    """
    if corruption != "auto":
        return corruption
    without = [prompt for prompt in prompts if prompt.corrupted is None]
    if 0 < len(without) < len(prompts):
        raise PromptError(
            f"{who}: prompt {without[0].shown[:40]!r} has no corrupted text and others have one: give each "
            "one, or corruption=noise"
        )
    return "noise" if without else "replace"


def subject_std(model: Model, prompts: Iterable[Prompt]) -> float:
    """Standard deviation over all elements of the token embeddings of the prompts' subjects.

    Subjects count as often as prompts name them, as in the reference. Prompts whose subject cannot
    be placed are left out here; they are refused when their turn comes.

    Source: Meng et al. 2022, arXiv 2202.05262, appendix B.1.

    Raises:
        PromptError: no prompt has a subject that can be placed; why the first has none.
    """
    ids: list[int] = []
    refusals: list[WorkbenchError] = []
    for prompt in prompts:
        try:
            encoded = model.encode(prompt, long_targets=True)
            first, last = whole_subject(encoded)
        except WorkbenchError as error:
            refusals.append(error)
        else:
            ids += encoded.ids[first : last + 1]
    if not ids:
        raise refusals[0]
    rows = model.embedding[torch.tensor(ids, device=model.embedding.device)]
    return float(rows.double().std())


def whole_subject(prompt: EncodedPrompt) -> tuple[int, int]:
    """First and last token of the subject, which must not cut one.

    Raises:
        PromptError: it does, or it cannot be placed.
    """
    first, last = prompt.subject
    (start, _), (_, end) = prompt.spans[first], prompt.spans[last]
    covered = prompt.text[start:end].strip()
    subject = prompt.prompt.subject
    asked = subject if isinstance(subject, str) else prompt.text[slice(*(subject or ()))]
    if covered != asked.strip():
        raise PromptError(
            f"subject {asked!r} of prompt {prompt.text[:40]!r} cuts a token: its tokens are those of "
            f"{covered!r}; give that, or another"
        )
    return first, last


def cut_words(prompts: Sequence[EncodedPrompt]) -> list[str]:
    """That subjects begin or end inside a word, where some do: a text is found there too."""
    found = [(prompt, word) for prompt in prompts if (word := prompt.word_of_subject)]
    if not found:
        return []
    prompt, word = found[0]
    said = f"{prompt.subject_text!r} is part of {word!r}"
    if len(prompts) == 1:
        return [f"The subject {said}"]
    return [f"Subjects are parts of words in {len(found)} of {len(prompts)} prompts: {said}"]


def noise(
    prompt: EncodedPrompt, width: int, samples: int, std: float, d_embed: int, seed: int
) -> Tensor:
    """[samples, width, d_embed] Gaussian noise of standard deviation `std` on the subject's tokens.

    The same for a prompt in any batch, on any device and for every cell that is restored.

    Raises:
        PromptError: the subject cannot be placed.
    """
    first, last = whole_subject(prompt)
    key = hashlib.sha256(repr((seed, prompt.ids, first, last)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    shape = (samples, last + 1 - first, d_embed)
    shift = torch.zeros(samples, width, d_embed, dtype=torch.float64)
    shift[:, first : last + 1] = std * torch.randn(shape, generator=generator, dtype=torch.float64)
    return shift


def counterfactual(model: Model, prompt: EncodedPrompt, who: str) -> EncodedPrompt:
    """The prompt's corrupted text, encoded, with the prompt's own target and foil.

    Raises:
        PromptError: it has none, or one of another number of tokens, or the same tokens.
    """
    found = counterpart(model, prompt, who)
    if len(found) != len(prompt):
        raise PromptError(
            f"{who}: corrupted {found.text[:40]!r} has {len(found)} tokens and its prompt {len(prompt)}: "
            "expected as many, so that positions mean the same"
        )
    return found


def counterpart(
    model: Model,
    prompt: EncodedPrompt,
    who: str,
    subject: str | tuple[int, int] | None = None,
) -> EncodedPrompt:
    """The prompt's corrupted text, of any length, with the prompt's own target and foil.

    Args:
        subject: of the corrupted text.

    Raises:
        PromptError: it has none, or the same tokens.
    """
    text = prompt.prompt.corrupted
    if text is None:
        raise PromptError(f"{who}: prompt {prompt.text[:40]!r} has no corrupted text: give one")
    changed = replace(prompt.prompt, text=text, messages=(), subject=subject, corrupted=None)
    found = model.encode(changed, long_targets=True)
    if found.ids == prompt.ids:
        raise PromptError(
            f"{who}: corrupted {text[:40]!r} has the prompt's own tokens: expected others"
        )
    return found


def first_difference(left: EncodedPrompt, right: EncodedPrompt) -> int:
    """The first position at which two encoded prompts differ; the shorter one's end at the latest."""
    pairs = enumerate(zip(left.ids, right.ids, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def checked_noise(
    scale: float, samples: int, seed: int, who: str, std: float | None = None
) -> None:
    """Refuse settings of the noise that corrupt nothing.

    Raises:
        SettingError: they do.
    """
    for name, value in (("noise", scale), ("noise_std", std)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (value is None and name == "noise_std") and not (number and 0 < value < inf):  # type: ignore[operator]
            raise SettingError(
                f"{who}: {name} is {value!r}: expected a number above 0, or nothing is corrupted"
            )
    for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        whole_number(who, name, value, least)
