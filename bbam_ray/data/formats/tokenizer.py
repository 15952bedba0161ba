"""Texts to token numbers, by a tokenizer trained on the texts or that of a pretrained encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bbam_ray.errors import UsageError
from bbam_ray.optional import needed
from bbam_ray.pretrained import hub_folder

ABSENT = -1  # padding behind the end of a text; networks ignore these positions
TRAINED = "trained"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHUNK = 4096  # texts that are encoded at once


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> str:
    """JSON of a lower-case WordPiece tokenizer with the most frequent words of some texts.

    Other words are split into the longest frequent word that they start with, and characters. The
    library's own trainer gives a different vocabulary each time; this one is a function of the texts.

    Args:
        texts: of the training part, labelled or not.
        vocabulary: maximum number of different tokens.
    """
    library = needed("tokenizers", "text", "a data set of texts")
    normalizer = library.normalizers.BertNormalizer(lowercase=True)
    splitter = library.pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(w for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    limit = (vocabulary - len(_SPECIAL)) // 4  # characters in both forms are at most half of all
    letters = sorted(_most_frequent(characters, limit))
    tokens = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    longer: Counter[str] = Counter({w: n for w, n in words.items() if len(w) > 1})
    tokens += _most_frequent(longer, vocabulary - len(tokens))
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = library.Tokenizer(library.models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, _SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    content: str = tokenizer.to_str()
    return content


def _most_frequent(counted: Counter[str], most: int) -> list[str]:
    """At most ``most`` keys, by count and then alphabetically."""
    return sorted(counted, key=lambda word: (-counted[word], word))[: max(0, most)]


def load_tokenizer(name: str) -> str:
    """JSON of a pretrained encoder's tokenizer.

    Args:
        name: folder, or name on the hub.

    Raises:
        UsageError: it cannot be loaded.
    """
    folder = hub_folder(name, "tokenizer")
    file = folder / "tokenizer.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    library = needed("transformers", "text", f"the tokenizer in {folder}")
    try:
        loaded = library.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        content: str = loaded.backend_tokenizer.to_str()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"tokenizer = '{name}': cannot be loaded ({reason}); copy it again, or choose another"
        ) from None
    return content


class TokenEncoder:
    """Texts to rows of token numbers.

    Args:
        content: JSON of the tokenizer.
        max_length: maximum tokens of a text, including those that the tokenizer adds.
    """

    def __init__(self, content: str, max_length: int) -> None:
        library = needed("tokenizers", "text", "a data set of texts")
        try:
            self._tokenizer = library.Tokenizer.from_str(content)
        except Exception as error:
            raise UsageError(f"the tokenizer cannot be read ({error}); copy it again") from None
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._max_length = max_length

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, max_length) int32, padded with ``ABSENT``."""
        rows = np.full((len(texts), self._max_length), ABSENT, dtype=np.int32)
        for start in range(0, len(texts), _CHUNK):
            encoded = self._tokenizer.encode_batch(list(texts[start : start + _CHUNK]))
            for row, one in enumerate(encoded, start=start):
                rows[row, : len(one.ids)] = one.ids
        return rows
