"""What the suites have in common: checks that are counted, programs that are run, and waiting."""

import signal
import subprocess
import time

passed, failed, skipped = [], [], []

# Of what a failed check has to say.
WHY_MAX = 1500


def check(name, holds, why=""):
    """Counts one check and says how it went; the end of `why` if it failed."""
    (passed if holds else failed).append(name)
    print(f"{'ok  ' if holds else 'FAIL'} {name}" + (f": {str(why)[-WHY_MAX:]}" if why and not holds else ""), flush=True)


def skip(name, why):
    """Says that something could not be checked here."""
    skipped.append(name)
    print(f"skip {name}: {why}", flush=True)


def finish():
    """Says how it went; the exit code."""
    for name in failed:
        print(f"failed: {name}")
    print(f"{len(passed)} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed else 0


def run(*args, timeout=300, **kw):
    """Runs a program to its end. One that does not come to it has the code 124, as timeout(1) has it."""
    try:
        return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, **kw)
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(args, 124, late.stdout or "", f"not done after {timeout} s")


def interrupt(process):
    """Ends a program as Ctrl-C does, and one that does not end within 30 s by force."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


def eventually(probe, within, every=0.1):
    """The first true answer of `probe`; None if there is none within so many seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < within:
        if answer := probe():
            return answer
        time.sleep(every)
    return None


def timed(probe, within, every=0.02):
    """The first true answer of `probe` and the seconds that it took, or (None, within)."""
    begun = time.monotonic()
    answer = eventually(probe, within, every)
    return answer, time.monotonic() - begun if answer else within
