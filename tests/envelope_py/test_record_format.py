"""The second implementation reads the vectors, and what the library wrote."""

import hashlib
import io
import json
import pathlib
import struct

import claviger_record as format_
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "shared" / "envelope" / "vectors"
PUBLISHED = sorted(FOLDER.glob("published-*.json"))
VECTORS = sorted(set(FOLDER.glob("*.json")) - set(PUBLISHED))


def read(vector):
    known = {bytes.fromhex(k["dataKeyId"]): (bytes.fromhex(k["key"]), k["generation"]) for k in vector["keys"]}
    record = bytes.fromhex(vector["record"])
    if record[:1] == b"\2":
        return format_.decrypt_stream(known, vector["context"], record)
    return format_.decrypt(known, vector["context"], record)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_second_implementation_agrees_with_the_vector(path):
    vector = json.loads(path.read_text())
    if vector["result"] == "accept":
        assert read(vector).hex() == vector["plaintext"]
    else:
        with pytest.raises(format_.Refused) as refused:
            read(vector)
        assert str(refused.value) == vector["slug"]


def test_there_are_vectors_and_the_librarys_own_records_are_among_them():
    names = [path.stem for path in VECTORS]
    assert len(names) > 40
    assert any(name.startswith("accept-written-by-the-library") for name in names)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_published_vector_holds(path):
    vector = {
        name: bytes.fromhex(value)
        for name, value in json.loads(path.read_text()).items()
        if name not in ("what", "source")
    }
    key, commitment = format_.derive(vector["key"], vector["nonce"])
    assert (key, commitment) == (vector["messageKey"], vector["commitment"])
    sealed = AESGCM(key).encrypt(vector["nonce"][12:], vector["plaintext"], vector["aad"])
    assert sealed == vector["sealed"]


def test_the_commitment_is_cmac_of_the_label_and_the_nonce():
    from cryptography.hazmat.primitives.ciphers import algorithms
    from cryptography.hazmat.primitives.cmac import CMAC

    nonce, parts = b"ABCDEFGHIJKLMNOPQRSTUVWX", b""
    for n in (1, 2):
        mac = CMAC(algorithms.AES(b"\3" * 32))
        mac.update(b"XCMT" + nonce + struct.pack(">HH", 1, n))
        parts += mac.finalize()
    assert format_.derive(b"\3" * 32, nonce)[1] == parts


def test_the_vectors_are_what_write_vectors_writes(tmp_path, monkeypatch):
    import write_vectors

    monkeypatch.setattr(write_vectors, "OUT", tmp_path)
    write_vectors.main()
    for path in tmp_path.glob("*.json"):
        assert path.read_text() == (VECTORS[0].parent / path.name).read_text(), path.name


def test_the_published_accumulated_vector_holds():
    """C2SP: ten thousand keys, nonces, plaintexts and associated data from one stream of SHAKE128, as one digest."""
    drawn = io.BytesIO(hashlib.shake_128().digest(4_000_000))
    sealed = hashlib.shake_128()
    for _ in range(10_000):
        key, nonce = drawn.read(32), drawn.read(24)
        plaintext = drawn.read(drawn.read(1)[0])
        aad = drawn.read(drawn.read(1)[0])
        message_key, _ = format_.derive(key, nonce)
        sealed.update(AESGCM(message_key).encrypt(nonce[12:], plaintext, aad))
    assert sealed.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
