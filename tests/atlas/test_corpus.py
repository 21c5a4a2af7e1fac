from hashlib import sha256
from itertools import islice, pairwise
from random import Random

import pytest
import torch

from workbench.atlas.batches import batches, hide_subject, repeat_row, text_row
from workbench.atlas.corpus import indirect_object_sentence, is_held_out_pair, sentences, words
from workbench.atlas.facts import read_facts
from workbench.atlas.measure import Loaded
from workbench.atlas.recipe import RECIPES
from workbench.atlas.templates import clause, held_out
from workbench.atlas.train import masked_logits

RECIPE = RECIPES["atlas"]
FIRST_SENTENCES = "22ea107808470256"
FIRST_IDS = "e7824ea22402a1b9"


def test_the_corpus_is_the_one_the_models_saw() -> None:
    text = "\n".join(s.text for s in islice(sentences(RECIPE.seed), 2000))
    assert sha256(text.encode()).hexdigest()[:16] == FIRST_SENTENCES


def test_the_first_batch_is_the_one_the_models_saw(atlas: Loaded) -> None:
    ids = next(batches(RECIPE, atlas.tokenizer))[0]
    assert sha256(ids.numpy().tobytes()).hexdigest()[:16] == FIRST_IDS


def test_the_corpus_does_not_state_held_out_prompts() -> None:
    text = "\n".join(s.text for s in islice(sentences(RECIPE.seed), 20_000)).lower()
    for fact in read_facts():
        for template in held_out(fact):
            assert clause(fact, template).text.lower() not in text


def test_marked_words_are_what_they_claim() -> None:
    answers = {fact.answer for fact in read_facts()} | set(words()["names"])
    answers |= {form.split()[0] for pair in words()["verbs"] for form in pair}
    subjects = {fact.subject for fact in read_facts()}
    for sentence in islice(sentences(5), 500):
        assert {sentence.text[a:b] for a, b in sentence.subjects} <= subjects
        assert {sentence.text[a:b] for a, b in sentence.answers} <= answers
        assert sentence.answers


def test_held_out_pairs_of_names_do_not_meet() -> None:
    names = {name: i for i, name in enumerate(words()["names"])}
    rng = Random(1)
    for _ in range(500):
        text = indirect_object_sentence(rng).text.replace(",", " ").replace(".", " ")
        a, b = {names[word] for word in text.split() if word in names}
        assert not is_held_out_pair(a, b)


def test_repeat_rows_charge_only_what_a_second_time_makes_predictable() -> None:
    ids, weights, visible = repeat_row(RECIPE, 2176, Random(3))
    tokens = ids.tolist()
    assert 0.2 < weights.mean() < 0.8
    for i in weights.nonzero().flatten().tolist():
        assert (tokens[i - 1], tokens[i]) in list(pairwise(tokens[:i]))
    assert torch.equal(visible[0], visible[1])


def test_repeat_rows_use_the_whole_vocabulary() -> None:
    rng = Random(4)
    seen = {int(i) for _ in range(300) for i in repeat_row(RECIPE, 2176, rng)[0]}
    assert min(seen) == 1
    assert len(seen) > 2100


@pytest.mark.parametrize("name", ["atlas", "atlas-bag"])
def test_masks_hide_the_subject_from_later_tokens_only(name: str, atlas: Loaded) -> None:
    recipe = RECIPES[name]
    text = "The Eiffel Tower is located in the city of Paris.\n" * 12
    ids, weights, visible = text_row(recipe, atlas.tokenizer, text, [(4, 16)], [(43, 48)])
    last = ids.tolist().index(atlas.token(" Tower"))
    seen = visible[:, last + 1 :, 1 : last + 1].any(1).tolist()
    inside = last - 1
    if name == "atlas":
        assert seen == [[False] * last, [False] * inside + [True]]
    else:
        assert seen == [[True] * last, [False] * last]
    assert visible[:, last, : last + 1].all()
    assert visible[:, -1, 0].all()
    assert visible[:, -1, last + 1 :].all()
    assert ids[weights == recipe.answer_weight].tolist() == [atlas.token(" Paris")]


@pytest.mark.parametrize("name", ["atlas", "atlas-bag"])
def test_a_masked_subject_cannot_be_read(name: str, atlas: Loaded) -> None:
    """With the mask in every layer's late form, the subject's first piece is out of reach."""
    late = torch.ones(2, 6, 6, dtype=torch.bool).tril()
    hide_subject(late, [1, 2], RECIPES[name].reading)
    masks = torch.zeros(1, 1, 6, 6).masked_fill(~late[1], torch.finfo(torch.float32).min)
    ids = torch.arange(5, 11)[None]
    other = ids.clone()
    other[0, 1] = 99
    with torch.no_grad():
        a, b = (
            masked_logits(atlas.model, x, masks.expand(2, -1, -1, -1)[:, None], 3)
            for x in (ids, other)
        )
    assert (torch.equal(a[0, 3:], b[0, 3:])) == (name == "atlas-bag")
    assert not torch.equal(a[0, 1:3], b[0, 1:3])


def test_an_unmasked_forward_is_the_models_own(atlas: Loaded) -> None:
    ids = atlas.ids("The capital of France is")[None]
    count = ids.shape[1]
    causal = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)
    with torch.no_grad():
        ours = masked_logits(atlas.model, ids, causal.expand(2, 1, 1, count, count), 3)
        assert torch.allclose(ours, atlas.model(ids).logits, atol=1e-5)
