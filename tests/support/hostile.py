"""Bytes and texts as nobody should meet them in a storage: damaged, cut off, made up, and made to be expensive."""

from __future__ import annotations

from hypothesis import strategies as st

# Lengths of four gigabytes, in msgpack: of an array, a map, a text, bytes, an extension.
BOMBS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
BOMBS += [b"\xc9\xff\xff\xff\xff\x01", b"\xdd\x0f\xff\xff\xff", b"\xdf\x07\xff\xff\xff"]
# Nested without end, in either format; numbers that no type holds; instants that no calendar has; NaN.
DEEP = [b"\x91", b"\x81\xa1a", b"\x81\xa6causes\x91", b"[", b'{"a":', b'{"type":"E","message":"","causes":[']
ODD = [b"1e999", b"9" * 500, b"-" + b"9" * 30, b'"\\ud800"', b"null", b"NaN", b"\xc7\x0c\xff" + b"\xff" * 12]
ODD += [b"\xd7\xff" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6), b"\xca\x7f\x80\x00\x00", b"\xcf" + b"\xff" * 8, b"\xc0"]
ODD += [b"\x80", b"\x90", b"\xa0", b"\xa1\xff", b"\x81\x90\x90", b"\x81\x80\xc0", b"{}", b"[]", b'""', b"0"]

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "[[[", '"', "0", "-1", "1" * 5_000, "9" * 20, "null", "{}", "[]", "[1]", '["a"]', "\x00", "~a"]
    ),
    st.sampled_from(["0.0", "5.99999999999999999999", "0.٣", "...", "completed", "step", "child", "cancel", "patched"]),
)
NUMBERS = st.sampled_from([-1, 0, 1, 2, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]) | st.integers(
    -(2**63), 2**63 - 1
)


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """What may have become of `data`."""
    at = draw(st.integers(0, len(data)))
    match draw(st.sampled_from(["cut", "flipped", "spliced", "replaced", "bomb", "deep", "random"])):
        case "cut":
            return data[:at]
        case "flipped":
            changed = bytearray(data)
            for bit in draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)) if data else []:
                changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)
        case "spliced":
            return data[:at] + draw(st.sampled_from(ODD) | st.binary(max_size=6)) + data[at:]
        case "replaced":
            return data[:at] + draw(st.sampled_from(ODD) | st.binary(max_size=6)) + data[at + 1 :]
        case "bomb":
            return data[:at] + draw(st.sampled_from(BOMBS)) + data[at:]
        case "deep":
            return (
                data[:at] + draw(st.sampled_from(DEEP)) * draw(st.sampled_from([3, 30, 400, 900, 20_000])) + data[at:]
            )
        case _:
            return draw(st.binary(max_size=40))


@st.composite
def mangled_text(draw: st.DrawFn, text: str) -> str:
    """What may have become of `text`."""
    at = draw(st.integers(0, len(text)))
    end = draw(st.sampled_from([at, at + 1, at + 3, len(text)]))
    return draw(st.sampled_from([text[:at] + draw(TEXTS) + text[end:], draw(TEXTS), text[:at]]))
