"""The record format, read from docs/RECORD-FORMAT.md and from nothing else."""

import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER = 77
MOST = 16 * 1024 * 1024


class Refused(Exception):
    """Carries the slug of the answer."""


def aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def xor(*parts: bytes) -> bytes:
    out = bytes(len(parts[0]))
    for part in parts:
        out = bytes(a ^ b for a, b in zip(out, part, strict=True))
    return out


def subkey(key: bytes) -> bytes:
    big = int.from_bytes(aes(key, bytes(16)), "big")
    doubled = (big << 1) & ((1 << 128) - 1)
    if big >> 127:
        doubled ^= 0x87
    return doubled.to_bytes(16, "big")


def derive(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """The message key and the commitment."""
    u, v, k1 = nonce[:12], nonce[12:], subkey(key)
    message_key = b"".join(aes(key, xor(bytes([0, n, 0x58, 0]) + u, k1)) for n in (1, 2))
    x = aes(key, b"XCMT" + u)
    commitment = b"".join(aes(key, xor(v + bytes([0, 1, 0, n]), x, k1)) for n in (1, 2))
    return message_key, commitment


def text(value: str) -> bytes:
    data = value.encode()
    if len(data) > 65535:
        raise Refused("context-too-long")
    return struct.pack(">H", len(data)) + data


def associated(version, key_id, generation, context, chunk_size=None) -> bytes:
    size = b"" if chunk_size is None else struct.pack(">I", chunk_size)
    parts = (context["organisationId"], context["instanceId"], context["dataType"], context["recordId"])
    return bytes([version]) + key_id + struct.pack(">I", generation) + size + b"".join(map(text, parts))


def header(version, key_id, generation, nonce, commitment) -> bytes:
    return bytes([version]) + key_id + struct.pack(">I", generation) + nonce + commitment


def encrypt(key, key_id, generation, nonce, context, plaintext) -> bytes:
    if len(plaintext) > MOST:
        raise Refused("too-large")
    message_key, commitment = derive(key, nonce)
    sealed = AESGCM(message_key).encrypt(nonce[12:], plaintext, associated(1, key_id, generation, context))
    return header(1, key_id, generation, nonce, commitment) + sealed


def parse(record: bytes, known: dict[bytes, tuple[bytes, int]]):
    if not record:
        raise Refused("malformed-record")
    if record[0] not in (1, 2):
        raise Refused("unknown-version")
    if len(record) < HEADER + (16 if record[0] == 1 else 4):
        raise Refused("malformed-record")
    key_id, generation = record[1:17], struct.unpack(">I", record[17:21])[0]
    nonce, commitment = record[21:45], record[45:77]
    if key_id not in known:
        raise Refused("unknown-data-key")
    key, true_generation = known[key_id]
    message_key, expected = derive(key, nonce)
    if generation != true_generation or not hmac.compare_digest(expected, commitment):
        raise Refused("tampered-or-wrong-context")
    return key_id, generation, nonce, message_key


def decrypt(known, context, record) -> bytes:
    key_id, generation, nonce, message_key = parse(record, known)
    if record[0] != 1:
        raise Refused("malformed-record")
    try:
        return AESGCM(message_key).decrypt(nonce[12:], record[HEADER:], associated(1, key_id, generation, context))
    except InvalidTag:
        raise Refused("tampered-or-wrong-context") from None


def chunk_nonce(nonce: bytes, index: int, last: bool) -> bytes:
    return xor(nonce[12:], bytes(7) + struct.pack(">IB", index, last))


def encrypt_stream(key, key_id, generation, nonce, context, plaintext, chunk_size) -> bytes:
    message_key, commitment = derive(key, nonce)
    data = associated(2, key_id, generation, context, chunk_size)
    chunks = [plaintext[at : at + chunk_size] for at in range(0, len(plaintext), chunk_size)] or [b""]
    out = header(2, key_id, generation, nonce, commitment) + struct.pack(">I", chunk_size)
    for index, chunk in enumerate(chunks):
        sealed_nonce = chunk_nonce(nonce, index, index == len(chunks) - 1)
        out += AESGCM(message_key).encrypt(sealed_nonce, chunk, data)
    return out


def decrypt_stream(known, context, stream) -> bytes:
    key_id, generation, nonce, message_key = parse(stream, known)
    if stream[0] != 2:
        raise Refused("malformed-record")
    chunk_size = struct.unpack(">I", stream[HEADER : HEADER + 4])[0]
    if not 1 <= chunk_size <= MOST:
        raise Refused("malformed-record")
    data = associated(2, key_id, generation, context, chunk_size)
    body, step = stream[HEADER + 4 :], chunk_size + 16
    chunks = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    out = b""
    for index, chunk in enumerate(chunks):
        try:
            sealed_nonce = chunk_nonce(nonce, index, index == len(chunks) - 1)
            out += AESGCM(message_key).decrypt(sealed_nonce, chunk, data)
        except (InvalidTag, ValueError):
            raise Refused("broken-stream") from None
    return out
