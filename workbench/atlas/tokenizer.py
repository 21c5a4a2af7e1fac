"""The byte-level BPE of Atlas: every word of the sentences is one token, subjects are several."""

from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from workbench.atlas.corpus import Sentence, sentences
from workbench.atlas.facts import facts_by_subject

END = "<|endoftext|>"
VOCABULARY = 2176
SAMPLE = 30_000  # sentences read for the word list
WEIGHT = 50  # how often a word counts against once for each subject


def train_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """Train on the corpus's words; the same tokenizer comes out every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a bundled model."""
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _texts() -> list[str]:
    found: set[str] = set()
    for sentence in islice(sentences(seed=0), SAMPLE):
        found.update(_words(_without_subjects(sentence)))
    subjects = [f" {subject}" for subject in sorted(facts_by_subject())]
    return sorted(found) * WEIGHT + subjects


def _without_subjects(sentence: Sentence) -> str:
    text = sentence.text
    for start, end in reversed(sentence.subjects):
        text = text[:start] + text[end:]
    return text


def _words(text: str) -> list[str]:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [text[a:b] for _, (a, b) in split.pre_tokenize_str(text)]
