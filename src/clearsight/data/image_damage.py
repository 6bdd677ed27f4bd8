"""Files that decode, but not to the picture that was saved: checksums and decoders that forgive nothing."""

from __future__ import annotations

import zlib
from pathlib import Path

from clearsight.data.decode import read_image, strict_jpeg_error
from clearsight.data.image_header import read_bytes

__all__ = ["find_damage"]

_PNG_START = 8


def find_damage(path: Path) -> str:
    """Decode a file and look for damage that the decoder passes over.

    Pillow, like most viewers, shows a JPEG with damaged data up to the damage and grey behind it, and does not compare
    the checksums of a PNG's pixels.

    Returns:
        What is damaged, for people; empty where nothing is.

    Raises:
        DataError: it cannot be decoded at all; see `decode.read_image`.
    """
    data = read_bytes(path)
    if data.startswith(b"\xff\xd8\xff"):
        fault = strict_jpeg_error(data)
        if fault == "":  # decoded without a flaw, so Pillow need not do it again
            return ""
        read_image(path)
        return fault or ""
    read_image(path)
    return _wrong_checksum(data) if data.startswith(b"\x89PNG") else ""


def _wrong_checksum(data: bytes) -> str:
    """The first chunk of a PNG whose CRC-32 is not that of its bytes; empty where all agree."""
    place = _PNG_START
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        kind, said = data[place + 4 : place + 8], data[end : end + 4]
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(said, "big"):
            return f"the checksum of its {kind.decode('latin-1')} data is wrong"
        if kind == b"IEND":
            break
        place = end + 4
    return ""
