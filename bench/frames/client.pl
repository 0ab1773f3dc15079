# client.pl TO SMALL LARGE: over one connection, SMALL requests of a hundred bytes one after another, then LARGE of a
# megabyte, to HOST:PORT or the socket at a path. Prints the microseconds of the median small one, and megabytes a second.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();

my ($to, $small, $large) = @ARGV;
my $number = (POSIX::uname())[4] eq "aarch64" ? 113 : 228;
sub now { my $time = "\0" x 16; syscall($number, 1, $time); my ($s, $ns) = unpack "qq", $time; return $s * 1e6 + $ns / 1e3 }

my $socket = $to =~ m{^/} ? IO::Socket::UNIX->new(Peer => $to) : IO::Socket::INET->new(PeerAddr => $to);
die "no connection to $to: $!\n" unless $socket;
setsockopt $socket, 6, 1, 1 unless $to =~ m{^/};

sub get {
    my $request = "GET /service/$_[0] HTTP/1.1\r\nhost: 127.0.0.1:3128\r\n\r\n";
    syswrite($socket, $request) == length $request or die "not sent\n";
    my ($answer, $left) = ("", -1);
    while ($left != 0) {
        my $got = sysread $socket, my $part, 65536;
        die "the answer was cut\n" unless $got;
        if ($left > 0) { $left -= $got; next }
        $answer .= $part;
        my $head = index $answer, "\r\n\r\n";
        next if $head < 0;
        $answer =~ /^content-length: (\d+)/mi or die "no length\n";
        $left = $1 - (length($answer) - $head - 4);
    }
}

get("small") for 1 .. 20;
my @each;
for (1 .. $small) { my $from = now(); get("small"); push @each, now() - $from }
my $from = now();
get("large") for 1 .. $large;
my $took = now() - $from;
@each = sort { $a <=> $b } @each;
printf "%.1f %.1f\n", $each[@each / 2], $large * 1048576 / $took;
