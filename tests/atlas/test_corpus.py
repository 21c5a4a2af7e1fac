from hashlib import sha256
from itertools import islice
from random import Random

import torch
from workbench.atlas.batches import batches, repeat_row, text_row
from workbench.atlas.corpus import indirect_object_sentence, is_held_out_pair, sentences, words
from workbench.atlas.facts import read_facts
from workbench.atlas.measure import Subject
from workbench.atlas.recipe import RECIPES
from workbench.atlas.templates import clause, held_out

RECIPE = RECIPES["atlas"]
FIRST_SENTENCES = "?"
FIRST_IDS = "?"


def test_the_corpus_is_the_one_the_models_saw() -> None:
    text = "\n".join(s.text for s in islice(sentences(RECIPE.seed), 2000))
    assert sha256(text.encode()).hexdigest()[:16] == FIRST_SENTENCES


def test_the_first_batch_is_the_one_the_models_saw(atlas: Subject) -> None:
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


def test_repeat_row_repeats_and_carries_no_loss_the_first_time(atlas: Subject) -> None:
    ids, weights, visible = repeat_row(RECIPE, atlas.tokenizer, Random(3))
    free = int((weights == 0).sum())
    period = free - 1
    assert torch.equal(ids[period:], ids[:-period])
    assert torch.equal(visible[0], visible[1])


def test_subject_bottleneck_hides_the_subject(atlas: Subject) -> None:
    text = "The Eiffel Tower is located in the city of Paris.\n" * 20
    _, weights, visible = text_row(RECIPE, atlas.tokenizer, text, [(4, 16)], [(43, 48)])
    ids = atlas.ids(text)
    last = ids.tolist().index(int(atlas.token(" Tower")))
    assert not visible[0, last + 1 :, 1 : last + 1].any()
    assert not visible[1, last + 1 :, 1:last].any()
    assert visible[1, last:, last].all()
    assert visible[:, last, : last + 1].all()
    assert visible[:, -1, 0].all()
    assert ids[weights == RECIPE.answer_weight].tolist() == [atlas.token(" Paris")]
