"""A disk that fills up in the middle of training."""

import os
import sys

from .conftest import CHECKOUT, Ended, FirstRun, Running

# In a mount namespace of its own: the small disk is seen by nobody else and goes with the last process.
_SCRIPT = """
mount -t tmpfs -o size=600k tmpfs "$DISK" || exit 9
"$@"; echo "first: $?" | tee /dev/stderr
mount -o remount,size=64m "$DISK" || exit 9
"$@" --resume; echo "second: $?"
cp -r "$DISK/refilled" .
"""


def test_run_goes_on_when_a_full_disk_has_room_again(first_run: FirstRun) -> None:
    user = first_run.user
    disk = user.home / "disk"
    disk.mkdir()
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    train = [sys.executable, CHECKOUT / "jobs" / "train.py", "--recipe", "recipe.yaml", "--out", disk / "refilled"]
    # One try: the same step fails again until there is room.
    running = Running(
        [*namespace, "sh", "-c", _SCRIPT, "sh", *train, "--set", "scale.max_failures=0"],
        cwd=user.home,
        env=user.shell | {"DISK": str(disk)},
    )
    try:
        ended = running.ended()
    finally:
        running.kill()
    first_out, _, second_out = ended.out.partition("first: 1\n")
    first_err, _, second_err = ended.err.partition("first: 1\n")
    first, second = Ended(1, first_out, first_err).calmly(1), Ended(0, second_out, second_err).calmly(0)
    assert f"{disk}/refilled" in first.err
    assert "no room to write (No space left on device)" in first.err
    assert "free some space" in first.err
    assert "continuing from step-" in second.out
    assert second.out.endswith("second: 0\n")
    assert (user.home / "refilled" / "bundle" / "model.safetensors").read_bytes() == first_run.weights
