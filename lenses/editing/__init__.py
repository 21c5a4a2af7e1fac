"""Edits by one forward pass, and what they do to prompts, paraphrases and neighbours."""
