"""The local cloud's own promises: nothing is left running, nothing in memory is overlooked, trouble is one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from claviger_local import guard, memory, notes, settings, surroundings
from claviger_local.stage import Stage
from claviger_local.trouble import Trouble

# Starts a child that would live on, prints its process id, and waits.
FAMILY = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"


def start_family() -> tuple[subprocess.Popen[bytes], int]:
    guarded = subprocess.Popen(
        [sys.executable, guard.__file__, sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert guarded.stdout is not None
    return guarded, int(guarded.stdout.readline())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


def test_a_guard_whose_supervisor_vanishes_ends_the_whole_family() -> None:
    guarded, grandchild = start_family()
    assert guarded.stdin is not None
    guarded.stdin.close()
    assert gone(grandchild)
    assert guarded.wait(10) is not None


def test_a_guard_that_is_told_to_stop_ends_the_whole_family() -> None:
    guarded, grandchild = start_family()
    os.kill(guarded.pid, signal.SIGTERM)
    assert gone(grandchild)
    assert guarded.wait(10) is not None


def test_a_guard_adopts_what_its_server_leaves_behind() -> None:
    leaving = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True)"
    guarded = subprocess.Popen(
        [sys.executable, guard.__file__, sys.executable, "-c", leaving], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert guarded.stdout is not None
    assert gone(int(guarded.stdout.readline()))
    assert guarded.wait(10) == 0


def test_the_scan_finds_what_is_in_a_process_and_only_that() -> None:
    secret, absent = os.urandom(32), os.urandom(32)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; s = sys.stdin.buffer.read(32); print(1, flush=True); time.sleep(600)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.write(secret)
    holder.stdin.close()
    holder.stdout.readline()
    try:
        assert memory.find(holder.pid, [secret, absent]) == {secret}
    finally:
        holder.kill()
        holder.wait()


def test_a_busy_port_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(settings, "PORTS", {"CLAVIGER_NOTES_PORT": port})
        with pytest.raises(Trouble, match=str(port)) as trouble:
            surroundings.check_ports()
        assert "CLAVIGER_NOTES_PORT" in trouble.value.remedy


def test_a_second_local_cloud_is_refused_and_told_of_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "RUN", tmp_path)
    monkeypatch.setattr(surroundings, "LOCK", tmp_path / "lock")
    first = surroundings.Lock()
    with pytest.raises(Trouble, match=str(os.getpid())) as trouble:
        surroundings.Lock()
    assert "make stop" in trouble.value.remedy
    first.release()
    surroundings.Lock().release()


def test_a_lock_that_a_dead_process_left_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "RUN", tmp_path)
    monkeypatch.setattr(surroundings, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text("99999")
    assert surroundings.holder() is None
    surroundings.Lock().release()


def test_notes_are_unicode_of_every_size_from_one_byte_to_256_kib_and_the_same_each_time() -> None:
    made = notes.make_notes(50)
    assert made == notes.make_notes(50)
    sizes = sorted(len(note) for note in made.values())
    assert sizes[0] == 1 and sizes[-1] == 256 * 1024
    assert all(note.decode() for note in made.values())


def test_a_step_that_fails_is_counted_and_the_story_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    with stage.step("breaks"):
        raise KeyError("x")
    with stage.step("does not hold"):
        stage.check(False, "one thing")
        stage.check(True, "another")
    stage.number("cutoff", s=1.234, bound=25)
    assert len(stage.failures) == 2
    assert "story cutoff s=1.23 bound=25\n" in capsys.readouterr().out
