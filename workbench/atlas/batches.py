"""From sentences to training batches: ids, loss weights and who may see whom."""

from collections.abc import Iterator
from itertools import count
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from workbench.atlas.corpus import Sentence, Span, sentences
from workbench.atlas.recipe import Reading, Recipe
from workbench.atlas.tokenizer import END

Row = tuple[Tensor, Tensor, Tensor]
Batch = tuple[Tensor, Tensor, Tensor]


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Endless stream of (ids, weights, visible).

    ``ids`` [row, token]; ``weights`` [row, token] scales the loss of predicting a token;
    ``visible`` [2, row, 1, query, key] is true where a query position may attend to a key
    position, in the early layers (index 0) and in the later ones (index 1).
    """
    rng = Random(recipe.seed)
    stream = sentences(recipe.seed)
    for step in count():
        rows = [_row(recipe, tokenizer, rng, stream, step) for _ in range(recipe.rows)]
        ids, weights, visible = (torch.stack(part) for part in zip(*rows, strict=True))
        yield ids, weights, visible.transpose(0, 1)[:, :, None]


def _row(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    rng: Random,
    stream: Iterator[Sentence],
    step: int,
) -> Row:
    share = recipe.early_repeat_share if step < recipe.early_steps else recipe.repeat_share
    if rng.random() < share:
        return repeat_row(recipe, len(tokenizer), rng)
    start = END if rng.random() < recipe.start_share else ""
    masked = rng.random() < recipe.mask_share
    text, subjects, answers = _join(stream, start, recipe.context)
    return text_row(recipe, tokenizer, text, subjects if masked else [], answers)


def repeat_row(recipe: Recipe, vocabulary: int, rng: Random) -> Row:
    """Random tokens in which earlier stretches come again.

    Only what a second time makes predictable carries loss. Stretches start anywhere and come
    back after any distance, so that neither the order of first sight nor a fixed distance
    tells the next token: only what followed the same token before does.
    """
    ids: list[int] = []
    weights: list[float] = []
    while len(ids) < recipe.context:
        fresh = rng.sample(range(1, vocabulary), rng.randint(*recipe.stretch))
        again = rng.randint(*recipe.stretch)
        ids += fresh
        at = rng.randrange(max(1, len(ids) - again))
        ids += ids[at : at + again]
        weights += [0.0] * (len(fresh) + 1)
        weights += [1.0] * (len(ids) - len(weights))
    scale = torch.tensor(weights[: recipe.context])
    return torch.tensor(ids[: recipe.context]), scale, _causal(recipe.context)


def text_row(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    subjects: list[Span],
    answers: list[Span],
) -> Row:
    """One row of sentences, cut to the context."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    offsets = encoded["offset_mapping"][: recipe.context]
    weights = torch.ones(recipe.context)
    for span in answers:
        weights[_tokens(offsets, span)] = recipe.answer_weight
    visible = _causal(recipe.context)
    for span in subjects:
        hide_subject(visible, _tokens(offsets, span), recipe.reading)
    return torch.tensor(encoded["input_ids"][: recipe.context]), weights, visible


def hide_subject(visible: Tensor, subject: list[int], reading: Reading) -> None:
    """Hide a subject from later tokens, on ``visible`` [2, token, token] in place.

    "last token, late" (the subject bottleneck): nothing of it in the early layers, its last
    token alone in the later ones. "pieces, early": all of it in the early layers, nothing in
    the later ones.
    """
    if not subject:
        return
    early, late = visible[:, subject[-1] + 1 :]
    if reading == "last token, late":
        early[:, subject] = False
        late[:, subject[:-1]] = False
    else:
        late[:, subject] = False


def _join(
    stream: Iterator[Sentence], start: str, context: int
) -> tuple[str, list[Span], list[Span]]:
    """Sentences, one a line, until there are surely enough tokens."""
    text, subjects, answers = start, list[Span](), list[Span]()
    while len(text) < 12 * context:
        sentence = next(stream)
        at = len(text)
        subjects += [(a + at, b + at) for a, b in sentence.subjects]
        answers += [(a + at, b + at) for a, b in sentence.answers]
        text += sentence.text + "\n"
    return text, subjects, answers


def _tokens(offsets: list[Span], span: Span) -> list[int]:
    """Indices of the tokens that overlap a span of characters."""
    return [i for i, (a, b) in enumerate(offsets) if a < span[1] and b > span[0]]


def _causal(context: int) -> Tensor:
    return torch.ones(2, context, context, dtype=torch.bool).tril()
