"""Writes the vectors of docs/RECORD-FORMAT.md with the second implementation: `python write_vectors.py`.

The Rust library must read what this writes, and refuse what this refuses; its own records are read in
test_record_format.py.
"""

import json
import pathlib

import claviger_record as format_

OUT = pathlib.Path(__file__).resolve().parents[2] / "shared" / "envelope" / "vectors"
KEY = bytes.fromhex("0303030303030303030303030303030303030303030303030303030303030303")
KEY_2 = bytes(range(32))
ID = bytes.fromhex("01998f5c00007000800000000000002a")
ID_2 = bytes.fromhex("01998f5c00007000800000000000003c")
NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
CONTEXT = {
    "organisationId": "0b0f6f0e-6d8e-4f3e-9a57-3f6c1d0f7a11",
    "instanceId": "5e0c8a52-1b1d-4a53-8a0e-9f8a4a2b6c22",
    "dataType": "note",
    "recordId": "note-42",
}
KEYS = [
    {"dataKeyId": ID.hex(), "generation": 1, "key": KEY.hex()},
    {"dataKeyId": ID_2.hex(), "generation": 7, "key": KEY_2.hex()},
]


def save(name, what, record, answer, context=CONTEXT, plaintext=b""):
    body = {"what": what, "keys": KEYS, "context": context, "record": record.hex()}
    if answer == "accept":
        body |= {"result": "accept", "plaintext": plaintext.hex()}
    else:
        body |= {"result": "refuse", "slug": answer}
    (OUT / f"{name}.json").write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def flip(record, at):
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


def main():
    OUT.mkdir(exist_ok=True)
    tampered, malformed, broken = "tampered-or-wrong-context", "malformed-record", "broken-stream"
    plain = b"XAES-256-GCM"
    good = format_.encrypt(KEY, ID, 1, NONCE, CONTEXT, plain)
    save("accept-a-short-record", "a record", good, "accept", plaintext=plain)
    save("accept-an-empty-record", "no plaintext", format_.encrypt(KEY, ID, 1, NONCE, CONTEXT, b""), "accept")
    other = format_.encrypt(KEY_2, ID_2, 7, NONCE[::-1], CONTEXT, plain * 100)
    save("accept-a-record-of-another-data-key-and-generation", "1200 bytes", other, "accept", plaintext=plain * 100)
    wide = CONTEXT | {"dataType": "Notiz-ä", "recordId": "☃"}
    save(
        "accept-a-context-that-is-not-ascii",
        "lengths count bytes of UTF-8",
        format_.encrypt(KEY, ID, 1, NONCE, wide, plain),
        "accept",
        wide,
        plain,
    )
    empty = CONTEXT | {"dataType": "", "recordId": ""}
    save("accept-an-empty-context", "", format_.encrypt(KEY, ID, 1, NONCE, empty, plain), "accept", empty, plain)

    for name, at in [
        ("generation", 20),
        ("nonce-first-half", 21),
        ("nonce-second-half", 44),
        ("commitment", 45),
        ("commitment-end", 76),
        ("ciphertext", 77),
        ("tag", len(good) - 1),
    ]:
        save(f"refuse-a-changed-{name}", f"bit 0 of byte {at}", flip(good, at), tampered)
    save("refuse-a-changed-data-key-id", "names no key", flip(good, 16), "unknown-data-key")
    swapped = good[:1] + ID_2 + good[17:]
    save("refuse-a-data-key-id-of-another-key", "the commitment does not fit", swapped, tampered)
    for part in CONTEXT:
        save(f"refuse-a-wrong-{part}", "", good, tampered, CONTEXT | {part: CONTEXT[part] + "x"})
    moved = CONTEXT | {"dataType": "noten", "recordId": "ote-42"}
    save("refuse-a-context-with-the-same-letters", "the border between two parts moved", good, tampered, moved)
    save("refuse-a-record-without-its-last-byte", "", good[:-1], tampered)
    save("refuse-a-record-with-a-byte-too-many", "", good + b"\0", tampered)
    save("refuse-a-record-shorter-than-its-tag", "", good[:92], malformed)
    save("refuse-half-a-header", "", good[:40], malformed)
    save("refuse-no-bytes", "", b"", malformed)
    save("refuse-version-0", "", b"\0" + good[1:], "unknown-version")
    save("refuse-version-3", "", b"\3" + good[1:], "unknown-version")
    save("refuse-a-record-that-says-it-is-a-stream", "", b"\2" + good[1:], malformed)
    # GCM alone accepts this: the tag fits, the commitment is of another key.
    forged = good[:45] + format_.derive(KEY_2, NONCE)[1] + good[77:]
    save("refuse-a-commitment-of-another-key", "", forged, tampered)

    def stream(plaintext, size):
        return format_.encrypt_stream(KEY, ID, 1, NONCE, CONTEXT, plaintext, size)

    whole = stream(bytes(range(10)) * 5, 16)
    head, chunks = whole[:81], [whole[at : at + 32] for at in range(81, len(whole), 32)]
    save("accept-a-stream", "chunks of 16, 16, 16, 2", whole, "accept", plaintext=bytes(range(10)) * 5)
    save("accept-an-empty-stream", "one empty chunk", stream(b"", 16), "accept")
    save("accept-a-stream-that-fills-its-chunks", "", stream(b"a" * 32, 16), "accept", plaintext=b"a" * 32)
    save("refuse-a-stream-cut-at-a-chunk", "", head + b"".join(chunks[:3]), broken)
    save("refuse-a-stream-cut-in-a-chunk", "", whole[:-20], broken)
    save("refuse-a-stream-without-chunks", "", head, broken)
    save("refuse-swapped-chunks", "", head + chunks[1] + chunks[0] + b"".join(chunks[2:]), broken)
    save("refuse-a-doubled-chunk", "", head + chunks[0] + b"".join(chunks), broken)
    save("refuse-a-stream-without-its-first-chunk", "", head + b"".join(chunks[1:]), broken)
    save("refuse-a-changed-chunk-size", "", head[:80] + b"\x11" + whole[81:], broken)
    save("refuse-a-chunk-size-of-zero", "", head[:77] + bytes(4) + whole[81:], malformed)
    save("refuse-a-stream-of-another-record", "", whole, broken, CONTEXT | {"recordId": "note-43"})


if __name__ == "__main__":
    main()
