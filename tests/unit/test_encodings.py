"""The encoding that is named for some bytes is the one they are in, also for a few short rows."""

import random

import pytest

from tests.unit.languages import CHINESE, FRENCH, JAPANESE, KOREAN, RUSSIAN, TAIWANESE
from textcls.data.encodings import iconv_name, likely_encoding, likely_encodings, mojibake, repaired, setting

GERMAN = ["Das war schön und größer als über alles,gut", "Das Maß ist voll,schlecht", "ÄÖÜ,gut"]
SPANISH = ["¿Qué pasó, señor? ¡Muy bien!,sí", "Así, así,no"]
PORTUGUESE = ["não é boa ação,não", "coração,sim"]
POLISH = ["To był świetny film o żółwiu,dobry", "Okropne doświadczenie,zły", "obsługa słaba,zły"]
CZECH = ["Příliš žluťoučký kůň,dobrý", "Hrozná zkušenost,špatný"]
TURKISH = ["Film çok güzeldi teşekkürler,iyi", "Kötü bir deneyim yaşadım ağaç,kötü"]
QUOTES = ["It’s a “good” film — really…,pos", "I don’t like it,neg"]

SAMPLES = [
    *[(encoding, "gb18030", CHINESE) for encoding in ("gb18030", "gbk", "gb2312")],
    ("big5", "big5", TAIWANESE),
    ("shift_jis", "cp932", JAPANESE),
    ("euc_jp", "euc_jp", JAPANESE),
    ("euc_kr", "cp949", KOREAN),
    ("cp1251", "cp1251", RUSSIAN),
    ("koi8-r", "koi8-r", RUSSIAN),
    *[("cp1252", "cp1252", rows) for rows in (FRENCH, GERMAN, SPANISH, PORTUGUESE, QUOTES)],
    *[("latin-1", "cp1252", rows) for rows in (FRENCH, GERMAN, SPANISH, PORTUGUESE)],
    ("cp1250", "cp1250", POLISH),
    ("cp1250", "cp1250", CZECH),
    ("cp1254", "cp1254", TURKISH),
    ("mac_roman", "mac_roman", FRENCH),
    ("cp850", "cp850", FRENCH),
    *[
        (encoding, encoding, rows)
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
        for rows in (CHINESE, KOREAN, FRENCH, RUSSIAN)
    ],
]


@pytest.mark.parametrize(("encoding", "named", "rows"), SAMPLES)
@pytest.mark.parametrize("repeats", [1, 40])
def test_the_encoding_that_is_named_reads_all_rows(encoding: str, named: str, rows: list[str], repeats: int) -> None:
    text = "text,label\n" + "".join(f"{row}\n" for row in rows * repeats)
    assert likely_encoding(text.encode(encoding)) == named
    assert text.encode(encoding).decode(named) == text


@pytest.mark.parametrize(("encoding", "named", "rows"), [sample for sample in SAMPLES if sample[0] != "utf-32"])
def test_a_sample_cut_off_within_a_character_is_named_alike(encoding: str, named: str, rows: list[str]) -> None:
    content = ("text,label\n" + "".join(f"{row}\n" for row in rows * 4)).encode(encoding)
    for missing in (1, 2, 3):
        assert likely_encoding(content[:-missing]) == named


# Short rows in part English, of which several East Asian encodings read every byte.
ASIAN_ROWS = {
    ("shift_jis", "cp932"): [
        ["a good film number 1 とても面白い映画でした,良い", "a good film number 2 とても面白い映画でした,悪い"],
        ["この商品は期待外れでした。,否定", "配送が早くて thanks 助かりました！,肯定"],
        ["good,良い", "bad,悪い"],
        ["good,良好", "bad,不良"],
        ["株価が上昇した,経済", "試合に勝った,運動"],
        ["レストランのサービスが最高,満足", "カメラが壊れた,不満"],
    ],
    ("euc_kr", "cp949"): [
        ["a great film 정말 재미있는 영화였어요,긍정", "bad service 서비스가 너무 나빴다,부정"],
        ["배송이 빠르고 품질이 좋습니다.,좋음", "다시는 구매하지 않을 것입니다!,나쁨"],
        ["good,긍정", "bad,부정"],
        ["주가가 급등했다,경제", "축구 경기에서 이겼다,체육"],
    ],
    ("gb2312", "gb18030"): [
        ["a great film 非常好看的电影,正面", "bad service 服务态度太差了,负面"],
        ["质量很好，下次还会购买。,好评", "快递太慢，包装破损！,差评"],
        ["good,正面", "bad,负面"],
        ["股市今天大幅上涨,财经", "球队赢得了冠军,体育"],
    ],
    ("big5", "big5"): [
        ["a great film 非常好看的電影,正面", "bad service 服務態度太差了,負面"],
        ["品質很好，下次還會購買。,好評", "快遞太慢，包裝破損！,差評"],
        ["good,正面", "bad,負面"],
        ["股市今天大幅上漲,財經", "球隊贏得了冠軍,體育"],
    ],
}
ASIAN = [(encoding, named, rows) for (encoding, named), samples in ASIAN_ROWS.items() for rows in samples]
ASIAN += [("euc_jp", "euc_jp", rows) for rows in ASIAN_ROWS["shift_jis", "cp932"]]


@pytest.mark.parametrize(("encoding", "named", "rows"), ASIAN)
@pytest.mark.parametrize("repeats", [1, 30])
def test_of_east_asian_encodings_that_read_all_bytes_the_one_of_frequent_characters_is_named(
    encoding: str, named: str, rows: list[str], repeats: int
) -> None:
    content = ("text,label\n" + "".join(f"{row}\n" for row in rows * repeats)).encode(encoding)
    assert likely_encodings(content) == [named]
    assert setting(content) == f"--set data.encoding={named}"


@pytest.mark.parametrize(("encoding", "named", "text"), [("euc_kr", "cp949", "굿"), ("gbk", "gb18030", "烂片")])
def test_encodings_that_are_about_equally_likely_are_all_named(encoding: str, named: str, text: str) -> None:
    content = f"text,label\nfoo,{text}\n".encode(encoding)
    names = likely_encodings(content)
    assert named in names
    assert len(names) > 1
    options = " or ".join(f"--set data.encoding={name}" for name in names)
    assert setting(content) == f"{options}; compare the texts that train --dry-run then prints"


def test_ascii_needs_no_encoding_and_noise_has_none() -> None:
    assert likely_encoding(b"text,label\nplain,pos\n") == ""
    assert likely_encoding(b"text,label\na\x00b,pos\n") == ""
    noise = bytes(random.Random(0).choices(range(256), k=4000))
    assert likely_encoding(noise) in ("", "cp1256", "cp1251", "cp850", "koi8-r", "mac_roman")


def test_iconv_knows_the_encodings_by_its_own_names() -> None:
    assert [iconv_name(name) for name in ("cp1252", "gb18030", "cp949", "euc_jp")] == [
        "CP1252",
        "GB18030",
        "UHC",
        "EUC-JP",
    ]


def test_mojibake_is_told_by_the_words_that_it_was_before() -> None:
    assert repaired("cafÃ©") == "café"
    assert repaired("café") == repaired("cafe") == ""
    assert mojibake(["text,catÃ©gorie", "one,pos"]) == ("text,catÃ©gorie", "text,catégorie")
    assert mojibake(["text,label", "un cafÃ©", "naÃ¯ve", "dÃ©jÃ\xa0 vu"]) == ("cafÃ©", "café")
    assert mojibake(["text,label", "un café", "naïve", "cafÃ©"]) is None
