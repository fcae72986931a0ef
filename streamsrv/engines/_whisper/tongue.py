"""A vocabulary with a language and a task: faster-whisper's tokenizer, spelling whole words as the model does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faster_whisper.tokenizer import Tokenizer


class Vocabulary:
    """See ``model.Tongue``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eot: int = tokenizer.eot
        self.sot_prev: int = tokenizer.sot_prev
        self.no_timestamps: int = tokenizer.no_timestamps
        self.sot_sequence: list[int] = tokenizer.sot_sequence

    def encode(self, text: str) -> list[int]:
        """Tokens of a text.  A word that is one token is that token, also where the tokenizer file holds no merges."""
        core = self._tokenizer.tokenizer
        found: list[int] = []
        for shown, _ in core.pre_tokenizer.pre_tokenize_str(text):
            whole = core.token_to_id(shown)
            found += [whole] if whole is not None else self._piece(shown)
        return found

    def decode(self, tokens: list[int]) -> str:
        said: str = self._tokenizer.decode(tokens)
        return said

    def split_to_word_tokens(self, tokens: list[int]) -> tuple[list[str], list[list[int]]]:
        words, ids = self._tokenizer.split_to_word_tokens(tokens)
        return list(words), [list(part) for part in ids]

    def _piece(self, shown: str) -> list[int]:
        core = self._tokenizer.tokenizer
        ids: list[int] = core.encode(core.decoder.decode([shown]), add_special_tokens=False).ids
        return ids
