"""One spelling for Vietnamese text that arrives in many.

The same word comes precomposed or decomposed (NFC, NFD, the half-way form of code page 1258),
with the tone on either vowel (``hòa``, ``hoà``), with an Icelandic ``ð`` for ``đ``, and full of
invisible characters copied from web pages. `normalise` settles all that and keeps the accents;
`fold` also drops accents and case, because half of all queries are typed without them.
`recsys.columns` does the same to whole columns."""

import html
import re
import unicodedata

# Zero-width space, soft hyphen, word joiner, byte order mark, replacement character and lone
# surrogates carry no meaning. The zero-width joiner stays: it holds emoji together.
INVISIBLE = "\u200b\u00ad\u2060\ufeff\ufffd"
_REMOVED = re.compile(f"[{INVISIBLE}\ud800-\udfff]+")
_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0\s]+")
_TONES = "\u0300\u0301\u0303\u0309\u0323"
# In decomposed text: the tone written on the first of o+a, o+e, u+y goes to the second vowel,
# behind the circumflex or breve that may follow it.
EARLY_TONE = re.compile(f"([oO])([{_TONES}])([aAeE][\u0302\u0306]?)|([uU])([{_TONES}])([yY])")
MOVED_TONE = r"\1\3\2\4\6\5"
ACCENTS = re.compile("[\u0300-\u036f]+")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAGS = (
    "a abbr address article aside audio b big blockquote body br button center code col colgroup dd"
    " div dl dt em embed figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i"
    " iframe img input ins label li link main meta nav object ol option p param picture pre s"
    " section select small source span strike strong sub sup svg table tbody td textarea tfoot th"
    " thead title tr tt u ul video"
).replace(" ", "|")
# What a browser shows on lines of its own.
_BLOCK = re.compile(
    r"</?(?:address|article|aside|blockquote|br|dd|div|dl|dt|figcaption|figure|footer|form|h[1-6]"
    r"|header|hr|li|main|nav|ol|p|pre|section|table|tr|ul)\b",
    re.IGNORECASE,
)
# Comments, scripts and styles, with their content; at the end of a text they may be cut off.
_HIDDEN = re.compile(
    r"<!--.*?(?:-->|$)|<(script|style)\b.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE
)
# An opening tag has no attributes, or one with a value: "a<b and c>d" is none.
_TAG = re.compile(
    rf"</?(?:{_TAGS})\s*/?>|<(?:{_TAGS})\s[^<>=]*=[^<>]*(?:>|$)|</?[a-z]\w*:\w[^<>]*>",
    re.IGNORECASE,
)
_INLINE_DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=\s]{16,}")
_NESTED_ESCAPES = 3
_D_VARIANTS = str.maketrans({"ð": "đ", "Ð": "Đ", "Ɖ": "Đ", "ɖ": "đ"})


def normalise(text: str) -> str:
    """`text` in NFC, tones on the second vowel, single blanks, nothing invisible.

    >>> normalise("  Ngừa lão hóa,\\u00a0thủy phân ")
    'Ngừa lão hoá, thuỷ phân'
    """
    text = _REMOVED.sub("", text)
    text = _BLANK.sub(" ", text).strip(" ")
    if text.isascii():
        return text
    text = unicodedata.normalize("NFD", text.translate(_D_VARIANTS))
    text = EARLY_TONE.sub(MOVED_TONE, text)
    return unicodedata.normalize("NFC", text)


def without_markup(text: str) -> str:
    """`text` as a browser shows it: entities read, tags, styles and inline images gone.

    Paragraphs, items and headings stand on lines of their own: sentences are told apart by them.
    What only looks like markup stays (``<3``, ``R&D``, ``<Mới>``), and so does a text without any.

    >>> without_markup("&lt;p&gt;D&agrave;nh cho <b>da khô</b>&lt;/p&gt;&nbsp;rau m&#225; <3")
    'Dành cho da khô\\nrau má <3'
    """
    shown = text
    for _ in range(_NESTED_ESCAPES):  # shops escape what is escaped already
        shown = _ENTITY.sub(lambda found: html.unescape(found[0]), shown)
    shown = _HIDDEN.sub(" ", shown)
    shown = _TAG.sub(lambda found: "\n" if _BLOCK.match(found[0]) else " ", shown)
    shown = _INLINE_DATA.sub(" ", shown)
    if shown == text:
        return text
    lines = (_BLANK.sub(" ", line).strip(" ") for line in re.split(r"[\r\n]+", shown))
    return "\n".join(filter(None, lines))


def fold(text: str) -> str:
    """`text` as somebody without a Vietnamese keyboard types it: lower case, no accents, d for đ.

    >>> fold("Kem Dưỡng Ẩm ĐÊM")
    'kem duong am dem'
    """
    text = normalise(text)
    if not text.isascii():
        text = ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", text.replace("đ", "d").replace("Đ", "d"))
        text = _BLANK.sub(" ", text).strip(" ")  # a lone accent leaves the blank it stood on
    return text.lower()
