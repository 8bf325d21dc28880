"""How Vietnamese shoppers really type, and the words they mean."""

import re
from typing import Final

POSITIVE: Final = "☺"  # stands for every happy emoji
NEGATIVE: Final = "☹"  # stands for every unhappy one

TEENCODE: Final[dict[str, str]] = {
    short: word
    for word, shorts in {
        "không": "ko k kg kh khg khong hok hong hông hem hk kô khum khôg kông",
        "được": "dc đc dk đk dx đx đươc đựơc",
        "sản phẩm": "sp spham sphẩm",
        "với": "vs voi zới",
        "mới": "ms",
        "rồi": "r rùi rui gòi ròi",
        "gì": "j ji gj",
        "vậy": "z zậy v",
        "cũng": "cx cg cug cũg",
        "luôn": "lun luônn",
        "thích": "thik thix thick thjk thít",
        "trước": "trc trk",
        "người": "ng ngừi",
        "mọi người": "mn mng",
        "mình": "mk mik mjk m",
        "bạn": "bn",
        "nhưng": "nhg nhưg nma nhma",
        "nhiều": "nhìu nhiu",
        "làm": "lm",
        "nước": "nc",
        "bình thường": "bt bth btg bthg",
        "biết": "bít bik pít",
        "đang": "đag",
        "trong": "trog",
        "dùng": "dùg xài sài sd dug dung",
        "hàng": "hag",
        "nhân viên": "nv",
        "giao hàng": "ship",
        "chất lượng": "cl clg",
        "yêu": "iu êu",
        "quá": "wá qá",
        "quên": "wên",
        "thôi": "thui thoy",
        "lắm": "lém",
        "vẫn": "vẩn",
        "tuyệt vời": "tuyetvoi",
        "kem chống nắng": "kcn",
        "sữa rửa mặt": "srm",
        "nước tẩy trang": "ntt",
        "tẩy tế bào chết": "ttbc tbc",
        "hạn sử dụng": "hsd",
        "ok": "oke okie okê okela okay okey oki okeee uki ôkê okla",
        "cảm ơn": "thanks thank tks thks camon cảmơn",
        "shop": "sốp shọp shopp",
        "tốt": "gud good tót",
    }.items()
    for short in shorts.split()
}

_EMOJI: Final[dict[str, str]] = {
    **dict.fromkeys(
        "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩😇🥳👍👏🙌💪💯💋💕💖💗💙💚💛🧡💜🤍🖤❤♥♡💓💞💝🌹🌸🌺🌟⭐✨🎉😻🤤👌🫶✅",
        POSITIVE,
    ),
    **dict.fromkeys(
        "😒😞😔😟😕🙁☹😣😖😫😩😢😭😤😠😡🤬😰😥😓🤮🤢👎💔😑🙄😬😨😱🤡💩❌😾😿", NEGATIVE
    ),
}

_RUN: Final = re.compile(r"([^\W\d_])\1{2,}")


def spelled_out(token: str) -> str:
    """The word or words that a lower-case `token` stands for.

    >>> [spelled_out(token) for token in ("ko", "sp", "tốtttt", "😍", "kem")]
    ['không', 'sản phẩm', 'tốt', '☺', 'kem']
    """
    token = _RUN.sub(r"\1", token)
    return _EMOJI.get(token) or TEENCODE.get(token, token)
