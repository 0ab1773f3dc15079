# Sends the host frames of its own, in the agent's name: to every descriptor it has, can open or can take from the agent,
# and by making the agent stop, die or change. Writes what it got hold of to /out/reached and ends with 7. Told "stop", only
# stops the agent in every way, and stays.
use strict;
use warnings;
use POSIX ();
use Fcntl;
use Socket;

sub frame { my ($kind, $channel, $payload) = @_; return pack("NCNa*", 5 + length $payload, $kind, $channel, $payload) }
my $forged = frame(0x83, 1, "FORGED")
  . frame(0x85, 1, '{"exit":0,"signal":null,"ms":1,"cpu_ms":1,"stopped":null}')
  . frame(0x87, 16, "")
  . frame(0x8c, 0, '{"files":0,"bytes":0,"left_out":{"links":0,"special":0,"names":0,"over_limit":0}}')
  . frame(0x8f, 0, "");

my $arm = (POSIX::uname())[4] eq "aarch64";
my %number = $arm
  ? (ptrace => 117, readv => 270, writev => 271, pidfd_open => 434, getfd => 438, signal => 424, kcmp => 272, prlimit => 261, tgkill => 131, tkill => 130, queue => 138, kill => 129,
    fcntl => 25, ioctl => 29, clone => 220, clone3 => 435, setpriority => 140, ioprio => 30, param => 118, scheduler => 119, affinity => 122, attr => 274)
  : (ptrace => 101, readv => 310, writev => 311, pidfd_open => 434, getfd => 438, signal => 424, kcmp => 312, prlimit => 302, tgkill => 234, tkill => 200, queue => 129, kill => 62,
    fcntl => 72, ioctl => 16, clone => 56, clone3 => 435, setpriority => 141, ioprio => 251, param => 142, scheduler => 144, affinity => 203, attr => 314);
my @reached;
sub try { my ($what, $call, @given) = @_; my $got = syscall($call, @given); push @reached, $what if $got >= 0 }
my ($large, $large_group) = (2**32 + 1, 2**35 - 1);

# What a kernel may be made to do to the agent: signals by handle, from descriptors that are the agent's and from children
# that are.
sub have_it_sent {
    my ($signal) = @_;
    if (sysopen(my $one, "/proc/1", O_RDONLY | O_DIRECTORY)) {
        try("pidfd_send_signal by a folder", $number{signal}, fileno $one, $signal + 0, 0, 0);
    }
    for my $how (1, -1, $large, $large_group, 2 .. 14, "pid 0", "pid 1", "pid 2", 0x8901, 0x8902) {
        socketpair(my $mine, my $other, AF_UNIX, SOCK_STREAM, 0) or die;
        my $fd = fileno $mine;
        if ($how =~ /^pid (\d)/) { try("owner by $how", $number{fcntl}, $fd, 15, pack("ii", $1, 1)) }
        elsif ($how == 0x8901 || $how == 0x8902) { try("owner by ioctl $how $_", $number{ioctl}, $fd, $how, pack("i", $_)) for 1, -1 }
        else { my $owner = $how + 0; next if $owner == $$; try("owner $how", $number{fcntl}, $fd, 8, $owner) }
        syscall($number{fcntl}, $fd, 10, $signal + 0);
        syscall($number{fcntl}, $fd, 4, 02 | 020000);
        syswrite $other, "x";
        close $other;
    }
    # A brother, whose end is told to the agent, by the signal it was made with where a kernel believes that; with clone3 too.
    my $brother = syscall($number{clone}, 0x8000 | $signal, 0, 0, 0, 0);
    POSIX::_exit(0) if $brother == 0;
    my $made = pack("Q8", 0x8000, 0, 0, 0, $signal, 0, 0, 0);
    $brother = syscall($number{clone3}, $made, 64);
    POSIX::_exit(0) if $brother == 0;
    # An orphan becomes the agent's: its end says what it was made to say only where a kernel forgets to ask.
    if (!fork) {
        my $orphan = syscall($number{clone}, $signal + 0, 0, 0, 0, 0);
        select undef, undef, undef, 0.05 if $orphan == 0;
        POSIX::_exit(0);
    }
    select undef, undef, undef, 0.1;
}
if (@ARGV) {
    kill STOP => 1;
    syscall($number{tgkill}, 1, $_ + 0, 19) for 1 .. 14;
    have_it_sent(19);
    $| = 1;
    print "tried\n";
    sleep 600;
}

my %harmless = map { $_ => 1 } qw(/dev/null /dev/zero /dev/full /dev/random /dev/urandom);

# What it was given: three pipes, which are its standard streams and nothing else.
for my $fd (0 .. 255) {
    my $is = readlink "/proc/self/fd/$fd" or next;
    push @reached, "descriptor $fd: $is" if $fd > 2 && $is !~ m{^/work/|/proc/|^pipe:.*};
    next if $fd < 1;
    POSIX::write($fd, $forged, length $forged);
}

# What can be opened: of the agent, of every other process, of devices and terminals.
my @paths = (glob("/proc/1/*"), glob("/proc/1/task/*/*"), glob("/proc/*/fd/*"), glob("/proc/*/task/*/fd/*"), glob("/dev/*"), glob("/dev/pts/*"), glob("/dev/fd/*"));
push @paths, map { "/proc/1/$_" } qw(mem fd/0 fd/1 fd/2 fd/3 fd/4 fd/5 fd/6 fd/7 fd/8 environ maps root cwd exe task/1/mem task/1/fd/1 oom_score_adj attr/current clear_refs coredump_filter);
push @paths, "/proc/1/root/dev/console", "/dev/console", "/dev/tty", "/dev/tty0", "/dev/stdout", "/proc/1/cwd/x", "/dev/mem", "/dev/kmsg";
for my $path (@paths) {
    next if $harmless{$path} || -d $path || $path =~ m{^/proc/(?:self|thread-self|$$)/} || $path eq "/dev/ptmx" || $path eq "/dev/pts/ptmx" || $path =~ m{^/dev/(?:fd/\d+|stdin|stdout|stderr)$};
    next unless sysopen(my $to, $path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
    push @reached, $path if syswrite $to, $forged;
}

# What can be taken from the agent, or done to it. Each returns -1 where it is refused.
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
have_it_sent($_) for 15, 1, 19, 9;
my ($mask, $parameter) = (pack("Q", 1), pack("i", 0));
my $attributes = pack("LLQlLQQQ", 48, 5, 0, 19, 0, 0, 0, 0);
for my $of (1 .. 14, $large) {
    next if $of == $$;
    try("affinity of $of", $number{affinity}, $of + 0, 8, $mask);
    try("scheduler of $of", $number{scheduler}, $of + 0, 5, $parameter);
    try("parameters of $of", $number{param}, $of + 0, $parameter);
    try("attributes of $of", $number{attr}, $of + 0, $attributes, 0);
    for my $which (0, 1) {
        try("niceness of $which $of", $number{setpriority}, $which + 0, $of + 0, 19);
        try("turn at disks of $which $of", $number{ioprio}, $which + 1, $of + 0, 3 << 13);
    }
}
for my $user (0, $<) {
    try("niceness of all", $number{setpriority}, 2, $user + 0, 19);
    try("turn at disks of all", $number{ioprio}, 3, $user + 0, 3 << 13);
}
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
