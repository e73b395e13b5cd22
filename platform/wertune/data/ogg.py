"""Ogg pages (RFC 3533) rewritten so that equal audio is equal bytes: libsndfile draws each stream's serial number."""

_CRC_POLYNOMIAL = 0x04C11DB7
_HEADER_BYTES = 27
_SERIAL = slice(14, 18)
_CRC = slice(22, 26)


def with_serial(stream: bytes, serial: int) -> bytes:
    """The stream with this serial number in each of its pages."""
    pages, start = [], 0
    while start < len(stream):
        segments = stream[start + _HEADER_BYTES - 1]
        table = stream[start + _HEADER_BYTES : start + _HEADER_BYTES + segments]
        end = start + _HEADER_BYTES + segments + sum(table)
        page = bytearray(stream[start:end])
        page[_SERIAL] = serial.to_bytes(4, "little")
        page[_CRC] = bytes(4)  # the sum is taken with its own field at zero
        page[_CRC] = _checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _table_entry(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1) ^ (_CRC_POLYNOMIAL if value & 0x80000000 else 0)
    return value & 0xFFFFFFFF


_TABLE = tuple(map(_table_entry, range(256)))


def _checksum(page: bytes | bytearray) -> int:
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _TABLE[crc >> 24 ^ byte]
    return crc
