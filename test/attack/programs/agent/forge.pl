# Sends the host frames of its own, in the agent's name: to every descriptor it has, can open or can take from the agent,
# and by making the agent stop, die or change. Writes what it got hold of to /out/reached and ends with 7.
use strict;
use warnings;
use POSIX ();
use Fcntl;

sub frame { my ($kind, $channel, $payload) = @_; return pack("NCNa*", 5 + length $payload, $kind, $channel, $payload) }
my $forged = frame(0x83, 1, "FORGED")
  . frame(0x85, 1, '{"exit":0,"signal":null,"ms":1,"cpu_ms":1,"stopped":null}')
  . frame(0x87, 16, "")
  . frame(0x8c, 0, '{"files":0,"bytes":0,"left_out":{"links":0,"special":0,"names":0,"over_limit":0}}')
  . frame(0x8f, 0, "");

my $arm = (POSIX::uname())[4] eq "aarch64";
my %number = $arm
  ? (ptrace => 117, readv => 270, writev => 271, pidfd_open => 434, getfd => 438, signal => 424, kcmp => 272, prlimit => 261, tgkill => 131, tkill => 130, queue => 138, kill => 129)
  : (ptrace => 101, readv => 310, writev => 311, pidfd_open => 434, getfd => 438, signal => 424, kcmp => 312, prlimit => 302, tgkill => 234, tkill => 200, queue => 129, kill => 62);
my @reached;
my %harmless = map { $_ => 1 } qw(/dev/null /dev/zero /dev/full /dev/random /dev/urandom);

# What it was given: three pipes, which are its standard streams and nothing else.
for my $fd (0 .. 255) {
    my $is = readlink "/proc/self/fd/$fd" or next;
    push @reached, "descriptor $fd: $is" if $fd > 2 && $is !~ m{^/work/|/proc/|^pipe:.*};
    next if $fd < 1;
    POSIX::write($fd, $forged, length $forged);
}

# What can be opened: of the agent, of every other process, of devices and terminals.
my @paths = (glob("/proc/*/fd/*"), glob("/proc/*/task/*/fd/*"), glob("/dev/*"), glob("/dev/pts/*"), glob("/dev/fd/*"));
push @paths, map { "/proc/1/$_" } qw(mem fd/0 fd/1 fd/2 fd/3 fd/4 fd/5 fd/6 fd/7 fd/8 environ maps root cwd exe task/1/mem task/1/fd/1 oom_score_adj attr/current clear_refs coredump_filter);
push @paths, "/proc/1/root/dev/console", "/dev/console", "/dev/tty", "/dev/tty0", "/dev/stdout", "/proc/1/cwd/x", "/dev/mem", "/dev/kmsg";
for my $path (@paths) {
    next if $harmless{$path} || -d $path || $path =~ m{^/proc/(?:self|thread-self|$$)/} || $path eq "/dev/ptmx" || $path eq "/dev/pts/ptmx" || $path =~ m{^/dev/(?:fd/\d+|stdin|stdout|stderr)$};
    next unless sysopen(my $to, $path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
    push @reached, $path if syswrite $to, $forged;
}

# What can be taken from the agent, or done to it. Each returns -1 where it is refused.
sub try { my ($what, @call) = @_; my $got = syscall(@call); push @reached, $what if $got >= 0 }
my $bytes = $forged;
my ($here, $there, $limit) = (pack("PQ", $bytes, 8), pack("QQ", 0x400000, 8), pack("QQ", 0, 0));
try("ptrace attach", $number{ptrace}, 16, 1, 0, 0);
try("ptrace seize", $number{ptrace}, 0x4206, 1, 0, 0);
try("process_vm_readv", $number{readv}, 1, $here, 1, $there, 1, 0);
try("process_vm_writev", $number{writev}, 1, $here, 1, $there, 1, 0);
try("kcmp", $number{kcmp}, 1, $$, 2, 0, 0);
for my $resource (0 .. 15) { try("prlimit of 1", $number{prlimit}, 1, $resource, $limit, 0) }
my $handle = syscall($number{pidfd_open}, 1, 0);
if ($handle >= 0) {
    try("pidfd_getfd $_", $number{getfd}, $handle, $_, 0) for 0 .. 12;
    try("pidfd_send_signal", $number{signal}, $handle, 9, 0, 0);
}
my $large = 0x1_0000_0001;
my $info = "\0" x 128;
for my $signal (1 .. 64) {
    next if $signal == 32 || $signal == 33;
    kill $signal, 1;
    my $copy = $signal;
    syscall($number{kill}, $large, $copy);
    syscall($number{queue}, 1, $copy, $info);
    for my $thread (1 .. 14) {
        my $of = $thread;
        syscall($number{tkill}, $of, $copy) if $of != $$;
        syscall($number{tgkill}, 1, $of, $copy) if $of != $$;
        syscall($number{prlimit}, $of, 7, $limit, 0) if $of != $$;
    }
}
# Everybody at once, from a child that leaves one behind to go on while the next step runs.
if (!fork) { setpgrp; if (!fork) { $SIG{$_} = "IGN" for qw(TERM HUP INT); for (;;) { kill 15, 1; syswrite STDOUT, $forged; select undef, undef, undef, 0.01 } } exit }
select undef, undef, undef, 0.1;

open my $out, ">", "/out/reached" or die;
print $out map { "$_\n" } @reached;
close $out;
exit 7;
