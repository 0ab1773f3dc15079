"""Runs a command on a terminal of its own and types what it is told to; for the tests of questions asked on /dev/tty.

usage: terminal.py SCRIPT COMMAND...   SCRIPT: JSON list of [text to wait for, text to type]
Prints JSON: {"screen", "code", "signal", "echo", "canonical"}; the last two are the terminal's modes after the end.
Standard input and output of the command are not the terminal, so that only /dev/tty can reach it.
"""

import json, os, pty, select, signal, subprocess, sys, termios, time

steps = json.loads(sys.argv[1])
leader, follower = pty.openpty()


def own_terminal():
    os.setsid()
    import fcntl
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)


child = subprocess.Popen(
    sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, preexec_fn=own_terminal, pass_fds=()
)
screen = b""
until = time.time() + 100


def read(wait):
    global screen
    ready, _, _ = select.select([leader], [], [], wait)
    if ready:
        screen += os.read(leader, 65536)


for awaited, typed in steps:
    while awaited.encode() not in screen and child.poll() is None and time.time() < until:
        read(0.05)
    mark = len(screen)
    os.write(leader, typed.encode())
    # What is waited for next has to come after this.
    while child.poll() is None and time.time() < until and len(screen) == mark:
        read(0.05)
    shown, screen = screen, screen[mark:]
    sys.stderr.buffer.write(shown[:mark])
while child.poll() is None and time.time() < until:
    read(0.05)
if child.poll() is None:
    child.send_signal(signal.SIGKILL)
out = child.stdout.read()
read(0.1)
sys.stderr.buffer.write(screen)
modes = termios.tcgetattr(follower)[3]
print(
    json.dumps(
        {
            "code": child.wait(),
            "out": out.decode("utf8", "replace"),
            "echo": bool(modes & termios.ECHO),
            "canonical": bool(modes & termios.ICANON),
        }
    )
)
