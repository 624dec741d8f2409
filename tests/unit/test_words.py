"""Words are those of the user's own text, whatever the tokenizer makes of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.text.words import TextSpan, runs_without_spaces, words_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def of_word_pieces() -> Tokenizer:
    pieces = ["[UNK]", "film", *LETTERS, *(f"##{letter}" for letter in LETTERS), *"'-/.,!?01好看"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.BertNormalizer(lowercase=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def of_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def of_sentence_pieces() -> Tokenizer:
    pieces = ["<unk>", "▁", "▁film", "好看", "好", "!!", *LETTERS, *"0135/.,!?-"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(1 + i % 3)) for i, piece in enumerate(pieces)], 0, False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


TOKENIZERS = {"word pieces": of_word_pieces, "bytes": of_bytes, "sentence pieces": of_sentence_pieces}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> InputTokenizer:
    return InputTokenizer(TokenizerFiles(TOKENIZERS[request.param]().to_str(), "{}", 4096, 0))


def spans(tokenizer: InputTokenizer, text: str) -> list[TextSpan | None]:
    ((part,),) = tokenizer.spans([TextInput(text)])
    return part


def words(tokenizer: InputTokenizer, text: str) -> list[str]:
    found, _ = words_of([text], (span for span in spans(tokenizer, text) if span is not None))
    return [text[word.start : word.end] for word in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A film, I didn't   like.", ["A", "film", ",", "I", "didn't", "like", "."]),
        ("well-made 10/10 3.5!!! ...?", ["well-made", "10/10", "3.5", "!!!", "...", "?"]),
        ("Cafe\u0301 CAFÉ naïve\u0308", ["Cafe\u0301", "CAFÉ", "naïve\u0308"]),
        ("ﬁlm ｆｉｌｍ İx ㎏", ["ﬁlm", "ｆｉｌｍ", "İx", "㎏"]),
        ("👨\u200d👩\u200d👧 ok ❤️❤️ 🇩🇪", ["👨\u200d👩\u200d👧", "ok", "❤️❤️", "🇩🇪"]),
        ("हिन्दी में  한국어", ["हिन्दी", "में", "한국어"]),
        ("\u2028 film\u00a0film\r\n", ["film", "film"]),
    ],
)
def test_words_are_those_of_the_text_and_never_pieces(
    tokenizer: InputTokenizer, text: str, expected: list[str]
) -> None:
    assert words(tokenizer, text) == expected


def test_every_character_of_chinese_is_a_word_unless_a_token_has_several() -> None:
    text = "电影好看 film"
    by_character = ["电", "影", "好", "看", "film"]
    found = {
        name: words(InputTokenizer(TokenizerFiles(of().to_str(), "{}", 99, 0)), text) for name, of in TOKENIZERS.items()
    }
    assert found["word pieces"] == found["bytes"] == by_character
    # It reads what it does not know as one token, and a piece of two characters as one.
    assert found["sentence pieces"] == ["电影", "好看", "film"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_each_token_is_of_one_word_which_covers_it(tokenizer: InputTokenizer, text: str) -> None:
    tokens = [span for span in spans(tokenizer, text) if span is not None]
    found, word_of = words_of([text], tokens)
    assert [word.start for word in found] == sorted(word.start for word in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert set(word_of.values()) == set(range(len(found)))
    for token in tokens if found else []:
        word = found[word_of[token]]
        assert text[token.start : token.end].strip() in text[word.start : word.end]
    for word in found:
        assert text[word.start : word.end].strip() == text[word.start : word.end] != ""


def test_the_words_of_a_pair_name_their_text() -> None:
    found, word_of = words_of(["a b", "b"], [TextSpan(1, 0, 1), TextSpan(0, 2, 3), TextSpan(0, 0, 1)])
    assert found == [TextSpan(0, 0, 1), TextSpan(0, 2, 3), TextSpan(1, 0, 1)]
    assert word_of == {word: i for i, word in enumerate(found)}


def test_neighbours_of_one_sign_are_shown_as_one_where_there_are_no_spaces() -> None:
    text = "这电影好看 ok好！"
    found = [TextSpan(0, i, i + 1) for i in range(5)] + [TextSpan(0, 6, 8), TextSpan(0, 8, 9), TextSpan(0, 9, 10)]
    runs = runs_without_spaces([text], found, [1, 1, 1, -1, -1, -1, -1, -1])
    shown = [text[found[run[0]].start : found[run[-1]].end] for run in runs]
    assert shown == ["这电影", "好看", "ok", "好", "！"]
    assert runs_without_spaces([text], [], []) == []
