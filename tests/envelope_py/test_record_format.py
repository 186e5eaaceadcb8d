"""The second implementation reads the vectors, and what the library wrote."""

import json
import pathlib
import struct

import claviger_record as format_
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = sorted((ROOT / "shared" / "envelope" / "vectors").glob("*.json"))


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


def test_the_message_key_is_that_of_the_published_xaes_vectors():
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    key, _ = format_.derive(b"\1" * 32, nonce)
    assert key.hex() == "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b"
    key, _ = format_.derive(b"\3" * 32, nonce)
    assert key.hex() == "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8"


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
